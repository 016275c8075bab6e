"""Disks that are really full, with root and ledger on them: a sweep frees them by itself."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from ledger import (
    LedgerFull,
    NoSpace,
    SessionLedger,
    Settings,
    State,
    SweepStopped,
    guards,
    system,
)
from tests.hostile.scenario import HOUR_US, told, tree
from tests.hostile.worlds import enter_own_mounts, in_child, needs_root

HOUSE = Path(__file__).parents[2]
FULL = (NoSpace, LedgerFull)
MIB = 1 << 20


@dataclass
class Disk:
    """A small file system of one's own, to be filled; with root, ledger and claims on it."""

    path: Path
    root: Path
    ledger: Path
    content: bytes

    def open(self, *, ahead: int = 0) -> SessionLedger:
        settings = Settings(
            root=self.root,
            ledger=f"sqlite:///{self.ledger}",
            claims=self.root.with_name("claims"),
        )
        return SessionLedger.open(settings, clock=lambda: system.now_us() + ahead)

    @property
    def reserve(self) -> int:
        return os.stat(f"{self.ledger}.reserve").st_blocks * 512

    def fill(self) -> None:
        """Another program takes what is left, to the last block."""
        number = len(list(self.path.glob("filler-*")))
        with open(self.path / f"filler-{number}", "wb", buffering=0) as filler:
            for size in (MIB, 4096, 1):
                try:
                    while filler.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue
        assert self.free() < 4096

    def free(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def old(self, sessions: SessionLedger, hours: float = 30) -> str:
        """A session that was last used so long ago."""
        at = system.now_us() - round(hours * HOUR_US)
        session = self.upload(SessionLedger(sessions.place, lambda: at))
        for path in (self.root / session / "file", self.root / session):
            os.utime(path, ns=(at * 1000, at * 1000))
        return session

    def upload(self, sessions: SessionLedger) -> str:
        with sessions.upload(None) as arriving:
            arriving.open_file("file")
            arriving.write(self.content)
            return arriving.commit()[0].session_id

    def fill_with_sessions(self, sessions: SessionLedger) -> set[str]:
        """Uploads until there is no room; what each was told holds."""
        done: set[str] = set()
        until(FULL, lambda: done.add(self.upload(sessions)))
        return done

    def is_whole(self, session: str) -> bool:
        return tree(self.root / session) == {"file": told(self.content)}

    def standing(self) -> set[str]:
        return set(os.listdir(self.root)) - {".coatcheck"}


def until(refused: type[Exception] | tuple[type[Exception], ...], act: Callable[[], None]) -> None:
    with suppress(*refused if isinstance(refused, tuple) else (refused,)):
        while True:
            act()


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Disk]:
    enter_own_mounts()
    path = folder / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=True)
    yield disk_at(path, size)


@contextmanager
def ext4(folder: Path, size: int) -> Iterator[Disk]:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    enter_own_mounts()
    image, path = folder / "image", folder / "disk"
    path.mkdir()
    image.touch()
    os.truncate(image, size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no loop device to be had: {mounted.stderr.decode().strip()}")
    try:
        yield disk_at(path, size)
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def disk_at(path: Path, size: int) -> Disk:
    return Disk(path, path / "temp", path / "ledger" / "ledger.db", b"x" * (size // 200))


on_tmpfs = [
    pytest.param(lambda folder, n=n: tmpfs(folder, n * MIB), id=f"tmpfs-{n}-MiB")
    for n in (2, 8, 32)
]
on_ext4 = pytest.param(
    lambda folder: ext4(folder, 24 * MIB),
    id="ext4-24-MiB",
    marks=pytest.mark.may_skip,  # a container may have no loop devices
)
MakeDisk = Callable[[Path], AbstractContextManager[Disk]]


def sweep_frees(disk: Disk, sessions: SessionLedger, stale: set[str], live: set[str]) -> None:
    with pytest.raises(FULL):
        disk.upload(sessions)
    assert disk.standing() == stale | live  # of what was refused, nothing is left

    result = sessions.sweep()

    assert (result.removed, result.failures) == (len(stale), [])
    assert disk.standing() == live
    for session in live:
        assert disk.is_whole(session)
        assert sessions.get(session).state is State.ACTIVE
    assert {sessions.get(session).state for session in stale} == {State.EXPIRED}
    assert disk.free() > len(stale) * len(disk.content) // 2
    assert disk.reserve >= os.statvfs(disk.path).f_blocks * os.statvfs(disk.path).f_frsize // 100
    assert disk.upload(sessions) in disk.standing()
    assert sessions.report().settled
    assert sessions.health().sweep is None


@needs_root
@pytest.mark.parametrize("make", [*on_tmpfs, on_ext4])
def test_a_sweep_frees_a_full_disk(make: MakeDisk, tmp_path: Path) -> None:
    def act() -> None:
        with make(tmp_path) as disk, disk.open() as sessions:
            stale = {disk.old(sessions) for _ in range(30)}
            live = disk.fill_with_sessions(sessions)
            disk.fill()
            sweep_frees(disk, sessions, stale, live)

    in_child(act)


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("make", [on_tmpfs[-1], on_ext4])
def test_a_full_disk_is_freed_after_a_restart(make: MakeDisk, tmp_path: Path) -> None:
    def act() -> None:
        with make(tmp_path) as disk:
            with disk.open() as sessions:
                stale = {disk.old(sessions) for _ in range(30)}
                live = disk.fill_with_sessions(sessions)
            assert not disk.ledger.with_name("ledger.db-wal").exists()
            disk.fill()
            with disk.open() as sessions:
                disk.fill()
                sweep_frees(disk, sessions, stale, live)

    in_child(act)


@pytest.mark.slow
@needs_root
def test_the_command_line_frees_a_full_disk(tmp_path: Path) -> None:
    def act() -> None:
        with tmpfs(tmp_path, 32 * MIB) as disk:
            with disk.open() as sessions:
                for _ in range(30):
                    disk.old(sessions)
            disk.fill()
            done = coatcheck(disk, "sweep")
            assert done.returncode == 0, done.stderr
            assert disk.standing() == set()

    in_child(act)


def coatcheck(disk: Disk, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "COATCHECK_ROOT": str(disk.root),
        "COATCHECK_LEDGER": f"sqlite:///{disk.ledger}",
        "COATCHECK_CLAIMS": str(disk.root.with_name("claims")),
    }
    command = [sys.executable, str(HOUSE / "coatcheck.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


# What waits in the trash


def waiting(disk: Disk, sessions: SessionLedger, hours: float) -> str:
    """A session that was swept, and may be restored for so long."""
    session = disk.old(sessions)
    patient = sessions.settings.model_copy(update={"undo_hours": hours})
    sessions.settings, impatient = patient, sessions.settings
    try:
        assert sessions.sweep().waiting >= 1
    finally:
        sessions.settings = impatient
    return session


@contextmanager
def without_a_way_out(disk: Disk, sessions: SessionLedger) -> Iterator[None]:
    """Full, the reserve eaten by somebody, and a reader keeps the log from beginning anew."""
    with closing(sqlite3.connect(disk.ledger)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM coatcheck_root").fetchall()
        sessions.place.reserve.give_up()
        disk.fill()
        beating = partial(guards.beat, sessions.place, sessions.clock())
        until(LedgerFull, beating)
        yield


@needs_root
def test_what_waits_makes_room_and_what_is_due_first_goes_first(tmp_path: Path) -> None:
    def act() -> None:
        with tmpfs(tmp_path, 16 * MIB) as disk, disk.open() as sessions:
            hours = [40, 10, 30, 20, *range(50, 70)]
            sessions_by_due = {hour: waiting(disk, sessions, hour) for hour in hours}
            live = disk.fill_with_sessions(sessions)
            with without_a_way_out(disk, sessions):
                assert sessions.sweep().failures == []
            left = [h for h in sorted(hours) if waits(sessions, sessions_by_due[h])]
            assert 0 < len(left) < len(hours)  # some make room for the others
            assert left == sorted(hours)[-len(left) :]
            assert disk.standing() == live
            assert disk.reserve >= 16 * MIB // 100
            with suppress(LedgerFull):  # it has made room in the log for the next one
                sessions.touch(live.pop())
            sessions.delete_session(live.pop())
            sessions.restore(sessions_by_due[left[0]])
            assert disk.is_whole(sessions_by_due[left[0]])

    in_child(act)


@needs_root
def test_what_waits_stays_where_its_going_would_make_no_room_for_the_ledger(tmp_path: Path) -> None:
    def act() -> None:
        with tmpfs(tmp_path, 16 * MIB) as disk:
            disk.root = tmp_path / "elsewhere" / "temp"
            disk.root.parent.mkdir()
            with disk.open() as sessions:
                session = waiting(disk, sessions, 10)
                refused = pytest.raises(LedgerFull, match="free some space")
                with without_a_way_out(disk, sessions), refused:
                    sessions.sweep()
                assert waits(sessions, session)

    in_child(act)


def waits(sessions: SessionLedger, session: str) -> bool:
    trash = os.listdir(Path(sessions.place.root.path, ".coatcheck/trash"))
    return any(name.endswith(session) for name in trash)


@needs_root
def test_what_waits_stays_while_the_clock_is_not_trusted(tmp_path: Path) -> None:
    def act() -> None:
        with tmpfs(tmp_path, 16 * MIB) as disk, disk.open() as sessions:
            session = waiting(disk, sessions, 10)
            disk.fill_with_sessions(sessions)
            jumped = SessionLedger(sessions.place, lambda: system.now_us() + 24 * HOUR_US)
            with without_a_way_out(disk, sessions), pytest.raises((SweepStopped, LedgerFull)):
                jumped.sweep()
            assert waits(sessions, session)

    in_child(act)
