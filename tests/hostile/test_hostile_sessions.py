"""Sessions that were made to lead a sweep, or a user's own request, astray. Nothing outside is
ever touched, what cannot be removed is reported with its reason, and the rest goes on."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import SessionEnded, SessionError, SessionNotFound
from tests.hostile.trash import fill
from tests.hostile.worlds import (
    bind,
    enter_own_mounts,
    in_child,
    mount_tmpfs,
    needs_root,
)
from tests.ledger.world import World, entry_of

OLD, YOUNG = 30, 1  # hours
CAPABILITIES_V3 = (ctypes.c_uint32 * 2)(0x20080522, 0)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A full directory that nobody may have touched when the test ends, not even its ctimes."""
    place = fill(tmp_path / "outside")
    fill(place / "deeper")
    before = fingerprint(place)
    yield place
    assert fingerprint(place) == before


def fingerprint(top: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that could have changed in a place, but for when it was read."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        facts = path.lstat()
        kept = (facts.st_mode, facts.st_uid, facts.st_ino, facts.st_nlink, facts.st_size)
        times = (facts.st_mtime_ns, facts.st_ctime_ns)
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        found[str(path.relative_to(top))] = (*kept, *times, content)
    return found


def needs_mounts(test: Any) -> Any:
    """Only root may mount, and in some containers not even root."""
    return needs_root(pytest.mark.may_skip(test))


def in_own_mounts(world: World, act: Callable[[], Any]) -> Any:
    """Does `act` in a child whose mounts nobody else sees, with a ledger opened there."""

    def child() -> Any:
        enter_own_mounts()
        with world.open() as world.sessions:
            return act()

    return in_child(child)


# -- What took a session's place


def put_a_link(at: Path, outside: Path) -> None:
    at.symlink_to(outside)


def put_a_bind_mount(at: Path, outside: Path) -> None:
    at.mkdir()
    bind(outside, at)


def put_a_tmpfs(at: Path, outside: Path) -> None:
    at.mkdir()
    mount_tmpfs(at)
    fill(at)


def a_name_to_take(world: World, row: str) -> str:
    """A session's id, its directory gone, and its row in this state."""
    if row == "no row":
        return "never-seen"
    session_id = world.create(age=OLD if row in ("stale", "ended") else YOUNG)
    if row == "ended":
        assert world.sessions.sweep().removed == 1
    else:
        (world.root / session_id).rename(world.folder / "moved away")
    return session_id


def no_request_reaches_it(world: World, name: str, row: str) -> None:
    sessions = world.sessions
    gone: type[SessionError] = SessionNotFound if row == "no row" else SessionEnded
    with pytest.raises(gone):
        sessions.touch(name)
    with pytest.raises(gone):
        sessions.upload(name)
    with pytest.raises(gone):
        sessions.claim(name, "spring")
    with pytest.raises(gone):
        sessions.delete_file(name, "file-0")
    with pytest.raises(SessionError):
        sessions.restore(name)
    with pytest.raises(SessionNotFound):
        sessions.files(name)
    with pytest.raises(SessionNotFound):
        sessions.open_file(name, "file-0")
    assert os.listdir(world.claims) == []


def check_taken(world: World, put: Callable[[Path, Path], None], row: str, outside: Path) -> None:
    name = a_name_to_take(world, row)
    path = world.root / name
    put(path, outside)
    before = path.lstat()
    facts = fingerprint(path) if path.is_dir() else {}
    assert world.sessions.sweep().removed == 0
    no_request_reaches_it(world, name, row)
    assert world.sessions.delete_session(name) is (row in ("live", "stale"))
    after = world.sessions.sweep()
    assert (after.removed, after.failures) == (0, [])
    report = world.sessions.report()
    assert report.settled
    assert "never touched" in entry_of(report, name).why
    assert path.lstat() == before
    assert not facts or fingerprint(path) == facts
    assert world.in_trash() == []


each_row = pytest.mark.parametrize("row", ["live", "stale", "ended", "no row"])


@each_row
def test_a_link_in_a_sessions_place_stays_and_leads_nowhere(
    row: str, world: World, outside: Path
) -> None:
    check_taken(world, put_a_link, row, outside)


@needs_mounts
@each_row
@pytest.mark.parametrize("put", [put_a_bind_mount, put_a_tmpfs])
def test_a_mount_in_a_sessions_place_stays_and_is_not_entered(
    put: Callable[[Path, Path], None], row: str, world: World, outside: Path
) -> None:
    in_own_mounts(world, lambda: check_taken(world, put, row, outside))


# -- Rights


def without_rights(world: World, act: Callable[[], Any]) -> Any:
    """Does `act` in a child that may do what the modes allow its user, and no more."""

    def child() -> Any:
        ctypes.CDLL(None, use_errno=True).capset(CAPABILITIES_V3, (ctypes.c_uint32 * 6)())
        with world.open() as world.sessions:
            return act()

    return in_child(child)


def close(world: World, session_id: str, mode: int) -> None:
    (world.root / session_id / "inner").mkdir()
    (world.root / session_id / "inner/file").touch()
    world.date(world.root / session_id, OLD)
    (world.root / session_id / "inner").chmod(mode)
    (world.root / session_id).chmod(mode)


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o300, 0o400, 0o500])
def test_a_session_that_its_owner_closed_is_reported_by_a_sweep_and_its_users_delete_removes_it(
    mode: int, world: World
) -> None:
    closed, other = world.create(age=OLD), world.create(age=OLD)
    close(world, closed, mode)

    def check() -> None:
        swept = world.sessions.sweep()
        assert swept.removed == 1
        assert world.standing() == {closed}
        why = entry_of(swept, closed).why if mode != 0o500 else swept.failures[0]
        assert "Permission denied" in why
        assert not world.sessions.report().settled
        assert world.sessions.delete_session(closed)
        assert world.state(closed) == "deleted"
        world.sessions.close()
        assert world.in_trash() == []

    without_rights(world, check)
    assert world.state(other) == "expired"
    assert world.sessions.report().settled
