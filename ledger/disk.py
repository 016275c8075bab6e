"""Reads the temp root: its names, the facts of one directory, sizes. Changes nothing."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ledger import system
from ledger.errors import RootUnavailable
from ledger.plan import ABSENT, FUTURE_US, Facts, Kind
from ledger.walk import walk

HOUSE = ".coatcheck"
TRASH = "trash"
INCOMING = "incoming"
REPORTS = "reports"
ROOT_ID = "root-id"
SWEEP_LOCK = "sweep.lock"

_ID = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
# Sparse files can be longer together than a ledger, or JSON's exact integers, can count.
MOST_BYTES = 2**53 - 1

_SESSION_ID = re.compile(_ID)
_TIME = r"0|[1-9][0-9]*"
_TRASH_NAME = re.compile(rf"(user|sweep)-({_TIME})-({_TIME})-([a-z0-9]+)-({_ID})")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How the system says that a name leads out of the directory where it stands.
_ELSEWHERE = {errno.EXDEV: "a mounted file system", errno.ELOOP: "a symbolic link"}
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_session_id(name: str) -> bool:
    """Whether a directory of this name can be a session."""
    return _SESSION_ID.fullmatch(name) is not None


def open_directory(name: str, *, dir_fd: int) -> int:
    """A descriptor of a directory that lies there, which a link and a mount do not. Raises
    OSError."""
    with lying_there(name):
        return system.open_directory(name, dir_fd=dir_fd)


@contextmanager
def lying_there(name: str) -> Iterator[None]:
    """What leads elsewhere is no directory either: NotADirectoryError for a link and a mount."""
    try:
        yield
    except OSError as error:
        if error.errno in _ELSEWHERE:
            raise NotADirectoryError(errno.ENOTDIR, _ELSEWHERE[error.errno], name) from error
        raise


def inode_of(name: str, dir_fd: int) -> str | None:
    """The inode of the directory that lies there; None where none does. Raises OSError."""
    try:
        with lying_there(name):
            return str(system.stat_directory(name, dir_fd=dir_fd).st_ino)
    except (FileNotFoundError, NotADirectoryError):
        return None


def file_identity(name: str, dir_fd: int) -> tuple[int, int]:
    """Inode and mtime: they tell a file, as it is, from any that comes to bear its name later, and
    be it with the inode that it left. Raises OSError."""
    facts = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    return facts.st_ino, facts.st_mtime_ns


def stands(name: str, fd: int, dir_fd: int) -> bool:
    """Whether the open directory is the one that stands at this name."""
    try:
        there = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


@dataclass(frozen=True, slots=True)
class TrashName:
    """The name of a directory in the trash: all that finishing its removal needs, without a row.

    `seen`: the newest mtime it was judged by; anything newer in it brings a swept one back.
    `due`: from when its bytes may go; both in microseconds. `salt` tells two of one id apart.
    """

    by_user: bool
    seen: int
    due: int
    salt: str
    session_id: str

    def __str__(self) -> str:
        by = "user" if self.by_user else "sweep"
        return f"{by}-{self.seen}-{self.due}-{self.salt}-{self.session_id}"

    @classmethod
    def parse(cls, name: str) -> TrashName | None:
        """None where the name is none that coatcheck gives."""
        parts = _TRASH_NAME.fullmatch(name)
        if parts is None:
            return None
        by, seen, due, salt, session_id = parts.groups()
        return cls(by == "user", int(seen), int(due), salt, session_id)


class Root:
    """The temp root, open: everything below it is reached from this one descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = os.path.abspath(path)
        parent, name = os.path.split(self.path)
        self.real = os.path.join(os.path.realpath(parent), name)
        try:
            self.fd = os.open(self.path, _DIRECTORY)
        except OSError as error:
            raise RootUnavailable(_cannot_open(self.path, error)) from error
        facts = os.fstat(self.fd)
        self.device = facts.st_dev
        self._inode = facts.st_ino
        self._open: dict[str, int] = {}

    def close(self) -> None:
        """Twice does no harm: whom its descriptors belong to by then, nobody knows."""
        fds = [*self._open.values(), self.fd]
        self._open.clear()
        self.fd = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    @property
    def house(self) -> int:
        return self._folder(HOUSE)

    @property
    def trash(self) -> int:
        return self._folder(TRASH)

    @property
    def incoming(self) -> int:
        return self._folder(INCOMING)

    @property
    def reports(self) -> int:
        return self._folder(REPORTS)

    def _folder(self, name: str) -> int:
        fd = self._open.get(name)
        if fd is None:
            opened = open_directory(name, dir_fd=self._parent_of(name))
            fd = self._open.setdefault(name, opened)
            if fd != opened:  # another thread was first
                os.close(opened)
        return fd

    def _parent_of(self, folder: str) -> int:
        return self.fd if folder == HOUSE else self.house

    def check(self) -> None:
        """Raises RootUnavailable unless the path still leads to the directory that is open, and
        what is coatcheck's own in there is as well."""
        self.check_path()
        for name, fd in list(self._open.items()):
            if not stands(name, fd, self._parent_of(name)):
                raise RootUnavailable(
                    f"{name} was removed or replaced in the root {self.path} while coatcheck ran. "
                    "Restart it: what is missing is made anew."
                )

    def check_path(self) -> None:
        """Raises RootUnavailable unless the path still leads to the directory that is open."""
        try:
            facts = os.lstat(self.path)
        except OSError as error:
            raise RootUnavailable(_cannot_open(self.path, error)) from error
        if (facts.st_dev, facts.st_ino) != (self.device, self._inode):
            raise RootUnavailable(
                f"The root {self.path} is no longer the directory that was opened: a disk was "
                "mounted or unmounted there, or it was replaced. Put it back, or restart coatcheck."
            )

    def read_id(self) -> str | None:
        """The id on the disk, read anew; None where the root has none."""
        try:
            house = open_directory(HOUSE, dir_fd=self.fd)
            try:
                fd = os.open(ROOT_ID, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=house)
            finally:
                os.close(house)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RootUnavailable(_cannot_open(f"{self.path}/{HOUSE}/{ROOT_ID}", error)) from error
        with os.fdopen(fd, encoding="ascii", errors="replace") as file:
            return file.read(200).strip() or None

    @contextmanager
    def names(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Every entry of the root but coatcheck's own, streamed."""
        with self._list() as fd, os.scandir(fd) as entries:
            yield (entry for entry in entries if entry.name != HOUSE)

    def all_names(self) -> set[str]:
        """The same entries' names, read at once."""
        with self._list() as fd:
            names = set(os.listdir(fd))
        names.discard(HOUSE)
        return names

    @contextmanager
    def _list(self) -> Iterator[int]:
        """The root to be listed: of two who read through one descriptor, each would miss what the
        other has read."""
        fd = os.open(".", _DIRECTORY, dir_fd=self.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def has_sessions(self) -> bool:
        """Whether a directory stands here that a sweep could take for a session."""
        with self.names() as entries:
            return any(is_session_id(entry.name) and _is_directory(entry) for entry in entries)

    def free_percent(self) -> float:
        disk = os.fstatvfs(self.fd)
        return 100 * disk.f_bavail / disk.f_blocks if disk.f_blocks else 100.0

    def free_bytes(self) -> int:
        disk = os.fstatvfs(self.fd)
        return disk.f_bavail * disk.f_frsize

    def path_of(self, session_id: str) -> str:
        return f"{self.path}/{session_id}"


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _cannot_open(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"The root {path} does not exist: is its disk mounted, is COATCHECK_ROOT right?"
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"The root {path} is a link or no directory: name the directory itself."
    return f"{path} cannot be opened: {error.strerror}."


def look(fd: int, now: int) -> Facts:
    """The facts of one open session directory and all below it. Raises OSError."""
    own = os.fstat(fd)
    mtime, ctime = own.st_mtime_ns, own.st_ctime_ns
    files = size = 0
    for _, _, _, facts in walk(fd):
        mtime = max(mtime, facts.st_mtime_ns)
        ctime = max(ctime, facts.st_ctime_ns)
        if stat.S_ISREG(facts.st_mode):
            files += 1
            size += facts.st_size
    limit = _present(now)
    ahead = max(mtime, ctime) // 1000 > limit
    return Facts(
        Kind.DIRECTORY,
        inode=str(own.st_ino),
        mtime=_newest(fd, "st_mtime_ns", limit) if ahead else max(0, mtime // 1000),
        ctime=_newest(fd, "st_ctime_ns", limit) if ahead else max(0, ctime // 1000),
        files=files,
        bytes=min(size, MOST_BYTES),
    )


def _newest(fd: int, kind: str, limit: int) -> int | None:
    """The newest time of this kind that does not lie in the future, where some do."""
    facts = chain([os.fstat(fd)], (facts for _, _, _, facts in walk(fd)))
    times = (max(0, getattr(each, kind) // 1000) for each in facts)
    return max((at for at in times if at <= limit), default=None)


def _present(now: int) -> int:
    """What lies beyond is in the future. A run's `now` is of its beginning, and what was used
    since then was used all the same."""
    return max(now, system.now_us()) + FUTURE_US


def newer_than(fd: int, seen: int, now: int) -> bool:
    """Whether anything in the directory bears an mtime after `seen` that is not in the future."""
    mtime = os.fstat(fd).st_mtime_ns
    for _, _, _, facts in walk(fd):
        mtime = max(mtime, facts.st_mtime_ns)
    if mtime // 1000 <= seen:
        return False
    found = look(fd, now).mtime
    return found is not None and found > seen


@dataclass(slots=True)
class Examined:
    """One name of the root, looked at; `fd` is the open directory, for who asked to keep it."""

    facts: Facts
    fd: int | None = None


def examine(
    root: Root, session_id: str, now: int, mounts: frozenset[str], *, keep: bool = False
) -> Examined:
    """What stands at this name in the root. Raises nothing for what it cannot read: it says so.

    With `keep` a directory that nobody holds comes back open and exclusively locked; the caller
    closes it.
    """
    try:
        found = os.stat(session_id, dir_fd=root.fd, follow_symlinks=False)
    except FileNotFoundError:
        return Examined(ABSENT)
    except OSError as error:
        return Examined(_unreadable(error))
    if not stat.S_ISDIR(found.st_mode):
        return Examined(Facts(Kind.FOREIGN, _kind(found.st_mode)))
    here = f"{root.real}/{session_id}"
    if found.st_dev != root.device or here in mounts:
        return Examined(Facts(Kind.FOREIGN, "a mounted file system"))
    if any(mount.startswith(here + "/") for mount in mounts):
        return Examined(Facts(Kind.UNREADABLE, "a file system is mounted inside it"))
    try:
        fd = open_directory(session_id, dir_fd=root.fd)
    except FileNotFoundError:
        return Examined(ABSENT)
    except NotADirectoryError as error:  # put there since
        return Examined(Facts(Kind.FOREIGN, (error.strerror or "").lower()))
    except OSError as error:
        return Examined(_unreadable(error))
    try:
        return _examine_open(fd, now, keep=keep)
    except OSError as error:
        os.close(fd)
        return Examined(_unreadable(error))


def _examine_open(fd: int, now: int, *, keep: bool) -> Examined:
    free = system.lock_exclusive(fd)
    if free and not keep:
        system.unlock(fd)
    facts = look(fd, now)
    if free and keep:
        return Examined(facts, fd)
    os.close(fd)
    return Examined(facts if free else replace(facts, in_use=True))


def _unreadable(error: OSError) -> Facts:
    said = error.strerror or str(error)
    where = f" ({error.filename})" if isinstance(error.filename, str) else ""
    return Facts(Kind.UNREADABLE, said + where)


def _kind(mode: int) -> str:
    return next((what for matches, what in _KINDS if matches(mode)), "no directory")


class StoredFile(NamedTuple):
    """A file of a session; `name` is its path below the session's directory."""

    name: str
    bytes: int


def files_of(fd: int) -> list[StoredFile]:
    """Every regular file below an open session directory, by name. Raises OSError."""
    return few_files_of(fd, sys.maxsize) or []


def few_files_of(fd: int, most: int) -> list[StoredFile] | None:
    """The same; None where more than `most` entries lie there."""
    found: list[StoredFile] = []
    with closing(walk(fd)) as entries:
        for number, (_, trail, name, facts) in enumerate(entries):
            if number >= most:
                return None
            if stat.S_ISREG(facts.st_mode):
                found.append(StoredFile("/".join([*trail, name]), facts.st_size))
    return sorted(found)
