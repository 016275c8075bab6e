"""The JSON of the operator API, which is the ledger's own, as the dashboard's values."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from ledger import Finding, Guard, Report, parse_report
from ledger.health import Health, SweepInfo
from ledger.models import State
from ledger.plan import Kind
from ledger.report import Objection, micros, moment
from ledger.settings import hours_us
from tui import words
from tui.filters import Row
from tui.source import Clock, Detail, Event, Judgement

_TOLD = ("ledger", "root", "clock", "sweep", "disk", "claims", "disk_free_percent")
_COUNTED = ("removed", "waiting", "changed", "failed")


def row_of(told: dict[str, Any]) -> Row:
    """A session as operators are told of it."""
    return Row(
        id=told["session_id"],
        label=told["label"],
        state=told["state"],
        origin=told["origin"],
        created_at=micros(told["created_at"]),
        last_touch_at=micros(told["last_touch_at"]),
        expires_at=micros(told["expires_at"]),
        bytes=told["bytes"],
        files=told["file_count"],
        path=told["path"],
        ended_at=_at(told["ended_at"]),
        ended_by=told["ended_by"],
        ended_why=told["ended_why"],
    )


def detail_of(told: dict[str, Any], now: int) -> Detail:
    """One session from both sides; where the ledger has no row of it, as what was found."""
    session, waiting = told["session"], _waiting(told)
    row = _unrecorded(told, now) if session is None else row_of(session)
    files = [] if session is None else session["files"]
    return Detail(
        row=row,
        ledger=Clock("no row")
        if session is None
        else Clock(row.state, row.last_touch_at, row.files, row.bytes),
        disk=_disk_clock(told["disk"], waiting),
        judgement=_judgement(waiting or told["verdict"]),
        files=[(file["name"], file["bytes"]) for file in files],
        events=[event_of(each) for each in told["events"]],
        note="" if files else _why_no_files(told),
    )


def _waiting(told: dict[str, Any]) -> dict[str, Any] | None:
    """What of it lies in the trash, where nothing of it stands in the root."""
    return told["trash"][0] if told["trash"] and told["disk"]["kind"] == Kind.ABSENT else None


def _unrecorded(told: dict[str, Any], now: int) -> Row:
    waiting = _waiting(told)
    found, path = (waiting, waiting["path"]) if waiting else (told["disk"], told["path"])
    at = _at(waiting["last_activity"] if waiting else found["mtime"])
    at = now if at is None else at
    return Row(
        id=told["session_id"],
        label=None,
        state=(waiting or told["verdict"])["finding"],
        origin=words.NOTHING,
        created_at=at,
        last_touch_at=at,
        expires_at=at + hours_us(told["max_age_hours"]),
        bytes=found["bytes"],
        files=found["files"],
        path=path,
    )


def _disk_clock(disk: dict[str, Any], waiting: dict[str, Any] | None) -> Clock:
    if waiting is not None:
        used_at = _at(waiting["last_activity"])
        return Clock("in the trash", used_at, waiting["files"], waiting["bytes"])
    if disk["kind"] == Kind.DIRECTORY:
        seen = "in use" if disk["in_use"] else "directory"
        return Clock(seen, _at(disk["mtime"]), disk["files"], disk["bytes"])
    absent = disk["kind"] == Kind.ABSENT
    return Clock("no directory" if absent else f"{disk['kind']}: {disk['what']}")


def _judgement(told: dict[str, Any] | None) -> Judgement | None:
    if told is None:
        return None
    return Judgement(Finding(told["finding"]), told["action"], told["why"])


def _why_no_files(told: dict[str, Any]) -> str:
    session, disk = told["session"], told["disk"]
    if session is not None and session["state"] == State.CLAIMED:
        return "Its files went with the claim."
    if disk["kind"] == Kind.ABSENT:
        return "Nothing of it is in the root."
    if disk["kind"] != Kind.DIRECTORY:
        return f"Its files cannot be read: {disk['what']}"
    if disk["files"] == 0:
        return "No files."
    if session is None:
        return "Its files are named once the ledger has a row of it."
    return "Its files cannot be read just now."


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
    objections = told.get("objections") or ()
    report.objections = [Objection(Guard(each["guard"]), each["why"]) for each in objections]
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
