"""Any stretch of a list of sessions, at any rank: for who shows a list and loads what he shows.

A stretch is reached from the nearest known key, or from an end, along an index of its order; so a
million sessions cost what a thousand do. Only label and origin have no index, and cost a scan.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from ledger import queries
from ledger.database import Database
from ledger.models import SESSIONS, Record

_COLUMNS = SESSIONS.c
_PK = _COLUMNS.pk
_ORDERS: dict[str, tuple[ColumnElement[Any], ...]] = {
    "created_at": (_COLUMNS.created_at,),
    "last_touch_at": (_COLUMNS.last_touch_at,),
    "bytes": (_COLUMNS.bytes,),
    "files": (_COLUMNS.files,),
    "state": (_COLUMNS.state, _COLUMNS.last_touch_at),
    "session_id": (_COLUMNS.session_id,),
    "label": (func.coalesce(_COLUMNS.label, ""),),
    "origin": (_COLUMNS.origin,),
}
SORTS = frozenset(_ORDERS)
# From this many rows on, they are passed over in the index alone, and only what is shown is read.
_FAR = 256

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """Only rows whose value of `column` is above, or below, this one."""

    column: str
    above: bool
    value: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sessions, in which order. Every word must be in the id or the label."""

    sort: str = "created_at"
    down: bool = True
    state: str | None = None
    origin: str | None = None
    words: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretch:
    """`most` rows, from behind `start` (None: an end) and `skip` further, towards the end or,
    `back`, towards the beginning."""

    most: int
    start: Key | None = None
    skip: int = 0
    back: bool = False


def key_of(record: Record, sort: str) -> Key:
    """The place of a row in the order: what a stretch can start from."""
    if sort == "state":
        return (str(record.state), record.last_touch_at, record.pk)
    value = getattr(record, sort)
    return (str(value or "") if sort in ("label", "origin") else value, record.pk)


def stretch(connection: Connection, root_id: str, choice: Choice, wanted: Stretch) -> list[Record]:
    """The rows of a stretch, always in the order of the list."""
    down = choice.down != wanted.back
    order = (*_ORDERS[choice.sort], _PK)
    columns = [column.desc() if down else column.asc() for column in order]
    far = wanted.skip > _FAR
    query = _chosen(select(_PK) if far else select(SESSIONS), root_id, choice)
    if wanted.start is not None:
        place = tuple_(*order)
        query = query.where(place < wanted.start if down else place > wanted.start)
    query = query.order_by(*columns).limit(wanted.most).offset(wanted.skip)
    if far:
        keys = query.subquery()
        query = select(SESSIONS).join(keys, keys.c.pk == _PK).order_by(*columns)
    rows = [Record(*row) for row in connection.execute(query).all()]
    return rows[::-1] if wanted.back else rows


def count(connection: Connection, root_id: str, choice: Choice, most: int | None = None) -> int:
    """How many rows the list has; with `most`, counted no further than that."""
    if most is None:
        query = _chosen(select(func.count()).select_from(SESSIONS), root_id, choice)
    else:
        some = _chosen(select(_PK), root_id, choice).limit(most).subquery()
        query = select(func.count()).select_from(some)
    return int(connection.execute(query).scalar_one())


def rank(connection: Connection, root_id: str, choice: Choice, key: Key) -> int:
    """How many rows of the list come before this place."""
    order = (*_ORDERS[choice.sort], _PK)
    before = 0
    # One range of the index for each column: together three times as fast as one row value.
    for at, (column, value) in enumerate(zip(order, key, strict=True)):
        same = [order[i] == key[i] for i in range(at)]
        further = column > value if choice.down else column < value
        query = _chosen(select(func.count()).select_from(SESSIONS), root_id, choice)
        before += int(connection.execute(query.where(and_(*same, further))).scalar_one())
    return before


def find(connection: Connection, root_id: str, choice: Choice, session_id: str) -> Record | None:
    """The session's row, if it is in the list."""
    query = _chosen(select(SESSIONS), root_id, choice).where(_COLUMNS.session_id == session_id)
    row = connection.execute(query).one_or_none()
    return Record(*row) if row else None


def _chosen(query: Select[Any], root_id: str, choice: Choice) -> Select[Any]:
    query = queries.filtered(query, root_id, state=choice.state)
    for word in choice.words:
        query = queries.filtered(query, root_id, q=word)
    if choice.origin:
        query = query.where(_COLUMNS.origin == choice.origin)
    for bound in choice.bounds:
        column = _COLUMNS[bound.column]
        query = query.where(column > bound.value if bound.above else column < bound.value)
    return query


class Watch:
    """Tells one thread whether the ledger has changed, without reading what has."""

    def __init__(self, database: Database, root_id: str) -> None:
        self._database = database
        self._root_id = root_id
        self._own: Connection | None = None

    def version(self) -> Hashable:
        """Another value than before whenever something was committed since."""
        with self._database.read() as connection:
            if not self._database.is_sqlite:
                return self._last_changes(connection)
            # Of one connection only the others' commits are seen, so it must be the same each time.
            if self._own is None:
                self._own = self._database.engine.connect()
            return int(self._own.exec_driver_sql("PRAGMA data_version").scalar_one())

    def _last_changes(self, connection: Connection) -> Hashable:
        """The newest event, and for what makes none, the newest touch and the newest sweep."""
        newest = stretch(connection, self._root_id, Choice("last_touch_at"), Stretch(1))
        sweeps = queries.sweeps(connection, self._root_id, most=1)
        return (
            queries.last_event(connection),
            tuple((record.pk, record.version) for record in newest),
            tuple((row.sweep_id, row.state, row.done) for row in sweeps),
        )

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None
