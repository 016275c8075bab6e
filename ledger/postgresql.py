"""What a ledger on PostgreSQL needs beyond SQL: an end to all waiting, the fate of a commit whose
answer was lost, one order of events, and its errors in plain words.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ledger.errors import LedgerDamaged, LedgerFull, LedgerGone, LedgerUnavailable, UsageError

_MIGRATING = 0x636F6174  # the key of the one migrator's lock: "coat"
_STATEMENT_S = 60  # far beyond what any of ours takes
_IDLE_S = 30  # a process that stands still in mid-transaction holds up others no longer
# A server, or a network, that is gone without a word is noticed within half a minute.
_NETWORK = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_LIMITS = """
    SELECT set_config('lock_timeout', %(lock)s, false),
           set_config('statement_timeout', %(statement)s, false),
           set_config('idle_in_transaction_session_timeout', %(idle)s, false)
"""


def engine_for(url: URL, timeout_s: float) -> Engine:
    """Connections that wait `timeout_s` for a lock, and for nothing for ever."""
    if "@" in (url.host or ""):
        raise UsageError(
            "COATCHECK_LEDGER: in a password, write @ as %40, / as %2F, : as %3A and % as %25."
        )
    own = {"connect_timeout": max(2, round(timeout_s)), "application_name": "coatcheck", **_NETWORK}
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=24,
        pool_timeout=timeout_s,
        hide_parameters=True,
        connect_args={name: value for name, value in own.items() if name not in url.query},
    )
    limits = {"lock": timeout_s, "statement": _STATEMENT_S, "idle": _IDLE_S}

    @event.listens_for(engine, "connect")
    def _limit(connection: Any, _record: Any) -> None:
        connection.execute(_LIMITS, {name: f"{round(s * 1000)}ms" for name, s in limits.items()})
        connection.commit()

    return engine


def name_of(url: URL) -> str:
    """The ledger's name for people: without its password, wherever that stands."""
    host = url.query.get("host")
    return url.set(query={"host": host} if host else {}).render_as_string(hide_password=True)


# Transactions

_XID = text("SELECT CAST(pg_current_xact_id() AS text)")
_DURABLE = text(
    "SELECT set_config('synchronous_commit', 'on', true) "
    "WHERE current_setting('synchronous_commit') = 'off'"
)
_FATE = text("SELECT pg_xact_status(CAST(CAST(:xid AS text) AS xid8))")
_TURN = text("SELECT pg_advisory_xact_lock(hashtextextended(:root_id, 0))")


def begin(connection: Connection, *, durable: bool) -> str:
    """The number of a transaction that has just begun, by which its fate can be asked for."""
    if durable:
        connection.execute(_DURABLE)
    return str(connection.execute(_XID).scalar_one())


def was_committed(engine: Engine, xid: str, timeout_s: float) -> bool | None:
    """The fate of a transaction whose COMMIT was not answered; None: not to be learned in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with engine.connect() as connection:
                fate = connection.execute(_FATE, {"xid": xid}).scalar()
        except SQLAlchemyError as error:
            if _sqlstate(error) == "22023":  # "in the future": forgotten in a crash of the server
                return False
            fate = None
        if fate in ("committed", "aborted"):
            return bool(fate == "committed")
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.05)


def insert_into(table: Table) -> Any:
    """The server's own INSERT, which has ON CONFLICT; loaded only where there is one."""
    from sqlalchemy.dialects.postgresql import insert

    return insert(table)


def take_turn(connection: Connection, root_id: str) -> None:
    """Until this transaction ends, no other one changes a session's state in this root.

    So events are numbered in the order in which they can be seen: who asks for those after the
    last one that he saw misses none.
    """
    connection.execute(_TURN, {"root_id": root_id})


def migrate_alone(connection: Connection, timeout_s: float) -> None:
    """Until this transaction ends, no other process changes the schema; it may take its time."""
    connection.execute(text(f"SET LOCAL lock_timeout = {round(timeout_s * 1000)}"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
    be_patient(connection)


def be_patient(connection: Connection) -> None:
    """Statements of this transaction may take as long as they need."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))


# Errors


def in_words(name: str, error: DBAPIError) -> LedgerUnavailable | None:
    """The error as one of ours; None for one that is a mistake of ours."""
    state = _sqlstate(error)
    said = str(error.orig).strip().splitlines()[0]
    if state is None:
        from psycopg import InterfaceError, OperationalError

        if isinstance(error.orig, (OperationalError, InterfaceError)):
            return LedgerUnavailable(f"The ledger {name} cannot be reached: {said}.")
        return None
    if state == "53100":
        return LedgerFull(f"No room is left on the server of the ledger {name}: free some space.")
    if state in ("42P01", "3D000"):
        return LedgerGone(
            f"The ledger {name} is not there, or no longer: {said}. Put it back and start again; "
            "if it is lost, `coatcheck adopt` makes a new one from what stands on the disk."
        )
    if state in ("XX001", "XX002"):
        return LedgerDamaged(f"The ledger {name} is damaged: {said}. Put a backup of it back.")
    if state in ("40001", "40P01", "55P03"):
        return LedgerUnavailable(f"The ledger {name} stayed locked; try again.")
    if state == "42501" or state[:2] in ("08", "25", "28", "53", "55", "57", "58"):
        return LedgerUnavailable(f"The ledger {name} cannot be used: {said}.")
    return None


def _sqlstate(error: SQLAlchemyError) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)
