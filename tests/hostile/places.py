"""Places that nothing may touch, and children that see other mounts, or have fewer rights."""

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger import SessionLedger, system
from tests.hostile.worlds import enter_own_mounts, in_child, needs_root
from tests.ledger.world import World

OLD, YOUNG = 30, 1  # hours
Act = Callable[[World, str], object]
WAYS: dict[str, Act] = {
    "sweep": lambda world, _: world.sessions.sweep(),
    "delete": lambda world, session_id: world.sessions.delete_session(session_id),
    "claim": lambda world, session_id: world.sessions.claim(session_id, session_id),
}
CAPABILITIES_V3 = (ctypes.c_uint32 * 2)(0x20080522, 0)


def fingerprint(top: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that could have changed in a place, but for when it was read."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(top))] = (*identity(path), content)
    return found


def identity(path: Path) -> tuple[int, ...]:
    """All that the system tells of it, but for when it was read."""
    facts = path.lstat()
    kept = (facts.st_mode, facts.st_uid, facts.st_ino, facts.st_nlink, facts.st_size)
    return (*kept, facts.st_mtime_ns, facts.st_ctime_ns)


def add_a_file(sessions: SessionLedger, session_id: str | None) -> None:
    """To a session that stands, or to one that is made for it."""
    with sessions.upload(session_id) as upload:
        upload.open_file("late.txt")
        upload.write(b"late")
        upload.commit()


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


def without_rights(world: World, act: Callable[[], Any]) -> Any:
    """Does `act` in a child that may do what the modes allow its user, and no more."""

    def child() -> Any:
        ctypes.CDLL(None, use_errno=True).capset(CAPABILITIES_V3, (ctypes.c_uint32 * 6)())
        with world.open() as world.sessions:
            return act()

    return in_child(child)


def put(new: Path, path: Path) -> None:
    """What was made elsewhere is there, and nothing was written through a link."""
    above = [os.open(each.parent, os.O_RDONLY) for each in (new, path)]
    try:
        system.rename_noreplace(new.name, path.name, src_dir_fd=above[0], dst_dir_fd=above[1])
    finally:
        for fd in above:
            os.close(fd)


def put_a_socket(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(f"/proc/self/fd/{fd}/{path.name}")  # a socket's path must be short
    os.close(fd)


@contextmanager
def opened_kinds() -> Iterator[list[int]]:
    """The modes of all that is opened by name meanwhile."""
    modes: list[int] = []
    real = os.open

    def watched(*args: Any, **values: Any) -> int:
        fd = real(*args, **values)
        modes.append(os.fstat(fd).st_mode)
        return fd

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", watched)
        yield modes
