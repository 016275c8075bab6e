"""One run of a sweep: what was asked for, how far it is, and the row that tells of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update

from ledger import queries
from ledger.errors import Guard
from ledger.models import SWEEPS, Actor
from ledger.place import Place
from ledger.plan import Policy
from ledger.report import Report

_SAVE_EVERY_S = 1.0
_FAILURES_KEPT = 100
_NOTHING_YET = {
    **dict.fromkeys(("done", "removed", "waiting", "changed", "failed"), 0),
    "counts": "{}",
    "bytes": "{}",
    "failures": "[]",
}


@dataclass(slots=True)
class Progress:
    """How far a run is, for who watches it from another thread; `total` is an estimate.

    Setting `cancel` ends the run between two sessions.
    """

    done: int = 0
    total: int | None = None
    removed: int = 0
    on_change: Callable[[Progress], None] | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def advance(self, by: int) -> None:
        self.done += by
        if self.on_change is not None:
            self.on_change(self)


@dataclass(slots=True)
class Order:
    """What a run was asked for. With `listed`: exactly what that report lists, by its max age."""

    policy: Policy
    by: Actor = Actor.SWEEP
    dry_run: bool = False
    listed: Report | None = None
    past_the_brake: bool = False
    trust_clock: bool = False
    keep_entries: bool = True
    progress: Progress = field(default_factory=Progress)


class RecordedRun:
    """The row that tells of one run, kept up as it goes."""

    def __init__(self, place: Place, order: Order, now: int) -> None:
        self._place = place
        self._saved = time.monotonic()
        with place.database.write() as connection:
            self.sweep_id = connection.execute(
                SWEEPS.insert()
                .values(
                    root_id=place.root_id,
                    state="running",
                    dry_run=order.dry_run,
                    by=str(order.by),
                    max_age_us=order.policy.max_age,
                    started_at=now,
                    **_NOTHING_YET,
                )
                .returning(SWEEPS.c.sweep_id)
            ).scalar_one()

    def save(self, progress: Progress) -> None:
        """Tells how far the run is, at most once a second."""
        if time.monotonic() - self._saved >= _SAVE_EVERY_S:
            self._saved = time.monotonic()
            self._update(done=progress.done, total=progress.total, removed=progress.removed)

    def done(self, report: Report, progress: Progress, now: int) -> None:
        """The run has ended, by itself or because it was cancelled."""
        report.sweep_id = self.sweep_id
        head = report.head()
        with self._place.database.read() as connection:
            sessions, size = queries.totals(connection, self._place.root_id)
        cancelled = progress.cancel.is_set()
        self._update(
            state="stopped" if cancelled else "done",
            why="cancelled" if cancelled else None,
            finished_at=now,
            done=progress.done,
            total=progress.total,
            live_sessions=sessions,
            live_bytes=size,
            counts=json.dumps(head["counts"]),
            bytes=json.dumps(head["bytes"]),
            failures=json.dumps(report.failures[:_FAILURES_KEPT]),
            **{name: head[name] for name in ("removed", "waiting", "changed", "failed")},
        )

    def stopped(self, by: Guard, why: str, now: int) -> None:
        """A guard stopped the run before its first removal."""
        self._update(state="stopped", stopped_by=str(by), why=why, finished_at=now)

    def failed(self, error: BaseException, now: int) -> None:
        """The run broke off; what it left half done, the next one finishes."""
        self._update(state="failed", why=str(error) or type(error).__name__, finished_at=now)

    def _update(self, **values: Any) -> None:
        with self._place.database.write() as connection:
            connection.execute(
                update(SWEEPS).where(SWEEPS.c.sweep_id == self.sweep_id).values(values)
            )
