"""Every change of a session's state there is, beside the one table of its transitions.

Each is one conditional UPDATE in a short write transaction, with its event and what it adds to the
counts beside it. Whoever changes no row has lost the race, and does nothing to the disk.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, bindparam, case, select, update
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
    at: int | None = None  # when; None: when all that it is carried out with are

    def time(self, now: int) -> int:
        return now if self.at is None else self.at


Moved = tuple[Record, Record]
"""A session as it was, and as it is after its move."""


def move(connection: Connection, wanted: Move, now: int) -> Record | None:
    """The session after its move; None when the race was lost."""
    return move_all(connection, [wanted], now).get(wanted.record.pk)


def move_all(connection: Connection, wanted: Sequence[Move], now: int) -> dict[int, Record]:
    """Carries out those moves whose session is still as its record says; those, by their key."""
    return {pk: after for pk, (_, after) in _moved(connection, wanted, now).items()}


def carry_out(connection: Connection, wanted: Sequence[Move]) -> list[Moved | None]:
    """Carries them out one after the other, as far as they are of one session; each bears its time.
    None for a race that was lost."""
    told: list[Moved | None] = [None] * len(wanted)
    left = dict(enumerate(wanted))
    while left:
        first = {want.record.pk: number for number, want in reversed(left.items())}
        moved = _moved(connection, [left[number] for number in sorted(first.values())], 0)
        for pk, number in first.items():
            told[number] = moved.get(pk)
            del left[number]
    return told


def _moved(connection: Connection, wanted: Sequence[Move], now: int) -> dict[int, Moved]:
    if not wanted:
        return {}
    root_id = wanted[0].record.root_id
    take_turn(connection, root_id)
    standing = _lock(connection, wanted)
    moved: list[tuple[Move, Record]] = []
    for want in wanted:
        if want.to not in TRANSITIONS[State(want.record.state)]:
            raise ValueError(f"no session goes from {want.record.state} to {want.to}")
        found = standing.get(want.record.pk)
        if found is None or found.state != want.record.state:
            continue
        if want.any_version or found.version == want.record.version:
            moved.append((want, _after(found, want, want.time(now))))
    if moved:
        bulk.execute(connection, _UPDATE, [_parameters(record) for _, record in moved])
        bulk.execute(connection, _EVENT, [_event(*pair, pair[0].time(now)) for pair in moved])
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


def _lock(connection: Connection, wanted: Sequence[Move]) -> dict[int, Record]:
    """The rows as they stand; nobody else changes them before this transaction ends.

    Read to the end before one is looked at: a statement that is left half read, for an unsound
    row, would keep its connection in an old moment, and every transaction on it from beginning.
    """
    known = {want.record.pk: want.record for want in wanted}
    whole = any(want.any_version for want in wanted)
    standing: dict[int, Record] = {}
    for row in connection.execute(_WHOLE if whole else _IDENTITY, {"pks": list(known)}).all():
        record = known[row.pk]
        if row.session_id != record.session_id:
            raise UnsoundRow("the index of the sessions names other rows than it should")
        if whole:
            standing[row.pk] = Record(*row)
        elif (row.state, row.version) == (record.state, record.version):
            standing[row.pk] = record  # of one version a row has but one form
    return standing


def _locking(query: Select[Any]) -> Select[Any]:
    some = query.where(_COLUMNS.pk.in_(bindparam("pks", expanding=True)))
    return some.order_by(_COLUMNS.pk).with_for_update()


_WHOLE = _locking(select(SESSIONS))
_IDENTITY = _locking(select(_COLUMNS.pk, _COLUMNS.session_id, _COLUMNS.state, _COLUMNS.version))


def _after(found: Record, want: Move, now: int) -> Record:
    values: dict[str, Any] = {"state": want.to, "version": found.version + 1}
    if want.to in ENDED:
        values |= {"ended_at": now, "ended_by": str(want.by), "ended_why": want.why}
    else:
        values |= _UNENDED
    return dataclasses.replace(found, **values | want.values)


_CHANGED = (
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
_UPDATE = (
    update(SESSIONS)
    .where(_COLUMNS.pk == bindparam("its_pk"), _COLUMNS.version == bindparam("its_version"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGED})
)


def _parameters(record: Record) -> dict[str, Any]:
    values = {f"new_{name}": getattr(record, name) for name in _CHANGED}
    return {**values, "its_pk": record.pk, "its_version": record.version - 1}


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


_TOUCH = (
    update(SESSIONS)
    # Not the state as it stands: by its index SQLite would read every active session.
    .where(_COLUMNS.root_id == bindparam("its_root"), _COLUMNS.state + "" == str(State.ACTIVE))
    .values(
        version=_COLUMNS.version + 1,
        touched=True,
        last_touch_at=_later(_COLUMNS.last_touch_at, bindparam("now")),
    )
    .returning(*SESSIONS.c)
)
_TOUCH_ONE = _TOUCH.where(_COLUMNS.session_id == bindparam("its_id"))
_TOUCH_ALL = _TOUCH.where(_COLUMNS.session_id.in_(bindparam("its_ids", expanding=True)))


def touch(connection: Connection, root_id: str, session_id: str, now: int) -> Record | None:
    """Touches an active session; None when it is not active. A touch never moves one back."""
    values = {"its_root": root_id, "its_id": session_id, "now": now}
    row = connection.execute(_TOUCH_ONE, values).one_or_none()
    return Record(*row) if row else None


Touch = tuple[str, str, int]
"""A root, a session of it, and when it is touched."""


def touch_all(connection: Connection, wanted: Sequence[Touch]) -> list[Record | None]:
    """Touches those sessions of one root that are active; None for each that is not."""
    if len(wanted) == 1:
        return [touch(connection, *wanted[0])]
    ids = [session_id for _, session_id, _ in wanted]
    now = max(now for _, _, now in wanted)
    values = {"its_root": wanted[0][0], "its_ids": ids, "now": now}
    found = connection.execute(_TOUCH_ALL, values).all()
    touched = {row.session_id: Record(*row) for row in found}
    return [touched.get(session_id) for session_id in ids]


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
