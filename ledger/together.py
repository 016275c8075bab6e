"""What is asked at once shares one transaction; nobody is answered before its commit."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sqlalchemy import Connection

from ledger.database import Database

Asked = TypeVar("Asked")
Told = TypeVar("Told")


@dataclass(slots=True, eq=False)
class _Ask(Generic[Asked, Told]):
    """One that waits. `leads`: it is to write for all that wait, itself among them."""

    asked: Asked
    woken: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    told: Told | None = None
    error: BaseException | None = None


class Together(Generic[Asked, Told]):
    """Of those that wait, one writes for all; the next to write is one of those that came since.

    `write_all` answers each of what it is given, which may be many, in its order. On a server each
    is written by itself: it has many writers, and lets their commits share.
    """

    def __init__(self, write_all: Callable[[Connection, Sequence[Asked]], Sequence[Told]]) -> None:
        self._write_all = write_all
        self._waiting: list[_Ask[Asked, Told]] = []
        self._is_led = False
        self._lock = threading.Lock()

    def write(self, database: Database, asked: Asked) -> Told:
        """What `write_all` answers. Raises what it and `Database.write` raise."""
        if not database.is_sqlite:
            with database.write() as connection:
                return self._write_all(connection, [asked])[0]
        mine = _Ask[Asked, Told](asked)
        with self._lock:
            self._waiting.append(mine)
            mine.leads, self._is_led = not self._is_led, True
        try:
            if not mine.leads:
                mine.woken.wait()
            if mine.leads:
                self._lead(database)
        finally:
            self._leave(mine)
        if mine.error is not None:
            raise copy.copy(mine.error)  # one for each: what is raised grows on its way
        return mine.told  # type: ignore[return-value]

    def _lead(self, database: Database) -> None:
        """All that wait are written, or know why not."""
        asks: list[_Ask[Asked, Told]] = []
        try:
            with database.write() as connection:
                asks = self._take()  # only now, so that who came meanwhile is among them
                told = self._write_all(connection, [ask.asked for ask in asks])
            for ask, its in zip(asks, told, strict=True):
                ask.told = its
        except BaseException as error:  # noqa: BLE001 - each of them raises it
            asks = asks or self._take()
            for ask in asks:
                ask.error = error
        for ask in asks:
            ask.woken.set()

    def _take(self) -> list[_Ask[Asked, Told]]:
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def _leave(self, mine: _Ask[Asked, Told]) -> None:
        """Who leads hands that over to the first who waits, and be it that it was interrupted."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if mine.leads and self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].woken.set()
            elif mine.leads:
                self._is_led = False
