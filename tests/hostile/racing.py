"""Processes that race for the same sessions, and what each of them may have won."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ledger import (
    Origin,
    SessionBusy,
    SessionEnded,
    SessionError,
    SessionLedger,
    SessionNotFound,
    Settings,
    SweepUnderWay,
    guards,
    moves,
    queries,
    states,
)
from ledger.aside import SettingAside
from ledger.disk import HOUSE, INCOMING, TRASH, TrashName
from ledger.models import SESSIONS, Actor, Record
from ledger.moves import new_id
from ledger.settings import DAY_US
from tests.hostile.worlds import fork

BASE = {"a.txt": b"first", "b.txt": b"second"}


# What the racers do with one session; each returns what it was told


def touch(sessions: SessionLedger, its: str) -> str:
    sessions.touch(its)
    return "ok"


def upload(sessions: SessionLedger, its: str) -> str:
    with sessions.upload(its) as arriving:
        arriving.open_file(f"up-{os.getpid()}.txt")
        arriving.write(b"uploaded")
        arriving.commit()
    return "ok"


def claim(sessions: SessionLedger, its: str) -> str:
    sessions.claim(its, into=f"{its}-{os.getpid()}")
    return "ok"


def claim_the_same(sessions: SessionLedger, its: str) -> str:
    sessions.claim(its, into=its)
    return "ok"


def delete(sessions: SessionLedger, its: str) -> str:
    return "ok" if sessions.delete_session(its) else "ended"


def restore(sessions: SessionLedger, its: str) -> str:
    try:
        sessions.restore(its)
    except SessionError as error:
        if "have just been removed" in str(error) or "waits in the trash" in str(error):
            return "nothing left"
        raise
    return "ok"


def take_file_out(sessions: SessionLedger, its: str) -> str:
    return "ok" if sessions.delete_file(its, "a.txt") else "gone"


def write(sessions: SessionLedger, its: str) -> str:
    """Another program: it knows nothing of the ledger, and only of the path."""
    path = Path(sessions.place.root.path, its)
    try:
        (path / "written.txt").write_bytes(b"written")
    except FileNotFoundError:
        return "gone"
    return f"written {time.time_ns()}"


def keep_writing(sessions: SessionLedger, its: str) -> str:
    """Another program, that holds its file open while the directory is moved about."""
    path = Path(sessions.place.root.path, its, "written.txt")
    try:
        with open(path, "wb", buffering=0) as file:
            file.writelines(b"writ" for _ in range(20))
            file.write(b"ten!")
            return f"written {time.time_ns()}"
    except FileNotFoundError:
        return "gone"


Act = Callable[[SessionLedger, str], str]


@dataclass
class Told:
    """What one racer was told: of each session, and of its sweep."""

    of: dict[str, str] = field(default_factory=dict)
    removed: int = 0
    committed: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    fds: int = 0


def one_by_one(act: Act) -> Callable[[SessionLedger, list[str]], Told]:
    """Acts on the sessions in an order of its own."""

    def run(sessions: SessionLedger, ids: list[str]) -> Told:
        told = Told()
        for its in random.sample(ids, len(ids)):
            told.of[its] = answer(act, sessions, its)
        return told

    return run


def answer(act: Act, sessions: SessionLedger, its: str) -> str:
    try:
        return act(sessions, its)
    except SessionEnded:
        return "ended"
    except SessionBusy:
        return "busy"
    except SessionNotFound:
        return "not found"
    except SessionError as error:
        return f"error: {error!r}"


def sweep(sessions: SessionLedger, ids: list[str]) -> Told:
    """All that is stale, in one run."""
    told = Told()
    with noting_commits(told), pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.listing.BATCH", 16)
        try:
            report = sessions.sweep()
        except SweepUnderWay:
            return told
    told.removed = report.removed
    told.failures = report.failures
    return told


def sweep_without_lock(sessions: SessionLedger, ids: list[str]) -> Told:
    with without_lock():
        return sweep(sessions, ids)


@contextmanager
def without_lock() -> Iterator[None]:
    """Sweepers do not see each other, as on a file system that knows no locks."""

    @contextmanager
    def nobody(place: object) -> Iterator[None]:
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "one_sweeper", nobody)
        yield


@contextmanager
def noting_commits(told: Told) -> Iterator[None]:
    """Notes, of each session that a sweep ended, when its commit was through."""
    real = SettingAside._end

    def end(self: SettingAside, asides: Sequence[Any]) -> list[Any]:
        ended = real(self, asides)
        told.committed |= {aside.record.session_id: time.time_ns() for aside in ended}
        return ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SettingAside, "_end", end)
        yield


Racer = Callable[[SessionLedger, list[str]], Told]


class Racers:
    """One process for each; they stay, and race as often as they are asked to."""

    def __init__(self, settings: Settings, racers: Sequence[Racer]) -> None:
        self._ends: list[Connection] = []
        self._children: list[int] = []
        for number, racer in enumerate(racers):
            ours, theirs = multiprocessing.Pipe()
            mine = [*self._ends, ours]
            child = fork(partial(_race, racer, settings, theirs, mine, number))
            self._children.append(child)
            theirs.close()
            self._ends.append(ours)
        for end in self._ends:
            assert end.recv() == "ready"

    def race(self, ids: list[str]) -> list[Told]:
        """What each was told, once all of them are done."""
        for end in self._ends:
            end.send(ids)
        told = [end.recv() for end in self._ends]
        for each in told:
            assert isinstance(each, Told), each
        return told

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for child in self._children:
            os.waitpid(child, 0)


def do_everything_once(sessions: SessionLedger) -> None:
    """So that from here on no descriptor is opened for the first time."""
    first = sessions.create().id
    for act in (upload, take_file_out, touch, write, claim):
        answer(act, sessions, first)
    delete(sessions, sessions.create().id)
    answer(restore, sessions, first)
    sweep(sessions, [])
    assert sessions.place.root.reports  # a sweep opens it, unless another's is under way


def fds_below(sessions: SessionLedger) -> int:
    """How many descriptors are open in the root, with nothing left to do in the background."""
    sessions._remover.close()
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    paths = [os.readlink(fd) for fd in fds if os.path.lexists(fd)]
    return sum(path.startswith(sessions.place.root.path) for path in paths)


def _race(
    racer: Racer, settings: Settings, end: Connection, others: list[Connection], seed: int
) -> None:
    for other in others:
        other.close()
    random.seed(seed)
    with SessionLedger.open(settings) as sessions:
        do_everything_once(sessions)
        end.send("ready")
        while True:
            try:
                ids = end.recv()
            except EOFError:
                return
            try:
                told = racer(sessions, ids)
                told.fds = fds_below(sessions)
                end.send(told)
            except BaseException:
                end.send(traceback.format_exc())


# The place


@dataclass
class Ground:
    """A root with its ledger, where stale sessions are planted and races are judged."""

    settings: Settings

    def __post_init__(self) -> None:
        self.sessions = SessionLedger.open(self.settings)

    @property
    def root(self) -> Path:
        return Path(self.sessions.place.root.path)

    @property
    def trash(self) -> Path:
        return self.root / HOUSE / TRASH

    def plant(self, count: int, *, touched: bool = True) -> list[str]:
        """Sessions that nobody has used for two days."""
        then = self.sessions.clock() - 2 * DAY_US
        ids = [new_id() for _ in range(count)]
        for its in ids:
            path = self.root / HOUSE / INCOMING / its
            path.mkdir()
            for name, content in BASE.items():
                (path / name).write_bytes(content)
                os.utime(path / name, ns=(then * 1000, then * 1000))
            os.utime(path, ns=(then * 1000, then * 1000))
            path.rename(self.root / its)
        size, files = sum(map(len, BASE.values())), len(BASE)
        new = [
            states.New(
                its, Origin.CREATED, "planted", then, then, touched=touched, bytes=size, files=files
            )
            for its in ids
        ]
        place = self.sessions.place
        with place.database.write() as connection:
            states.insert(connection, place.root_id, new, Actor.API, then)
        return ids

    def let_wait(self, ids: list[str], *, due: bool) -> None:
        """They were swept, and can be restored for an hour; `due`: they could, until just now."""
        settings = self.settings.model_copy(update={"undo_hours": 1.0})
        with SessionLedger.open(settings) as sessions:
            assert sessions.sweep().waiting == len(ids)
        if due:
            self._let_be_due(ids)

    def _let_be_due(self, ids: list[str]) -> None:
        place = self.sessions.place
        for row in self.rows(ids).values():
            waiting = TrashName.parse(row.trash or "")
            assert waiting is not None
            due = str(replace(waiting, due=1))
            moves.rename_in_trash(place.root, str(waiting), due)
            with place.database.write() as connection:
                connection.execute(
                    update(SESSIONS).where(SESSIONS.c.pk == row.pk).values(trash=due)
                )

    def rows(self, ids: list[str]) -> dict[str, Record]:
        place = self.sessions.place
        with place.database.read() as connection:
            return queries.records_of(connection, place.root_id, ids)

    def settle(self) -> int:
        """A sweep later, nothing is left to be done, and nothing lies about; how many it took."""
        removed = self.sessions.sweep().removed
        report = self.sessions.report()
        assert report.settled, report.as_json()
        assert os.listdir(self.trash) == []
        assert os.listdir(self.root / HOUSE / INCOMING) == []
        return removed

    def content(self, row: Record) -> dict[str, bytes] | None:
        """The files of a session where it should stand by its row; None where nothing stands."""
        path = Path(self.sessions.session_of(row).path)
        if not path.exists():
            return None
        return {file.name: file.read_bytes() for file in path.iterdir()}
