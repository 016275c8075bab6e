"""The live table of sessions: reads only what is looked at, and holds still while data changes.

One thread reads for it (`_lane`), one job after the other, and hands what it read back as
messages. Each belongs to a generation; what an older one asked for is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from textual.message import Message

from ledger.models import short
from tui import words
from tui.filters import Filter, Row
from tui.rows import Cell, Column, Rows
from tui.source import FAILURES, Around, Reread, Source, View
from tui.window import BLOCK, Part, RankWindow, Task, Window
from web.asking import Cancel, Cancelled

POLL_S = 1.0
_PATIENCE_S = 0.012  # a paint waits this long for a block, then draws a placeholder
_REST = 3  # a list that takes long to read anew is left alone for so many times as long

COLUMNS = (
    Column("pointer", "", 2),
    Column("id", "Session", 8),
    Column("label", "Label", 8, grow=1),
    Column("state", "State", 8),
    Column("age", "Age", 6, right=True),
    Column("left", "Left", 7, right=True),
    Column("touch", "Touch", 6, right=True, drop=2),
    Column("files", "Files", 6, right=True, drop=3),
    Column("size", "Size", 8, right=True),
    Column("origin", "Origin", 7, drop=4),
)


@dataclass(frozen=True, slots=True)
class Order:
    """A column's order in the ledger; `down` first, and `turned` where its smallest value is the
    ledger's largest: the youngest was created last."""

    sort: str
    down: bool = False
    turned: bool = False


ORDERS = {
    "id": Order("session_id"),
    "label": Order("label"),
    "state": Order("state"),
    "age": Order("created_at", down=True, turned=True),
    "left": Order("last_touch_at"),
    "touch": Order("last_touch_at", down=True, turned=True),
    "files": Order("files", down=True),
    "size": Order("bytes", down=True),
    "origin": Order("origin"),
}
STATE_INKS = {
    "active": "good",
    "claiming": "accent",
    "removing": "warn",
    "missing": "bad",
    "claimed": "dim",
    "deleted": "dim",
    "expired": "dim",
}


def left(row: Row, now: int) -> Cell:
    """The time before a session is stale; marked, not only coloured, in its last tenth."""
    if not row.is_active:
        return words.NOTHING, "dim"
    remaining = row.expires_at - now
    if remaining <= 0:
        return "stale", "bad"
    if remaining * 10 < row.expires_at - row.last_touch_at:
        return f"!{words.span(remaining)}", "warn"
    return words.span(remaining), ""


class SessionTable(Rows):
    """Sessions in some order. `marked` outlives sorting and filtering."""

    @dataclass
    class Changed(Message):
        """Another list, another total, other rows, or a search that begins or ends."""

    @dataclass
    class Gone(Message):
        """The session under the cursor has ended, or has left the list."""

        row: Row
        now: Row | None

    @dataclass
    class Failed(Message):
        error: Exception

    @dataclass
    class Refreshed(Message):
        """What was asked for last was read."""

    @dataclass
    class GivenUp(Message):
        """A search was cancelled; the list is what it was."""

        view: View

    @dataclass
    class _Read(Message, bubble=False):
        """Something was read; `apply` puts it in place."""

        generation: int
        apply: Callable[[], None]

    def __init__(self, source: Source, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(COLUMNS, id=id)
        self.source = source
        self.view = View()
        self.sorted_by = "age"
        self.window: Window = RankWindow(0, exact=False)
        self.marked: dict[str, Row] = {}
        self.searching_since: float | None = None
        self.above = 0  # rows that came in above the screen since one last looked there
        self._lane = ThreadPoolExecutor(1, "coatcheck-rows")
        self._cancel = Cancel()
        self._generation = 0
        self._wanted: dict[int, Future[Part]] = {}
        self._shown_view = self.view
        self._version: Hashable = None
        self._polling = False
        self._next_poll = 0.0
        self._at_cursor: Row | None = None

    def on_mount(self) -> None:
        self.look_at(self.view)
        self.set_interval(POLL_S, self.poll)
        self.set_interval(1.0, self.refresh)  # times shrink

    def on_unmount(self) -> None:
        self._generation += 1
        self._cancel()
        self._lane.shutdown(wait=False, cancel_futures=True)

    # Which list

    @property
    def is_searching(self) -> bool:
        return self.searching_since is not None

    def look_at(self, view: View, *, at_end: bool = False) -> None:
        """Another list, from its first row, or from its last; what was asked before is given up."""
        self._new_generation()
        self.view = view
        self.searching_since = time.monotonic()
        cancel = self._cancel

        def read() -> Callable[[], None]:
            window = self.source.open(view, cancel, at_end=at_end)
            return lambda: self._opened(view, window, at_end=at_end)

        self._submit(read)
        self.post_message(self.Changed())

    def _opened(self, view: View, window: Window, *, at_end: bool) -> None:
        self.searching_since = None
        self._shown_view = view
        self._version = None
        self.above = 0
        self.post_message(self.Refreshed())
        self._adopt(window)
        self.scroll_rows(window.total if at_end else 0)
        self.cursor = window.total - 1 if at_end else 0
        self._note()
        if isinstance(window, RankWindow) and not window.exact:
            self._count(window)

    def _count(self, window: RankWindow) -> None:
        view, cancel = self.view, self._cancel

        def read() -> Callable[[], None]:
            total = self.source.count(view, cancel)
            return lambda: self._counted(window, total)

        self._submit(read)

    def _counted(self, window: RankWindow, total: int | None) -> None:
        if window is self.window and total is not None:
            window.counted(total)
            self.resized(window.total)
            self.post_message(self.Changed())

    def give_up(self) -> bool:
        """A slow search is cancelled, the former list stays; False when there is none."""
        if not self.is_searching:
            return False
        self._new_generation()
        self.view = self._shown_view
        self.searching_since = None
        self.post_message(self.GivenUp(self.view))
        self.post_message(self.Changed())
        return True

    def _new_generation(self) -> None:
        self._generation += 1
        self._cancel()
        self._cancel = Cancel()
        self._wanted.clear()
        self._polling = False

    # Reading, in the lane

    def _submit(self, read: Callable[[], Callable[[], None]]) -> None:
        generation = self._generation

        def job() -> None:
            if generation != self._generation:
                return
            with suppress(Cancelled):
                try:
                    self.post_message(self._Read(generation, read()))
                except FAILURES as error:
                    failed = error
                    self.post_message(self._Read(generation, lambda: self._failed(failed)))

        self._lane.submit(job)

    def _on_session_table__read(self, message: _Read) -> None:
        message.stop()
        if message.generation == self._generation:
            message.apply()

    def _failed(self, error: Exception) -> None:
        self.searching_since = None
        self._polling = False
        self.post_message(self.Failed(error))
        self.post_message(self.Changed())

    # What is on the screen

    def row_at(self, rank: int) -> Row | None:
        return self.window.row(rank)

    def about_to_paint(self, first: int, last: int) -> None:
        """Asks for what is missing on the screen, and next to it; waits for the first a moment."""
        if first <= 0:
            self.above = 0
        near = self.window.tasks(first, last)
        ahead = self.window.tasks(first - BLOCK, last + BLOCK)
        deadline = time.monotonic() + _PATIENCE_S
        for task in near:
            if task.number not in self._wanted:
                future = self._want(task)
                with suppress(NotYet, Cancelled, *FAILURES):
                    self._put(future.result(max(0.0, deadline - time.monotonic())))
        for task in ahead:
            if task.number not in self._wanted:
                self._want(task)

    def _want(self, task: Task) -> Future[Part]:
        view, cancel, generation = self._shown_view, self._cancel, self._generation

        def job() -> Part:
            try:
                part = self.source.load(view, task, cancel)
            except FAILURES as error:
                failed = error
                self.post_message(self._Read(generation, lambda: self._not_loaded(task, failed)))
                raise
            self.post_message(self._Read(generation, lambda: self._put(part)))
            return part

        future = self._wanted[task.number] = self._lane.submit(job)
        return future

    def _not_loaded(self, task: Task, error: Exception) -> None:
        self._wanted.pop(task.number, None)
        self._failed(error)

    def _put(self, part: Part) -> None:
        """The rows are in the list; where they came in above, nothing moves on the screen."""
        if self._wanted.pop(part.number, None) is None:
            return
        before = self.window.total
        self.window.put(part)
        more = self.window.total - before
        if more:
            self._resize_to(self.window.total, more if self.window.from_end else 0)
        self._note()
        self.refresh()
        self.post_message(self.Changed())

    def _adopt(self, window: Window, shift: int = 0) -> None:
        self.window = window
        self._wanted.clear()
        self._resize_to(window.total, shift)
        self.post_message(self.Changed())

    def _resize_to(self, total: int, shift: int) -> None:
        """`shift`: by how many ranks everything that is on the screen has moved down."""
        top, cursor = self.top + shift, self.cursor + shift
        self.set_reactive(SessionTable.cursor, cursor)
        self.resized(total)
        if shift:
            self.scroll_rows(top)
        self.refresh()

    # Live

    def poll(self) -> None:
        """Reads anew what is on the screen, if the ledger has changed."""
        if self._polling or self.is_searching or time.monotonic() < self._next_poll:
            return
        if self.screen.is_current:
            self.read_anew()

    def read_anew(self, *, always: bool = False) -> None:
        self._polling = True
        around = self._around()
        view, cancel, version = self.view, self._cancel, self._version

        def read() -> Callable[[], None]:
            began = time.monotonic()
            now = self.source.version()
            again = None
            if always or version is None or now != version:
                again = self.source.reread(view, around, cancel)
            took = time.monotonic() - began
            return lambda: self._reread(now, around, again, took)

        self._submit(read)

    def _around(self) -> Around:
        if self.cursor == 0 and self.top == 0:
            return Around(None, 0, 0, self.rows_shown)  # at the very top one follows the newest
        row = self.window.row(self.cursor) or self._at_cursor
        above, window = self.cursor - self.top, self.window
        return Around(
            row, self.cursor, above, self.rows_shown, window.total, from_end=window.from_end
        )

    def _reread(self, version: Hashable, around: Around, again: Reread | None, took: float) -> None:
        self._polling = False
        self._version = version
        self._next_poll = time.monotonic() + min(60.0, took * _REST)
        self.post_message(self.Refreshed())
        if again is None:
            return
        # The user may have moved on meanwhile: all moves by as much as the row has.
        shift = again.rank - around.rank
        grown = self.top + shift > 0 and shift > 0
        self._adopt(again.window, shift)
        self.above += shift if grown else 0
        if around.row is not None and self._at_cursor == around.row:
            self._tell_if_gone(around.row, again)
        self._note()

    def _tell_if_gone(self, before: Row, again: Reread) -> None:
        now = again.row or again.outside
        ended = now is not None and now.state != before.state and now.ended_at is not None
        if again.row is None or ended:
            self.post_message(self.Gone(before, now))

    def _note(self) -> None:
        """Remembers the row under the cursor, so that it is known should it go."""
        if (row := self.window.row(self.cursor)) is not None:
            self._at_cursor = row
        self.post_message(self.Moved(self))

    def watch_cursor(self) -> None:
        super().watch_cursor()
        if (row := self.window.row(self.cursor)) is not None:
            self._at_cursor = row

    def action_first(self) -> None:
        if self.window.from_end and not self.window.exact:
            self.look_at(self.view)
        else:
            super().action_first()

    def action_last(self) -> None:
        if self.window.exact or self.window.from_end:
            super().action_last()
        else:
            self.look_at(self.view, at_end=True)

    # Marks

    def toggle_mark(self) -> None:
        if (row := self.window.row(self.cursor)) is None:
            return
        if self.marked.pop(row.id, None) is None:
            self.marked[row.id] = row
        self.action_move(1)
        self.refresh()
        self.post_message(self.Changed())

    def unmark(self, ids: Any = None) -> None:
        for row_id in list(self.marked) if ids is None else ids:
            self.marked.pop(row_id, None)
        self.refresh()
        self.post_message(self.Changed())

    # Words

    def sort_by(self, column: str) -> None:
        """By another column; by the same one, the other way round."""
        if column not in ORDERS:
            return
        order = ORDERS[column]
        if order.sort not in self.source.sorts:
            self.notify(f"The service cannot sort by {column}.", severity="warning")
            return
        down = not self.view.down if column == self.sorted_by else order.down
        self.sorted_by = column
        self.look_at(replace(self.view, sort=order.sort, down=down))

    def filter_by(self, chosen: Filter) -> None:
        view = replace(self.view, filter=chosen)
        if view == self._shown_view:
            self.give_up()
        elif view != self.view:
            self.look_at(view)

    def header_label(self, column: Column) -> str:
        if column.name != self.sorted_by:
            return column.label
        return column.label + ("▼" if self.view.down != ORDERS[column.name].turned else "▲")

    def cell(self, row: Row, column: str) -> Cell:
        if column == "pointer":
            return ("●" if row.id in self.marked else " "), "accent"
        return session_cell(row, column, self.source.now())


def session_cell(row: Row, column: str, now: int) -> Cell:
    match column:
        case "id":
            return words.shown(short(row.id)), ""
        case "label":
            return words.shown(row.label), ""
        case "state":
            return row.state, STATE_INKS.get(row.state, "")
        case "age":
            return words.span(now - row.created_at), ""
        case "left":
            return left(row, now)
        case "touch":
            return words.span(now - row.last_touch_at), ""
        case "files":
            return f"{row.files:,}", ""
        case "size":
            return words.size(row.bytes), ""
    return row.origin, "dim" if row.origin == "created" else "accent"
