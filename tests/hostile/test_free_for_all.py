"""Everything at once, with a max age so small that every session is always about to go.

Each process keeps a log of what it was told. Afterwards the logs are held against the ledger's
events: no sweep took a session that, by its own clock, had been used within the max age.
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from ledger import (
    SessionEnded,
    SessionError,
    SessionLedger,
    Settings,
    State,
    SweepUnderWay,
    counts,
    queries,
)
from ledger.disk import HOUSE, INCOMING, TRASH, is_session_id
from tests.everyday import params
from tests.hostile.racing import without_lock
from tests.hostile.worlds import fork

MAX_AGE_US = 50_000
NEW_SESSIONS, MANY_SESSIONS = 25, 3000


class Log:
    """What one process was told, line by line, on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, what: str, its: str, at: int = 0, name: str = "") -> None:
        with open(self._path, "a") as file:
            file.write(json.dumps([what, its, at, name]) + "\n")


Part = Callable[[SessionLedger, Log, Callable[[], bool]], None]


def pick(sessions: SessionLedger) -> str | None:
    """Any session that stands just now."""
    names = [name for name in os.listdir(sessions.place.root.path) if is_session_id(name)]
    return random.choice(names) if names else None


def on_any(act: Callable[[SessionLedger, Log, str], None]) -> Part:
    """Acts on one session after the other until all is over."""

    def play(sessions: SessionLedger, log: Log, is_over: Callable[[], bool]) -> None:
        while not is_over():
            if its := pick(sessions):
                with suppress(SessionError):
                    act(sessions, log, its)

    return play


def create(count: int, sessions: SessionLedger, log: Log, is_over: Callable[[], bool]) -> None:
    while count:
        # What takes longer than the max age between directory and row is swept meanwhile.
        with suppress(SessionEnded), sessions.upload(None) as upload:
            upload.open_file("first.txt")
            upload.write(b"first")
            record, _ = upload.commit("a new one")
            log("used", record.session_id, record.last_touch_at, "first.txt")
            count -= 1


def touch(sessions: SessionLedger, log: Log, its: str) -> None:
    used = sessions.touch(its).last_touch_at
    log("used", its, round(used.timestamp() * 1_000_000))


def upload(sessions: SessionLedger, log: Log, its: str) -> None:
    name = f"{os.getpid()}-{random.randrange(10**9)}.txt"
    log("tried", its, 0, name)
    with sessions.upload(its) as arriving:
        arriving.open_file(name)
        for _ in range(random.randrange(20)):
            arriving.write(b"x" * 1000)
        record, _ = arriving.commit()
    log("used", its, record.last_touch_at, name)


def claim(sessions: SessionLedger, log: Log, its: str) -> None:
    if random.random() < 0.1:
        sessions.claim(its, into=its)
        log("claimed", its)


def delete(sessions: SessionLedger, log: Log, its: str) -> None:
    if random.random() < 0.1 and sessions.delete_session(its):
        log("deleted", its)


def write(sessions: SessionLedger, log: Log, its: str) -> None:
    with suppress(FileNotFoundError):
        Path(sessions.place.root.path, its, "written.txt").write_text("another program's")


def restore(sessions: SessionLedger, log: Log, its: str) -> None:
    """Not of those that stand, but of those in the trash."""
    for entry in os.listdir(sessions.place.root.trash):
        with suppress(SessionError):
            used = sessions.restore(entry.split("-", 4)[-1]).last_touch_at
            log("used", entry.split("-", 4)[-1], round(used.timestamp() * 1_000_000))


def sweep(sessions: SessionLedger, log: Log, is_over: Callable[[], bool]) -> None:
    while not is_over():
        with suppress(SweepUnderWay):
            failures = sessions.sweep().failures
            assert not failures, failures


PARTS: list[Part] = [sweep, sweep, *map(on_any, (touch, upload, claim, delete, write, restore))]


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str) -> Settings:
    return Settings(
        root=tmp_path / "root",
        ledger=ledger_url,
        claims=tmp_path / "claims",
        max_age_hours=MAX_AGE_US / 3.6e9,
        undo_hours=MAX_AGE_US / 3.6e9,
    )


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "locked", params({True}, [True, False]), ids=["one sweeper", "two sweepers"]
)
def test_nothing_in_use_is_ever_lost(locked: bool, settings: Settings, tmp_path: Path) -> None:
    everything_at_once(settings, tmp_path, NEW_SESSIONS, locked=locked)


@pytest.mark.torture
@pytest.mark.parametrize("locked", [True, False], ids=["one sweeper", "two sweepers"])
def test_nothing_in_use_is_lost_in_the_long_run(
    locked: bool, settings: Settings, tmp_path: Path
) -> None:
    everything_at_once(settings, tmp_path, MANY_SESSIONS, locked=locked)


def everything_at_once(settings: Settings, folder: Path, count: int, *, locked: bool) -> None:
    SessionLedger.open(settings).close()
    over = folder / "over"

    def play(part: Part, number: int) -> None:
        random.seed(number)
        log = Log(folder / f"{number}.log")
        try:
            with (
                nullcontext() if locked else without_lock(),
                SessionLedger.open(settings) as sessions,
            ):
                part(sessions, log, over.exists)
        except BaseException:
            (folder / f"{number}.failed").write_text(traceback.format_exc())

    children = [fork(partial(play, part, number)) for number, part in enumerate(PARTS)]
    play(partial(create, count), len(PARTS))
    over.touch()
    for child in children:
        os.waitpid(child, 0)
    failed = "\n".join(path.read_text() for path in folder.glob("*.failed"))
    assert not failed, failed
    patient = settings.model_copy(update={"max_age_hours": 24.0})
    with SessionLedger.open(patient) as sessions:
        settle(sessions)
        known = read_logs(folder)
        assert len(known) >= count
        for its, told in known.items():
            check(sessions, its, told)


def settle(sessions: SessionLedger) -> None:
    """What was interrupted is finished, and what waited in the trash is due and gone."""
    house = Path(sessions.place.root.path, HOUSE)
    deadline = time.monotonic() + 60
    while os.listdir(house / TRASH):
        sessions.sweep()
        assert time.monotonic() < deadline
    sessions.sweep()
    report = sessions.report()
    assert report.settled, report.as_json()
    assert os.listdir(house / INCOMING) == []
    with sessions.place.database.read() as connection:
        kept = counts.kept(connection, sessions.place.root_id)
        seen = counts.by_looking(connection, sessions.place.root_id)
    assert {key: n for key, n in kept.items() if n and key[0] == counts.STATES} == seen


@dataclass
class Known:
    """What was told of one session."""

    used: list[int] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    claimed: int = 0
    deleted: int = 0


def read_logs(folder: Path) -> dict[str, Known]:
    known: dict[str, Known] = defaultdict(Known)
    for path in folder.glob("*.log"):
        for line in path.read_text().splitlines():
            what, its, at, name = json.loads(line)
            one = known[its]
            if what == "used":
                one.used.append(at)
                one.files |= {name} - {""}
                one.refused.discard(name)
            elif what == "tried":
                one.refused.add(name)
            elif what == "claimed":
                one.claimed += 1
            else:
                one.deleted += 1
    return known


def check(sessions: SessionLedger, its: str, known: Known) -> None:
    """How the session ended agrees with all that anybody was told of it."""
    with sessions.place.database.read() as connection:
        row = queries.record_of(connection, sessions.place.root_id, its)
        assert row is not None
        events = queries.session_events(connection, row.pk)
    life = [(str(event.to_state), str(event.by), event.at, str(event.why)) for event in events]
    case = f"{row.state}, {life}, {known}"
    assert known.deleted == (row.state == State.DELETED), case
    assert known.claimed == (row.state == State.CLAIMED), case
    if row.state == State.EXPIRED:
        judged = max(at for state, by, at, _ in life if (state, by) == ("removing", "sweep"))
        assert judged - max(known.used) > MAX_AGE_US, case
    if row.state in (State.ACTIVE, State.CLAIMED):
        files = set(os.listdir(sessions.session_of(row).path))
        assert known.files <= files, case
        assert not known.refused & files, case
    else:
        assert row.state in (State.DELETED, State.EXPIRED), case
        assert not os.path.lexists(sessions.place.root.path_of(its)), case
