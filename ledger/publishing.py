"""The files of one upload, put into a session that stands: all of them, or none that is new."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from ledger import moves
from ledger.disk import file_identity
from ledger.errors import NameTaken, NoSpace

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Received(NamedTuple):
    """A file that was published; `replaced`: one of its name had been there."""

    name: str
    bytes: int
    replaced: bool


@dataclass(slots=True)
class Arriving:
    """A file on its way in, under the name `draft`; `received` once it stands in the session.
    `identity` tells it from all others there; see `disk.file_identity`."""

    draft: str
    name: str
    replace: bool
    fd: int
    identity: tuple[int, int] = (0, 0)
    bytes: int = 0
    received: Received | None = None


def publish(files: Sequence[Arriving], draft_fd: int, session_fd: int) -> list[Received]:
    """Every file is in the session; where one cannot be, none is that was not there before.

    The new ones go first, since one that has replaced another cannot be taken back: so of several
    that replace, those before the one that fails stay. `received` tells of each. Raises NameTaken,
    NoSpace, OSError.
    """
    to_be_replaced = {file.name for file in files if file.replace}
    try:
        for file in sorted(files, key=lambda file: file.replace):
            with telling_full():
                file.identity = file_identity(file.draft, draft_fd)
                file.received = _publish(file, to_be_replaced, draft_fd, session_fd)
    except BaseException:
        for file in files:
            _take_back(file, draft_fd, session_fd)
        raise
    return [file.received for file in files if file.received]


def _publish(file: Arriving, others: set[str], draft_fd: int, session_fd: int) -> Received:
    names = [file.name] if file.replace else (n for n in numbered(file.name) if n not in others)
    for name in names:
        with suppress(FileExistsError):
            moves.publish_new_file(file.draft, name, incoming_fd=draft_fd, session_fd=session_fd)
            return Received(name, file.bytes, replaced=False)
    if not file.replace:
        raise NameTaken(f"No free name is left for '{file.name}'.")
    standing(file, session_fd)
    moves.publish_file(file.draft, file.name, incoming_fd=draft_fd, session_fd=session_fd)
    return Received(file.name, file.bytes, replaced=True)


def _take_back(file: Arriving, draft_fd: int, session_fd: int) -> None:
    """A new file is gone from the session, unless somebody has replaced, changed or removed it."""
    name = file.received.name if file.received and not file.received.replaced else None
    with suppress(OSError):  # then it stays, and is counted
        if name and moves.take_back_file(
            name, file.draft, file.identity, incoming_fd=draft_fd, session_fd=session_fd
        ):
            file.received = None


def standing(file: Arriving, session_fd: int) -> int | None:
    """The size of the file that this one will replace; None when it replaces none.

    Raises NameTaken where something that is no file has its name.
    """
    if not file.replace:
        return None
    try:
        facts = os.stat(file.name, dir_fd=session_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        raise NameTaken(f"'{file.name}' in this session is no file and cannot be replaced.")
    return int(facts.st_size)


def numbered(name: str) -> Iterator[str]:
    """`name`, then `name (2)`, `name (3)`, … with its suffix kept, within 255 bytes."""
    yield name
    stem, dot, suffix = name.rpartition(".")
    if not stem or len((dot + suffix).encode()) > 128:
        stem, dot, suffix = name, "", ""
    for number in range(2, 1001):
        tail = f" ({number}){dot}{suffix}"
        yield stem.encode()[: 255 - len(tail.encode())].decode(errors="ignore") + tail


@contextmanager
def telling_full() -> Iterator[None]:
    """A disk that is full is told as what it is: NoSpace."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace("The disk is full; try again later.") from error
        raise
