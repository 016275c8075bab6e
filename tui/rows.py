"""A list on the screen that paints only the lines one sees, however many there are.

What the rows are, and where they come from, is for who builds on this: `row_at` and `cell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

Cell = tuple[str, str]  # its text, and the name of its colour or ""
HEADER = 1
POINTER = "▸"


@dataclass(frozen=True, slots=True)
class Column:
    """`width` in cells; `grow` shares what the screen has left. The one with the highest `drop`
    goes first where the screen is too narrow, those with 0 never."""

    name: str
    label: str
    width: int
    right: bool = False
    grow: int = 0
    drop: int = 0


def fitted(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that a width has room for, a space between each two, grown to fill it."""
    kept = list(columns)
    while _needed(kept) > width and any(column.drop for column in kept):
        kept.remove(max(kept, key=lambda column: column.drop))
    spare = max(0, width - _needed(kept))
    shares = sum(column.grow for column in kept)
    fit = []
    for column in kept:
        more = spare * column.grow // shares if shares else 0
        spare, shares = spare - more, shares - column.grow
        fit.append(replace(column, width=column.width + more))
    return fit


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.width + 1 for column in columns) - 1


class Rows(ScrollView, can_focus=True):
    """A header, rows, and a cursor on one of them; `total` is how many there are."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"rows--{name}"
        for name in ("header", "cursor", "odd", "group", "dim", "good", "warn", "bad", "accent")
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False),
        Binding("down", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "first", show=False),
        Binding("end", "last", show=False),
        Binding("enter", "open", show=False),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

    @dataclass
    class Moved(Message):
        """The cursor, or what is under it, is another one."""

        rows: Rows

    @dataclass
    class Opened(Message):
        """Enter, or a double click."""

        rows: Rows
        row: Any

    @dataclass
    class HeaderClicked(Message):
        rows: Rows
        column: str

    def __init__(self, columns: Sequence[Column], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.all_columns = tuple(columns)
        self.columns = list(columns)
        self.total = 0

    # For who builds on this

    def row_at(self, rank: int) -> Any:
        """The row, or None while it is not known."""
        raise NotImplementedError

    def cell(self, row: Any, column: str) -> Cell:
        raise NotImplementedError

    def heading(self, row: Any) -> str | None:  # noqa: ARG002
        """For a row that is no row but says what the next ones are: its text."""
        return None

    def header_label(self, column: Column) -> str:
        return column.label

    def about_to_paint(self, first: int, last: int) -> None:
        """These ranks are on the screen."""

    @property
    def current(self) -> Any:
        """The row under the cursor, or None."""
        return self.row_at(self.cursor) if self.total else None

    def resized(self, total: int) -> None:
        """There are so many rows now."""
        self.total = total
        self.virtual_size = Size(0, total + HEADER)
        self.cursor = self.validate_cursor(self.cursor)
        self.refresh()

    # Painting

    def on_resize(self) -> None:
        self.columns = fitted(self.all_columns, self.scrollable_content_region.width)
        self._show(self.cursor)

    def render_lines(self, crop: Region) -> list[Strip]:
        top = self.top
        self.about_to_paint(top, top + self.rows_shown - 1)
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            return self._header(width)
        rank = self.top + y - HEADER
        if rank >= self.total:
            return Strip.blank(width, self.rich_style)
        row = self.row_at(rank)
        style = self._style_of(rank, row)
        if row is None:
            text = set_cell_size("  · · ·", width)
            return Strip([Segment(text, style + self._ink("dim"))], width)
        return Strip(self._segments(rank, row, style)).adjust_cell_length(width, style)

    def _style_of(self, rank: int, row: Any) -> Style:
        if rank == self.cursor:
            return self.get_component_rich_style("rows--cursor")
        if row is not None and self.heading(row) is not None:
            return self.get_component_rich_style("rows--group")
        return self.get_component_rich_style("rows--odd") if rank % 2 else self.rich_style

    def _segments(self, rank: int, row: Any, style: Style) -> list[Segment]:
        if heading := self.heading(row):
            pointer = POINTER if rank == self.cursor else " "
            return [Segment(f"{pointer}{heading}", style)]
        segments = []
        for column in self.columns:
            text, ink = self.cell(row, column.name)
            if column.name == "pointer":
                text = (POINTER if rank == self.cursor else " ") + text
            colour = self._ink(ink) if ink and rank != self.cursor else Style.null()
            segments.append(Segment(_in_cell(text, column) + " ", style + colour))
        return segments

    def _ink(self, name: str) -> Style:
        """The colour, and the weight, of a component class without its background."""
        style = self.get_component_rich_style(f"rows--{name}")
        return Style(color=style.color, bold=style.bold or None, dim=style.dim or None)

    def _header(self, width: int) -> Strip:
        style = self.get_component_rich_style("rows--header")
        segments = [
            Segment(
                _in_cell(self.header_label(column), column) + " ",
                style + Style(meta={"column": column.name}),
            )
            for column in self.columns
        ]
        return Strip(segments).adjust_cell_length(width, style)

    # Moving

    @property
    def top(self) -> int:
        """The rank of the first row on the screen."""
        return round(self.scroll_y)

    @property
    def rows_shown(self) -> int:
        return max(1, self.scrollable_content_region.height - HEADER)

    def validate_cursor(self, rank: int) -> int:
        return max(0, min(rank, self.total - 1))

    def watch_cursor(self) -> None:
        self._show(self.cursor)
        self.refresh()
        self.post_message(self.Moved(self))

    def _show(self, rank: int) -> None:
        if rank < self.top:
            self.scroll_rows(rank)
        elif rank >= self.top + self.rows_shown:
            self.scroll_rows(rank - self.rows_shown + 1)

    def scroll_rows(self, top: int) -> None:
        """The row of this rank is the first on the screen, as far as there are enough below."""
        top = max(0, min(top, self.total - self.rows_shown))
        self.scroll_to(y=top, animate=False, immediate=True, force=True)

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_page(self, by: int) -> None:
        step = self.rows_shown * by
        self.scroll_rows(self.top + step)
        self.cursor += step

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.cursor = self.total - 1

    def action_open(self) -> None:
        if self.current is not None:
            self.post_message(self.Opened(self, self.current))

    # The mouse

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 3)

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, -3)

    def _wheel(self, event: events.MouseEvent, by: int) -> None:
        event.stop()
        event.prevent_default()
        self.scroll_rows(self.top + by)

    def on_click(self, event: events.Click) -> None:
        if event.y < HEADER:
            if column := event.style.meta.get("column"):
                self.post_message(self.HeaderClicked(self, column))
            return
        rank = self.top + event.y - HEADER
        if rank < self.total:
            self.cursor = rank
            if event.chain == 2:
                self.action_open()


def _in_cell(text: str, column: Column) -> str:
    """Exactly the column's width, a cut marked by an ellipsis."""
    if cell_len(text) > column.width:
        return set_cell_size(text, column.width - 1) + "…"
    if column.right:
        return " " * (column.width - cell_len(text)) + text
    return set_cell_size(text, column.width)


class ListRows(Rows):
    """Rows of a list that is all in memory."""

    def __init__(self, columns: Sequence[Column], *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(columns, id=id)
        self.items: Sequence[Any] = ()

    def show(self, items: Sequence[Any]) -> None:
        self.items = items
        self.resized(len(items))
        self.post_message(self.Moved(self))

    def row_at(self, rank: int) -> Any:
        return self.items[rank] if 0 <= rank < len(self.items) else None
