"""Asks by which column to sort."""

from __future__ import annotations

from collections.abc import Collection

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui.dialog import Dialog
from tui.table import COLUMNS, ORDERS


class Sort(Dialog[str]):
    """The column's name. The one that is sorted by has the focus: enter turns it round."""

    AUTO_FOCUS = "#columns"

    def __init__(self, column: str, mark: str, sorts: Collection[str]) -> None:
        super().__init__("Sort by", no="Leave it", yes="")
        self._column = column
        self._mark = mark
        self._names = [c.name for c in COLUMNS if c.name in ORDERS and ORDERS[c.name].sort in sorts]

    def body(self) -> ComposeResult:
        labels = {column.name: column.label for column in COLUMNS}
        options = [
            Option(Content(labels[n] + (f" {self._mark}" if n == self._column else "")), id=n)
            for n in self._names
        ]
        yield OptionList(*options, id="columns", compact=True)

    def on_mount(self) -> None:
        super().on_mount()
        if self._column in self._names:
            columns = self.query_one(OptionList)
            columns.highlighted = self._names.index(self._column)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def hint(self) -> Content:
        return Content("enter sorts, and turns the present order round; esc leaves it")

    def action_yes(self) -> None:
        """There is nothing to say yes to: a column is chosen with enter."""
