"""What a power cut leaves: what is durable, in which order, and what any lost tail comes to.

SIGKILL cannot show it, since the system still writes what a killed process has asked for. So the
order of syncs is read from a trace; and the ledger's last transactions, and the disk's last
renames, are taken back, each to any length, as a journal would lose them.
"""

import json
import os
import random
import re
import signal
import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger import SessionLedger, removal, system
from ledger.plan import TICK_US
from ledger.removal import Removed
from tests.everyday import every_day
from tests.hostile import blows, operations, tracing
from tests.hostile.operations import EVERY_DAY, OPERATIONS
from tests.hostile.scenario import GONE, UNKNOWN, Expected, Judge, Operation, Said, Stage
from tests.hostile.tracing import Call, needs_strace

SEED = 20

# -- In which order


DURABLE = ["write LEDGER", "sync LEDGER"]


@needs_strace
def test_a_claim_is_durable_step_by_step_before_it_is_answered(stage: Stage) -> None:
    steps = steps_of(operations.Claim, stage)
    assert [step for step in steps if "probe" not in step] == [
        *("mkdir claims", "sync ."),
        *("mkdir claims/spring", "sync claims"),
        *("mkdir claims/spring/orders", "sync claims/spring"),
        *DURABLE,
        *("sync ROOT/ITS/photo.jpg", "sync ROOT/ITS/notes.txt", "sync ROOT/ITS"),
        "ROOT/ITS -> claims/spring/orders/17",
        *("sync claims/spring/orders", "sync ROOT"),
        *DURABLE,
        "said claimed",
    ]


@needs_strace
def test_a_claim_that_another_began_is_durable_before_it_is_answered(stage: Stage) -> None:
    steps = steps_of(ClaimBegun, stage)
    assert [step for step in steps if "probe" not in step] == [
        *("sync .", "sync claims", "sync ROOT"),
        *DURABLE,
        "said claimed",
    ]


@needs_strace
def test_a_session_is_created_with_all_its_files_and_then_recorded(stage: Stage) -> None:
    assert steps_of(operations.CreateWithFiles, stage) == [
        "mkdir INCOMING/NEW",
        *("write INCOMING/NEW/first.txt", "write INCOMING/NEW/second.txt"),
        "utimens INCOMING/NEW",
        "INCOMING/NEW -> ROOT/NEW",
        "write LEDGER",
        "said NEW",
    ]


@needs_strace
def test_a_deletion_is_written_down_before_and_after_its_rename(stage: Stage) -> None:
    assert steps_of(operations.Delete, stage) == [
        "write LEDGER",
        "ROOT/ITS -> TRASH/user-ITS",
        "write LEDGER",
        "said deleted",
    ]


@needs_strace
def test_a_sweep_writes_down_before_it_renames_and_before_it_buries(stage: Stage) -> None:
    assert steps_of(SweepStale, stage) == [
        "write LEDGER",
        "ROOT/ITS -> TRASH/sweep-ITS",
        "write LEDGER",
        "TRASH/sweep-ITS -> TRASH/dead",
        *("unlink TRASH/dead/photo.jpg", "unlink TRASH/dead/notes.txt", "unlink TRASH/dead"),
        "write LEDGER",
        "said swept",
    ]


@needs_strace
def test_a_touch_is_on_the_disk_as_well_as_in_the_ledger(stage: Stage) -> None:
    assert steps_of(operations.Touch, stage) == [
        *("write LEDGER", "utimens ROOT/ITS", "said touched")
    ]


@needs_strace
def test_a_root_and_its_ledger_are_durable_once_they_are_open(stage: Stage) -> None:
    steps = steps_of(operations.Open, stage)
    assert steps[:2] == ["mkdir ledger", "sync ."]
    at = steps.index("mkdir ROOT")
    house = "ROOT/.coatcheck"
    assert steps[at:] == [
        *("mkdir ROOT", "sync ."),
        *(f"mkdir {name}" for name in (house, "TRASH", "INCOMING", f"{house}/reports")),
        *(f"write {house}/root-id.new", f"sync {house}/root-id.new"),
        f"{house}/root-id.new -> {house}/root-id",
        *(f"sync {house}", "sync ROOT"),
        *DURABLE,
        "write LEDGER",
        "said opened",
    ]


class SweepStale(operations.OnOne):
    scene = "stale"
    before = {GONE}

    def act(self, sessions: SessionLedger, said: Said) -> None:
        sessions.sweep()
        said("swept")


class ClaimBegun(operations.OnOne):
    scene = "claim_half_done"

    def act(self, sessions: SessionLedger, said: Said) -> None:
        sessions.claim(self.its, self.destinations[self.its])
        said("claimed")


def steps_of(kind: type[Operation], stage: Stage) -> list[str]:
    """What an operation asks of the disk, until it has said its word; repeats left out."""
    operation = kind()
    operation.set_up(stage)
    calls = tracing.calls_of(lambda said: run_told(operation, said), stage.folder, tracing.CHANGES)
    words = [at for at, call in enumerate(calls) if call.name == "said"]
    steps = [_step(call) for call in calls[words[0] + 1 : words[-1] + 1]]
    steps = [_short(step, stage, operation) for step in steps if step]
    return [step for step, before in zip(steps, ["", *steps], strict=False) if step != before]


def run_told(operation: Operation, said: Said) -> None:
    """Says when it begins: once the ledger is open, unless opening it is the operation."""
    if type(operation).run is not Operation.run:
        said("begin")
        operation.run(said)
        return
    with operation.stage.open() as sessions:
        said("begin")
        operation.act(sessions, said)


def _step(call: Call) -> str:
    at = "/".join(call.paths[:2])
    match call.name:
        case "said" | "mkdir":
            return f"{call.name} {call.paths[0]}"
        case "fsync" | "fdatasync":
            return f"sync {call.paths[0]}"
        case "renameat" | "renameat2":
            return f"{at} -> {'/'.join(call.paths[2:4])}"
        case "mkdirat" | "unlinkat" | "utimensat":
            return f"{call.name.removesuffix('at')} {at}"
        case "write" | "pwrite64" if not call.paths[0].endswith("-shm"):
            return f"write {call.paths[0]}"
    return ""


def _short(step: str, stage: Stage, operation: Operation) -> str:
    for place, name in (
        (stage.ledger.with_name("ledger.db-wal"), "LEDGER"),
        (stage.trash, "TRASH"),
        (stage.incoming, "INCOMING"),
        (stage.root, "ROOT"),
    ):
        step = step.replace(str(place), name)
    step = step.replace(f"{stage.here}/", "").replace(str(stage.here), ".")
    if isinstance(operation, operations.OnOne):
        step = step.replace(operation.its, "ITS")
    step = re.sub(r"\b(user|sweep)-\d+-\d+-[0-9a-f]{12}-", r"\1-", step)
    step = re.sub(r"\bdead-\w+", "dead", step)
    return re.sub(r"\b[a-z2-7]{26}\b", "NEW", step)


# -- What any lost tail comes to


@dataclass
class Lost:
    """What the power cut took: all but the first so many commits, and the last renames."""

    commits_kept: int
    renames_lost: int


class Cut:
    """Runs an operation to its end, removing no bytes, and then takes back what was not synced."""

    def __init__(self, kind: type[Operation], stage: Stage) -> None:
        self.stage = stage
        self.operation = kind()

    def run(self) -> tuple[int, int]:
        """How many commits, and how many renames, there are to be lost."""
        self.operation.set_up(self.stage)
        self._renamed = self.stage.here / "renamed"
        told = blows.hit(self._and_the_power_goes, blows.Points(0, blows.Kill()))
        assert told.died, told.in_words
        self.said = told.said
        lines = self._renamed.read_text().splitlines() if self._renamed.exists() else []
        self._renames: list[tuple[str, str]] = [tuple(json.loads(line)) for line in lines]
        self._commits = commits_of(self.stage.wal)
        return len(self._commits), len(self._renames)

    def _and_the_power_goes(self, said: Said) -> None:
        keeping_bytes()
        noting_renames(self._renamed)
        dying_before_it_closes()
        self.operation.run(said)

    def lose(self, lost: Lost) -> None:
        if self.stage.wal.exists():
            ends = [0, *self._commits]
            # Two threads need not commit as often in each run.
            os.truncate(self.stage.wal, ends[min(lost.commits_kept, len(ends) - 1)])
        undone = self._renames[max(0, len(self._renames) - lost.renames_lost) :]
        for source, target in reversed(undone):
            if os.path.lexists(target) and not os.path.lexists(source):
                os.makedirs(os.path.dirname(source), exist_ok=True)
                os.rename(target, source)
        if undone:
            self._ended_after_the_rename()

    def _ended_after_the_rename(self) -> None:
        """Our renaming back set a ctime, which a power cut would not."""
        end = system.now_us() + TICK_US
        ended = f"UPDATE coatcheck_session SET ended_at = {end} WHERE ended_at > 0"
        with closing(sqlite3.connect(self.stage.ledger)) as connection, connection:
            connection.execute(ended)


def commits_of(wal: Path) -> list[int]:
    """Where, in a WAL, each transaction ends, by the headers of its frames; in bytes."""
    if not wal.exists() or not (content := wal.read_bytes()):
        return []
    page_size, salts = struct.unpack_from(">I", content, 8)[0], content[16:24]
    ends = []
    for at in range(32, len(content) - 24 - page_size + 1, 24 + page_size):
        pages_after = struct.unpack_from(">I", content, at + 4)[0]
        if content[at + 8 : at + 16] == salts and pages_after:
            ends.append(at + 24 + page_size)
    return ends


def noting_renames(file: Path) -> None:
    """Only in a child: every rename that succeeds is noted, by full paths."""

    def note(rename: Any) -> Any:
        def noted(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            paths = path_of(src_dir_fd, source), path_of(dst_dir_fd, target)
            rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            with file.open("a") as lines:
                lines.write(json.dumps(paths) + "\n")

        return noted

    system.rename_noreplace = note(system.rename_noreplace)


def dying_before_it_closes() -> None:
    """Only in a child: closing would checkpoint, and leave nothing to be lost."""

    def leave(_: SessionLedger, raised: type[BaseException] | None, *__: object) -> None:
        if raised is None:
            os.kill(os.getpid(), signal.SIGKILL)

    SessionLedger.__exit__ = leave  # type: ignore[assignment,method-assign]


def path_of(dir_fd: int, name: str) -> str:
    return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)


def keeping_bytes() -> None:
    """Only in a child: the unlinks of what is dead are the first that a power cut takes back."""

    def remove_dead(*_: Any, **__: Any) -> Removed:
        return Removed(0, ())

    removal.remove_dead = remove_dead


def judge_of(cut: Cut, lost: Lost) -> Judge:
    """Without the ledger's tail alone, what was said holds; without the last renames, either."""
    operation = cut.operation
    judge = operation.judge(cut.said if not lost.renames_lost else [])
    judge.lost_its_tail = True
    _allow_forgotten(judge)
    if not lost.renames_lost:
        return judge
    expected = dict(judge.expected)
    if isinstance(operation, operations.OnOne):
        trees = [*operation.its_trees(False), *operation.its_trees(True)]
        expected[operation.its] = Expected(operation.before | operation.after, trees)
    if isinstance(operation, operations.Create):
        for session_id in expected.keys() - operation.may.keys():
            expected[session_id].fates.add(GONE)
    judge.expected = expected
    _allow_forgotten(judge)
    return judge


def _allow_forgotten(judge: Judge) -> None:
    """What is gone may be gone from the ledger as well: the row of its end was the tail."""
    for expected in judge.expected.values():
        if GONE in expected.fates:
            expected.fates = expected.fates | {UNKNOWN}


def cut_everywhere(kind: type[Operation], stage: Stage, most: int) -> None:
    """Loses each tail of the ledger, each with each tail of the renames, or so many of them."""
    cut = Cut(kind, stage)
    commits, renames = cut.run()
    assert commits
    tails = [Lost(kept, undone) for kept in range(commits + 1) for undone in range(renames + 1)]
    tried = random.Random(SEED).sample(tails, min(most, len(tails)))
    for lost in tried:
        cut.run()
        cut.lose(lost)
        judge = judge_of(cut, lost)
        try:
            judge.nothing_is_half_there()
            judge.a_sweep_settles_it()
        except AssertionError as error:
            error.add_note(f"{kind.__name__}: {lost} of {commits} commits, {renames} renames")
            raise
    print(f"{kind.__name__}: {len(tails)} tails to be lost, {len(tried)} tried")


# What these do is synced, as the traces above show: nothing of it can be lost.
SYNCED = {operations.Claim, operations.Open, operations.Adopt, operations.AdoptAnew}
WITH_TAILS = [kind for kind in OPERATIONS if kind not in SYNCED]


@every_day(EVERY_DAY, WITH_TAILS, ids=lambda kind: kind.__name__)
def test_any_lost_tail_is_finished_or_taken_back(kind: type[Operation], stage: Stage) -> None:
    cut_everywhere(kind, stage, most=2)


@pytest.mark.torture
@pytest.mark.parametrize("kind", WITH_TAILS, ids=lambda kind: kind.__name__)
def test_every_lost_tail_is_finished_or_taken_back(kind: type[Operation], stage: Stage) -> None:
    cut_everywhere(kind, stage, most=600)
