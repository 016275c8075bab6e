"""The only file that unlinks: what is dead in the trash, and single files out of a session.

Nothing is named by a path here: every step goes from a directory's descriptor to one name in it,
so no link is ever followed. A subdirectory is first lifted into the trash by a rename, and then
emptied as one more dead entry: depth costs nothing, few descriptors are open, and a mount point,
a bind mount included, refuses to be renamed. What a crash leaves is just more dead entries.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger import system

OnEntry = Callable[[int], None]
DEAD = "dead-"
"""Begins the name of what is being unlinked; nobody brings it back."""

# How many are named, of what could not be removed.
FAILURES = 20
# How many lifted directories wait at a time; more of them stay where they are until these are gone.
WAITING = 1000
# How often a directory is read anew, that others keep writing into.
READINGS = 8

WHY = {
    errno.EBUSY: "something is mounted on it",
    errno.EXDEV: "another file system is mounted on it",
    errno.EPERM: "not permitted: it, or its directory, is marked immutable or another user's",
    errno.EACCES: "no right to: it, or its directory, is another user's",
    errno.ENOTEMPTY: "something is still being written into it",
}


@dataclass(frozen=True)
class Removed:
    """What a removal did: entries unlinked, and in words what stayed, and why."""

    entries: int
    failures: tuple[str, ...]


def remove_dead(trash_fd: int, name: str, *, on_entry: OnEntry | None = None) -> Removed:
    """The dead entry `name` of the trash is gone, or the failures say what of it is left, and why.

    `on_entry` is told, entry by entry, how many are unlinked by now; what it raises, OSErrors
    apart, ends the removal.
    """
    if not name.startswith(DEAD):
        raise ValueError(f"not a dead entry: {name!r}")
    removal = _Removal(trash_fd, on_entry)
    removal.run(_entry(name))
    return Removed(removal.entries, removal.failures.lines())


def unlink_file(name: str, *, dir_fd: int) -> bool:
    """The file or link `name` is gone; False when it was not there. Directories raise OSError."""
    try:
        os.unlink(_entry(name), dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


def remove_empty_directory(name: str, *, dir_fd: int) -> bool:
    """The empty directory `name` is gone; False when it was not there, or is not empty."""
    try:
        return _rmdir(_entry(name), dir_fd)
    except FileNotFoundError:
        return False


class _Dead(NamedTuple):
    name: str
    was: str  # its path below the entry that is removed; "" for that entry


@dataclass
class _Failures:
    named: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, dead: _Dead, leaf: str, error: OSError) -> None:
        self.count += 1
        if len(self.named) < FAILURES:
            self.named.append(_in_words(dead, leaf, error))

    def extend(self, more: "_Failures") -> None:
        self.count += more.count
        self.named += more.named[: FAILURES - len(self.named)]

    def lines(self) -> tuple[str, ...]:
        unnamed = self.count - len(self.named)
        return (*self.named, *([f"and {unnamed} more"] if unnamed else []))


@dataclass
class _Reading:
    """One pass over a directory: whether anything went, what did not, whether it stopped early."""

    progress: bool = False
    crowded: bool = False
    failures: _Failures = field(default_factory=_Failures)


class _Removal:
    def __init__(self, trash_fd: int, on_entry: OnEntry | None) -> None:
        self.trash_fd = trash_fd
        self.on_entry = on_entry
        self.waiting: list[_Dead] = []
        self.entries = 0
        self.failures = _Failures()

    def run(self, name: str) -> None:
        self.waiting.append(_Dead(name, ""))
        while self.waiting:
            dead = self.waiting.pop()
            beneath = len(self.waiting)
            try:
                finished = self._take_apart(dead)
            except FileNotFoundError:  # another remover was faster
                continue
            except OSError as error:
                self.failures.add(dead, "", error)
                continue
            if not finished:
                self.waiting.insert(beneath, dead)

    def _take_apart(self, dead: _Dead) -> bool:
        """Removes one directory that lies in the trash; False when it must be come back to."""
        try:
            fd = system.with_rights(system.open_directory, dead.name, self.trash_fd)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            self._unlink(dead.name, self.trash_fd)
            return True
        try:
            _make_writable(fd)
            return self._empty(fd, dead)
        finally:
            os.close(fd)

    def _empty(self, fd: int, dead: _Dead) -> bool:
        # A directory that changes while it is read may hide entries from its reader.
        for _ in range(READINGS):
            reading = self._read(fd, dead)
            if reading.crowded:
                return False
            if _rmdir(dead.name, self.trash_fd):
                self._count()
                return True
            if not reading.progress:
                break
        if not reading.failures.count:
            reading.failures.add(dead, "", OSError(errno.ENOTEMPTY, ""))
        self.failures.extend(reading.failures)
        return True

    def _read(self, fd: int, dead: _Dead) -> _Reading:
        reading = _Reading()
        full = len(self.waiting) + max(16, WAITING - len(self.waiting))
        with os.scandir(fd) as entries:
            for entry in entries:
                if len(self.waiting) >= full:
                    reading.crowded = True
                    break
                try:
                    self._remove(entry, fd, dead)
                    reading.progress = True
                except FileNotFoundError:  # gone already
                    pass
                except OSError as error:
                    reading.failures.add(dead, entry.name, error)
        return reading

    def _remove(self, entry: os.DirEntry[str], fd: int, dead: _Dead) -> None:
        """Removes one entry of a directory, or lifts it to be removed in its turn."""
        if not entry.is_dir(follow_symlinks=False):
            try:
                self._unlink(entry.name, fd)
            except IsADirectoryError:  # swapped since it was read
                self._lift(entry.name, fd, dead)
        elif _is_removed(entry.name, fd):
            self._count()
        else:
            self._lift(entry.name, fd, dead)

    def _lift(self, name: str, fd: int, dead: _Dead) -> None:
        lifted = DEAD + secrets.token_hex(8)

        def rename(name: str, *, dir_fd: int) -> None:
            os.rename(name, lifted, src_dir_fd=dir_fd, dst_dir_fd=self.trash_fd)

        # Moving a directory to another parent changes its `..`, which takes the right to write it.
        system.with_rights(rename, name, fd)
        self.waiting.append(_Dead(lifted, _tail(_join(dead.was, name))))

    def _unlink(self, name: str, fd: int) -> None:
        os.unlink(name, dir_fd=fd)
        self._count()

    def _count(self) -> None:
        self.entries += 1
        if self.on_entry:
            self.on_entry(self.entries)


def _rmdir(name: str, dir_fd: int) -> bool:
    """Whether the directory went; False when it is not empty."""
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def _is_removed(name: str, dir_fd: int) -> bool:
    """Whether an empty directory could be removed where it is; why not is for the lift to tell."""
    try:
        return _rmdir(name, dir_fd)
    except OSError:
        return False


def _make_writable(fd: int) -> None:
    """Its owner may change the directory; where that cannot be had, unlinking will say so."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(OSError):
            os.fchmod(fd, mode | stat.S_IRWXU)


def _entry(name: str) -> str:
    if "/" in name or name in {"", ".", ".."}:
        raise ValueError(f"not the name of an entry: {name!r}")
    return name


def _in_words(dead: _Dead, leaf: str, error: OSError) -> str:
    where = _join(dead.name, leaf)
    if dead.was:
        where = f"{_join(dead.was, leaf)} (in the trash: {where})"
    why = WHY.get(error.errno or 0) or error.strerror or str(error)
    return f"{_printable(where)}: {why}"


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _tail(path: str) -> str:
    return path if len(path) <= 200 else "..." + path[-200:]


def _printable(text: str) -> str:
    decoded = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)
