"""The ledger itself as the dashboard's source."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection

from ledger import (
    Actor,
    CoatcheckError,
    Guard,
    Progress,
    Report,
    SessionLedger,
    SessionNotFound,
    pages,
    queries,
)
from ledger.health import Health, SweepInfo
from ledger.models import Record
from ledger.pages import Choice, Watch
from ledger.views import Seen
from tui.filters import Row
from tui.shapes import detail_of
from tui.source import Around, Detail, Event, Reread, View
from tui.window import BLOCK, Part, RankWindow, Task, Window
from web.asking import Cancel, Cancelled

_COUNTED_AT_ONCE = 1000


class LocalSource:
    """One open SessionLedger, which is closed with it. `name` is the root as it was named."""

    sorts = pages.SORTS

    def __init__(self, sessions: SessionLedger) -> None:
        self.name = str(sessions.settings.root)
        self._sessions = sessions
        self._database = sessions.place.database
        self._root_id = sessions.place.root_id
        self._watch = Watch(self._database, self._root_id)

    def now(self) -> int:
        return self._sessions.clock()

    def stop(self) -> None:
        """Its readings are short, and its runs are cancelled."""

    def close(self) -> None:
        self._watch.close()
        self._sessions.close()

    @contextmanager
    def _reading(self, cancel: Cancel | None = None) -> Iterator[Connection]:
        """One read transaction, which `cancel` interrupts."""
        with self._database.read() as connection:
            if cancel is None:
                yield connection
                return
            with cancel.stopping(_interrupter(connection)):
                yield connection

    # A list of sessions

    def open(self, view: View, cancel: Cancel, *, at_end: bool = False) -> Window:
        """Its first rows at once; how many there are beyond a thousand may have to be counted."""
        choice = self._choice(view)
        with self._plainly(cancel), self._reading(cancel) as connection:
            if at_end:
                total = pages.count(connection, self._root_id, choice)
                window = RankWindow(total, exact=True)
                self._fill(connection, window, choice, total - 1 - BLOCK, total - 1)
                return window
            window = RankWindow(0, exact=False)
            window.put(self._load(connection, choice, Task(0)))
            if not window.exact:  # else every row was looked at, and need not be once more
                total = pages.count(connection, self._root_id, choice, _COUNTED_AT_ONCE + 1)
                window.total = min(total, _COUNTED_AT_ONCE)
                window.exact = total <= _COUNTED_AT_ONCE
        return window

    def load(self, view: View, task: Task, cancel: Cancel) -> Part:
        with self._plainly(cancel), self._reading(cancel) as connection:
            return self._load(connection, self._choice(view), task)

    def _load(self, connection: Connection, choice: Choice, task: Task) -> Part:
        found = pages.stretch(connection, self._root_id, choice, task.stretch)
        return Part(task.number, [self._row(record, choice.sort) for record in found])

    def _fill(
        self, connection: Connection, window: RankWindow, choice: Choice, first: int, last: int
    ) -> None:
        for task in window.tasks(first, last):
            window.put(self._load(connection, choice, task))

    def count(self, view: View, cancel: Cancel) -> int | None:
        with self._plainly(cancel), self._reading(cancel) as connection:
            return pages.count(connection, self._root_id, self._choice(view))

    def reread(self, view: View, around: Around, cancel: Cancel) -> Reread:
        """In one read transaction, so that total, rank and rows are of one moment."""
        choice = self._choice(view)
        with self._plainly(cancel), self._reading(cancel) as connection:
            again = RankWindow(pages.count(connection, self._root_id, choice), exact=True)
            rank, row = around.rank, None
            if around.row is not None:
                found = pages.find(connection, self._root_id, choice, around.row.id)
                row = self._row(found, view.sort) if found else None
                rank = pages.rank(connection, self._root_id, choice, (row or around.row).key)
            rank = max(0, min(rank, again.total - 1))
            if row is not None:
                again.anchor(rank, row.key)
            top = max(0, rank - around.above)
            self._fill(connection, again, choice, top, top + around.height)
            if around.row is not None and row is None:
                record = queries.record_of(connection, self._root_id, around.row.id)
                ended = self._row(record, view.sort) if record else None
                return Reread(again, rank, None, ended)
        return Reread(again, rank, row)

    def version(self) -> Hashable:
        return self._watch.version()

    def _choice(self, view: View) -> Choice:
        max_age = self._sessions.settings.max_age_us
        return view.filter.choice(view.sort, self.now(), max_age, down=view.down)

    @contextmanager
    def _plainly(self, cancel: Cancel) -> Iterator[None]:
        """What fails because it was interrupted was cancelled."""
        try:
            yield
        except CoatcheckError:
            if cancel.asked:
                raise Cancelled from None
            raise

    def _row(self, record: Record, sort: str = "created_at") -> Row:
        session = self._sessions.session_of(record)
        return Row(
            id=record.session_id,
            label=record.label,
            state=str(record.state),
            origin=str(record.origin),
            created_at=record.created_at,
            last_touch_at=record.last_touch_at,
            expires_at=record.last_touch_at + self._sessions.settings.max_age_us,
            bytes=record.bytes,
            files=record.files,
            path=session.path,
            ended_at=record.ended_at,
            ended_by=record.ended_by,
            ended_why=record.ended_why,
            key=pages.key_of(record, sort),
        )

    # One session

    def look(self, session_id: str) -> Row | None:
        with self._reading() as connection:
            record = queries.record_of(connection, self._root_id, session_id)
        if record is not None:
            return self._row(record)
        with suppress(SessionNotFound):
            return self.detail(session_id).row
        return None

    def detail(self, session_id: str) -> Detail:
        return detail_of(Seen.of(self._sessions, session_id).as_json(), self.now())

    def delete(self, session_id: str) -> bool:
        return self._sessions.delete_session(session_id, by=Actor.OPERATOR)

    def touch(self, session_id: str) -> None:
        self._sessions.touch(session_id, by=Actor.OPERATOR)

    def restore(self, session_id: str) -> None:
        self._sessions.restore(session_id, by=Actor.OPERATOR)

    # The sweep

    def report(self, progress: Progress) -> Report:
        return self._sessions.report(progress=progress)

    def dry_run(
        self, max_age_hours: float | None, progress: Progress, *, keep: bool = True
    ) -> Report:
        if keep:
            return self._sessions.dry_run(max_age_hours, by=Actor.OPERATOR, progress=progress)
        return self._sessions.report(max_age_hours, progress=progress)

    def sweep(self, plan: Report, overridden: frozenset[Guard], progress: Progress) -> Report:
        return self._sessions.sweep(
            plan,
            past_the_brake=Guard.BRAKE in overridden,
            trust_clock=Guard.CLOCK in overridden,
            by=Actor.OPERATOR,
            progress=progress,
        )

    # History and health

    def sweeps(self, most: int) -> list[SweepInfo]:
        with self._reading() as connection:
            found = queries.sweeps(connection, self._root_id, most=most)
        return [SweepInfo.of(row) for row in found]

    def events(self, most: int, before: int | None = None) -> list[Event]:
        with self._reading() as connection:
            found = queries.events(connection, self._root_id, before=before, most=most)
        return [_event(row) for row in found]

    def health(self) -> Health:
        return self._sessions.health()


def _interrupter(connection: Connection) -> Callable[[], None]:
    """What makes the connection's query fail, called from another thread."""
    driver: Any = connection.connection.driver_connection
    stop: Callable[[], None] = driver.interrupt if hasattr(driver, "interrupt") else driver.cancel
    return stop


def _event(row: Any) -> Event:
    return Event(row.event_id, row.at, row.session, row.from_state, row.to_state, row.by, row.why)
