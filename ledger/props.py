"""What the demo's scenes are made of: sessions, strays, and operations that stop half way."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ledger import moves, queries, removal, states
from ledger.disk import HOUSE, TRASH
from ledger.errors import SessionBusy, SessionNotFound
from ledger.models import Actor, Record, State
from ledger.plan import TICK_US
from ledger.sessions import SessionLedger
from ledger.states import Move

YOUNG, OLD = 0.1, 2.0  # ages, as shares of max age
_FILES = {"photo.jpg": 48_000, "notes.txt": 1_200}


def _nothing() -> None:
    """Nothing is held, so nothing need be released."""


class Stands(NamedTuple):
    """What a scene has set up, as the report names it; the dead and the nameless have no id.

    Some scenes hold something (an upload, rights given up): `release`, before the ledger is
    closed and in the same thread, lets go of it.
    """

    session_id: str | None
    path: str
    release: Callable[[], None] = _nothing


def ago(sessions: SessionLedger, share: float) -> SessionLedger:
    """The same place, that many max ages ago: what is done through it was done then."""
    then = sessions.clock() - round(share * sessions.settings.max_age_us)
    return SessionLedger(sessions.place, lambda: then)


def session(sessions: SessionLedger, share: float) -> Stands:
    """A session created and last used that long ago, with files in it."""
    then = ago(sessions, share)
    with then.upload(None, by=Actor.API) as upload:
        for name, size in _FILES.items():
            upload.open_file(name)
            upload.write(_content(name, size))
        record, _ = upload.commit(f"order {moves.new_id(4)}")
    path = sessions.place.root.path_of(record.session_id)
    _date_all(path, then.clock())
    return Stands(record.session_id, path)


def stray(sessions: SessionLedger, share: float) -> Stands:
    """A directory that another program made that long ago."""
    path = new_path(sessions, "upload")
    return Stands(path.name, write(path, ago(sessions, share).clock()))


def new_path(sessions: SessionLedger, word: str) -> Path:
    return Path(sessions.place.root.path, f"{word}-{moves.new_id(6)}")


def write(directory: Path, at: int) -> str:
    for name, size in _FILES.items():
        directory.mkdir(exist_ok=True)
        Path(directory, name).write_bytes(_content(name, size))
    _date_all(str(directory), at)
    return str(directory)


def _content(name: str, size: int) -> bytes:
    return ((name.encode() + b"\n") * size)[:size]


def _date_all(directory: str, at: int) -> None:
    for name in _FILES:
        date(f"{directory}/{name}", at)
    date(directory, at)


def date(path: str, at: int) -> None:
    os.utime(path, ns=(at * 1000, at * 1000))


def _row(sessions: SessionLedger, stands: Stands) -> Record:
    with sessions.place.database.read() as connection:
        row = queries.record_of(connection, sessions.place.root_id, str(stands.session_id))
    if row is None:
        raise SessionNotFound(str(stands.session_id))
    return row


def _move(sessions: SessionLedger, move: Move) -> Record:
    with sessions.place.database.write() as connection:
        moved = states.move(connection, move, sessions.clock())
    if moved is None:
        raise SessionBusy(f"{move.record.session_id} was changed while its scene was set up")
    return moved


def lost(sessions: SessionLedger, share: float) -> Stands:
    """A session that had no files, and whose directory is gone."""
    session = ago(sessions, share).create(by=Actor.API)
    removal.remove_empty_directory(session.id, dir_fd=sessions.place.root.fd)
    return Stands(session.id, session.path)


def stands_again(sessions: SessionLedger, share: float) -> Stands:
    """The ledger has ended a session as missing; a program made a directory of its name again."""
    stands = lost(sessions, OLD)
    _move(sessions, Move(_row(sessions, stands), State.MISSING, Actor.SWEEP, "it was lost"))
    write(Path(stands.path), ago(sessions, share).clock())
    return stands


def removed(
    sessions: SessionLedger,
    share: float,
    by: Actor,
    *,
    renamed: bool = False,
    ended: bool = False,
    due: int = 0,
) -> Stands:
    """A removal's steps: the row says who removes it; the rename; the row says that it ended."""
    stands = session(sessions, share)
    row, root = _row(sessions, stands), sessions.place.root
    user = by is not Actor.SWEEP
    seen = sessions.clock() if user else row.last_touch_at
    name = str(moves.trash_name(row.session_id, by_user=user, seen=seen, due=due))
    why = "deleted" if user else "unused"
    values = {"remover": str(by), "trash": name, "inode": str(os.stat(stands.path).st_ino)}
    removing = _move(sessions, Move(row, State.REMOVING, by, why, values))
    if renamed:
        moves.set_aside(root, row.session_id, name)
    if ended:
        time.sleep(1.1 * TICK_US / 1_000_000)  # or it could have been made just after its end
        _move(sessions, Move(removing, State.DELETED if user else State.EXPIRED, by, why))
    if renamed and ended:
        return Stands(row.session_id, f"{root.path}/{HOUSE}/{TRASH}/{name}")
    return stands


def claimed(sessions: SessionLedger, *, renamed: bool) -> Stands:
    """A claim's steps: the row says where to, and which directory; the rename."""
    stands = session(sessions, YOUNG)
    row, claims = _row(sessions, stands), sessions.place.claims
    into = f"claimed-{moves.new_id(6)}"
    values = {"destination": into, "inode": str(os.stat(stands.path).st_ino)}
    _move(sessions, Move(row, State.CLAIMING, Actor.API, f"claim into {into}", values))
    if renamed:
        parent, name = claims.open_parent(into)
        moves.claim(sessions.place.root, row.session_id, values["inode"], parent, name)
        os.close(parent)
    return stands


_CAPABILITIES_V3 = 0x20080522
_READS_ALL = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """This thread may read what its user's file modes allow, and no more, root's as well.

    Where the system has no capabilities, nothing changes.
    """
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    had = (ctypes.c_uint32 * 6)()  # twice: effective, permitted, inheritable
    libc.capget(header, had)
    less = (ctypes.c_uint32 * 6)(had[0] & ~_READS_ALL, *had[1:])
    libc.capset(header, less)
    try:
        yield
    finally:
        libc.capset(header, had)
