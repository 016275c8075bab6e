"""Touches that come at once share one transaction; none of them is answered before its commit."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field

from ledger import states
from ledger.database import Database
from ledger.models import Record


@dataclass(slots=True, eq=False)
class _Touch:
    """One that waits. `leads`: it is to write all that wait, its own among them."""

    session_id: str
    now: int
    woken: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    record: Record | None = None
    error: BaseException | None = None


class Touches:
    """Of those that wait, one writes for all; the next to write is one of those that came since.

    On a server each is written by itself: it has many writers, and lets their commits share.
    """

    def __init__(self) -> None:
        self._waiting: list[_Touch] = []
        self._is_led = False
        self._lock = threading.Lock()

    def touch(self, database: Database, root_id: str, session_id: str, now: int) -> Record | None:
        """Touches an active session; None when it is not active. Raises what `write` raises."""
        if not database.is_sqlite:
            with database.write() as connection:
                return states.touch(connection, root_id, session_id, now)
        mine = _Touch(session_id, now)
        with self._lock:
            self._waiting.append(mine)
            mine.leads, self._is_led = not self._is_led, True
        try:
            if not mine.leads:
                mine.woken.wait()
            if mine.leads:
                self._write(database, root_id)
        finally:
            self._leave(mine)
        if mine.error is not None:
            raise copy.copy(mine.error)  # one for each: what is raised grows on its way
        return mine.record

    def _write(self, database: Database, root_id: str) -> None:
        """All that wait are written, or know why not."""
        written: list[_Touch] = []
        try:
            with database.write() as connection:
                written = self._take()  # only now, so that who came meanwhile is among them
                ids = [touch.session_id for touch in written]
                now = max(touch.now for touch in written)
                records = states.touch_all(connection, root_id, ids, now)
            for touch in written:
                touch.record = records.get(touch.session_id)
        except BaseException as error:  # noqa: BLE001 - each of them raises it
            written = written or self._take()
            for touch in written:
                touch.error = error
        for touch in written:
            touch.woken.set()

    def _take(self) -> list[_Touch]:
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def _leave(self, mine: _Touch) -> None:
        """Who leads hands that over to the first who waits, and be it that it was interrupted."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if mine.leads and self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].woken.set()
            elif mine.leads:
                self._is_led = False
