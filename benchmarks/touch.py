"""Touches, against a plain file's mtime: what a backend without a ledger would do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sqlmodel import Session as Orm
from sqlmodel import select

from benchmarks.measured import Measured, Stopwatch
from ledger import SessionLedger, Settings
from ledger.models import SessionRow

SESSIONS = 200
ROUNDS = 10


def measure(place: Path) -> Iterator[Measured]:
    settings = Settings(root=place / "temp")
    ours, orm, bare = Stopwatch(), Stopwatch(), Stopwatch()
    with SessionLedger.open(settings) as sessions:
        made = [sessions.create() for _ in range(SESSIONS)]
        database = sessions.place.database
        for _ in range(ROUNDS):
            for session in made:
                with ours.running():
                    sessions.touch(session.id)
                with orm.running(), database.write() as connection, Orm(connection) as unit:
                    row = unit.exec(
                        select(SessionRow).where(SessionRow.session_id == session.id)
                    ).one()
                    row.last_touch_at += 1
                    unit.add(row)
                    unit.flush()
                with bare.running():
                    os.utime(session.path)
    count = SESSIONS * ROUNDS
    what = "one touch, row and directory"
    yield Measured(what, ours.total / count, orm.total / count, "the row alone, by the ORM")
    yield Measured(what, ours.total / count, bare.total / count, "the mtime alone, no ledger")
