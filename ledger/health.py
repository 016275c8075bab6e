"""Whether ledger, root, clock and disk are well, in words: one value for all who show it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from ledger import guards, queries
from ledger.errors import CoatcheckError, LedgerDamaged, LedgerUnavailable
from ledger.place import Place
from ledger.report import moment, rfc3339


@dataclass(frozen=True, slots=True)
class SweepInfo:
    """One run of a sweep, or of its dry run, as the ledger recorded it."""

    sweep_id: int
    state: str
    dry_run: bool
    by: str
    max_age_hours: float
    started_at: datetime
    finished_at: datetime | None
    done: int
    total: int | None
    stopped_by: str | None
    why: str | None
    result: dict[str, Any]

    @classmethod
    def of(cls, row: Row[Any]) -> SweepInfo:
        """Raises LedgerDamaged for a row that cannot be understood."""
        try:
            return cls._of(row)
        except (TypeError, ValueError) as error:
            raise LedgerDamaged(
                f"The ledger is damaged: what it tells of the sweep {row.sweep_id} cannot be "
                "understood. What to do, says: coatcheck doctor"
            ) from error

    @classmethod
    def _of(cls, row: Row[Any]) -> SweepInfo:
        return cls(
            sweep_id=row.sweep_id,
            state=row.state,
            dry_run=row.dry_run,
            by=row.by,
            max_age_hours=row.max_age_us / 3.6e9,
            started_at=moment(row.started_at),
            finished_at=None if row.finished_at is None else moment(row.finished_at),
            done=row.done,
            total=row.total,
            stopped_by=row.stopped_by,
            why=row.why,
            result={
                "removed": row.removed,
                "waiting": row.waiting,
                "changed": row.changed,
                "failed": row.failed,
                "counts": json.loads(row.counts),
                "bytes": json.loads(row.bytes),
                "failures": json.loads(row.failures),
                "live_sessions": row.live_sessions,
                "live_bytes": row.live_bytes,
            },
        )


@dataclass(frozen=True, slots=True)
class Health:
    """What is wrong, each in a sentence that says what to do; None where all is well.

    `ledger` and `root` mean that no request can be served; `clock` and `sweep` that nothing is
    swept; `disk` and `claims` are warnings.
    """

    ledger: str | None = None
    root: str | None = None
    clock: str | None = None
    sweep: str | None = None
    disk: str | None = None
    claims: str | None = None
    disk_free_percent: float | None = None
    last_sweep_at: datetime | None = None
    running: SweepInfo | None = None
    sessions: int = 0
    bytes: int = 0

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return self.ledger is None and self.root is None

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, the gravest first."""
        said = (self.ledger, self.root, self.clock, self.sweep, self.disk, self.claims)
        return [problem for problem in said if problem]

    def as_json(self) -> dict[str, Any]:
        running = self.running
        return {
            "ready": self.ready,
            "ledger": self.ledger,
            "root": self.root,
            "clock": self.clock,
            "sweep": self.sweep,
            "disk": self.disk,
            "claims": self.claims,
            "disk_free_percent": self.disk_free_percent,
            "last_sweep_at": self.last_sweep_at
            and rfc3339(round(self.last_sweep_at.timestamp() * 1_000_000)),
            "running": running
            and {
                "sweep_id": running.sweep_id,
                "done": running.done,
                "total": running.total,
                "removed": running.result["removed"],
            },
            "sessions": self.sessions,
            "bytes": self.bytes,
        }


def health(place: Place) -> Health:
    """The health of one place. Raises nothing: what cannot be asked is what is wrong."""
    try:
        guards.check_root(place)
    except LedgerUnavailable as error:
        return Health(ledger=str(error))
    except CoatcheckError as error:
        return Health(root=str(error))
    except OSError as error:
        return Health(root=f"The root {place.root.path} cannot be read: {error.strerror}.")
    try:
        with place.database.read() as connection:
            recent = queries.sweeps(connection, place.root_id, most=50)
            sessions, size = queries.totals(connection, place.root_id)
        real = [SweepInfo.of(row) for row in recent if not row.dry_run]
        clock = guards.clock_problem(place)
    except CoatcheckError as error:
        return Health(ledger=str(error))
    ended = [sweep for sweep in real if sweep.state != "running"]
    done = [sweep for sweep in ended if sweep.state == "done"]
    return Health(
        clock=clock and f"The clock is not trusted: {clock}. Nothing is swept.",
        sweep=_last_sweep_failed(ended[0]) if ended else None,
        disk=_disk_is_low(place),
        claims=place.claims.trouble,
        disk_free_percent=round(place.root.free_percent(), 1),
        last_sweep_at=done[0].finished_at if done else None,
        running=next((sweep for sweep in real[:1] if sweep.state == "running"), None),
        sessions=sessions,
        bytes=size,
    )


def _last_sweep_failed(last: SweepInfo) -> str | None:
    if last.state == "done" or last.why == "cancelled":
        return None
    return f"The last sweep {'was stopped' if last.state == 'stopped' else 'failed'}: {last.why}"


def _disk_is_low(place: Place) -> str | None:
    free, limit = place.root.free_percent(), place.settings.disk_warning_percent
    if free >= limit:
        return None
    return f"The root's disk has {free:.1f} % free, less than {limit:g} %."
