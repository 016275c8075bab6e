"""The claims directory: where sessions go that were finished, and how a claim names its place."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from ledger import moves, removal, system
from ledger.disk import Root, inode_of, open_directory
from ledger.errors import UsageError

_PROBE = "probe-"
ELSEWHERE = (
    "the claims directory leads elsewhere than when coatcheck started: put it back, or restart"
)


def check_name(name: str, what: str) -> str:
    """`name` itself, if it can name a file or directory. Raises UsageError saying why not."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= 255:
        raise UsageError(f"{what} must have 1 to 255 bytes; this one has {size}.")
    if name in (".", ".."):
        raise UsageError(f"{what} must not be '{name}'.")
    if "/" in name:
        raise UsageError(f"{what} must not contain '/'.")
    if any(ord(c) < 32 or ord(c) == 127 or 0x80 <= ord(c) < 0xA0 for c in name):
        raise UsageError(f"{what} must not contain control characters.")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in name):
        raise UsageError(f"{what} must be valid Unicode.")
    return name


class Claims:
    """The directory below which claimed sessions are moved."""

    def __init__(self, path: Path, root: Root) -> None:
        self.path = os.path.abspath(path)
        self._real = os.path.realpath(path)
        self._root = root
        self._durable: tuple[int, int] | None = None
        self._trouble: list[str | None] = []

    def destination(self, into: str | os.PathLike[str]) -> str:
        """`into`, a name or a path below the claims directory, as a path relative to it.

        Raises UsageError.
        """
        given = os.fspath(into)
        if "/" not in given:
            return check_name(given, "The claim's name")
        relative = os.path.relpath(os.path.abspath(given), self.path)
        parts = relative.split("/")
        if parts[0] == "..":
            raise UsageError(f"A claim must lie below {self.path}; {given} does not.")
        return "/".join(check_name(part, "Each part of the claim's path") for part in parts)

    def open_parent(self, destination: str, *, make: bool = False) -> tuple[int, str]:
        """The directory in which the destination stands, open, and its name there.

        Never reached through a link or a mount. Raises OSError: NotADirectoryError for a part that
        is none, FileNotFoundError for one that is missing and shall not be made.
        """
        fd = self._open()
        *parents, name = destination.split("/")
        for part in parents:
            fd = _step(fd, part, make=make)
        return fd, name

    def inode_at(self, destination: str) -> str | None:
        """The inode of what stands at the destination; None when nothing does."""
        try:
            parent, name = self.open_parent(destination)
        except OSError:
            return None
        try:
            return inode_of(name, parent)
        finally:
            os.close(parent)

    def _open(self) -> int:
        """Anew each time: a claim is where it says, whatever became of the directory before."""
        if os.path.realpath(self.path) != self._real:
            raise OSError(errno.ESTALE, ELSEWHERE)
        os.makedirs(self.path, exist_ok=True)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._make_durable(os.fstat(fd))
        except OSError:
            os.close(fd)
            raise
        return fd

    def _make_durable(self, facts: os.stat_result) -> None:
        if self._durable != (facts.st_dev, facts.st_ino):
            system.fsync_entry(self.path)
            self._durable = (facts.st_dev, facts.st_ino)

    @property
    def trouble(self) -> str | None:
        """Why nothing could be claimed when it was first asked; None when claiming works."""
        if not self._trouble:
            self._trouble.append(self.problem())
        return self._trouble[-1]

    def problem(self) -> str | None:
        """Why nothing can be claimed, found by a real rename; None when claiming works."""
        try:
            top = self._open()
        except OSError as error:
            return self._unusable(error)
        try:
            return self._problem_with(top)
        finally:
            os.close(top)

    def _problem_with(self, top: int) -> str | None:
        name = _PROBE + moves.new_id(16)
        try:
            os.mkdir(name, 0o700, dir_fd=self._root.incoming)
        except OSError as error:
            return self._unusable(error)
        try:
            moves.probe(self._root, name, top)
        except OSError as error:
            with suppress(OSError):
                removal.remove_empty_directory(name, dir_fd=self._root.incoming)
            return self._why(error)
        with suppress(OSError):  # an empty directory stays; claiming works
            removal.remove_empty_directory(name, dir_fd=top)
        return None

    def _unusable(self, error: OSError) -> str:
        return f"{self.path} cannot be used for claims: {error.strerror}."

    def _why(self, error: OSError) -> str:
        if error.errno == errno.EXDEV:
            return (
                f"Nothing can be claimed: {self._root.path} and {self.path} are on different "
                "mounts, and a directory moves in one step only within one. Mount their common "
                "parent instead, or set COATCHECK_CLAIMS to a directory on the root's mount."
            )
        return f"Nothing can be claimed into {self.path}: {error.strerror}."


def _step(fd: int, part: str, *, make: bool) -> int:
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
            system.fsync_dir(fd)  # whoever made it, a power cut must not take a claim in it away
        return open_directory(part, dir_fd=fd)
    finally:
        os.close(fd)
