"""A running service as the dashboard's source, through its operator API."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from ledger import Guard, Progress, Report, SessionNotFound, SweepStopped
from ledger.health import Health, SweepInfo
from ledger.system import now_us
from tui.filters import Row
from tui.shapes import detail_of, event_of, health_of, report_of, row_of, sweep_of
from tui.source import Around, Detail, Event, Reread, View
from tui.window import ChunkWindow, Part, Task, Window
from web.asking import Cancel, Cancelled, Refused
from web.client import OPERATOR, Client

PAGE = 200
_LOOK_EVERY_S = 0.3
_CURSORS = 200
_FURTHER = 2 * PAGE  # so much further down a row is looked for that was moved


class RemoteSource:
    """Asks for pages, and sorts by what the API sorts by."""

    sorts = frozenset({"created_at", "last_touch_at", "bytes", "files", "state"})

    def __init__(self, url: str, token: str | None) -> None:
        self._client = Client(url, token)
        self.name = self._client.url
        self._cursors: dict[int, str] = {}

    def now(self) -> int:
        return now_us() + self._client.ahead

    def stop(self) -> None:
        self._client.stop()

    def close(self) -> None:
        self._client.close()

    # A list of sessions

    def open(self, view: View, cancel: Cancel, *, at_end: bool = False) -> Window:
        window = ChunkWindow(from_end=at_end)
        for task in window.tasks(0, 0):
            window.put(self.load(view, task, cancel))
        return window

    def load(self, view: View, task: Task, cancel: Cancel) -> Part:
        """One page; with a filter that the service does not know, as many as it takes to find
        a row that passes."""
        cursor, rows = task.cursor, list[Row]()
        while True:
            told = self._page(view, cursor, cancel, up=task.up)
            rows += self._chosen(view, told["sessions"])
            cursor = told["next"]
            if rows or cursor is None:
                return Part(task.number, rows, cursor)

    def _page(self, view: View, cursor: str | None, cancel: Cancel, *, up: bool) -> Any:
        down = view.down != up
        chosen = view.filter
        return self._client.get(
            f"{OPERATOR}/sessions",
            cancel=cancel,
            sort=f"-{view.sort}" if down else view.sort,
            limit=PAGE,
            cursor=cursor,
            state=chosen.state,
            q=chosen.words[0] if chosen.words else None,
        )

    def _chosen(self, view: View, told: list[Any]) -> list[Row]:
        now = self.now()
        rows = (row_of(each) for each in told)
        return [row for row in rows if view.filter.matches(row, now)]

    def count(self, view: View, cancel: Cancel) -> int | None:  # noqa: ARG002
        """Nobody counts them: the service gives pages."""
        return None

    def reread(self, view: View, around: Around, cancel: Cancel) -> Reread:
        """From the end that was read from to where the row is now, or a while behind where it was.

        The further down one is, the more pages that takes: nobody can point into the middle.
        """
        window = ChunkWindow(from_end=around.from_end)
        place = 0 if around.row is None else None
        while place is None or window.total <= place + around.height:
            task = window.next_task()
            if task is None or (place is None and window.total > around.place + _FURTHER):
                break
            part, before = self.load(view, task, cancel), window.total
            window.put(part)
            ids = [row.id for row in part.rows]
            if around.row is not None and around.row.id in ids:
                place = before + ids.index(around.row.id)
        return self._reread(window, around, place)

    def _reread(self, window: ChunkWindow, around: Around, place: int | None) -> Reread:
        if place is None:
            rank = max(0, min(around.rank, window.total - 1))
            outside = self.look(around.row.id) if around.row is not None else None
            return Reread(window, rank, None, outside)
        rank = window.total - 1 - place if window.from_end else place
        return Reread(window, rank, window.row(rank) if around.row is not None else None)

    def version(self) -> Hashable:
        """The newest event; for what makes none, the newest touch and the newest sweep."""
        touched = self._client.get(f"{OPERATOR}/sessions", sort="-last_touch_at", limit=1)
        events = self._client.get(f"{OPERATOR}/events", limit=1)["events"]
        sweeps = self._client.get(f"{OPERATOR}/sweeps", limit=1)["sweeps"]
        return json.dumps([touched["sessions"], events, sweeps])

    # One session

    def look(self, session_id: str) -> Row | None:
        with suppress(SessionNotFound):
            return self.detail(session_id).row
        return None

    def detail(self, session_id: str) -> Detail:
        told = self._client.ask("GET", _session(session_id), accept=(404,))
        if told is None or "session" not in told:
            raise SessionNotFound(session_id)
        return detail_of(told, self.now())

    def delete(self, session_id: str) -> bool:
        return self._client.delete(session_id)

    def touch(self, session_id: str) -> None:
        self._client.touch(session_id)

    def restore(self, session_id: str) -> None:
        self._client.restore(session_id)

    # The sweep

    def report(self, progress: Progress, max_age_hours: float | None = None) -> Report:
        """Given up when `progress` is cancelled; the service then looks no further."""
        with _cancelling(progress) as cancel:
            try:
                told = self._client.get(
                    f"{OPERATOR}/report", cancel=cancel, max_age_hours=max_age_hours
                )
            except Cancelled:
                raise Refused("It was cancelled.") from None
        return report_of(told)

    def dry_run(
        self, max_age_hours: float | None, progress: Progress, *, keep: bool = True
    ) -> Report:
        if not keep:
            return self.report(progress, max_age_hours)
        order: dict[str, Any] = {"dry_run": True}
        if max_age_hours is not None:
            order["max_age_hours"] = max_age_hours
        told = self._run(order, progress)
        report = report_of(told["result"])
        report.sweep_id = told["sweep_id"]
        return report

    def sweep(self, plan: Report, overridden: frozenset[Guard], progress: Progress) -> Report:
        order: dict[str, Any] = {"of": plan.sweep_id}
        if Guard.BRAKE in overridden:
            order["past_the_brake"] = True
        if Guard.CLOCK in overridden:
            order["trust_clock"] = True
        return report_of(self._run(order, progress)["result"])

    def _run(self, order: dict[str, Any], progress: Progress) -> Any:
        """Begun, and watched to its end. Raises SweepStopped, Refused for one that failed."""
        begun = self._client.ask("POST", f"{OPERATOR}/sweeps", order)
        run = f"{OPERATOR}/sweeps/{begun['sweep_id']}"
        # Asked for even where it has ended by now: a dry run's list is told only here.
        while (told := self._client.get(run))["state"] == "running":
            progress.done, progress.total = told["done"], told["total"]
            progress.advance(0)
            if progress.cancel.wait(_LOOK_EVERY_S):
                self._client.ask("DELETE", run, accept=(409,))
                time.sleep(_LOOK_EVERY_S)
        if told["stopped_by"]:
            raise SweepStopped(Guard(told["stopped_by"]), told["result"]["why"])
        if told["state"] == "failed":
            raise Refused(told["result"]["why"])
        if told["state"] == "stopped":
            progress.cancel.set()  # it was cancelled, perhaps by somebody else
        return told

    # History and health

    def sweeps(self, most: int) -> list[SweepInfo]:
        told = self._client.get(f"{OPERATOR}/sweeps", limit=most)
        return [sweep_of(each) for each in told["sweeps"]]

    def events(self, most: int, before: int | None = None) -> list[Event]:
        """`before`: the last one of a page that was given."""
        cursor = None if before is None else self._cursors.get(before)
        if before is not None and cursor is None:
            return []
        told = self._client.get(f"{OPERATOR}/events", limit=most, cursor=cursor)
        found = [event_of(each) for each in told["events"]]
        if told["next"] is not None:
            self._cursors[found[-1].event_id] = told["next"]
            if len(self._cursors) > _CURSORS:
                del self._cursors[next(iter(self._cursors))]
        return found

    def health(self) -> Health:
        return health_of(self._client.ready())


def _session(session_id: str) -> str:
    return f"{OPERATOR}/sessions/{quote(session_id, safe='')}"


@contextmanager
def _cancelling(progress: Progress) -> Iterator[Cancel]:
    """What cancels a reading while the block runs, soon after `progress` is cancelled."""
    cancel, over = Cancel(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            if progress.cancel.wait(_LOOK_EVERY_S):
                cancel()
                return

    watching = threading.Thread(target=watch, name="coatcheck-cancel")
    watching.start()
    try:
        yield cancel
    finally:
        over.set()
