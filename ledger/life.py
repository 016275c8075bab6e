"""What happens to one session: touched, claimed, deleted.

Users act on the state alone. Each step is one conditional UPDATE or one rename, in the order
that loses nothing at a crash between any two; `upkeep.py` finishes what one leaves.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from ledger import counts, moves, queries, states, system, upkeep
from ledger.counts import TOUCHES
from ledger.disk import TrashName, examine, is_session_id, lying_there
from ledger.errors import (
    ClaimsUnavailable,
    LedgerUnavailable,
    NameTaken,
    SessionBusy,
    SessionElsewhere,
    SessionEnded,
    SessionError,
    SessionNotFound,
    UsageError,
)
from ledger.models import ENDED, Actor, Record, State, short
from ledger.place import Place
from ledger.plan import Kind
from ledger.report import rfc3339
from ledger.states import Move, Moved, New
from ledger.survey import last_set_aside, mounts_in

# Of a directory where nothing may be written, and which no sweep may move, the row alone tells.
_NOT_OURS_TO_DATE = (errno.EPERM, errno.EACCES, errno.EROFS)
_TRIES = 10  # how often an operation starts over because another one was first


def ended_error(row: Record | None) -> SessionEnded:
    """How and when the session ended, as an error."""
    if row is None or row.ended_at is None:
        return SessionEnded("The session has ended: it was removed.")
    return SessionEnded(
        f"The session has ended: {row.state} at {rfc3339(row.ended_at)} ({row.ended_why})."
    )


def changing_error(session_id: str) -> SessionBusy:
    """Others are at the session again and again; asked once more, it is known how that ended."""
    return SessionBusy(f"Session {short(session_id)}… is changing; try again in a moment.")


def _claiming(session_id: str) -> SessionBusy:
    return SessionBusy(f"Session {short(session_id)}… is just being claimed.")


# Found, or adopted first


def known(place: Place, session_id: str) -> Record:
    """The session's row. Raises SessionNotFound, SessionElsewhere."""
    if not is_session_id(session_id):
        raise SessionNotFound(session_id)
    with place.database.read() as connection:
        row = queries.record_of(connection, place.root_id, session_id)
        if row is not None:
            return row
        if queries.is_elsewhere(connection, place.root_id, session_id):
            raise SessionElsewhere(
                f"Session {short(session_id)}… belongs to another root of this ledger: ask the "
                "server that holds it."
            )
    raise SessionNotFound(session_id)


def _found(place: Place, session_id: str, now: int, by: Actor) -> Record:
    """The session's row; a directory without one is adopted first.

    Raises SessionNotFound, SessionElsewhere.
    """
    try:
        return known(place, session_id)
    except SessionNotFound:
        return _adopt(place, session_id, now, by)
    except SessionElsewhere:
        if place.inode_of(session_id):
            return _adopt(place, session_id, now, by)
        raise


def _adopt(place: Place, session_id: str, now: int, by: Actor) -> Record:
    if not is_session_id(session_id):
        raise SessionNotFound(session_id)
    facts = examine(place.root, session_id, now, mounts_in(place.root)).facts
    if facts.kind is Kind.UNREADABLE:  # it is there: nobody must be told that it is not
        raise OSError(errno.EIO, f"the session's directory cannot be read: {facts.what}")
    if facts.kind is not Kind.DIRECTORY:
        raise SessionNotFound(session_id)
    at = now if facts.mtime is None else facts.mtime
    new = New.adopted(session_id, "its directory had no row", facts, at)
    with place.database.write() as connection:
        states.insert(connection, place.root_id, [new], by, now)
        row = queries.record_of(connection, place.root_id, session_id)
    if row is None:
        raise changing_error(session_id)
    return row


# Touch


def touch(place: Place, session_id: str, now: int, by: Actor) -> Record:
    """The session's row and its directory's mtime say that it is used now. Raises SessionError."""
    record = _touch_row(place, session_id, now, by)
    # A sweep may have it in the trash just now, and puts it back as soon as it finds the touch.
    here, there = (session_id, place.root.fd), (record.trash, place.root.trash)
    for name, dir_fd in (here, there, here):
        if name and stamp(name, record.last_touch_at, dir_fd):
            place.count({counts.of(TOUCHES): 1})
            return record
    raise SessionEnded("The session's directory is gone.")


def touch_all(place: Place, ids: Sequence[str], now: int) -> list[Record]:
    """Those of the sessions that are active and stand, touched in one transaction. What there is
    to do or to say about any other, `touch` knows."""
    possible = [name for name in ids if is_session_id(name)]
    with place.database.write() as connection:
        touched = states.touch_all(connection, place.root_id, possible, now, if_free=True)
    stamped: list[Record] = []
    for record in touched.values():
        with suppress(OSError):
            if stamp(record.session_id, record.last_touch_at, place.root.fd):
                stamped.append(record)
    place.count({counts.of(TOUCHES): len(stamped)})
    return stamped


def stamp(name: str, at: int, dir_fd: int) -> bool:
    """The directory's mtime says so, too; False where no directory lies there."""
    try:
        with lying_there(name):
            system.set_mtime(name, at * 1000, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno not in _NOT_OURS_TO_DATE:
            raise
    return True


def _touch_row(place: Place, session_id: str, now: int, by: Actor) -> Record:
    if not is_session_id(session_id):
        raise SessionNotFound(session_id)
    for _ in range(_TRIES):
        with place.database.write() as connection:
            touched = states.touch(connection, place.root_id, session_id, now)
        if touched is not None:
            return touched
        row = _found(place, session_id, now, by)
        if row.state in ENDED:
            raise ended_error(row)
        if row.state == State.CLAIMING:
            finish_claim_of_nobody(place, row, now)
        if row.state == State.REMOVING:
            if row.remover != Actor.SWEEP:
                raise SessionEnded("The session is being deleted.")
            if saved := _save_from_sweep(place, row, now, by):
                return saved
    raise changing_error(session_id)


def _save_from_sweep(place: Place, row: Record, now: int, by: Actor) -> Record | None:
    """A touch wins against a sweep up to its last step, which finds the row active again."""
    values = {"touched": True, "last_touch_at": max(now, row.last_touch_at), "remover": None}
    why = "touched while a sweep was removing it"
    with place.database.write() as connection:
        return states.move(connection, Move(row, State.ACTIVE, by, why, values), now)


# Claim


def claim(
    place: Place,
    session_id: str,
    into: str | os.PathLike[str],
    clock: Callable[[], int],
    by: Actor,
) -> Record:
    """Row, bytes and rename, row again; the second and third are durable before this returns."""
    destination = place.claims.destination(into)
    if place.claims.trouble and (trouble := place.claims.problem()):
        raise ClaimsUnavailable(trouble)
    for _ in range(_TRIES):
        row = _found(place, session_id, clock(), by)
        if row.state == State.CLAIMED and row.destination == destination:
            if place.inode_of(session_id) is None:
                return row
            raise ended_error(row)  # what stands there now is another one, and not claimed
        if row.state == State.CLAIMING:
            finish_claim_of_nobody(place, row, clock())
        elif row.state != State.ACTIVE:
            _raise_for_claim(place, row, clock(), by)
        else:
            try:
                claimed = _claim_active(place, row, destination, clock, by)
            except SessionEnded:  # gone; by another claim or a DELETE, or by nobody we know of?
                claimed = None
                if known(place, session_id).version == row.version:
                    raise
            if claimed is not None:
                return claimed
    raise changing_error(session_id)


def finish_claim_of_nobody(place: Place, row: Record, now: int) -> None:
    """A claim is nobody's when its lock can be had: a crash left it."""
    if upkeep.finish_session(place, row, now) is upkeep.Outcome.IN_USE:
        raise _claiming(row.session_id)


def _raise_for_claim(place: Place, row: Record, now: int, by: Actor) -> None:
    """Ended or being deleted: no claim. One that a sweep is removing is saved by a touch first."""
    if row.state in ENDED:
        raise ended_error(row)
    if row.remover != Actor.SWEEP:
        raise SessionEnded("The session is being deleted.")
    touch(place, row.session_id, now, by)


def _open_parent(place: Place, destination: str) -> tuple[int, str]:
    try:
        return place.claims.open_parent(destination, make=True)
    except NotADirectoryError as error:
        said = f"{error.filename} in the claim's path is no directory, or on another mount."
        raise UsageError(said) from None
    except OSError as error:
        if trouble := place.claims.problem():
            raise ClaimsUnavailable(trouble) from error
        raise


def _claim_active(
    place: Place, row: Record, destination: str, clock: Callable[[], int], by: Actor
) -> Record | None:
    parent, name = _open_parent(place, destination)
    try:
        with place.hold(row.session_id, shared=False) as fd:
            inode = str(os.fstat(fd).st_ino)
            values = {"destination": destination, "inode": inode}
            begin = Move(row, State.CLAIMING, by, "being claimed", values, any_version=True)
            with place.database.write(durable=True) as connection:
                claiming = states.move(connection, begin, clock())
            if claiming is None:
                return None
            try:
                moves.make_durable(fd)
                moves.claim(place.root, row.session_id, inode, parent, name)
            except OSError as error:
                raise _claim_failed(place, claiming, destination, error, clock(), by) from error
            end = Move(claiming, State.CLAIMED, by, "claimed")
            with place.database.write(durable=True) as connection:
                return states.move(connection, end, clock())
    finally:
        os.close(parent)


def _claim_failed(
    place: Place, claiming: Record, destination: str, error: OSError, now: int, by: Actor
) -> Exception:
    """The session is active again, and why it could not be claimed."""
    if place.claims.inode_at(destination) == claiming.inode:
        return error  # it has moved; only its durability is in doubt, which upkeep settles
    why = f"the claim failed: {error.strerror}"
    back = Move(claiming, State.ACTIVE, by, why, {"destination": None})
    with place.database.write() as connection:
        states.move(connection, back, now)
    if isinstance(error, FileNotFoundError):
        return changing_error(claiming.session_id)
    if isinstance(error, FileExistsError):
        return NameTaken(f"The claims directory already has a '{destination}'.")
    if trouble := place.claims.problem():
        return ClaimsUnavailable(trouble)
    if error.errno == errno.EXDEV:
        return SessionError(f"The session cannot be claimed: {error.strerror} inside it.")
    return error


# Delete


def delete(place: Place, session_id: str, clock: Callable[[], int], by: Actor) -> str | None:
    """Row, rename, row; the trash's entry that is to be removed. None: there was nothing.

    A removal under way, a sweep's or another request's, is taken over: who comes last, has it.
    """
    for _ in range(_TRIES):
        try:
            row = _found(place, session_id, clock(), by)
        except SessionNotFound:
            return _delete_unknown(place, session_id)
        if row.state == State.CLAIMING:
            finish_claim_of_nobody(place, row, clock())
        elif row.state in ENDED and not _is_left(place, row, clock()):
            return None
        else:
            [deletion] = _delete_rows(place, [row], clock, by)
            if deletion.error is not None:
                raise deletion.error
            if deletion.is_settled:
                return deletion.entry
    raise changing_error(session_id)


def delete_all(
    place: Place, ids: Sequence[str], clock: Callable[[], int], by: Actor
) -> dict[str, str]:
    """Those of the sessions that are active, deleted in two transactions: the trash's entry of
    each. What there is to do or to say about any other, `delete` knows."""
    with place.database.read() as connection:
        rows = queries.records_of(connection, place.root_id, ids).values()
    active = [row for row in rows if row.state == State.ACTIVE]
    deletions = _delete_rows(place, active, clock, by, if_free=True)
    return {each.row.session_id: each.entry for each in deletions if each.entry}


@dataclass(slots=True)
class _Deletion:
    """How far the deletion of one session came. `is_settled`: nobody need try again; then `entry`
    is that of the trash that is ours to remove, if any."""

    row: Record
    error: OSError | None = None
    is_settled: bool = False
    entry: str | None = None


def _delete_rows(
    place: Place,
    rows: Sequence[Record],
    clock: Callable[[], int],
    by: Actor,
    *,
    if_free: bool = False,
) -> list[_Deletion]:
    deletions = {row.pk: _Deletion(row) for row in rows}
    with ExitStack() as stack:
        for row in rows:
            stack.enter_context(place.presence(row.session_id, at_once=if_free))
        now = clock()
        begin: list[Move] = []
        for row in rows:
            try:
                begin += _beginning(place, row, by, now, if_free=if_free)
            except OSError as error:
                deletions[row.pk].error = error
        end: list[Move] = []
        for pk, (before, removing) in _move_all(place, begin, now, if_free=if_free).items():
            try:
                _into_trash(place, before, str(removing.trash))
            except OSError as error:
                deletions[pk].error = error
                why = f"it could not be moved into the trash: {error.strerror}"
                _move_all(place, [_undone(removing, before, by, why)], clock())
            else:
                end.append(Move(removing, State.DELETED, by, "deleted"))
        ended = _end_all(place, end, clock(), if_free=if_free)
        for removing in (each.record for each in end):
            found = deletions[removing.pk]
            if removing.pk in ended:
                found.is_settled, found.entry = True, removing.trash
            else:
                found.is_settled, found.entry = _after_a_lost_end(place, removing)
    return list(deletions.values())


def _end_all(place: Place, end: Sequence[Move], now: int, *, if_free: bool) -> dict[int, Moved]:
    """Whose row was locked just then is waited for, as it would be alone: left for later, a sweep
    may finish it, and its DELETE would be told that there was nothing to delete."""
    ended = _move_all(place, end, now, if_free=if_free)
    if if_free:
        for want in (each for each in end if each.record.pk not in ended):
            with suppress(LedgerUnavailable):
                ended |= _move_all(place, [want], now)
    return ended


def _beginning(place: Place, row: Record, by: Actor, now: int, *, if_free: bool) -> Iterator[Move]:
    """Its move; `if_free`, none where its directory is gone: to look elsewhere takes long."""
    inode = place.inode_of(row.session_id)
    if inode is not None or not if_free:
        entry = str(moves.trash_name(row.session_id, by_user=True, seen=now))
        values = {"remover": str(by), "trash": entry, "inode": inode or row.inode}
        yield Move(row, State.REMOVING, by, "deleted", values, any_version=True)


def _undone(removing: Record, before: Record, by: Actor, why: str) -> Move:
    """Back to what it was: what a sweep has set aside, or is setting aside, still is."""
    kept = ("remover", "trash", "inode", "ended_at", "ended_by", "ended_why")
    values = {name: getattr(before, name) for name in kept}
    if before.state in (State.EXPIRED, State.DELETED, State.REMOVING):
        return Move(removing, before.state, by, why, values)
    return Move(removing, State.ACTIVE, by, why, {"remover": None, "trash": None})


def _into_trash(place: Place, before: Record, entry: str) -> None:
    """The directory lies in the trash under our name, if it is anywhere: in the root, or there
    already under the name that whom we took over from gave it."""
    session_id = before.session_id
    for _ in range(2):  # a sweep may be putting it back just now
        if place.inode_of(session_id) is not None:  # what is no directory is not ours to move
            with suppress(FileNotFoundError, NotADirectoryError):
                moves.set_aside(place.root, session_id, entry, final=True)
                return
        if before.trash is not None:
            with suppress(FileNotFoundError):
                moves.rename_in_trash(place.root, before.trash, entry)
                return
    with suppress(FileNotFoundError):  # a ledger's older copy does not know what was set aside
        upkeep.take_over(place, session_id, entry)


def _after_a_lost_end(place: Place, removing: Record) -> tuple[bool, str | None]:
    """Upkeep finished it for us, another request took it over, or upkeep took it back. Whether that
    settles it, and the entry if it is ours to remove."""
    entry = str(removing.trash)
    with place.database.read() as connection:
        row = queries.record_of(connection, place.root_id, removing.session_id)
    if row is None or (row.state == State.DELETED and row.trash == entry):
        return True, entry
    if row.state != State.ACTIVE:
        return True, None
    with suppress(OSError):
        moves.put_back(place.root, entry, removing.session_id)
    return False, None


def _is_left(place: Place, row: Record, now: int) -> bool:
    """Whether anything of an ended session is left to delete: a directory that stands again, or
    one that a sweep set aside and that waits. One that is due was the sweep's to remove."""
    if place.inode_of(row.session_id) is not None:
        return True
    # A ledger's older copy did not know that it was set aside, and calls it missing.
    if row.state == State.MISSING:
        name = last_set_aside(place.root, row.session_id)
    else:
        name = TrashName.parse(row.trash or "")
    if name is None or name.by_user or name.due <= now:
        return False
    return upkeep.exists(str(name), place.root.trash)


def _delete_unknown(place: Place, session_id: str) -> str | None:
    """What waits in the trash may be deleted even where the ledger no longer knows of it."""
    if not is_session_id(session_id):
        return None
    entry = str(moves.trash_name(session_id, by_user=True, seen=0))
    try:
        upkeep.take_over(place, session_id, entry)
    except FileNotFoundError:
        return None
    return entry


def _move_all(
    place: Place, wanted: Sequence[Move], now: int, *, if_free: bool = False
) -> dict[int, Moved]:
    if not wanted:
        return {}
    with place.database.write() as connection:
        return states.move_all(connection, wanted, now, if_free=if_free)
