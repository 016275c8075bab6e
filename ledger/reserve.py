"""Room beside a SQLite ledger, kept for the day when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ledger import system

RESERVE_BYTES = 16 << 20
_LEAST_BYTES = 1 << 16


class Reserve:
    """A file beside the ledger's, really allocated, given up when the disk is full.

    Removing frees space but must first be written into the ledger: with a full disk the one
    would wait for the other. A ledger that is a server has none.
    """

    def __init__(self, ledger: Path | None) -> None:
        self._path = f"{ledger}.reserve" if ledger else None

    def take(self) -> bool:
        """Allocates the reserve: 16 MiB or 1 % of the disk, the smaller.

        False: there is no room for it, and so it is a half of that, a quarter, … or nothing.
        """
        if self._path is None:
            return True
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            disk = os.fstatvfs(fd)
            return _take(fd, min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // 100))
        except OSError:
            return False
        finally:
            os.close(fd)

    def give_up(self) -> bool:
        """Frees the reserve; False when there was none to free."""
        if self._path is None:
            return False
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            had = os.fstat(fd).st_size > 0
            os.ftruncate(fd, 0)
            return had
        except OSError:
            return False
        finally:
            os.close(fd)

    def is_on(self, device: int) -> bool:
        """Whether what is removed on this device makes room for it."""
        if self._path is None:
            return False
        with suppress(OSError):
            return os.stat(os.path.dirname(self._path)).st_dev == device
        return False


def _take(fd: int, size: int) -> bool:
    if _has(fd, size):
        return True
    for part in (size, size // 2, size // 4, size // 8):
        if part < size and (part < _LEAST_BYTES or _has(fd, part)):
            break
        try:
            system.allocate(fd, part)
        except OSError:
            os.ftruncate(fd, 0)
        else:
            return part == size
    return False


def _has(fd: int, size: int) -> bool:
    facts = os.fstat(fd)
    return facts.st_size >= size and facts.st_blocks * 512 >= size
