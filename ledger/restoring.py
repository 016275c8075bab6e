"""Brings back what a sweep has set aside, while its bytes wait in the trash."""

from __future__ import annotations

import dataclasses
from typing import Any

from ledger import life, moves, queries, states, upkeep
from ledger.disk import HOUSE, TRASH, TrashName, examine, is_session_id
from ledger.errors import NameTaken, SessionEnded, SessionError, SessionNotFound
from ledger.models import ENDED, Actor, Origin, Record, State
from ledger.place import Place
from ledger.states import Move, New
from ledger.survey import last_set_aside, mounts_in

_RESTORABLE = ENDED - {State.CLAIMED}


def restore(place: Place, session_id: str, now: int, by: Actor) -> Record:
    """Touched while still in the trash, then renamed, then active: so the remover, which looks
    before it buries, and a crash in between both find it used.

    A session that was claimed meanwhile stays so, as its row says where it went. Raises
    SessionError, NameTaken.
    """
    if not is_session_id(session_id):
        raise SessionNotFound(session_id)
    waiting = last_set_aside(place.root, session_id)
    if waiting is not None:
        _put_back(place, waiting, now)
    elif not _is_half_restored(place, session_id):
        raise SessionError(
            f"Nothing of session {session_id} waits in the trash: it stands in the root, was "
            "deleted by its user, or its bytes are gone."
        )
    return _restored(place, session_id, now, by)


def _put_back(place: Place, waiting: TrashName, now: int) -> None:
    entry, session_id = str(waiting), waiting.session_id
    # Both before it is dated: a refusal changes nothing. And in this order: what a claim has taken
    # out of the root by now, its row tells.
    if upkeep.exists(session_id, place.root.fd):
        _refuse_taken(place, waiting)
        return
    _refuse_claimed(place, waiting, now)
    try:
        life.stamp(entry, now, place.root.trash)
        moves.put_back(place.root, entry, session_id)
    except FileExistsError:
        _refuse_taken(place, waiting)
    except FileNotFoundError:
        # The remover, too, brings back what was touched; else it was quicker than the touch.
        if place.inode_of(session_id) is None:
            raise SessionError(
                f"The bytes of session {session_id} have just been removed."
            ) from None


def _refuse_taken(place: Place, waiting: TrashName) -> None:
    """Unless it is what was waiting that stands there: another restore was quicker."""
    if upkeep.exists(str(waiting), place.root.trash):
        there = place.root.path_of(waiting.session_id)
        raise NameTaken(f"Another directory stands at {there}. Move it away first.") from None


def _refuse_claimed(place: Place, waiting: TrashName, now: int) -> None:
    row = _row(place, waiting.session_id)
    if row is not None and row.state == State.CLAIMING:
        life.finish_claim_of_nobody(place, row, now)
        row = _row(place, waiting.session_id)
    if row is not None and row.state == State.CLAIMED:
        raise SessionError(
            f"Session {row.session_id} was claimed into '{row.destination}' after a sweep had set "
            "an earlier directory of its name aside, and stays claimed. What you need of the "
            f"earlier one, copy from {place.root.path}/{HOUSE}/{TRASH}/{waiting} before a sweep "
            "removes it."
        )


def _row(place: Place, session_id: str) -> Record | None:
    with place.database.read() as connection:
        return queries.record_of(connection, place.root_id, session_id)


def _is_half_restored(place: Place, session_id: str) -> bool:
    """Whether its directory is back, but the ledger could not be told when it went."""
    row = life.known(place, session_id)
    swept = row.state == State.EXPIRED or row.remover == Actor.SWEEP
    return swept and place.inode_of(session_id) == row.inode


def _restored(place: Place, session_id: str, now: int, by: Actor) -> Record:
    values: dict[str, Any] = {"touched": True, "last_touch_at": now, "trash": None}
    values |= {"remover": None, "destination": None}
    new = New(session_id, Origin.ADOPTED, "restored", now, now, touched=True)
    if _row(place, session_id) is None:
        facts = examine(place.root, session_id, now, mounts_in(place.root)).facts
        new = dataclasses.replace(new, bytes=facts.bytes, files=facts.files)
    with place.database.write() as connection:
        made = states.insert(connection, place.root_id, [new], by, now)
        if session_id in made:
            return made[session_id]
        # Active: another restore was quicker, or the ledger is a copy from before the sweep.
        if touched := states.touch(connection, place.root_id, session_id, now):
            return touched
        row = queries.record_of(connection, place.root_id, session_id)
        if row is not None and (row.state in _RESTORABLE or row.remover == Actor.SWEEP):
            moved = states.move(connection, Move(row, State.ACTIVE, by, "restored", values), now)
            if moved is not None and place.inode_of(session_id) is None:
                raise SessionEnded("The session was deleted while it was being restored.")
            if moved is not None:
                return moved
    raise life.changing_error(session_id)
