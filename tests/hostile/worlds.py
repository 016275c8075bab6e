"""Worlds that a test enters in a child process: mounts of its own, the rights of another user."""

import ctypes
import mmap
import os
import pickle
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

NOBODY = 65534
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_child(act: Callable[[], T]) -> T:
    """What `act` returns in a forked child; its failure is the test's, a skip in it as well."""
    reader, writer = os.pipe()
    child = fork(lambda: _report(act, writer))
    os.close(writer)
    with open(reader, "rb") as file:
        told = file.read()
    os.waitpid(child, 0)
    assert told, "the child died without a word"
    outcome, value = pickle.loads(told)
    if outcome == "skipped":
        pytest.skip(value)
    assert outcome == "done", value
    result: T = value
    return result


def fork(act: Callable[[], object]) -> int:
    """The process id of a child that does this and ends."""
    with warnings.catch_warnings():
        # The child only makes system calls: threads that are missing in it do no harm.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(0)
    return child


@contextmanager
def mayhem(act: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """Meanwhile, a child does this over and over; what is yielded tells the sum of its returns."""
    shared = mmap.mmap(-1, 8)

    def forever() -> None:
        total = 0
        while True:
            total += act()
            shared[:] = total.to_bytes(8, "little")

    child = fork(forever)
    try:
        yield lambda: int.from_bytes(shared[:], "little")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        shared.close()


def _report(act: Callable[[], Any], writer: int) -> None:
    try:
        told = ("done", act())
    except pytest.skip.Exception as skip:
        told = ("skipped", str(skip))
    except BaseException:
        told = ("failed", traceback.format_exc())
    with open(writer, "wb") as file:
        file.write(pickle.dumps(told))


def become_nobody() -> None:
    """Only in a child: from root to a user without rights; without root, one is such a user."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def leave_descriptors(count: int) -> None:
    """Only in a child: no more than this many can be opened from here on."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    while (fd := os.dup(0)) < highest:
        pass
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd + count, fd + count))


def enter_own_mounts() -> None:
    """Only in a child: what it mounts from here on is seen by it alone, and gone when it ends.

    Descriptors that were opened before keep to the mounts of before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        pytest.skip(f"no mount namespace to be had: {os.strerror(ctypes.get_errno())}")
    _mount(b"none", "/", None, MS_REC | MS_PRIVATE)


def bind(source: str | os.PathLike[str], point: str | os.PathLike[str]) -> None:
    _mount(os.fsencode(source), point, None, MS_BIND)


def make_read_only(point: str | os.PathLike[str]) -> None:
    _mount(b"none", point, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def mount_tmpfs(point: str | os.PathLike[str]) -> None:
    _mount(b"tmpfs", point, b"tmpfs", 0)


def _mount(source: bytes, point: str | os.PathLike[str], kind: bytes | None, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, os.fsencode(point), kind, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), point)
