"""The ledger's tables. Times are whole microseconds since 1970, UTC; sizes are bytes."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple, Self, cast

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text, text
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlmodel import Field, SQLModel


class State(StrEnum):
    """Where a session stands in its life; `states.TRANSITIONS` says how it moves."""

    ACTIVE = "active"
    CLAIMING = "claiming"
    REMOVING = "removing"
    CLAIMED = "claimed"
    DELETED = "deleted"
    EXPIRED = "expired"
    MISSING = "missing"


ENDED = frozenset({State.CLAIMED, State.DELETED, State.EXPIRED, State.MISSING})


class Origin(StrEnum):
    """Who made the session's directory: coatcheck, or somebody else."""

    CREATED = "created"
    ADOPTED = "adopted"


class Actor(StrEnum):
    """Who asked for a change."""

    API = "api"
    SWEEP = "sweep"
    OPERATOR = "operator"
    LIBRARY = "library"


def _key() -> Column[int]:
    # SQLite numbers a row by itself only in a column of exactly this type.
    return Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def _big(*, nullable: bool = False) -> Column[int]:
    return Column(BigInteger, nullable=nullable)


def _live_by_age() -> Index:
    """Finds the oldest live session, however many ended ones are older."""
    only = text("state = 'active'")
    of = ("root_id", "created_at")
    return Index("coatcheck_session_live", *of, sqlite_where=only)


class RootRow(SQLModel, table=True):
    """One temp root: its identity, the max age it accepted, and the clock as last seen."""

    __tablename__ = "coatcheck_root"

    root_id: str = Field(primary_key=True)
    path: str
    host: str
    created_at: int = Field(sa_column=_big())
    accepted_max_age_us: int = Field(sa_column=_big())
    heartbeat_at: int = Field(sa_column=_big())
    heartbeat_boot_id: str
    heartbeat_boottime_us: int = Field(sa_column=_big())
    distrusted_why: str | None = None
    steady_boot_id: str | None = None
    steady_since_us: int | None = Field(default=None, sa_column=_big(nullable=True))


class SessionRow(SQLModel, table=True):
    """One temp session. `touched`: the ledger saw a touch of its own, not only times on disk."""

    __tablename__ = "coatcheck_session"
    __table_args__ = (
        Index("coatcheck_session_by_id", "root_id", "session_id", unique=True),
        Index("coatcheck_session_by_name", "session_id"),
        Index("coatcheck_session_by_state", "root_id", "state", "last_touch_at", "pk", "bytes"),
        Index("coatcheck_session_by_created", "root_id", "created_at", "pk"),
        Index("coatcheck_session_by_touch", "root_id", "last_touch_at", "pk"),
        Index("coatcheck_session_by_bytes", "root_id", "bytes", "pk"),
        Index("coatcheck_session_by_files", "root_id", "files", "pk"),
        Index("coatcheck_session_by_end", "root_id", "ended_at"),
        _live_by_age(),
    )

    pk: int | None = Field(default=None, sa_column=_key())
    root_id: str
    session_id: str
    state: str
    version: int = Field(default=1, sa_column=_big())
    label: str | None = None
    origin: str
    touched: bool
    created_at: int = Field(sa_column=_big())
    last_touch_at: int = Field(sa_column=_big())
    bytes: int = Field(default=0, sa_column=_big())
    files: int = Field(default=0, sa_column=_big())
    inode: str | None = None  # as text: some file systems number beyond 63 bits
    remover: str | None = None
    trash: str | None = None
    destination: str | None = None
    ended_at: int | None = Field(default=None, sa_column=_big(nullable=True))
    ended_by: str | None = None
    ended_why: str | None = None


class EventRow(SQLModel, table=True):
    """One change of a session's state. `session` is the short form of its id: an id is a right."""

    __tablename__ = "coatcheck_event"
    __table_args__ = (Index("coatcheck_event_by_session", "session_pk", "event_id"),)

    event_id: int | None = Field(default=None, sa_column=_key())
    root_id: str
    at: int = Field(sa_column=_big())
    session_pk: int | None = Field(default=None, sa_column=_big(nullable=True))
    session: str | None = None
    from_state: str | None = None
    to_state: str | None = None
    by: str
    why: str


class SweepRow(SQLModel, table=True):
    """One run of a sweep, or of its dry run. `total` is what it expects to look at."""

    __tablename__ = "coatcheck_sweep"
    __table_args__ = (Index("coatcheck_sweep_by_root", "root_id", "sweep_id"),)

    sweep_id: int | None = Field(default=None, sa_column=_key())
    root_id: str
    state: str
    dry_run: bool
    by: str
    max_age_us: int = Field(sa_column=_big())
    started_at: int = Field(sa_column=_big())
    finished_at: int | None = Field(default=None, sa_column=_big(nullable=True))
    done: int = Field(default=0, sa_column=_big())
    total: int | None = Field(default=None, sa_column=_big(nullable=True))
    removed: int = Field(default=0, sa_column=_big())
    waiting: int = Field(default=0, sa_column=_big())
    changed: int = Field(default=0, sa_column=_big())
    failed: int = Field(default=0, sa_column=_big())
    counts: str = Field(default="{}", sa_column=Column(Text, nullable=False))
    bytes: str = Field(default="{}", sa_column=Column(Text, nullable=False))
    failures: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    stopped_by: str | None = None
    why: str | None = None
    live_sessions: int | None = Field(default=None, sa_column=_big(nullable=True))
    live_bytes: int | None = Field(default=None, sa_column=_big(nullable=True))
    trash_bytes: int | None = Field(default=None, sa_column=_big(nullable=True))
    carried_out_at: int | None = Field(default=None, sa_column=_big(nullable=True))


class CountRow(SQLModel, table=True):
    """A number that is kept: `name` says of what, `labels` (by tabs) of which."""

    __tablename__ = "coatcheck_count"

    root_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    labels: str = Field(primary_key=True)
    value: int = Field(sa_column=_big())


def _table(model: type[SQLModel]) -> Table:
    return cast(Table, model.__table__)  # type: ignore[attr-defined]


ROOTS = _table(RootRow)
SESSIONS = _table(SessionRow)
EVENTS = _table(EventRow)
SWEEPS = _table(SweepRow)
COUNTS = _table(CountRow)


def creation(dialect: str) -> Iterator[ExecutableDDLElement]:
    """What makes the tables of nothing, in this order: by it SQLite chooses between two indexes."""
    for model in (RootRow, SessionRow, EventRow, SweepRow, CountRow):
        yield CreateTable(_table(model))
        indexes: tuple[Index, ...] = getattr(model, "__table_args__", ())
        for index in indexes:
            # Said of the one dialect that is in use: to name another one loads all of it.
            only = index.dialect_options["sqlite"]["where"]
            index.dialect_options[dialect]["where"] = only
            yield CreateIndex(index)


class UnsoundRow(Exception):
    """A row holds what coatcheck never writes: the ledger is damaged, though it can be read."""


_STATES, _ORIGINS, _TEXT = frozenset(State), frozenset(Origin), frozenset({str, type(None)})


class _Fields(NamedTuple):
    """Those of `SessionRow`, in its order."""

    pk: int
    root_id: str
    session_id: str
    state: State
    version: int
    label: str | None
    origin: Origin
    touched: bool
    created_at: int
    last_touch_at: int
    bytes: int
    files: int
    inode: str | None
    remover: Actor | None
    trash: str | None
    destination: str | None
    ended_at: int | None
    ended_by: str | None
    ended_why: str | None


class Record(_Fields):
    """A session's row as it was read.

    Raises UnsoundRow for what is none: a sweep acts on rows, and on no damaged one.
    """

    __slots__ = ()

    def __new__(cls, *row: Any, **named: Any) -> Self:
        self = super().__new__(cls, *row, **named)
        # Written out, since every row that is read comes by here.
        sound = (
            self.state in _STATES
            and self.origin in _ORIGINS
            and type(self.version) is type(self.bytes) is type(self.files) is int
            and type(self.created_at) is type(self.last_touch_at) is int
            and (self.ended_at is None or type(self.ended_at) is int)
            and {type(self.session_id), type(self.label), type(self.inode)} <= _TEXT
            and {type(self.trash), type(self.destination), type(self.ended_why)} <= _TEXT
        )
        if not sound:
            raise UnsoundRow("the row of a session holds what coatcheck never writes")
        return self


def short(session_id: str) -> str:
    """The 8 characters of an id that logs, metrics and events may show.

    The first of ours (26 random characters), the last of an adopted name, whose beginning
    rarely tells one from another.
    """
    return session_id[:8] if is_ours(session_id) else session_id[-8:]


def is_ours(session_id: str) -> bool:
    """Whether the id has the form that coatcheck gives: 26 lower-case base32 characters."""
    return len(session_id) == 26 and _BASE32.issuperset(session_id)


_BASE32 = frozenset("abcdefghijklmnopqrstuvwxyz234567")
