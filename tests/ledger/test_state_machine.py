"""Sessions as they live, against a small model that knows nothing of ledgers and findings.

Time moves in whole hours and max age ends on a half, so that the seconds a test takes decide
nothing. What the kernel dates, it dates by its own clock: as of the hour in which the test began.
"""

import copy
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger import (
    NameTaken,
    RootMismatch,
    SessionEnded,
    SessionError,
    SweepStopped,
    counts,
    queries,
)
from ledger.disk import TrashName
from tests.ledger.world import HOUR_US, Clock, World

MAX_AGE = 24.5
MINUTE_US = 60_000_000
STRAYS = ["young", "old"]

hours = st.sampled_from([1, 10, 24, 25, 30])
files = st.sampled_from(["photo.jpg", "list.txt"])
numbers = st.integers(0, 9)


@dataclass
class Row:
    """What this ledger knows of a session."""

    state: str
    touch: int
    touched: bool  # by a touch that this ledger saw


@dataclass
class Directory:
    files: dict[str, bytes]
    mtimes: dict[str, int]

    @property
    def used(self) -> int:
        return max(self.mtimes.values())

    def write(self, name: str, content: bytes, at: int) -> None:
        self.files[name] = content
        self.mtimes |= {name: at, ".": at}


@dataclass
class Waiting:
    directory: Directory
    seen: int
    due: int


@dataclass
class Known:
    """All that is in the ledger's file, and goes with it."""

    rows: dict[str, Row] = field(default_factory=dict)
    root_id: str = ""
    beat: tuple[int, int] = (0, 0)
    steady_since: int | None = None  # None: the clock is trusted


class Sessions(RuleBasedStateMachine):
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.folder = Path(tempfile.mkdtemp(dir=self.template.parent))
        shutil.copy(self.template, self.folder / "ledger.db")
        self.clock = Clock()
        self.patch.setattr("ledger.system.boottime_us", self.clock.uptime)
        self.known = Known()
        self.root: dict[str, Directory] = {}
        self.trash: dict[str, list[Waiting]] = {}
        self.claimed: dict[str, Directory] = {}
        self.copied: Known | None = None
        self.began = self.clock()
        self.jumped = False

    @initialize(undo=st.sampled_from([0, 0, 3]), passed=st.sampled_from([0, 25]))
    def opens(self, undo: int, passed: int) -> None:
        self.undo = undo * HOUR_US
        self.world = World(
            self.folder,
            self.clock,
            options={
                "max_age_hours": MAX_AGE,
                "undo_hours": undo,
                "brake": 10_000,
                "keep_history_days": 10_000,
            },
        )
        self.opened(new_root=True)
        # Something of each kind, so that no run is about an empty root.
        for file in ("photo.jpg", "list.txt", "photo.jpg"):
            self.create(file)
        self.clock.passes(passed)
        self.use(1, "touch", "")
        self.another_program(2, "writes", "photo.jpg")
        self.stray("young", 2)
        self.stray("old", 30)

    def teardown(self) -> None:
        self.world.sessions.close()
        self.patch.undo()
        shutil.rmtree(self.folder)

    # What the model is told

    @property
    def sessions(self):  # type: ignore[no-untyped-def]
        return self.world.sessions

    def opened(self, *, new_root: bool) -> None:
        if new_root:
            self.known.steady_since = None
            self.known.beat = (self.clock(), self.clock.uptime())
        self.known.root_id = self.sessions.place.root_id
        self.beats()

    def beats(self) -> None:
        """The clock is held against the machine's uptime."""
        wall, uptime = self.clock(), self.clock.uptime()
        moved = (wall - self.known.beat[0]) - (uptime - self.known.beat[1])
        if abs(moved) > 5 * MINUTE_US:
            self.known.steady_since = uptime
        self.known.beat = (wall, uptime)

    def is_old(self, at: int) -> bool:
        return self.clock() - at > round(MAX_AGE * HOUR_US)

    def pick(self, number: int, *, standing: bool = True) -> str | None:
        """One of the names, in the order in which they came up, as ids are random."""
        names = list(self.root if standing else {**self.root, **self.known.rows, **self.trash})
        return names[number % len(names)] if names else None

    def usable(self, name: str) -> bool:
        """Whether a user can work with it: it stands, and has not ended."""
        row = self.known.rows.get(name)
        return name in self.root and (row is None or row.state == "active")

    def used_now(self, name: str) -> None:
        """The ledger has seen a touch."""
        row = self.world.known(name)
        assert abs(row.last_touch_at - self.clock()) < MINUTE_US
        self.known.rows[name] = Row("active", row.last_touch_at, True)
        self.root[name].mtimes["."] = os.stat(self.world.root / name).st_mtime_ns // 1000

    # What users do

    @rule(file=files)
    def create(self, file: str) -> None:
        with self.sessions.upload(None) as upload:
            upload.open_file(file)
            upload.write(b"created")
            record, _ = upload.commit()
        name = record.session_id
        self.root[name] = Directory({file: b"created"}, {file: self.began, ".": 0})
        self.used_now(name)

    @rule(number=numbers, how=st.sampled_from(["touch", "upload", "take a file out"]), file=files)
    def use(self, number: int, how: str, file: str) -> None:
        name = self.pick(number, standing=how != "touch")
        if name is None:
            return
        if not self.usable(name):
            with pytest.raises(SessionError):
                self.sessions.touch(name)
            return
        if how == "touch":
            self.sessions.touch(name)
        elif how == "upload":
            with self.sessions.upload(name) as upload:
                upload.open_file(file, replace=True)
                upload.write(b"uploaded")
                upload.commit()
            self.root[name].write(file, b"uploaded", self.began)
        else:
            was_there = self.root[name].files.pop(file, None) is not None
            assert self.sessions.delete_file(name, file) is was_there
            self.root[name].mtimes.pop(file, None)
        self.used_now(name)

    @rule(number=numbers)
    def claim(self, number: int) -> None:
        name = self.pick(number)
        if name is None:
            return
        into = f"claim-{len(self.claimed)}"
        if self.usable(name):
            assert self.sessions.claim(name, into=into).state == "claimed"
            self.claimed[into] = self.root.pop(name)
            self.known.rows[name] = Row("claimed", 0, False)
        else:
            with pytest.raises(SessionEnded):
                self.sessions.claim(name, into=into)

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        name = self.pick(number, standing=False)
        if name is None:
            return
        row = self.known.rows.get(name)
        active = row is not None and row.state == "active"
        there = name in self.root or active or self.waits(name, row)
        assert self.sessions.delete_session(name) is there
        self.sessions._remover.close()  # its bytes are gone as well
        if not there:
            return
        if self.root.pop(name, None) is None:
            self.take_last_waiting(name)
        if row is not None or self.world.row(name) is not None:
            self.known.rows[name] = Row("deleted", 0, False)

    def waits(self, name: str, row: Row | None) -> bool:
        """Whether the trash holds what a DELETE would remove; what is due, is the sweep's."""
        if row is not None and row.state in ("deleted", "claimed"):
            return False
        entries = self.trash.get(name, [])
        return any(row is None or entry.due > self.clock() for entry in entries)

    def take_last_waiting(self, name: str) -> Waiting | None:
        entries = self.trash.get(name, [])
        if not entries:
            return None
        last = max(entries, key=lambda entry: (entry.seen, entry.due))
        entries.remove(last)
        if not entries:
            del self.trash[name]
        return last

    @precondition(lambda self: self.trash)
    @rule(number=numbers)
    def restore(self, number: int) -> None:
        name = list(self.trash)[number % len(self.trash)]
        if name in self.root:
            with pytest.raises(NameTaken):
                self.sessions.restore(name)
            return
        row = self.known.rows.get(name)
        if row is not None and row.state == "claimed":
            with pytest.raises(SessionError, match="stays claimed"):
                self.sessions.restore(name)
            return
        self.sessions.restore(name)
        waiting = self.take_last_waiting(name)
        assert waiting is not None
        self.root[name] = waiting.directory
        self.used_now(name)

    # What other programs do

    @rule(name=st.sampled_from(STRAYS), age=st.sampled_from([0, 2, 30]))
    def stray(self, name: str, age: int) -> None:
        if name in self.root:
            return
        if name in self.known.rows or name in self.trash:
            age = 0  # one that is made anew is newer than the former's end
        (self.world.root / name).mkdir()
        self.root[name] = Directory({}, {})
        self.put(name, "list.txt", b"a stray's", self.clock() - age * HOUR_US)

    @rule(number=numbers, how=st.sampled_from(["writes", "syncs", "moves away"]), file=files)
    def another_program(self, number: int, how: str, file: str) -> None:
        name = self.pick(number)
        if name is None:
            return
        if how == "writes":
            self.put(name, file, b"written", self.clock())
        elif how == "moves away":
            shutil.rmtree(self.world.root / name)
            del self.root[name]
        elif self.root[name].files:  # in place and keeping old times, as rsync does
            self.put_in_place(name, min(self.root[name].files), self.clock() - 100 * HOUR_US)

    def put(self, name: str, file: str, content: bytes, at: int) -> None:
        path = self.world.root / name
        (path / file).write_bytes(content)
        for each in (path / file, path):
            os.utime(each, ns=(at * 1000, at * 1000))
        self.root[name].write(file, content, at)

    def put_in_place(self, name: str, file: str, at: int) -> None:
        (self.world.root / name / file).write_bytes(b"synced")
        os.utime(self.world.root / name / file, ns=(at * 1000, at * 1000))
        self.root[name].files[file] = b"synced"
        self.root[name].mtimes[file] = at

    # Time

    @rule(passed=hours)
    def time_passes(self, passed: int) -> None:
        self.clock.passes(passed)

    @rule()
    def a_day_passes(self) -> None:
        self.clock.passes(25)

    @precondition(lambda self: not self.jumped)
    @rule(by=hours, for_good=st.booleans())
    def the_clock_jumps(self, by: int, for_good: bool) -> None:
        self.jumped = True
        self.clock.jumps(by)
        self.is_stopped()
        if not for_good:  # set back in silence, it has jumped once more
            self.clock.jumps(-by)
            self.is_stopped()

    def is_stopped(self) -> None:
        with pytest.raises(SweepStopped, match="clock"):
            self.sessions.sweep()
        self.beats()

    # Sweeps

    @rule(trust=st.booleans())
    def sweep(self, trust: bool) -> None:
        self.beats()
        with self.stopped_unless_trusted(trust) as stopped:
            done = self.sessions.sweep(trust_clock=trust)
        if not stopped:
            assert done.removed == self.expect_a_sweep()
            assert (done.failed, done.changed) == (0, 0)
            self.is_settled()

    @rule()
    def cleanup(self) -> None:
        self.beats()
        with self.stopped_unless_trusted(trust=False) as stopped:
            removed = self.sessions.cleanup_stale_sessions(MAX_AGE)
        if not stopped:
            assert removed == self.expect_a_sweep()
            self.is_settled()

    @rule(number=numbers)
    def a_report_is_carried_out_after_a_touch(self, number: int) -> None:
        report = self.sessions.report()
        name = self.pick(number)
        listed = False
        if name is not None and self.usable(name):
            # By its place: of the same name there may be something in the trash that is due.
            acts = [entry.path for entry in report.entries if entry.action != "keep"]
            listed = f"{self.sessions.place.root.path}/{name}" in acts
            self.sessions.touch(name)
            self.used_now(name)
        self.beats()
        with self.stopped_unless_trusted(trust=False) as stopped:
            done = self.sessions.sweep(report)
        if not stopped:
            assert done.removed == self.expect_a_sweep()
            assert (done.failed, done.changed) == (0, int(listed))
            self.is_settled()

    @contextmanager
    def stopped_unless_trusted(self, trust: bool) -> Iterator[list[bool]]:
        steady = self.known.steady_since
        trusted = steady is None or self.clock.uptime() - steady >= round(MAX_AGE * HOUR_US)
        stopped: list[bool] = []
        if trust or trusted:
            self.known.steady_since = None
            yield stopped
        else:
            stopped.append(True)
            with pytest.raises(SweepStopped, match="clock"):
                yield stopped

    def expect_a_sweep(self) -> int:
        """How many sessions it takes out of the root."""
        for name in list(self.trash):
            self.trash[name] = [w for w in self.trash[name] if w.due > self.clock()]
            if not self.trash[name]:
                del self.trash[name]
        taken = [name for name in list(self.root) if self.judged(name)]
        for name, row in self.known.rows.items():
            if row.state == "active" and name not in self.root:
                row.state = "missing"
        return len(taken)

    def judged(self, name: str) -> bool:
        """Whether it is taken; what stays, the ledger knows afterwards."""
        directory, row = self.root[name], self.known.rows.get(name)
        active = row is not None and row.state == "active"
        touch = row.touch if row is not None and active else 0
        if not self.is_old(max(directory.used, touch)):
            if row is None or not active:
                self.known.rows[name] = Row("active", directory.used, False)
            elif self.is_old(touch):
                row.touch = directory.used
            return False
        due = self.clock() + self.undo if self.undo else 0
        by_disk_alone = row is None or not active or not row.touched
        if by_disk_alone and not self.is_old(self.began):
            due = max(due, self.began + round(MAX_AGE * HOUR_US))
        if due:
            self.trash.setdefault(name, []).append(Waiting(directory, directory.used, due))
        del self.root[name]
        self.known.rows[name] = Row("expired", 0, False)
        return True

    def is_settled(self) -> None:
        report = self.sessions.report()
        assert report.settled
        assert all(entry.finding == "waiting" for entry in report.entries)
        again = self.sessions.sweep()
        assert (again.removed, again.changed, again.failed) == (0, 0, 0)

    # The ledger

    @rule()
    def copy_the_ledger(self) -> None:
        with (
            closing(sqlite3.connect(self.folder / "ledger.db")) as ledger,
            closing(sqlite3.connect(self.folder / "copy.db")) as copied,
        ):
            ledger.backup(copied)
        self.copied = copy.deepcopy(self.known)

    @rule()
    def lose_the_ledger(self) -> None:
        self.sessions.close()
        shutil.copy(self.template, self.folder / "ledger.db")
        self.known = Known()
        if self.root or self.trash:
            with pytest.raises(RootMismatch):
                self.world.open()
        self.world.sessions = self.world.open(adopt=True)
        self.opened(new_root=True)

    @precondition(lambda self: self.copied is not None)
    @rule()
    def put_the_copy_back(self) -> None:
        assert self.copied is not None
        self.sessions.close()
        now_on_disk = self.known.root_id
        shutil.copy(self.folder / "copy.db", self.folder / "ledger.db")
        self.known = copy.deepcopy(self.copied)
        anew = self.known.root_id != now_on_disk
        if anew:
            with pytest.raises(RootMismatch):
                self.world.open()
        self.world.sessions = self.world.open(adopt=True)
        self.opened(new_root=anew)

    # What holds after each step

    @invariant()
    def the_root_holds_what_it_should(self) -> None:
        assert self.world.standing() == self.root.keys()
        for name, directory in self.root.items():
            assert files_in(self.world.root / name) == directory.files

    @invariant()
    def nothing_claimed_is_lost(self) -> None:
        for name, directory in self.claimed.items():
            assert files_in(self.world.claims / name) == directory.files

    @invariant()
    def the_trash_holds_what_can_be_restored(self) -> None:
        waiting: dict[str, list[list[tuple[str, bytes]]]] = {}
        for entry in self.world.in_trash():
            name = TrashName.parse(entry)
            assert name is not None
            found = sorted(files_in(self.world.trash / entry).items())
            waiting.setdefault(name.session_id, []).append(found)
        assert {name: sorted(each) for name, each in waiting.items()} == {
            name: sorted(sorted(entry.directory.files.items()) for entry in entries)
            for name, entries in self.trash.items()
        }

    @invariant()
    def the_ledger_says_what_it_should(self) -> None:
        place = self.sessions.place
        with place.database.read() as connection:
            rows = queries.records_of(connection, place.root_id, [*self.root, *self.known.rows])
        assert {name: str(row.state) for name, row in rows.items()} == {
            name: row.state for name, row in self.known.rows.items()
        }
        for name in self.root.keys() & rows.keys():
            row = self.known.rows[name]
            if row.state == "active":
                assert (rows[name].touched, rows[name].last_touch_at) == (row.touched, row.touch)

    @invariant()
    def the_sessions_that_are_counted_are_those_that_there_are(self) -> None:
        place = self.sessions.place
        with place.database.read() as connection:
            kept = counts.kept(connection, place.root_id)
            seen = counts.by_looking(connection, place.root_id)
        assert {key: n for key, n in kept.items() if n and key[0] == counts.STATES} == seen


def files_in(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.timeout(1800)  # what fails is made small, which takes its time
@pytest.mark.parametrize(
    ("examples", "steps"), [(8, 20), pytest.param(2000, 60, marks=pytest.mark.torture)]
)
def test_sessions_live_as_the_model_says(empty_ledger: Path, examples: int, steps: int) -> None:
    Sessions.template = empty_ledger
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
        ),
    )
