"""The page of all sessions, live."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Input

from tui import words
from tui.acting import Work
from tui.commands import SESSIONS, bindings_for
from tui.deeds import Deeds
from tui.filters import Filter, Row
from tui.page import Line, Page
from tui.rows import Rows
from tui.screens.session import SessionPage
from tui.screens.sort import Sort
from tui.source import name_of
from tui.table import COLUMNS, SessionTable

_TYPING_S = 0.1  # between a key and the search that it asks for
_SOON_S = 0.3  # a search that takes longer is told of


class StatusLine(Line):
    """Where one is in the list, what list it is, and what has just happened to it."""

    told = ""
    warned = ""

    def render(self) -> Content:
        page = cast(SessionsPage, self.screen)
        return page.status().truncate(self.size.width, ellipsis=True)

    def on_mount(self) -> None:
        self.set_interval(0.25, self.refresh)


class SessionsPage(Deeds, Page):
    place = SESSIONS
    BINDINGS: ClassVar[list[BindingType]] = list(bindings_for(SESSIONS))
    AUTO_FOCUS = "#sessions"

    def __init__(self) -> None:
        super().__init__()
        self.gone = ""
        self.wrong = ""
        self.unfinished = ""  # what is wrong with the filter as it is typed

    def body(self) -> ComposeResult:
        examples = "an id, a label, a state, age>12h, touch>2h, left<1h, size>1G, files>10"
        yield Input(placeholder=examples, id="filter", compact=True, select_on_focus=False)
        yield SessionTable(self.source, id="sessions")
        yield StatusLine()

    @property
    def table(self) -> SessionTable:
        return self.query_one(SessionTable)

    @property
    def filter_box(self) -> Input:
        return self.query_one("#filter", Input)

    # What the list says

    def on_session_table_changed(self) -> None:
        self.query_one(StatusLine).refresh()

    def on_rows_moved(self) -> None:
        self.query_one(StatusLine).refresh()

    def on_session_table_gone(self, message: SessionTable.Gone) -> None:
        self.gone = _gone(message.row, message.now)

    def on_session_table_failed(self, message: SessionTable.Failed) -> None:
        self.wrong = words.failure(message.error)

    def on_session_table_refreshed(self) -> None:
        self.wrong = ""

    def on_session_table_given_up(self, message: SessionTable.GivenUp) -> None:
        self.filter_box.value = message.view.filter.text
        self.unfinished = ""

    def on_rows_header_clicked(self, message: Rows.HeaderClicked) -> None:
        self.table.sort_by(message.column)

    def on_rows_opened(self, message: Rows.Opened) -> None:
        self.app.push_screen(SessionPage(message.row.id))

    def on_screen_resume(self) -> None:
        self.table.poll()

    def status(self) -> Content:
        """The line below the list."""
        table = self.table
        since = table.searching_since
        if self.under_way is not None:
            return Content(f" {self.under_way.so_far()}; esc stops").stylize("bold")
        if since is not None and time.monotonic() - since > _SOON_S:
            return Content(" Searching; esc gives it up").stylize("bold $text-accent")
        if self.unfinished:
            return Content(f" {self.unfinished}").stylize("bold $text-warning")
        if self.wrong:
            return Content(f" Not read: {self.wrong}").stylize("bold $text-error")
        parts = [self._position()]
        if self.gone:
            return Content.assemble(" ", (self.gone, "bold $text-warning"), "  ", parts[0])
        if table.above:
            parts.append(Content(f"↑ {table.above:,} new").stylize("bold $text-accent"))
        if table.marked:
            size = words.size(sum(row.bytes for row in table.marked.values()))
            parts.append(Content(f"● {len(table.marked):,} marked, {size}").stylize("bold"))
        if text := table.view.filter.text:
            parts.append(Content(f"filter: {text}"))
        return Content(" ").append(Content("  ·  ").join(parts))

    def _position(self) -> Content:
        table = self.table
        total = words.total(table.total, exact=table.window.exact)
        if not table.total:
            return Content(
                "Nothing passes the filter." if table.view.filter.text else "There are no sessions."
            )
        if table.window.from_end and not table.window.exact:
            return Content(f"{table.total - table.cursor:,} from the end of {total}")
        return Content(f"{table.cursor + 1:,} of {total}")

    # Filter

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "filter" and self.filter_box.has_focus:
            return False  # there it is a letter
        return super().check_action(action, parameters)

    def action_filter(self) -> None:
        self.filter_box.display = True
        self.set_focus(self.filter_box)  # at once: the next key may be there already

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter" and event.input.has_focus:
            self.set_timer(_TYPING_S, lambda: self._filter_as_typed(event.value))

    def _filter_as_typed(self, text: str) -> None:
        if text == self.filter_box.value:
            self._filter(text)

    def _filter(self, text: str) -> None:
        chosen = Filter.parse(text)
        self.unfinished = chosen.problem
        self.table.filter_by(chosen)
        self.query_one(StatusLine).refresh()

    def on_input_submitted(self) -> None:
        self._filter(self.filter_box.value)
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.set_focus(self.table)
        self.filter_box.display = bool(self.filter_box.value)

    def _clear_filter(self) -> None:
        self.filter_box.value = ""
        self._filter("")
        self._leave_filter()

    def action_back(self) -> None:
        """One step back: what runs, the filter one is in, a slow search, the filter, the marks."""
        if self.stop_work():
            return
        if self.filter_box.has_focus:
            self._clear_filter()
        elif self.table.give_up():
            self.notify("The search was given up; the list is what it was before.")
        elif self.filter_box.display:
            self._clear_filter()
        elif self.table.marked:
            self.table.unmark()
        self.gone = ""

    # Commands

    def action_refresh_now(self) -> None:
        super().action_refresh_now()
        self.gone = ""
        self.table.read_anew(always=True)

    def action_sort(self) -> None:
        table = self.table
        column = next(c for c in COLUMNS if c.name == table.sorted_by)
        mark = table.header_label(column)[-1]
        self.app.push_screen(Sort(table.sorted_by, mark, self.source.sorts), self._sort)

    def _sort(self, column: str | None) -> None:
        if column is not None:
            self.table.sort_by(column)

    def action_mark(self) -> None:
        self.table.toggle_mark()

    def chosen(self) -> Sequence[Row]:
        """The marked sessions, else the one under the cursor."""
        table = self.table
        if table.marked:
            return list(table.marked.values())
        return [table.current] if table.current is not None else []

    def action_delete(self) -> None:
        self.ask_to_delete(self.chosen())

    def action_touch(self) -> None:
        self.touch_all(self.chosen())

    def work_is_over(self, done: Work) -> None:
        self.table.unmark([row.id for row in done.done])
        self.table.read_anew(always=True)

    def action_copy_id(self) -> None:
        if (row := self.table.current) is not None:
            self.copy(row.id)

    def action_copy_path(self) -> None:
        if (row := self.table.current) is not None:
            self.copy(row.path)


def _gone(row: Row, now: Row | None) -> str:
    """What has become of the session under the cursor."""
    name = words.shown(name_of(row))
    if now is None:
        return f"{name} is gone: the ledger no longer has it."
    if now.ended_at is not None:
        why = f": {now.ended_why}" if now.ended_why and now.ended_why != now.state else ""
        return f"{name} is gone: {now.state} by {now.ended_by}{why}."
    return f"{name} no longer passes the filter."
