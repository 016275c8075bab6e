"""The claims directory: where sessions go that were finished, and how a claim names its place."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from ledger import moves, removal, system
from ledger.disk import Root, open_directory
from ledger.errors import UsageError

_PROBE = "probe-"


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
    """The directory below which claimed sessions are moved, opened when first needed."""

    def __init__(self, path: Path, root: Root) -> None:
        self.path = os.path.abspath(path)
        self._root = root
        self._fds: list[int] = []
        self._trouble: list[str | None] = []

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

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

    def open_parent(self, destination: str) -> tuple[int, str]:
        """The directory in which the destination stands, open, and its name there.

        Made where it is missing; never reached through a link. Raises UsageError, OSError.
        """
        fd = os.dup(self._top())
        *parents, name = destination.split("/")
        for part in parents:
            try:
                fd = _step(fd, part)
            except NotADirectoryError:
                raise UsageError(f"{part} in the claim's path is no directory.") from None
        return fd, name

    def inode_at(self, destination: str) -> str | None:
        """The inode of what stands at the destination; None when nothing does."""
        try:
            parent, name = self.open_parent(destination)
        except (OSError, UsageError):
            return None
        try:
            return str(os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino)
        except FileNotFoundError:
            return None
        finally:
            os.close(parent)

    def _top(self) -> int:
        if not self._fds:
            os.makedirs(self.path, exist_ok=True)
            system.fsync_entry(self.path)
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._fds.append(fd)  # of two threads at once, the first to come is used
        return self._fds[0]

    @property
    def trouble(self) -> str | None:
        """Why nothing could be claimed when it was first asked; None when claiming works."""
        if not self._trouble:
            self._trouble.append(self.problem())
        return self._trouble[-1]

    def problem(self) -> str | None:
        """Why nothing can be claimed, found by a real rename; None when claiming works."""
        name = _PROBE + moves.new_id(16)
        try:
            top = self._top()
            os.mkdir(name, 0o700, dir_fd=self._root.incoming)
        except OSError as error:
            return f"{self.path} cannot be used for claims: {error.strerror}."
        try:
            moves.probe(self._root, name, top)
        except OSError as error:
            removal.remove_empty_directory(name, dir_fd=self._root.incoming)
            return self._why(error)
        removal.remove_empty_directory(name, dir_fd=top)
        return None

    def _why(self, error: OSError) -> str:
        if error.errno == errno.EXDEV:
            return (
                f"Nothing can be claimed: {self._root.path} and {self.path} are on different "
                "mounts, and a directory moves in one step only within one. Mount their common "
                "parent instead, or set COATCHECK_CLAIMS to a directory on the root's mount."
            )
        return f"Nothing can be claimed into {self.path}: {error.strerror}."


def _step(fd: int, part: str) -> int:
    try:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=fd)
        system.fsync_dir(fd)  # whoever made it, a power cut must not take a claim in it away
        return open_directory(part, dir_fd=fd)
    finally:
        os.close(fd)
