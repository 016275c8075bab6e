"""The JSON of the operator API as the dashboard's values."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from ledger import Entry, Finding, Report, parse_report
from ledger.health import Health, SweepInfo
from ledger.report import micros, moment
from tui.filters import Row
from tui.source import Event

_TOLD = ("ledger", "root", "clock", "sweep", "disk", "claims", "disk_free_percent")
_COUNTED = ("removed", "waiting", "changed", "failed")


def row_of(told: dict[str, Any]) -> Row:
    """A session of an operator's list, or as the upload routes tell of it."""
    files = told.get("file_count")
    return Row(
        id=told["session_id"],
        label=told["label"],
        state=told["state"],
        origin=told.get("origin", ""),
        created_at=micros(told["created_at"]),
        last_touch_at=micros(told["last_touch_at"]),
        expires_at=micros(told["expires_at"]),
        bytes=told["bytes"],
        files=len(told["files"] or ()) if files is None else files,
        path=told.get("path", ""),
        ended_at=_at(told.get("ended_at")),
        ended_by=told.get("ended_by"),
        ended_why=told.get("ended_why"),
    )


def unrecorded(entry: Entry, now: int) -> Row:
    """A directory that only the report knows of."""
    at = now if entry.last_activity is None else entry.last_activity
    name = entry.session_id or entry.path.rpartition("/")[2]
    return Row(name, None, entry.finding, "", at, at, at, entry.bytes, entry.files, entry.path)


def _at(told: str | None) -> int | None:
    return None if told is None else micros(told)


def _moment(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)


def event_of(told: dict[str, Any]) -> Event:
    at = micros(told["at"])
    before, after = told["from"], told["to"]
    return Event(told["event_id"], at, told["session"], before, after, told["by"], told["why"])


def sweep_of(told: dict[str, Any]) -> SweepInfo:
    result = told["result"] or {}
    return SweepInfo(
        sweep_id=told["sweep_id"],
        state=told["state"],
        dry_run=told["dry_run"],
        by=result.get("by") or "",
        max_age_hours=result.get("max_age_hours") or 0.0,
        started_at=datetime.fromisoformat(told["started_at"]),
        finished_at=_moment(told["finished_at"]),
        done=told["done"],
        total=told["total"],
        stopped_by=told["stopped_by"],
        why=result.get("why"),
        result=result,
    )


def report_of(told: dict[str, Any]) -> Report:
    """A report, or the result of a sweep. Its counts are the service's: what is live is counted
    and not listed."""
    report = parse_report(json.dumps({"findings": [], **told}))
    report.dry_run = told["dry_run"]
    report.counts |= {Finding(name): count for name, count in told["counts"].items()}
    report.bytes |= {Finding(name): count for name, count in told["bytes"].items()}
    for name in _COUNTED:
        setattr(report, name, told[name])
    report.failures = list(told.get("failures") or ())
    return report


def health_of(told: dict[str, Any]) -> Health:
    running = told["running"]
    return Health(
        **{name: told[name] for name in _TOLD},
        last_sweep_at=_moment(told["last_sweep_at"]),
        running=None if running is None else _running(running),
        sessions=told["sessions"],
        bytes=told["bytes"],
    )


def _running(told: dict[str, Any]) -> SweepInfo:
    """Of a sweep under way, /readyz tells how far it is."""
    return SweepInfo(
        sweep_id=told.get("sweep_id") or 0,
        state="running",
        dry_run=False,
        by="",
        max_age_hours=0.0,
        started_at=moment(0),
        finished_at=None,
        done=told["done"],
        total=told["total"],
        stopped_by=None,
        why=None,
        result={},
    )
