"""One run of a sweep: what was asked for, how far it is, and the row that tells of it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, update

from ledger import counts, guards, queries
from ledger.counts import (
    SWEEP_FAILED,
    SWEEP_FINDINGS,
    SWEEP_KEPT,
    SWEEP_REMOVED,
    SWEEP_SECONDS,
    SWEEPS_ENDED,
    Key,
)
from ledger.errors import DryRunGone, Guard, LedgerFull, SweepStopped
from ledger.models import SWEEPS, Actor
from ledger.place import Place
from ledger.plan import Policy
from ledger.report import Report
from ledger.survey import bytes_in_trash

DURATIONS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
CHANGED = "changed"  # kept, since it was used or changed while a sweep was at it

_SAVE_EVERY_S = 1.0
_FAILURES_KEPT = 100
_ABANDONED = "its process ended before it did"
_CANCELLED = "cancelled"  # of a running one: it was asked to end
_NOTHING_YET = {
    **dict.fromkeys(("done", "removed", "waiting", "changed", "failed"), 0),
    "counts": "{}",
    "bytes": "{}",
    "failures": "[]",
}


@dataclass(slots=True)
class Progress:
    """How far a run is, for who watches it from another thread; `total` is an estimate.

    `sweep_id` is set once the run holds the root and its row is written. Setting `cancel` ends
    the run between two sessions.
    """

    done: int = 0
    total: int | None = None
    removed: int = 0
    sweep_id: int | None = None
    on_change: Callable[[Progress], None] | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def begin(self, sweep_id: int) -> None:
        self.sweep_id = sweep_id
        self._tell()

    def advance(self, by: int) -> None:
        self.done += by
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change(self)


@dataclass(slots=True)
class Order:
    """What a run was asked for. With `listed`: exactly what that report lists, by its max age.

    `taken`: the run has made the list of a recorded dry run its own. `on_full_disk`: the ledger
    could hardly be written, so the run takes small steps, and what waits in the trash makes room.
    """

    policy: Policy
    by: Actor = Actor.SWEEP
    dry_run: bool = False
    listed: Report | None = None
    past_the_brake: bool = False
    trust_clock: bool = False
    keep_entries: bool = True
    progress: Progress = field(default_factory=Progress)
    taken: bool = False
    on_full_disk: bool = False

    @property
    def dry_run_id(self) -> int | None:
        """The recorded dry run whose list this run carries out."""
        return self.listed.sweep_id if self.listed is not None and self.listed.dry_run else None


class RecordedRun:
    """The row that tells of one run, kept up as it goes; its caller holds the sweep lock.

    Raises DryRunGone where the list it should carry out was carried out before.
    """

    def __init__(self, place: Place, order: Order, now: int) -> None:
        self._place = place
        self._order = order
        self._saved = time.monotonic()
        self._began = now
        self._removed_before = order.progress.removed  # by a try that a full disk broke off
        with place.database.write() as connection:
            running = queries.running_sweeps(connection, place.root_id)
            _fail_abandoned(connection, place.root_id, running, now)
            if order.dry_run_id is not None and not order.taken:
                _take(connection, place, order.dry_run_id, now)
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
        order.taken = order.dry_run_id is not None
        order.progress.begin(self.sweep_id)

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """Meanwhile the row tells how far the run is, though it may find nothing to do for long."""
        progress = self._order.progress
        watcher = progress.on_change

        def saved(progress: Progress) -> None:
            with suppress(LedgerFull):  # what the run frees is worth more than its telling of it
                self.save()
            if watcher is not None:
                watcher(progress)

        progress.on_change = saved
        try:
            yield
        finally:
            progress.on_change = watcher

    def save(self) -> None:
        """Tells how far the run is, and hears whether it is to end; at most once a second."""
        if time.monotonic() - self._saved < _SAVE_EVERY_S:
            return
        self._saved = time.monotonic()
        progress = self._order.progress
        values = {"done": progress.done, "total": progress.total, "removed": progress.removed}
        if self._update(**values) == _CANCELLED:
            progress.cancel.set()

    def is_cancelled(self) -> bool:
        """Whether anybody asked the run to end, in this process or, a second ago, in another."""
        self.save()
        return self._order.progress.cancel.is_set()

    def done(self, report: Report, progress: Progress, now: int) -> None:
        """The run has ended, by itself or because it was cancelled."""
        report.sweep_id = self.sweep_id
        head = report.head()
        with self._place.database.read() as connection:
            sessions, size = queries.totals(connection, self._place.root_id)
        cancelled = progress.cancel.is_set()
        state = "stopped" if cancelled else "done"
        self._end(
            state,
            now,
            {} if self._order.dry_run else self._counted(report, state, now),
            why=_CANCELLED if cancelled else None,
            done=progress.done,
            total=progress.total,
            live_sessions=sessions,
            live_bytes=size,
            trash_bytes=bytes_in_trash(self._place),
            counts=json.dumps(head["counts"]),
            bytes=json.dumps(head["bytes"]),
            failures=json.dumps(report.failures[:_FAILURES_KEPT]),
            **{name: head[name] for name in ("removed", "waiting", "changed", "failed")},
        )

    def _counted(self, report: Report, state: str, now: int) -> Counter[Key]:
        counted: Counter[Key] = Counter()
        for finding, count in report.counts.items():
            counted[counts.of(SWEEP_FINDINGS, finding)] = count
        for reason, count in [*report.kept.items(), (CHANGED, report.changed)]:
            counted[counts.of(SWEEP_KEPT, reason)] = count
        counted[counts.of(SWEEP_REMOVED)] = report.removed - self._removed_before
        counted[counts.of(SWEEP_FAILED)] = report.failed
        if state == "done":
            counted += counts.observed(SWEEP_SECONDS, (), max(0, now - self._began), DURATIONS_S)
        return counted

    def stopped(self, by: Guard, why: str, now: int) -> None:
        """A guard stopped the run before its first removal; a list it had taken is given back."""
        self._end("stopped", now, {}, stopped_by=str(by), why=why)
        if self._order.taken:
            self._set(self._order.dry_run_id, carried_out_at=None)
            self._order.taken = False

    def failed(self, error: BaseException, now: int) -> None:
        """The run broke off; what it left half done, the next one finishes."""
        progress = self._order.progress
        counted = {counts.of(SWEEP_REMOVED): progress.removed - self._removed_before}
        why = str(error) or type(error).__name__
        far = {"done": progress.done, "total": progress.total, "removed": progress.removed}
        self._end("failed", now, counted, why=why, **far)

    def _end(self, state: str, now: int, counted: Mapping[Key, int], **values: Any) -> None:
        """The run is told of and counted at once, or not at all."""
        ended = update(SWEEPS).where(SWEEPS.c.sweep_id == self.sweep_id)
        place = self._place
        everything = _one_more(state, self._order.dry_run)
        everything.update(counted)
        with place.database.write() as connection:
            connection.execute(ended.values(state=state, finished_at=now, **values))
            counts.add(connection, place.root_id, everything)

    def _update(self, **values: Any) -> str | None:
        return self._set(self.sweep_id, **values)

    def _set(self, sweep_id: int | None, **values: Any) -> str | None:
        """The `why` of that run, which may have been told to it since it was last written."""
        changed = update(SWEEPS).where(SWEEPS.c.sweep_id == sweep_id).values(values)
        with self._place.database.write() as connection:
            why: str | None = connection.execute(changed.returning(SWEEPS.c.why)).scalar()
        return why


def _one_more(state: str, dry_run: bool) -> Counter[Key]:
    return Counter({counts.of(SWEEPS_ENDED, state, str(dry_run).lower()): 1})


def _take(connection: Connection, place: Place, dry_run_id: int, now: int) -> None:
    """Of all who want to carry a dry run's list out, one does."""
    taken = connection.execute(
        update(SWEEPS)
        .where(
            SWEEPS.c.root_id == place.root_id,
            SWEEPS.c.sweep_id == dry_run_id,
            SWEEPS.c.carried_out_at.is_(None),
        )
        .values(carried_out_at=now)
    )
    if taken.rowcount != 1:
        raise DryRunGone(f"The list of the dry run {dry_run_id} was carried out already.")


def cancel(place: Place, sweep_id: int, now: int) -> bool:
    """A run that is under way, in whatever process, knows within a second that it is to end;
    False for one that is not under way."""
    close_abandoned(place, now)
    asked = (
        update(SWEEPS)
        .where(
            SWEEPS.c.root_id == place.root_id,
            SWEEPS.c.sweep_id == sweep_id,
            SWEEPS.c.state == "running",
        )
        .values(why=_CANCELLED)
    )
    with place.database.write() as connection:
        return connection.execute(asked).rowcount == 1


def close_abandoned(place: Place, now: int) -> None:
    """What a killed process left as running says that it failed."""
    with place.database.read() as connection:
        running = queries.running_sweeps(connection, place.root_id)
    # A run holds the lock from before its row is written until after its row is closed.
    if not running or not _lock_is_free(place):
        return
    with place.database.write() as connection:
        _fail_abandoned(connection, place.root_id, running, now)


def _lock_is_free(place: Place) -> bool:
    try:
        with guards.one_sweeper(place):
            return True
    except SweepStopped:
        return False


def _fail_abandoned(connection: Connection, root_id: str, running: list[int], now: int) -> None:
    if not running:
        return
    left = (
        update(SWEEPS)
        .where(SWEEPS.c.sweep_id.in_(running), SWEEPS.c.state == "running")
        .values(state="failed", why=_ABANDONED, finished_at=now)
        .returning(SWEEPS.c.dry_run, SWEEPS.c.removed)
    )
    counted: Counter[Key] = Counter()
    for row in connection.execute(left).all():
        counted += _one_more("failed", row.dry_run)
        counted[counts.of(SWEEP_REMOVED)] += row.removed
    counts.add(connection, root_id, counted)
