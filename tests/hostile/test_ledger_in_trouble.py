"""A ledger that is locked, deleted, replaced, truncated, corrupted, old, or another root's.

Refused or healed, in words that say what to do; and no live session is ever removed on its word.
"""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ledger import (
    CoatcheckError,
    LedgerDamaged,
    LedgerGone,
    LedgerUnavailable,
    RootMismatch,
    SessionLedger,
    State,
    moves,
)
from ledger.database import Database
from ledger.demo import SCENES
from tests.hostile.blows import doing
from tests.hostile.scenario import GONE, LIVE, WAITING, Expected, Fate, Judge, Stage, Tree, tree

PAGE = 4096
SEED = 20
Do = Callable[[SessionLedger, str], object]

EVERYTHING: dict[str, Do] = {
    "create": lambda sessions, _: sessions.create(),
    "upload": lambda sessions, session: upload_into(sessions, session),
    "touch": lambda sessions, session: sessions.touch(session),
    "claim": lambda sessions, session: sessions.claim(session, into="spring"),
    "delete": lambda sessions, session: sessions.delete_session(session),
    "delete a file": lambda sessions, session: sessions.delete_file(session, "notes.txt"),
    "sweep": lambda sessions, _: sessions.sweep(),
    "clean up": lambda sessions, _: sessions.cleanup_stale_sessions(24),
    "adopt": lambda sessions, _: sessions.adopt_all(),
}
LOOKING: dict[str, Do] = {
    "report": lambda sessions, _: sessions.report(),
    "get": lambda sessions, session: sessions.get(session),
    "page": lambda sessions, _: sessions.page(),
    "judge": lambda sessions, session: sessions.judge(session),
}
everything = pytest.mark.parametrize("do", EVERYTHING.values(), ids=EVERYTHING)
everything_and_looking = pytest.mark.parametrize(
    "do", (EVERYTHING | LOOKING).values(), ids=EVERYTHING | LOOKING
)


def upload_into(sessions: SessionLedger, session: str) -> None:
    with sessions.upload(session) as upload:
        upload.open_file("new.txt")
        upload.write(b"new")
        upload.commit()


class Place:
    """A stage with some live sessions and some stale ones, of which each is known to the byte."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        with stage.open() as sessions:
            self.live = [self.built(sessions, "live") for _ in range(4)]
            self.drifted = [self.built(sessions, "drifted") for _ in range(2)]
            self.stale = [self.built(sessions, "stale") for _ in range(3)]
        self.trees = self.seen()

    def built(self, sessions: SessionLedger, scene: str) -> str:
        return str(SCENES[scene].build(sessions).session_id)

    def seen(self) -> dict[str, Tree]:
        names = set(os.listdir(self.stage.root)) - {".coatcheck"}
        return {name: tree(self.stage.root / name) for name in names}

    def nothing_has_changed(self) -> None:
        assert self.seen() == self.trees

    def no_live_session_is_harmed(self) -> None:
        seen = self.seen()
        for session in self.live + self.drifted:
            assert seen.get(session) == self.trees[session], f"{session} was harmed"

    def judge(self, fates: dict[str, Fate] | None = None, *, stale: Fate = GONE) -> Judge:
        """`fates`: of those that share the fate of no others."""
        may = dict.fromkeys(self.live + self.drifted, LIVE) | dict.fromkeys(self.stale, stale)
        expected = {
            name: Expected({fate}, [self.trees[name]])
            for name, fate in (may | (fates or {})).items()
        }
        return Judge(self.stage, expected)


@pytest.fixture
def place(stage: Stage) -> Place:
    return Place(stage)


# Locked


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Another program is in the middle of a write transaction."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    patient: Any = Database.__init__
    monkeypatch.setitem(patient.__kwdefaults__, "timeout_s", 0.05)


@everything
@pytest.mark.usefixtures("impatient")
def test_a_ledger_that_stays_locked_is_told_and_everything_may_be_repeated(
    place: Place, do: Do
) -> None:
    with place.stage.open() as sessions:
        with locked(place.stage.ledger), pytest.raises(LedgerUnavailable, match="stayed locked"):
            do(sessions, place.live[0])
        place.nothing_has_changed()
        do(sessions, place.live[0])


@pytest.mark.usefixtures("impatient")
def test_a_locked_ledger_can_be_read(place: Place) -> None:
    with place.stage.open() as sessions, locked(place.stage.ledger):
        for do in LOOKING.values():
            do(sessions, place.live[0])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("hook", ["set_aside", "bury"])
def test_a_ledger_that_gets_locked_in_mid_sweep_loses_nothing(place: Place, hook: str) -> None:
    with closing(sqlite3.connect(place.stage.ledger, isolation_level=None)) as other:

        def begin() -> None:
            other.execute("BEGIN IMMEDIATE")

        refused = pytest.raises(LedgerUnavailable, match="stayed locked")
        with place.stage.open() as sessions, doing((moves, hook), before=begin), refused:
            sessions.sweep()
    place.no_live_session_is_harmed()
    place.judge().a_sweep_settles_it()


# Deleted or replaced while it is open


def delete(ledger: Path) -> None:
    for name in ("", "-wal", "-shm"):
        Path(f"{ledger}{name}").unlink()


def replace(ledger: Path) -> None:
    copy = ledger.with_name("copy.db")
    shutil.copy(ledger, copy)
    os.replace(copy, ledger)


gone = pytest.mark.parametrize("take_away", [delete, replace])


@gone
@everything_and_looking
def test_a_ledger_that_is_gone_while_open_is_noticed_by_all_and_nothing_is_changed(
    place: Place, do: Do, take_away: Callable[[Path], None]
) -> None:
    with place.stage.open() as sessions:
        take_away(place.stage.ledger)
        with pytest.raises(LedgerGone, match="start again"):
            do(sessions, place.live[0])
    place.nothing_has_changed()


@gone
@pytest.mark.parametrize("hook", ["set_aside", "bury"])
def test_a_ledger_that_goes_in_mid_sweep_stops_the_sweep(
    place: Place, hook: str, take_away: Callable[[Path], None]
) -> None:
    taking = doing((moves, hook), before=lambda: take_away(place.stage.ledger))
    with place.stage.open() as sessions, taking, pytest.raises(LedgerGone):
        sessions.sweep()
    place.no_live_session_is_harmed()
    if hook == "set_aside":  # then nothing has been removed yet
        for session in place.stale:
            [where] = place.stage.places(session).values()
            assert tree(where) == place.trees[session]


@gone
@pytest.mark.parametrize("do", ["create", "upload", "touch", "claim", "delete"])
def test_a_ledger_that_goes_in_mid_write_is_no_success(
    place: Place, do: str, take_away: Callable[[Path], None]
) -> None:
    """Between the look at the file and the commit: what is committed then is lost in silence."""
    with place.stage.open() as sessions:
        engine = sessions.place.database.engine
        event.listen(engine, "commit", lambda _: take_away(place.stage.ledger), once=True)
        with pytest.raises(LedgerGone):
            EVERYTHING[do](sessions, place.live[0])
    place.nothing_has_changed()


def test_after_a_lost_ledger_what_was_touched_lives_and_what_was_stale_waits(place: Place) -> None:
    with place.stage.open() as sessions:
        delete(place.stage.ledger)
        with pytest.raises(LedgerGone):
            sessions.sweep()
    with pytest.raises(RootMismatch, match="coatcheck adopt"):
        place.stage.open()
    place.nothing_has_changed()
    judge = place.judge(stale=WAITING)
    judge.adopt = True
    judge.a_sweep_settles_it()


# Truncated or corrupted


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_a_truncated_ledger_is_refused_with_the_way_out(place: Place, share: float) -> None:
    size = place.stage.ledger.stat().st_size
    os.truncate(place.stage.ledger, int(size * share) + 100)
    with pytest.raises(LedgerDamaged, match="put a copy back"), place.stage.open() as sessions:
        sessions.sweep()
    place.nothing_has_changed()
    out_of_it(place)


def test_an_emptied_ledger_is_a_new_one_that_does_not_belong_here(place: Place) -> None:
    os.truncate(place.stage.ledger, 0)
    with pytest.raises(RootMismatch, match="coatcheck adopt"):
        place.stage.open()
    place.nothing_has_changed()


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_ledger_that_is_truncated_while_open_sweeps_nothing(place: Place, share: float) -> None:
    with place.stage.open() as sessions:
        size = place.stage.ledger.stat().st_size
        os.truncate(place.stage.ledger, int(size * share))
        with pytest.raises(LedgerUnavailable):
            sessions.sweep()
    place.nothing_has_changed()


def out_of_it(place: Place) -> None:
    """What the message says: the file moved away, and the root adopted anew."""
    for file in place.stage.ledger.parent.iterdir():
        file.rename(file.with_name(f"away-{file.name}"))
    with place.stage.open(adopt=True) as sessions:
        sessions.adopt_all()
    place.judge(stale=WAITING).a_sweep_settles_it()


def damage(ledger: Path, dice: random.Random) -> str:
    """As a disk does it: a page of noise or of zeros, a run of noise, or single bits."""
    size = ledger.stat().st_size
    page = dice.randrange(size // PAGE) * PAGE
    kind = dice.choice(("noise", "zeros", "run", "bits"))
    with ledger.open("r+b") as file:
        if kind in ("noise", "zeros"):
            file.seek(page)
            file.write(dice.randbytes(PAGE) if kind == "noise" else bytes(PAGE))
        elif kind == "run":
            file.seek(page + dice.randrange(PAGE - 500))
            file.write(dice.randbytes(500))
        else:
            for _ in range(10):
                at = dice.randrange(size)
                file.seek(at)
                [byte] = file.read(1)
                file.seek(at)
                file.write(bytes([byte ^ 1 << dice.randrange(8)]))
    return f"{kind} in page {page // PAGE}"


def damaged_by(place: Place, seed: int) -> int:
    """Damages a copy of the ledger, asks everything of it, and tells how often it was refused."""
    dice = random.Random(seed)
    what = damage(place.stage.ledger, dice)
    refused = 0
    try:
        with place.stage.open() as sessions:
            for do in (LOOKING | EVERYTHING | {"again": EVERYTHING["sweep"]}).values():
                try:
                    do(sessions, place.live[0])
                except CoatcheckError as error:
                    refused += isinstance(error, LedgerDamaged)
            sessions.health()
    except CoatcheckError as error:
        refused += isinstance(error, LedgerDamaged | RootMismatch)
    except Exception as error:
        error.add_note(f"seed {seed}: {what}")
        raise
    seen = place.seen()
    for session in place.live[1:] + place.drifted:
        assert seen.get(session) == place.trees[session], f"seed {seed}: {what}: {session} is lost"
    return refused


def corrupt(stage: Stage, seeds: range) -> None:
    place = Place(stage)
    sound = stage.folder / "sound"
    stage.here.rename(sound)
    refused = 0
    for seed in seeds:
        shutil.rmtree(stage.here, ignore_errors=True)
        copy_with_times(sound, stage.here)
        refused += damaged_by(place, seed) > 0
    print(f"{len(seeds)} damaged ledgers, {refused} of them noticed")
    assert refused > len(seeds) // 3


def copy_with_times(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def test_no_live_session_is_lost_to_a_corrupted_ledger(stage: Stage) -> None:
    corrupt(stage, range(SEED, SEED + 15))


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_no_live_session_is_lost_to_any_corrupted_ledger(stage: Stage) -> None:
    corrupt(stage, range(2000))


# Old, or of another root


def test_an_old_copy_is_settled_by_what_the_disk_knows(place: Place) -> None:
    stage = place.stage
    old = stage.folder / "old.db"
    shutil.copy(stage.ledger, old)
    with stage.open() as sessions:
        made = place.built(sessions, "live")
        claimed, deleted, touched = place.live[0], place.live[1], place.stale[0]
        sessions.claim(claimed, into="spring")
        sessions.delete_session(deleted)
        sessions.touch(touched)
        restored = place.built(sessions, "waiting")
        sessions.restore(restored)
        place.trees |= {name: tree(stage.root / name) for name in (made, restored, touched)}
    shutil.copy(old, stage.ledger)

    fates = dict.fromkeys((claimed, deleted), GONE)
    fates |= dict.fromkeys((made, touched, restored), LIVE)
    place.judge(fates).a_sweep_settles_it()

    assert tree(stage.claims / "spring") == place.trees[claimed]
    assert stage.rows()[claimed]["state"] == State.MISSING


def test_a_ledger_of_another_root_is_refused_and_neither_root_is_touched(
    place: Place, tmp_path: Path, empty_ledger: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Place(Stage(tmp_path / "other", empty_ledger))
    for name in ("ledger.db", "ledger.db.reserve"):
        shutil.copy(other.stage.ledger.with_name(name), place.stage.ledger.with_name(name))
    with pytest.raises(RootMismatch, match="do not belong together"):
        place.stage.open()
    place.nothing_has_changed()
    other.nothing_has_changed()
