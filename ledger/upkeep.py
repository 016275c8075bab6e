"""What time asks for: finishes what a crash left, and removes what is due."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from enum import StrEnum

from ledger import moves, queries, removal, states, system
from ledger.disk import TrashName, inode_of, newer_than, open_directory
from ledger.models import Actor, Record, State
from ledger.place import Place
from ledger.removal import OnEntry, Removed
from ledger.states import Move

NAME_TAKEN = (
    "it was used after it was set aside, but its name is taken; it waits in the trash, restorable "
    "for the max age"
)


class Outcome(StrEnum):
    """What came of finishing one thing."""

    DONE = "done"
    REMOVED = "removed"  # done, and its directory left the root, which no sweep has counted yet
    IN_USE = "in_use"
    CHANGED = "changed"  # somebody else was first


# A session whose claim or removal was interrupted


def finish_session(place: Place, record: Record, now: int) -> Outcome:
    """Rolls an interrupted claim or removal forward or back. Raises OSError, CoatcheckError."""
    if record.state == State.CLAIMING:
        return _finish_claim(place, record, now)
    if record.state != State.REMOVING:
        return _finish_lost_removal(place, record, now)
    if record.remover == Actor.SWEEP:
        return _finish_sweeps_removal(place, record, now)
    return _finish_users_removal(place, record, now)


def _finish_claim(place: Place, record: Record, now: int) -> Outcome:
    """Forward only where the destination is the very directory that was claimed; else back."""
    with ExitStack() as stack:
        destination = _open_destination(place, record, stack)
        fd = _open_claimed(record, destination, (record.session_id, place.root.fd))
        if fd is not None:
            stack.callback(os.close, fd)
            if not system.lock_exclusive(fd):
                return Outcome.IN_USE
        if destination and _is_inode(*destination, record.inode):
            system.fsync_dir(destination[1])
            system.fsync_dir(place.root.fd)
            return _move(place, record, State.CLAIMED, "its interrupted claim was finished", now)
        why = "its interrupted claim was taken back"
        return _move(place, record, State.ACTIVE, why, now, destination=None)


def _open_destination(place: Place, record: Record, stack: ExitStack) -> tuple[str, int] | None:
    """Its name, and where that stands; None where no way leads there any more."""
    try:
        parent, name = place.claims.open_parent(record.destination or "")
    except (FileNotFoundError, NotADirectoryError):
        return None
    stack.callback(os.close, parent)
    return name, parent


def _open_claimed(record: Record, *places: tuple[str, int] | None) -> int | None:
    """The directory being claimed, where it stands: at its destination, or still in the root."""
    for place in places:
        if place and _is_inode(*place, record.inode):
            with suppress(FileNotFoundError, NotADirectoryError):
                return open_directory(place[0], dir_fd=place[1])
    return None


def _finish_sweeps_removal(place: Place, record: Record, now: int) -> Outcome:
    """A sweep's: back to active while its directory stands in the root, to be judged afresh."""
    with suppress(FileNotFoundError, NotADirectoryError):
        fd = open_directory(record.session_id, dir_fd=place.root.fd)
        try:
            if not system.lock_exclusive(fd):
                return Outcome.IN_USE
            why = "a sweep was interrupted before it set the session aside"
            return _move(place, record, State.ACTIVE, why, now, trash=None, remover=None)
        finally:
            os.close(fd)
    if record.trash and exists(record.trash, place.root.trash):
        return finish_trash(place, record.trash, now)
    return _move(place, record, State.EXPIRED, "an interrupted sweep was finished", now)


def _finish_users_removal(place: Place, record: Record, now: int) -> Outcome:
    """A user's: finished, unless the directory is another one or was written to since."""
    name = TrashName.parse(record.trash or "")
    requested = name.seen if name else 0
    outcome = Outcome.DONE
    if place.inode_of(record.session_id) is not None and record.trash:
        try:
            fd = open_directory(record.session_id, dir_fd=place.root.fd)
        except FileNotFoundError:
            return Outcome.CHANGED
        try:
            if not system.lock_exclusive(fd):  # who deletes it is still at it
                return Outcome.IN_USE
            same = str(os.fstat(fd).st_ino) == record.inode
            if not same or newer_than(fd, requested, now):
                why = "its interrupted removal was taken back: it was used since"
                return _move(place, record, State.ACTIVE, why, now, trash=None, remover=None)
            moves.set_aside(place.root, record.session_id, record.trash, final=True)
            outcome = Outcome.REMOVED
        finally:
            os.close(fd)
    elif record.trash and not exists(record.trash, place.root.trash):
        with suppress(FileNotFoundError):
            take_over(place, record.session_id, record.trash)
    ended = _move(place, record, State.DELETED, "its interrupted removal was finished", now)
    if ended is Outcome.CHANGED:
        return ended
    if record.trash:
        finish_trash(place, record.trash, now)
    return outcome


def _finish_lost_removal(place: Place, record: Record, now: int) -> Outcome:
    """Ended, but its directory stands unchanged: a power cut took back the rename.

    A sweep's entry, a user's removal too: so it is looked at again, and goes back if used since.
    """
    expired = TrashName.parse(record.trash or "") if record.state == State.EXPIRED else None
    # Under the name that its row knows, so that a DELETE finds it while it waits.
    name = expired or moves.trash_name(record.session_id, by_user=False, seen=record.ended_at or 0)
    try:
        moves.set_aside(place.root, record.session_id, str(name))
    except (FileNotFoundError, NotADirectoryError):
        return Outcome.CHANGED
    done = finish_trash(place, str(name), now)
    return Outcome.REMOVED if done is Outcome.DONE else done


def take_over(place: Place, session_id: str, name: str) -> None:
    """A directory that a sweep has set aside bears the user's name now.

    Raises FileNotFoundError where the trash holds none of this session.
    """
    for entry in os.listdir(place.root.trash):
        parsed = TrashName.parse(entry)
        if parsed and parsed.session_id == session_id and not parsed.by_user:
            with suppress(FileNotFoundError):
                moves.rename_in_trash(place.root, entry, name)
                return
    raise FileNotFoundError(session_id)


# An entry of the trash


def finish_trash(
    place: Place, entry: str, now: int, *, early: bool = False, on_entry: OnEntry | None = None
) -> Outcome:
    """Removes what the trash holds under this name, or brings it back where it was used since.

    What is not due yet stays, unless `early`. What `on_entry` raises ends the removal. Raises
    OSError for bytes that cannot be removed.
    """
    name = TrashName.parse(entry)
    if name is None:
        return _remove(place, entry, on_entry=on_entry)
    try:
        fd = _open_in_trash(place, entry, final=name.by_user)
    except FileNotFoundError:
        return Outcome.DONE
    except NotADirectoryError:
        return _give_back(place, name)
    try:
        if not name.by_user and not system.lock_exclusive(fd):
            return Outcome.IN_USE
        with place.database.read() as connection:
            record = queries.record_of(connection, place.root_id, name.session_id)
        mine = record if record is not None and record.trash == entry else None
        touched = mine is not None and mine.state == State.ACTIVE and not name.by_user
        if touched or _is_used(fd, name, now):
            return bring_back(place, name, now)
        outcome = Outcome.DONE
        if mine is not None and mine.state == State.REMOVING:
            to = State.DELETED if name.by_user else State.EXPIRED
            ended = _move(place, mine, to, "its interrupted removal was finished", now)
            if ended is Outcome.CHANGED:  # a touch or a DELETE was first
                return ended
            if to is State.EXPIRED:
                outcome = Outcome.REMOVED
        if name.due > now and not early:
            return outcome
        done = bury_and_remove(place, name, fd, now, on_entry=on_entry)
        return outcome if done is Outcome.DONE else done
    finally:
        os.close(fd)


def remove_deleted(
    place: Place, name: TrashName, now: int, *, on_entry: OnEntry | None = None
) -> None:
    """The bytes of what a user deleted are gone, once its row, if any, says that it has ended.
    Raises OSError."""
    with suppress(FileNotFoundError):
        fd = _open_in_trash(place, str(name), final=True)
        try:
            bury_and_remove(place, name, fd, now, on_entry=on_entry)
        finally:
            os.close(fd)


def _give_back(place: Place, name: TrashName) -> Outcome:
    """What took a session's place in the very instant of its removal was never ours to take."""
    try:
        moves.put_back(place.root, str(name), name.session_id)
    except FileExistsError:
        said = "it is no directory, and waits in the trash until its name in the root is free"
        raise FileExistsError(errno.EEXIST, said) from None
    return Outcome.CHANGED


def bring_back(place: Place, name: TrashName, now: int) -> Outcome:
    """The directory is in the root again, and its session active; the ledger learns last.

    Where its name is taken it stays, restorable for max age, and FileExistsError is raised.
    """
    entry = str(name)
    try:
        moves.put_back(place.root, entry, name.session_id)
    except FileNotFoundError:  # who restores or deletes it was quicker
        return Outcome.CHANGED
    except FileExistsError:
        postpone(place, name, now, now + place.settings.max_age_us)
        raise FileExistsError(errno.EEXIST, NAME_TAKEN) from None
    why = "it was used after it was set aside"
    with place.database.write() as connection:
        record = queries.record_of(connection, place.root_id, name.session_id)
        if record is not None and record.trash == entry and record.state != State.ACTIVE:
            values = {"trash": None, "remover": None, "last_touch_at": now}
            back = Move(record, State.ACTIVE, Actor.SWEEP, why, values, any_version=True)
            states.move(connection, back, now)
    return Outcome.CHANGED


def postpone(place: Place, name: TrashName, now: int, due: int) -> None:
    """The entry waits in the trash until `due`, as it is now."""
    later = moves.trash_name(name.session_id, by_user=False, seen=now, due=due)
    moves.rename_in_trash(place.root, str(name), str(later))


def bury_and_remove(
    place: Place, name: TrashName, fd: int, now: int, *, on_entry: OnEntry | None = None
) -> Outcome:
    """The entry's bytes are gone; what was used up to its burial goes back instead (CHANGED).

    `fd` is its directory, and of a sweep's entry the caller has the exclusive lock. Raises OSError
    for bytes that cannot be removed.
    """
    try:
        if _is_used(fd, name, now):
            return bring_back(place, name, now)
        dead = moves.bury(place.root, str(name))
    except FileNotFoundError:
        return Outcome.DONE
    # A crash before this second look lets the dead go; but only what was written in that instant.
    if _is_used(fd, name, now):
        moves.rename_in_trash(place.root, dead, str(name))
        return bring_back(place, name, now)
    if name.by_user:
        system.lock_exclusive(fd)  # to tell other removers; but a DELETE waits for nobody
    _raise_for(removal.remove_dead(place.root.trash, dead, on_entry=on_entry))
    return Outcome.DONE


def _is_used(fd: int, name: TrashName, now: int) -> bool:
    """A user's DELETE is final; what a sweep took, is used where anything is newer than judged."""
    return not name.by_user and newer_than(fd, name.seen, now)


def _remove(place: Place, dead: str, *, on_entry: OnEntry | None = None) -> Outcome:
    """Unlinks a dead entry, unless another remover is at it. Raises OSError for what stays."""
    try:
        fd = _open_in_trash(place, dead, final=True)
    except FileNotFoundError:
        return Outcome.DONE
    except NotADirectoryError:
        fd = -1
    try:
        if fd >= 0 and not system.lock_exclusive(fd):
            return Outcome.IN_USE
        _raise_for(removal.remove_dead(place.root.trash, dead, on_entry=on_entry))
    finally:
        if fd >= 0:
            os.close(fd)
    return Outcome.DONE


def _open_in_trash(place: Place, entry: str, *, final: bool) -> int:
    """Whatever its mode, if its removal is final; else it stays as it is until it can be read."""
    if final:
        return system.with_rights(open_directory, entry, place.root.trash)
    return open_directory(entry, dir_fd=place.root.trash)


def _raise_for(removed: Removed) -> None:
    if removed.failures:
        raise OSError(0, "; ".join(removed.failures))


def remove_leftover(place: Place, entry: str) -> None:
    """An upload that nobody is at any more, or that its writer gives up, is gone."""
    dead = moves.bury(place.root, entry, dir_fd=place.root.incoming)
    _raise_for(removal.remove_dead(place.root.trash, dead))


# Small words


def _move(place: Place, record: Record, to: State, why: str, now: int, **values: object) -> Outcome:
    with place.database.write(durable=to is State.CLAIMED) as connection:
        wanted = Move(record, to, Actor.SWEEP, why, dict(values))
        moved = states.move(connection, wanted, now)
    return Outcome.DONE if moved else Outcome.CHANGED


def exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_inode(name: str, dir_fd: int, inode: str | None) -> bool:
    return inode is not None and inode_of(name, dir_fd) == inode
