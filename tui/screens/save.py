"""Asks under what name to save a report."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Input, Static

from tui.dialog import Dialog


class Save(Dialog[str]):
    """The path; its ending says whether JSON or CSV. No file is written over."""

    AUTO_FOCUS = "#path"

    def __init__(self, name: str) -> None:
        super().__init__("Save the report", no="Leave it", yes="Save", harmless=True)
        self._name = name

    def body(self) -> ComposeResult:
        yield Static(Content("As JSON or as CSV: the ending of the name decides."))
        yield Input(self._name, id="path", compact=True, select_on_focus=False)
        yield Static("", id="problem")

    def hint(self) -> Content:
        return Content("enter saves, esc leaves it")

    def on_input_submitted(self) -> None:
        self.action_yes()

    def action_yes(self) -> None:
        path = self.query_one(Input).value.strip()
        if Path(path).suffix.lower() in (".json", ".csv"):
            self.dismiss(path)
        else:
            problem = Content("The name must end in .json or .csv.").stylize("bold $text-error")
            self.query_one("#problem", Static).update(problem)
