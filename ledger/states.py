"""Every change of a session's state there is, beside the one table of its transitions.

Each is one conditional UPDATE in a short write transaction, with its event and what it adds to the
counts beside it. Whoever changes no row has lost the race, and does nothing to the disk.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import compress
from operator import attrgetter, ne
from typing import Any

from sqlalchemy import Connection, Select, Update, bindparam, case, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ledger import bulk, counts, postgresql
from ledger.counts import CLAIMS, CREATIONS, DELETIONS, STATES, Key
from ledger.models import (
    ENDED,
    EVENTS,
    SESSIONS,
    Actor,
    Origin,
    Record,
    State,
    UnsoundRow,
    short,
)
from ledger.plan import Facts

# From each state, where a session can go. Every ended one can come back: revived or restored
# (active), or removed once more when its directory stands again (removing).
TRANSITIONS: dict[State, frozenset[State]] = {
    State.ACTIVE: frozenset({State.CLAIMING, State.REMOVING, State.MISSING}),
    State.CLAIMING: frozenset({State.CLAIMED, State.ACTIVE}),
    State.REMOVING: frozenset({State.DELETED, State.EXPIRED, State.ACTIVE, State.REMOVING}),
    **dict.fromkeys(ENDED, frozenset({State.ACTIVE, State.REMOVING})),
}

_COLUMNS = SESSIONS.c
_UNENDED = {"ended_at": None, "ended_by": None, "ended_why": None}


@dataclass(frozen=True, slots=True)
class Move:
    """One change of state that is wanted.

    A sweep moves a session only as it judged it; a user, in whatever version its state is.
    """

    record: Record
    to: State
    by: Actor
    why: str
    values: dict[str, Any] = field(default_factory=dict)
    any_version: bool = False


Moved = tuple[Record, Record]
"""A session as it was, and as it is after its move."""


def move(connection: Connection, wanted: Move, now: int) -> Record | None:
    """The session after its move; None when the race was lost."""
    moved = move_all(connection, [wanted], now).get(wanted.record.pk)
    return moved and moved[1]


def move_all(
    connection: Connection, wanted: Sequence[Move], now: int, *, if_free: bool = False
) -> dict[int, Moved]:
    """Carries out those moves whose session is still as its record says; those, by their key.

    `if_free`: on a server, none of a row that another transaction keeps locked.
    """
    if not wanted:
        return {}
    root_id = wanted[0].record.root_id
    take_turn(connection, root_id)
    standing = _lock(connection, wanted, if_free=if_free)
    moved: list[tuple[Move, Record]] = []
    for want in wanted:
        if want.to not in TRANSITIONS[State(want.record.state)]:
            raise ValueError(f"no session goes from {want.record.state} to {want.to}")
        found = standing.get(want.record.pk)
        if found is None or found.state != want.record.state:
            continue
        if want.any_version or found.version == want.record.version:
            moved.append((want, _after(found, want, now)))
    if moved:
        changed = _changed((standing[record.pk], record) for _, record in moved)
        bulk.execute(connection, _update(changed), [_parameters(record) for _, record in moved])
        bulk.execute(connection, _EVENT, [_event(*pair, now) for pair in moved])
        counts.add(connection, root_id, _counted(want for want, _ in moved))
    return {record.pk: (standing[record.pk], record) for _, record in moved}


def _counted(moved: Iterable[Move]) -> Counter[Key]:
    """What these moves change of the counts."""
    counted: Counter[Key] = Counter()
    for want in moved:
        counted[counts.of(STATES, want.record.state)] -= 1
        counted[counts.of(STATES, want.to)] += 1
        if want.to in _COUNTED and "ended_at" not in want.values:  # else it is only put back
            counted[counts.of(_COUNTED[want.to])] += 1
    return counted


_COUNTED = {State.CLAIMED: CLAIMS, State.DELETED: DELETIONS}


def take_turn(connection: Connection, root_id: str) -> None:
    """SQLite has one writer at a time; on a server a root's changes of state queue here, before
    they lock any row."""
    if connection.dialect.name == "postgresql":
        postgresql.take_turn(connection, root_id)


def _lock(connection: Connection, wanted: Sequence[Move], *, if_free: bool) -> dict[int, Record]:
    """The rows as they stand; nobody else changes them before this transaction ends.

    Read to the end before one is looked at: a statement that is left half read, for an unsound
    row, would keep its connection in an old moment, and every transaction on it from beginning.
    """
    known = {want.record.pk: want.record for want in wanted}
    whole = any(want.any_version for want in wanted)
    standing: dict[int, Record] = {}
    found = connection.execute(_LOCKING[whole, if_free], {"pks": list(known)}).all()
    for pk, session_id, state, version, *rest in found:
        record = known[pk]
        if session_id != record.session_id:
            raise UnsoundRow("the index of the sessions names other rows than it should")
        if whole:
            standing[pk] = Record(*rest)
        elif (state, version) == (record.state, record.version):
            standing[pk] = record  # of one version a row has but one form
    return standing


def _locking(*, whole: bool, if_free: bool) -> Select[Any]:
    identity = _COLUMNS.pk, _COLUMNS.session_id, _COLUMNS.state, _COLUMNS.version
    rest = [column.label(f"its_{column.name}") for column in _COLUMNS] if whole else []
    some = select(*identity, *rest).where(_COLUMNS.pk.in_(bindparam("pks", expanding=True)))
    return some.order_by(_COLUMNS.pk).with_for_update(skip_locked=if_free)


_LOCKING = {
    (whole, if_free): _locking(whole=whole, if_free=if_free)
    for whole in (True, False)
    for if_free in (True, False)
}


def _after(found: Record, want: Move, now: int) -> Record:
    values: dict[str, Any] = {"state": want.to, "version": found.version + 1}
    if want.to in ENDED:
        values |= {"ended_at": now, "ended_by": str(want.by), "ended_why": want.why}
    else:
        values |= _UNENDED
    return found._replace(**values | want.values)


_CHANGING = (
    "state",
    "version",
    "touched",
    "last_touch_at",
    "bytes",
    "files",
    "inode",
    "remover",
    "trash",
    "destination",
    "ended_at",
    "ended_by",
    "ended_why",
)
_ITS = attrgetter(*_CHANGING)


def _changed(moved: Iterable[Moved]) -> frozenset[str]:
    """The columns in which any of them is another one than before. No others are set: of each that
    is, be it to what it was, every index is written anew."""
    changed: set[str] = set()
    for before, after in moved:
        changed.update(compress(_CHANGING, map(ne, _ITS(before), _ITS(after))))
    return frozenset(changed)


@cache
def _update(changed: frozenset[str]) -> Update:
    one = _COLUMNS.pk == bindparam("its_pk"), _COLUMNS.version == bindparam("its_version")
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in sorted(changed)}
    return update(SESSIONS).where(*one).values(new)


def _parameters(record: Record) -> dict[str, Any]:
    values = dict(zip(_NEW, _ITS(record), strict=True))
    return {**values, "its_pk": record.pk, "its_version": record.version - 1}


_NEW = [f"new_{name}" for name in _CHANGING]


_EVENT = EVENTS.insert()


def _event(want: Move, record: Record, now: int) -> dict[str, Any]:
    return event(record, want.record.state, want.to, want.by, want.why, now)


def event(
    record: Record, before: str | None, after: str | None, by: Actor, why: str, now: int
) -> dict[str, Any]:
    return {
        "root_id": record.root_id,
        "at": now,
        "session_pk": record.pk,
        "session": short(record.session_id),
        "from_state": before,
        "to_state": after,
        "by": str(by),
        "why": why,
    }


@dataclass(frozen=True, slots=True)
class New:
    """A session to be written for the first time."""

    session_id: str
    origin: Origin
    why: str
    last_touch_at: int
    created_at: int
    touched: bool = False
    label: str | None = None
    state: State = State.ACTIVE
    bytes: int = 0
    files: int = 0
    inode: str | None = None
    remover: Actor | None = None
    trash: str | None = None

    @classmethod
    def adopted(cls, session_id: str, why: str, disk: Facts, at: int) -> New:
        """One whose directory somebody else made, last used at `at`."""
        return cls(session_id, Origin.ADOPTED, why, at, at, bytes=disk.bytes, files=disk.files)


def insert(
    connection: Connection, root_id: str, wanted: Sequence[New], by: Actor, now: int
) -> dict[str, Record]:
    """Writes those sessions that have no row yet; those, by their id."""
    if not wanted:
        return {}
    take_turn(connection, root_id)
    why = {new.session_id: new.why for new in wanted}
    rows = [
        {
            **{f.name: getattr(new, f.name) for f in dataclasses.fields(new) if f.name != "why"},
            "root_id": root_id,
            "version": 1,
            "origin": str(new.origin),
            "state": str(new.state),
            "remover": new.remover and str(new.remover),
        }
        for new in wanted
    ]
    made = [Record(*row) for row in connection.execute(_upsert(connection), rows).all()]
    if made:
        events = [event(r, None, r.state, by, why[r.session_id], now) for r in made]
        bulk.execute(connection, _EVENT, events)
        counted = Counter(counts.of(STATES, record.state) for record in made)
        counted[counts.of(CREATIONS)] = sum(record.origin == Origin.CREATED for record in made)
        counts.add(connection, root_id, counted)
    return {record.session_id: record for record in made}


def _upsert(connection: Connection) -> Any:
    on_server = connection.dialect.name == "postgresql"
    insert_into = postgresql.insert_into if on_server else sqlite_insert
    statement = insert_into(SESSIONS).on_conflict_do_nothing(
        index_elements=["root_id", "session_id"]
    )
    return statement.returning(*SESSIONS.c)


def _later(column: Any, at: Any) -> Any:
    return case((column < at, at), else_=column)


_OF_THESE = (
    _COLUMNS.root_id == bindparam("its_root"),
    _COLUMNS.session_id.in_(bindparam("its_ids", expanding=True)),
)
_FREE = select(_COLUMNS.session_id).where(*_OF_THESE).with_for_update(skip_locked=True)
_TOUCH = (
    update(SESSIONS)
    # Not the state as it stands: by its index SQLite would read every active session.
    .where(*_OF_THESE, _COLUMNS.state + "" == str(State.ACTIVE))
    .values(
        version=_COLUMNS.version + 1,
        touched=True,
        last_touch_at=_later(_COLUMNS.last_touch_at, bindparam("now")),
    )
    .returning(*SESSIONS.c)
)


def touch_all(
    connection: Connection, root_id: str, ids: Sequence[str], now: int, *, if_free: bool = False
) -> dict[str, Record]:
    """Touches those of the sessions that are active; those, by their id. A touch never moves one
    back. `if_free`: on a server, none whose row another transaction keeps locked."""
    if if_free and connection.dialect.name == "postgresql":
        free = connection.execute(_FREE, {"its_root": root_id, "its_ids": ids})
        ids = free.scalars().all()
    values = {"its_root": root_id, "its_ids": ids, "now": now}
    rows = connection.execute(_TOUCH, values).all()
    return {row.session_id: Record(*row) for row in rows}


def touch(connection: Connection, root_id: str, session_id: str, now: int) -> Record | None:
    """Touches an active session, once its row is free; None when it is not active."""
    return touch_all(connection, root_id, [session_id], now).get(session_id)


def heal(connection: Connection, record: Record, at: int, size: int, files: int) -> bool:
    """Sets an active session's last touch to what the disk knows, if nobody touched it since."""
    changed = connection.execute(
        update(SESSIONS)
        .where(
            _COLUMNS.pk == record.pk,
            _COLUMNS.state == str(State.ACTIVE),
            _COLUMNS.version == record.version,
        )
        .values(last_touch_at=at, version=_COLUMNS.version + 1, bytes=size, files=files)
    )
    return changed.rowcount == 1


def publish(
    connection: Connection,
    record: Record,
    *,
    add_bytes: int,
    add_files: int,
    most_bytes: int,
    most_files: int,
    now: int,
) -> Record | None:
    """Counts files into an active session, within its limits, as a touch; None when it cannot."""
    row = connection.execute(
        update(SESSIONS)
        .where(
            _COLUMNS.pk == record.pk,
            _COLUMNS.state == str(State.ACTIVE),
            _COLUMNS.bytes + add_bytes <= most_bytes,
            _COLUMNS.files + add_files <= most_files,
        )
        .values(
            version=_COLUMNS.version + 1,
            touched=True,
            last_touch_at=_later(_COLUMNS.last_touch_at, now),
            bytes=_at_least_zero(_COLUMNS.bytes + add_bytes),
            files=_at_least_zero(_COLUMNS.files + add_files),
        )
        .returning(*SESSIONS.c)
    ).one_or_none()
    return Record(*row) if row else None


def count_out(connection: Connection, record: Record, *, size: int, files: int) -> None:
    """Takes back what `publish` counted into an active session, and the disk then refused."""
    connection.execute(
        update(SESSIONS)
        .where(_COLUMNS.pk == record.pk, _COLUMNS.state == str(State.ACTIVE))
        .values(
            version=_COLUMNS.version + 1,
            bytes=_at_least_zero(_COLUMNS.bytes - size),
            files=_at_least_zero(_COLUMNS.files - files),
        )
    )


def _at_least_zero(value: Any) -> Any:
    return case((value < 0, 0), else_=value)


def created(connection: Connection, record: Record, label: str | None, now: int) -> Record | None:
    """Makes a row that a cross-check adopted between directory and row the creator's own."""
    row = connection.execute(
        update(SESSIONS)
        .where(_COLUMNS.pk == record.pk, _COLUMNS.state == str(State.ACTIVE))
        .values(
            label=label,
            origin=str(Origin.CREATED),
            touched=True,
            version=_COLUMNS.version + 1,
            last_touch_at=_later(_COLUMNS.last_touch_at, now),
        )
        .returning(*SESSIONS.c)
    ).one_or_none()
    if row is None:
        return None
    counts.add(connection, record.root_id, {counts.of(CREATIONS): 1})
    return Record(*row)
