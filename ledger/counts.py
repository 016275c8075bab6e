"""What is counted is kept, so that nobody need count it by looking at every row.

Sessions and sweeps are counted in the transaction that changes them. What comes by the thousand
(touches, requests) is counted in memory first and written soon after, by whoever comes next: so
each process adds to one sum, and a crash costs the last second of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, func, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ledger import bulk, postgresql
from ledger.database import Database
from ledger.errors import CoatcheckError, CommitUnknown
from ledger.models import COUNTS, SESSIONS, State

log = logging.getLogger("coatcheck")

STATES = "sessions"  # by state
CREATIONS, TOUCHES, CLAIMS, DELETIONS = "creations", "touches", "claims", "deletions"
SWEEPS_ENDED, SWEEP_REMOVED, SWEEP_FAILED = "sweeps", "sweep_removed", "sweep_failed"
SWEEP_FINDINGS, SWEEP_KEPT = "sweep_findings", "sweep_kept"
SWEEP_SECONDS = "sweep_seconds"  # a histogram: see `observed`

WRITE_EVERY_S = 1.0
SUM = "sum"

# What is counted, and its labels.
Key = tuple[str, tuple[str, ...]]


def of(name: str, *labels: str) -> Key:
    return name, labels


def add(connection: Connection, root_id: str, counted: Mapping[Key, int]) -> None:
    """Adds to what is kept. Always in the same order, so that no two wait for each other."""
    rows = [
        {"root_id": root_id, "name": name, "labels": "\t".join(labels), "value": by}
        for (name, labels), by in sorted(counted.items())
        if by
    ]
    if rows:
        bulk.execute(connection, _upsert(connection.dialect.name), rows)


@cache
def _upsert(dialect: str) -> Insert:
    insert = postgresql.insert_into if dialect == "postgresql" else sqlite_insert
    statement: Any = insert(COUNTS)
    more = COUNTS.c.value + statement.excluded.value
    keys = ["root_id", "name", "labels"]
    upsert: Insert = statement.on_conflict_do_update(index_elements=keys, set_={"value": more})
    return upsert


def kept(connection: Connection, root_id: str) -> dict[Key, int]:
    """Everything that is counted of this root."""
    query = select(COUNTS.c.name, COUNTS.c.labels, COUNTS.c.value)
    rows = connection.execute(query.where(COUNTS.c.root_id == root_id)).all()
    return {
        (name, tuple(labels.split("\t")) if labels else ()): value for name, labels, value in rows
    }


def by_looking(connection: Connection, root_id: str) -> dict[Key, int]:
    """The sessions by their state as their rows say it: what the kept numbers must be. A row
    that is damaged, and names none, is not counted."""
    state = SESSIONS.c.state
    query = select(state, func.count()).where(
        SESSIONS.c.root_id == root_id, state.in_([str(state) for state in State])
    )
    return {of(STATES, found): count for found, count in connection.execute(query.group_by(state))}


def mend(database: Database, root_id: str) -> Counter[Key]:
    """What is kept of the sessions is what their rows say; by how much it was not.

    A version that kept no counts may have written beside this one. What others change meanwhile,
    they count themselves: the difference stays what it was at one moment.
    """
    with database.read() as connection:
        wanting = Counter(by_looking(connection, root_id))
        wanting.subtract(
            {key: n for key, n in kept(connection, root_id).items() if key[0] == STATES}
        )
    wanting = Counter({key: by for key, by in wanting.items() if by})
    if wanting:
        log.warning("the sessions by their state were counted wrongly, which is mended")
        with database.write() as connection:
            add(connection, root_id, wanting)
    return wanting


def observed(name: str, labels: tuple[str, ...], us: int, bounds: Iterable[float]) -> Counter[Key]:
    """One more in a histogram of durations: in the first bucket (seconds) that it fits, and in
    the sum (microseconds)."""
    bound = next((bound for bound in bounds if us <= bound * 1_000_000), float("inf"))
    return Counter({of(name, *labels, f"{bound:g}"): 1, of(name, *labels, SUM): us})


class Tally:
    """What this process has counted and not written yet. Safe from many threads."""

    def __init__(self) -> None:
        self._counted: Counter[Key] = Counter()
        self._lock = threading.Lock()
        self._written = time.monotonic()

    def add(self, counted: Mapping[Key, int]) -> None:
        """Waits for nothing, so that an event loop may call it."""
        with self._lock:
            self._counted.update(counted)

    def take(self) -> Counter[Key]:
        with self._lock:
            taken, self._counted = self._counted, Counter()
        return taken

    def write(self, database: Database, root_id: str) -> None:
        """The ledger has it. Raises CoatcheckError: then it is kept for the next time."""
        self._written = time.monotonic()
        taken = self.take()
        if not taken:
            return
        try:
            with database.write() as connection:
                add(connection, root_id, taken)
        except CommitUnknown:
            raise  # perhaps written: better lost than counted twice
        except BaseException:
            self.add(taken)
            raise

    def write_if_due(self, database: Database, root_id: str) -> None:
        if time.monotonic() - self._written >= WRITE_EVERY_S:
            with suppress(CoatcheckError):
                self.write(database, root_id)
