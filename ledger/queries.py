"""What is read from the ledger: sessions by id and in pages, events, sweeps, counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Row,
    Select,
    bindparam,
    cast,
    false,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from ledger.models import EVENTS, ROOTS, SESSIONS, SWEEPS, Actor, Record, State, UnsoundRow

SORTS = ("created_at", "last_touch_at", "bytes", "files", "state")
_COLUMNS = SESSIONS.c
# SQLite's sums of integers raise where they overflow: exact up to 2**53, and never an error.
_SUM_OF_BYTES = func.coalesce(func.sum(cast(_COLUMNS.bytes, Float)), 0)
LEAST, MOST = -(2**63), 2**63 - 1
_PAGE = 1000


def record_of(connection: Connection, root_id: str, session_id: str) -> Record | None:
    return records_of(connection, root_id, [session_id]).get(session_id)


def records_of(connection: Connection, root_id: str, ids: Iterable[str]) -> dict[str, Record]:
    """The rows of those ids that have one, by id."""
    asked = list(ids)
    rows = connection.execute(_RECORDS, {"its_root": root_id, "its_ids": asked}).all()
    found = {row.session_id: Record(*row) for row in rows}
    if not found.keys() <= set(asked):
        raise UnsoundRow("the index of the sessions names other rows than it should")
    return found


# Made once: making it anew takes as long as asking.
_RECORDS = select(SESSIONS).where(
    _COLUMNS.root_id == bindparam("its_root"),
    _COLUMNS.session_id.in_(bindparam("its_ids", expanding=True)),
)


def is_elsewhere(connection: Connection, root_id: str, session_id: str) -> bool:
    """Whether another root of this ledger has a session of this id."""
    query = select(_COLUMNS.pk).where(
        _COLUMNS.session_id == session_id, _COLUMNS.root_id != root_id
    )
    return connection.execute(query.limit(1)).first() is not None


def unfinished(connection: Connection, root_id: str, after: int, most: int) -> list[Record]:
    """Sessions being claimed or removed, in the order of their keys, from behind `after`."""
    query = (
        select(SESSIONS)
        .where(
            _COLUMNS.root_id == root_id,
            _COLUMNS.state.in_([str(State.CLAIMING), str(State.REMOVING)]),
            _COLUMNS.pk > after,
        )
        .order_by(_COLUMNS.pk)
        .limit(most)
    )
    return [Record(*row) for row in connection.execute(query).all()]


class ActivePage(NamedTuple):
    """Some active sessions, what they hold together, and behind which of them the next page begins;
    None where there is none."""

    ids: list[str]
    bytes: int
    edge: tuple[int, int] | None


def active_page(
    connection: Connection, root_id: str, since: int, before: tuple[int, int], most: int
) -> ActivePage:
    """Active sessions in the order of `(last_touch_at, pk)`, backwards from `before`, as far as
    the touch `since`. Their ids come as one text, which is a third of the time."""
    touch, pk = _COLUMNS.last_touch_at, _COLUMNS.pk
    # The touch by itself as well: by it SQLite finds both ends in its index.
    some = [
        _COLUMNS.root_id == root_id,
        _COLUMNS.state == str(State.ACTIVE),
        touch <= before[0],
        tuple_(touch, pk) < before,
    ]
    last = select(touch, pk).where(*some, touch >= since).order_by(touch.desc(), pk.desc())
    found = connection.execute(last.offset(most - 1).limit(1)).one_or_none()
    edge = (int(found[0]), int(found[1])) if found else None
    some += [touch >= edge[0], tuple_(touch, pk) >= edge] if edge else [touch >= since]
    query = select(func.aggregate_strings(_COLUMNS.session_id, "/"), _SUM_OF_BYTES).where(*some)
    ids, size = connection.execute(query).one()
    return ActivePage(ids.split("/") if ids else [], int(size), edge)


def bytes_of(connection: Connection, root_id: str, ids: Iterable[str]) -> int:
    """What those sessions hold together, as the ledger knows it."""
    query = select(_SUM_OF_BYTES).where(
        _COLUMNS.root_id == root_id, _COLUMNS.session_id.in_(list(ids))
    )
    return min(int(connection.execute(query).scalar_one()), MOST)


def totals(connection: Connection, root_id: str) -> tuple[int, int]:
    """How many sessions are active, and the bytes they hold as the ledger knows them."""
    query = select(func.count(), _SUM_OF_BYTES).where(
        _COLUMNS.root_id == root_id,
        _COLUMNS.state.in_([str(State.ACTIVE), str(State.CLAIMING)]),
    )
    row = connection.execute(query).one()
    return int(row[0]), min(int(row[1]), MOST)


def oldest_live(connection: Connection, root_id: str) -> int | None:
    """When the oldest active session was created; None where there is none."""
    # The state as a literal: so the index of the live ones alone is used.
    query = select(func.min(_COLUMNS.created_at)).where(
        _COLUMNS.root_id == root_id, literal_column("state = 'active'")
    )
    found = connection.execute(query).scalar()
    return None if found is None else int(found)


# Pages by keyset: the place of a page's last row in the order is where the next one begins. Each
# order is that of an index; compared as one row value, a place deep in it is found at once.

_ORDERS = {sort: (sort, "pk") for sort in SORTS} | {"state": ("state", "last_touch_at", "pk")}
_FEW = 20_000


def kinds_in(sort: str) -> tuple[type[int | str], ...]:
    """Of what types a place in the order `sort` is made."""
    return tuple(str if name == "state" else int for name in _ORDERS[sort.removeprefix("-")])


def place_in(record: Record, sort: str) -> tuple[int | str, ...]:
    """The place of a session in the order `sort`."""
    values = (getattr(record, name) for name in _ORDERS[sort.removeprefix("-")])
    return tuple(str(value) if isinstance(value, str) else value for value in values)


def page(
    connection: Connection,
    root_id: str,
    *,
    sort: str = "-created_at",
    after: tuple[int | str, ...] | None = None,
    most: int = 100,
    state: str | None = None,
    q: str | None = None,
) -> list[Record]:
    """One page of sessions in the order of `sort` (`-` descending), from behind `after`."""
    query = filtered(select(SESSIONS), root_id, state=state, q=q)
    names = _ORDERS[sort.removeprefix("-")]
    columns: list[ColumnElement[Any]] = [_COLUMNS[name] for name in names]
    if state and sort.removeprefix("-") != "state" and _are_few(connection, root_id, state):
        # Found by their state and then sorted; along the order's index all others would be read.
        columns[0] = columns[0] + 0
    down = sort.startswith("-")
    if after is not None:
        place = tuple_(*columns)
        query = query.where(place < after if down else place > after)
    query = query.order_by(*(column.desc() if down else column for column in columns))
    return [Record(*row) for row in connection.execute(query.limit(most)).all()]


def _are_few(connection: Connection, root_id: str, state: str) -> bool:
    some = select(_COLUMNS.pk).where(_COLUMNS.root_id == root_id, _COLUMNS.state == state)
    counted = select(func.count()).select_from(some.limit(_FEW).subquery())
    return int(connection.execute(counted).scalar_one()) < _FEW


def filtered(
    query: Select[Any], root_id: str, *, state: str | None = None, q: str | None = None
) -> Select[Any]:
    query = query.where(_COLUMNS.root_id == root_id)
    if state:
        query = query.where(_COLUMNS.state == state)
    if q and "\0" in q:  # PostgreSQL cannot even be asked for that
        query = query.where(false())
    elif q:
        query = query.where(
            or_(
                _COLUMNS.session_id.icontains(q, autoescape=True),
                _COLUMNS.label.icontains(q, autoescape=True),
            ),
        )
    return query


def session_events(connection: Connection, pk: int, most: int = 1000) -> Sequence[Row[Any]]:
    """The life of one session, oldest first."""
    query = (
        select(EVENTS)
        .where(EVENTS.c.session_pk == pk)
        .order_by(EVENTS.c.event_id.desc())
        .limit(most)
    )
    return list(reversed(connection.execute(query).all()))


def events(
    connection: Connection, root_id: str, *, before: int | None = None, most: int = 100
) -> Sequence[Row[Any]]:
    """What happened, newest first, from before the event `before`."""
    query = select(EVENTS).where(EVENTS.c.root_id == root_id)
    if before is not None:
        query = query.where(EVENTS.c.event_id < before)
    return connection.execute(query.order_by(EVENTS.c.event_id.desc()).limit(most)).all()


def events_after(
    connection: Connection, root_id: str, after: int, most: int = 500
) -> Sequence[Row[Any]]:
    """What happened since the event `after`, oldest first."""
    query = (
        select(EVENTS)
        .where(EVENTS.c.root_id == root_id, EVENTS.c.event_id > after)
        .order_by(EVENTS.c.event_id)
        .limit(most)
    )
    return connection.execute(query).all()


def last_event(connection: Connection) -> int:
    return int(connection.execute(select(func.max(EVENTS.c.event_id))).scalar() or 0)


def sweeps(
    connection: Connection, root_id: str, *, before: int | None = None, most: int = 100
) -> Sequence[Row[Any]]:
    """Past and running sweeps, newest first."""
    query = select(SWEEPS).where(SWEEPS.c.root_id == root_id)
    if before is not None:
        query = query.where(SWEEPS.c.sweep_id < before)
    return connection.execute(query.order_by(SWEEPS.c.sweep_id.desc()).limit(most)).all()


def sweep(connection: Connection, root_id: str, sweep_id: int) -> Row[Any] | None:
    query = select(SWEEPS).where(SWEEPS.c.root_id == root_id, SWEEPS.c.sweep_id == sweep_id)
    return connection.execute(query).first()


def last_sweep_done(
    connection: Connection, root_id: str, *, by: Actor | None = None
) -> Row[Any] | None:
    """The newest sweep that nothing had stopped; None where there was none."""
    query = (
        select(SWEEPS)
        .where(
            SWEEPS.c.root_id == root_id,
            SWEEPS.c.state == "done",
            SWEEPS.c.dry_run.is_(False),
        )
        .order_by(SWEEPS.c.sweep_id.desc())
        .limit(1)
    )
    if by is not None:
        query = query.where(SWEEPS.c.by == str(by))
    return connection.execute(query).first()


def running_sweeps(connection: Connection, root_id: str) -> list[int]:
    """The runs whose rows say that they are under way; a killed process leaves one behind."""
    query = select(SWEEPS.c.sweep_id).where(
        SWEEPS.c.root_id == root_id, SWEEPS.c.state == "running"
    )
    return list(connection.execute(query).scalars())


def roots(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(select(ROOTS)).all()
