"""The outcome of all verdicts as one value: the orphan report, the dry run, and the plan.

A sweep's result is the same value after the fact. Its JSON is a contract (`docs/guide.md`).
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from ledger.errors import Guard, UsageError
from ledger.plan import SETTLED, Action, Finding, Verdict
from ledger.settings import CENTURY_HOURS, HOUR_US, hours_us

_ENTRIES_AT_ONCE = 500
COLUMNS = (
    "finding",
    "session_id",
    "path",
    "last_activity",
    "age_hours",
    "files",
    "bytes",
    "action",
    "why",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One finding: what it is about, what a sweep does with it, and the reason."""

    finding: Finding
    session_id: str | None
    path: str
    last_activity: int | None
    age_us: int | None
    files: int
    bytes: int
    action: Action
    why: str

    @classmethod
    def of(
        cls,
        verdict: Verdict,
        session_id: str | None,
        path: str,
        now: int,
        *,
        files: int = 0,
        size: int = 0,
    ) -> Entry:
        age = None if verdict.activity is None else max(0, now - verdict.activity)
        return cls(
            verdict.finding,
            session_id,
            path,
            verdict.activity,
            age,
            files,
            size,
            verdict.action,
            verdict.why,
        )

    def is_at(self, path: str) -> bool:
        """Whether it is about what stands at this path; written reports tell paths as text."""
        return printable(self.path) == printable(path)

    def agrees(self, verdict: Verdict | None) -> bool:
        """Whether the session is still as it was listed."""
        return verdict is not None and (
            (verdict.finding, verdict.action, verdict.activity)
            == (self.finding, self.action, self.last_activity)
        )

    def as_json(self) -> dict[str, Any]:
        age = None if self.age_us is None else round(self.age_us / HOUR_US, 4)
        return {
            "finding": self.finding.value,
            "session_id": self.session_id and printable(self.session_id),
            "path": printable(self.path),
            "last_activity": rfc3339(self.last_activity),
            "age_hours": age,
            "files": self.files,
            "bytes": self.bytes,
            "action": self.action.value,
            "why": printable(self.why),
        }


@dataclass(frozen=True, slots=True)
class Objection:
    """A guard that would stop a sweep of a report, asked ahead, and its reason."""

    guard: Guard
    why: str

    def as_json(self) -> dict[str, str]:
        return {"guard": self.guard.value, "why": printable(self.why)}


def _zeros() -> dict[Finding, int]:
    return dict.fromkeys(Finding, 0)


@dataclass(slots=True)
class Tally:
    """What came of some of a run's sessions; `failures` in words."""

    removed: int = 0
    waiting: int = 0
    changed: int = 0
    failures: list[str] = field(default_factory=list)

    def fail(self, what: str) -> None:
        self.failures.append(what)


@dataclass(slots=True)
class Report:
    """What was found in one root at one instant, and, after a sweep, what came of it.

    `removed` counts sessions taken out of the root, those that wait in the trash included;
    `waiting` counts those apart; `changed`, entries that were no longer as listed; `failed`,
    those that could not be carried out, each told in `failures`. In `counts`, what a sweep finished
    and then judged anew in the same run is counted under both findings. `objections` are those that
    a sweep would meet; a report that was carried out has none.
    """

    at: int
    root: str
    root_id: str
    max_age_us: int
    dry_run: bool = True
    counts: dict[Finding, int] = field(default_factory=_zeros)
    bytes: dict[Finding, int] = field(default_factory=_zeros)
    removed: int = 0
    waiting: int = 0
    changed: int = 0
    failed: int = 0
    entries: list[Entry] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    objections: list[Objection] = field(default_factory=list)
    sweep_id: int | None = None
    # How many were left where they are, by their findings; for the metrics alone.
    kept: Counter[Finding] = field(default_factory=Counter)

    @property
    def settled(self) -> bool:
        """Whether a sweep would have nothing to do, and nothing is unreadable."""
        return not any(n for finding, n in self.counts.items() if finding not in SETTLED)

    def count(self, finding: Finding, *, size: int = 0, sessions: int = 1) -> None:
        self.counts[finding] += sessions
        self.bytes[finding] += size

    def fail(self, what: str, *, most: int = 1000) -> None:
        self.failed += 1
        if len(self.failures) < most:
            self.failures.append(printable(what))

    def add(self, part: Tally) -> None:
        self.removed += part.removed
        self.waiting += part.waiting
        self.changed += part.changed
        for what in part.failures:
            self.fail(what)

    def head(self) -> dict[str, Any]:
        """Everything but the findings."""
        return {
            "at": rfc3339(self.at),
            "root": self.root,
            "max_age_hours": self.max_age_us / HOUR_US,
            "dry_run": self.dry_run,
            "counts": {finding.value: n for finding, n in self.counts.items()},
            "bytes": {finding.value: n for finding, n in self.bytes.items()},
            "removed": self.removed,
            "waiting": self.waiting,
            "changed": self.changed,
            "failed": self.failed,
            "root_id": self.root_id,
        }

    def as_json(self) -> dict[str, Any]:
        findings = [entry.as_json() for entry in self.entries]
        return {**self.head(), "findings": findings, **self._exceptions()}

    def _exceptions(self) -> dict[str, Any]:
        """What most reports have none of, and then do not name."""
        told = {
            "failures": self.failures,
            "objections": [objection.as_json() for objection in self.objections],
        }
        return {name: each for name, each in told.items() if each}

    def as_csv(self) -> str:
        return csv_of(self.entries)

    def json_pieces(self) -> Iterator[str]:
        """The same JSON, some findings at a time: there may be a million."""
        yield json.dumps(self.head())[:-1] + ', "findings": ['
        between = ""
        for some in _some_at_a_time(self.entries):
            yield between + ", ".join(json.dumps(entry.as_json()) for entry in some)
            between = ", "
        told = self._exceptions()
        yield f"], {json.dumps(told)[1:]}" if told else "]}"


def csv_of(entries: Iterable[Entry]) -> str:
    """The findings as CSV; a cell that a spreadsheet would run as a formula is made text."""
    return "".join(csv_pieces(entries))


def csv_pieces(entries: Iterable[Entry]) -> Iterator[str]:
    """The same CSV, some findings at a time."""
    yield ",".join(COLUMNS) + "\r\n"
    for some in _some_at_a_time(entries):
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        for entry in some:
            row = entry.as_json()
            writer.writerow(_inert(row[column]) for column in COLUMNS)
        yield out.getvalue()


def _some_at_a_time(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    left = iter(entries)
    while some := list(islice(left, _ENTRIES_AT_ONCE)):
        yield some


def _inert(cell: Any) -> Any:
    return "'" + cell if isinstance(cell, str) and cell[:1] in "=+-@\t\r" else cell


def rfc3339(at: int | None) -> str | None:
    """Microseconds UTC as an RFC 3339 time; None stays None."""
    if at is None:
        return None
    return moment(at).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(at: int) -> datetime:
    """Microseconds UTC as a datetime; times beyond what it can hold are held at its edge."""
    seconds, micros = divmod(at, 1_000_000)
    seconds = min(max(seconds, -62_135_596_800), 253_402_300_799)
    # Built in two steps: one float would lose the last microseconds.
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def micros(text: str) -> int:
    """An RFC 3339 time as microseconds UTC."""
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError("a time without its zone")
    seconds = when.replace(microsecond=0)
    return int(seconds.timestamp()) * 1_000_000 + when.microsecond


def printable(text: str) -> str:
    """`text` with undecodable bytes and control characters escaped, fit for a screen or JSON."""
    return "".join(
        character
        if character.isprintable() and not "\ud800" <= character <= "\udfff"
        else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


# Built only once a report is read: most runs read none.
_AS_LISTED = ConfigDict(extra="ignore", strict=True, defer_build=True)


@checked_dataclass(config=_AS_LISTED, frozen=True)
class _ListedEntry:
    finding: str
    session_id: str | None
    path: str
    last_activity: str | None
    action: str
    files: int
    bytes: int
    why: str
    age_hours: float | int | None


@checked_dataclass(config=_AS_LISTED, frozen=True)
class _ListedReport:
    at: str
    root: str
    root_id: str
    max_age_hours: float | int
    findings: list[_ListedEntry]


_LISTED = TypeAdapter(_ListedReport)


def parse_report(text: str | bytes) -> Report:
    """The report that `text` is the JSON of. Raises UsageError where it is none."""
    try:
        listed = _LISTED.validate_json(text)
        entries = [_entry(found) for found in listed.findings]
        max_age_us = hours_us(listed.max_age_hours)
        if not 0 < max_age_us <= hours_us(CENTURY_HOURS):
            raise ValueError(f"max_age_hours must be above 0, and {CENTURY_HOURS:,} at most")
        report = Report(micros(listed.at), listed.root, listed.root_id, max_age_us)
    except ValidationError as error:
        where = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in where["loc"])
        said = f"{place}: {where['msg']}" if place else where["msg"]
        raise UsageError(f"This is no report of coatcheck: {said}") from None
    except (ValueError, OverflowError) as error:
        raise UsageError(f"This is no report of coatcheck: {error}") from None
    report.entries = entries
    for entry in entries:
        report.count(entry.finding, size=entry.bytes)
    return report


def _entry(listed: _ListedEntry) -> Entry:
    activity = None if listed.last_activity is None else micros(listed.last_activity)
    age = None if listed.age_hours is None else round(listed.age_hours * HOUR_US)
    return Entry(
        Finding(listed.finding),
        listed.session_id,
        listed.path,
        activity,
        age,
        listed.files,
        listed.bytes,
        Action(listed.action),
        listed.why,
    )
