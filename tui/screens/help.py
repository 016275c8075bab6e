"""Every key, by the place where it works: the table of commands, read out."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui.commands import COMMANDS, TITLES
from tui.dialog import Dialog


class Help(Dialog[None]):
    AUTO_FOCUS = "#body"

    def __init__(self, *, read_only: bool) -> None:
        super().__init__("Help", no="Close", yes="")
        self._read_only = read_only

    def body(self) -> ComposeResult:
        if self._read_only:
            yield Static(Content("Read-only: what would change something is not there."))
        yield Static(self._table())

    def on_mount(self) -> None:
        super().on_mount()
        body = self.query_one("#body")
        body.can_focus = True
        body.focus()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, style="bold")
        for place, title in TITLES.items():
            table.add_row("", Text.assemble((title, "bold underline")))
            for command in COMMANDS:
                if command.where == place and not (command.acts and self._read_only):
                    table.add_row(command.shown, Text(f"{command.name}: {command.help}"))
            table.add_row()
        return table

    def hint(self) -> Content:
        return Content("↑ ↓ PgUp PgDn scroll, esc closes")

    def action_yes(self) -> None:
        self.dismiss(None)
