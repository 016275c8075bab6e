"""Asks before something is done that cannot be undone."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Button, Input, Static

from tui.dialog import Dialog


class Confirm(Dialog[bool]):
    """True for yes. With `typed`, yes needs those very words."""

    def __init__(
        self, title: str, lines: Sequence[str], *, yes: str, no: str = "Leave it", typed: str = ""
    ) -> None:
        super().__init__(title, no=no, yes=yes)
        self._lines = lines
        self._typed = typed

    def body(self) -> ComposeResult:
        yield Static(Content("\n".join(self._lines)))
        if self._typed:
            yield Static(Content.assemble("\nType ", (self._typed, "bold"), " to confirm:"))
            yield Input(id="typed", compact=True)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#yes", Button).disabled = bool(self._typed)

    def on_input_changed(self, event: Input.Changed) -> None:
        self.query_one("#yes", Button).disabled = not self._is_typed(event.value)

    def on_input_submitted(self) -> None:
        self.action_yes()

    def _is_typed(self, value: str) -> bool:
        return " ".join(value.split()) == self._typed

    def hint(self) -> Content:
        if not self._typed:
            return super().hint()
        return Content("tab moves to the field, enter presses, esc says no")

    def action_yes(self) -> None:
        """`y` alone is not enough where words must be typed."""
        if self._typed and not self._is_typed(self.query_one("#typed", Input).value):
            self.query_one("#typed", Input).focus()
        else:
            self.dismiss(True)
