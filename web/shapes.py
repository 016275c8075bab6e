"""The JSON that is asked and answered with. Times are RFC 3339 UTC, sizes bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from sqlalchemy import Row

from ledger import Action, Finding, Guard, Session, State
from ledger.disk import StoredFile
from ledger.health import SweepInfo
from ledger.place import Place
from ledger.plan import Kind
from ledger.views import Seen, event_json, session_json, stamp
from web import examples


def shown(example: Any) -> ConfigDict:
    """What the documentation shows of a model."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class FileJson(BaseModel):
    """One file of a session."""

    model_config = shown(examples.FILE)

    name: str
    bytes: int


Moment = Annotated[datetime, PlainSerializer(stamp, return_type=str)]


class SessionOut(BaseModel):
    """A session with its files. Times are RFC 3339 UTC; `bytes` is the sum of its files'."""

    model_config = shown(examples.SESSION)

    session_id: str
    state: State
    label: str | None
    created_at: Moment
    last_touch_at: Moment
    expires_at: Moment
    bytes: int
    files: list[FileJson]

    @classmethod
    def of(cls, session: Session, files: Iterable[StoredFile]) -> Self:
        return cls(
            session_id=session.id,
            state=session.state,
            label=session.label,
            created_at=session.created_at,
            last_touch_at=session.last_touch_at,
            expires_at=session.expires_at,
            bytes=session.bytes,
            files=[FileJson(name=_as_text(name), bytes=size) for name, size in files],
        )


class FileOut(FileJson):
    """A file that was received, and where it is."""

    model_config = shown(examples.FILE_OUT)

    url: str


class FilesOut(BaseModel):
    """The files of one request; `url` is that of the first."""

    model_config = shown(examples.FILES_OUT)

    url: str
    files: list[FileOut]


class ClaimIn(BaseModel):
    """`into`: the name that the directory gets below the claims directory."""

    model_config = ConfigDict(extra="forbid", **shown(examples.CLAIM))

    into: str


class SessionJson(BaseModel):
    """One session as operators see it.

    `file_count` and `bytes` are the ledger's; `files` are looked up on the disk, and null where
    a page would grow too long by them.
    """

    model_config = shown(examples.OF_OPERATORS)

    session_id: str
    state: State
    label: str | None
    created_at: str
    last_touch_at: str
    expires_at: str
    bytes: int
    file_count: int
    files: list[FileJson] | None
    origin: Literal["created", "adopted"]
    path: str
    ended_at: str | None
    ended_by: str | None
    ended_why: str | None

    @classmethod
    def of(cls, session: Session, files: Sequence[StoredFile] | None) -> Self:
        return cls(**session_json(session, files))


class SessionPage(BaseModel):
    """Sessions; `next` is the next page's `cursor`, null on the last."""

    model_config = shown(examples.SESSIONS)

    sessions: list[SessionJson]
    next: str | None


class EventJson(BaseModel):
    """One change of a session's state; `session` is the short form of its id."""

    model_config = shown(examples.EVENT)

    event_id: int
    at: str
    session: str | None
    from_: str | None = Field(alias="from")
    to: str | None
    by: str
    why: str

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls.model_validate(event_json(row))


class EventPage(BaseModel):
    """Events; `next` is the next page's `cursor`, null on the last."""

    model_config = shown(examples.EVENTS)

    events: list[EventJson]
    next: str | None


class SweepJson(BaseModel):
    """One sweep or dry run; `result` is null while it runs.

    The result is the report's JSON without its findings, and `by`, `why` and `failures`; that of
    one dry run whose list is still kept has the findings, and which guards object.
    """

    model_config = shown(examples.SWEEP)

    sweep_id: int
    state: Literal["running", "done", "stopped", "failed"]
    done: int
    total: int | None
    dry_run: bool
    started_at: str
    finished_at: str | None
    stopped_by: Literal["brake", "clock", "root", "lock"] | None
    result: dict[str, Any] | None

    @classmethod
    def of(cls, row: Row[Any], place: Place) -> Self:
        sweep = SweepInfo.of(row)
        return cls(
            sweep_id=sweep.sweep_id,
            state=sweep.state,
            done=sweep.done,
            total=sweep.total,
            dry_run=sweep.dry_run,
            started_at=stamp(sweep.started_at) or "",
            finished_at=stamp(sweep.finished_at),
            stopped_by=sweep.stopped_by,
            result=None if sweep.state == "running" else _result(sweep, place),
        )


def _result(sweep: SweepInfo, place: Place) -> dict[str, Any]:
    return {
        "at": stamp(sweep.started_at),
        "root": place.root.path,
        "root_id": place.root_id,
        "max_age_hours": sweep.max_age_hours,
        "dry_run": sweep.dry_run,
        **sweep.result,
        "by": sweep.by,
        "why": sweep.why,
    }


class SweepPage(BaseModel):
    """Sweeps; `next` is the next page's `cursor`, null on the last."""

    model_config = shown(examples.SWEEPS)

    sweeps: list[SweepJson]
    next: str | None


class FindingJson(BaseModel):
    """One finding: what it is about, what a sweep does with it, and why."""

    model_config = shown(examples.FINDING)

    finding: Finding
    session_id: str | None
    path: str
    last_activity: str | None
    age_hours: float | None
    files: int
    bytes: int
    action: Action
    why: str


class DiskJson(BaseModel):
    """What stands at a session's name in the root; `what` says more where it is no directory."""

    model_config = shown(examples.DISK)

    kind: Kind
    what: str
    mtime: str | None
    ctime: str | None
    files: int
    bytes: int
    in_use: bool


class VerdictJson(BaseModel):
    """What a sweep would do with the session now, and why."""

    model_config = shown(examples.VERDICT)

    finding: Finding
    action: Action
    why: str
    last_activity: str | None


class SeenJson(BaseModel):
    """One session from both sides, with its life.

    `session` is null where the ledger has no row of it, `verdict` where both sides agree that it
    has ended; `trash` is what waits there to be restored or removed, `events` its life, oldest
    first. A sweep would judge it by `max_age_hours`.
    """

    model_config = shown(examples.SEEN)

    session_id: str
    path: str
    max_age_hours: float
    session: SessionJson | None
    disk: DiskJson
    verdict: VerdictJson | None
    trash: list[FindingJson]
    events: list[EventJson]

    @classmethod
    def of(cls, seen: Seen) -> Self:
        return cls.model_validate(seen.as_json())


class ObjectionJson(BaseModel):
    """A guard that would stop a sweep now, and why."""

    model_config = shown(examples.OBJECTION)

    guard: Guard
    why: str


class ReportJson(BaseModel):
    """The orphan report. `counts` and `bytes` have every finding; `live` is not listed.

    `objections` and `failures` are named where there are any.
    """

    model_config = shown(examples.REPORT)

    at: str
    root: str
    root_id: str
    max_age_hours: float
    dry_run: bool
    counts: dict[str, int]
    bytes: dict[str, int]
    removed: int
    waiting: int
    changed: int
    failed: int
    findings: list[FindingJson]
    failures: list[str] = []
    objections: list[ObjectionJson] = []


class AliveJson(BaseModel):
    """That it is alive, and no more."""

    model_config = shown(examples.ALIVE)

    status: Literal["alive"]


class ProgressJson(BaseModel):
    """How far a sweep is that runs now."""

    sweep_id: int | None = None
    done: int
    total: int | None
    removed: int | None = None


class ReadyJson(BaseModel):
    """What is wrong, each in a sentence that says what to do; null where all is well.

    With a problem of `ledger` or `root` nothing can be served; with one of `clock` or `sweep`
    nothing is swept; those of `disk` and `claims` are warnings.
    """

    model_config = shown(examples.READY)

    ready: bool
    ledger: str | None
    root: str | None
    clock: str | None
    sweep: str | None
    disk: str | None
    claims: str | None
    disk_free_percent: float | None
    last_sweep_at: str | None
    running: ProgressJson | None
    sessions: int
    bytes: int


def _as_text(name: str) -> str:
    """A name as it is; bytes of it that are no UTF-8 are escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
