"""Where the dashboard's facts come from and its acts go to: the ledger itself, or a service.

Everything here is a plain value or a promise; `local.py` and `remote.py` keep the promises, and
one suite of tests holds them both to it. Times are microseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger import CoatcheckError, Guard, Progress, Report
from ledger.health import Health, SweepInfo
from ledger.models import short
from ledger.plan import Finding
from tui.filters import EVERYTHING, Filter, Row
from tui.window import Part, Task, Window
from web.asking import Cancel

# What any call to a source may raise; `str()` is fit for a screen.
FAILURES = (CoatcheckError, OSError)


@dataclass(frozen=True, slots=True)
class View:
    """Which sessions, in which order: `sort` is a column of the ledger, `down` from the largest."""

    sort: str = "created_at"
    down: bool = True
    filter: Filter = EVERYTHING


@dataclass(frozen=True, slots=True)
class Around:
    """What must stay where it is when a list is read anew: a row, its rank, and the screen.

    `above`: so many rows of the screen are above it. `from_end`: the list was read from there,
    and had `total` rows.
    """

    row: Row | None
    rank: int
    above: int
    height: int
    total: int = 0
    from_end: bool = False

    @property
    def place(self) -> int:
        """How far the rank is from the end that was read from."""
        return self.total - 1 - self.rank if self.from_end else self.rank


@dataclass(frozen=True, slots=True)
class Reread:
    """A list as it is now; `row` is the one asked for, None when it is not in it any more, and
    `outside` then what the ledger still says of it."""

    window: Window
    rank: int
    row: Row | None
    outside: Row | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the audit log."""

    event_id: int
    at: int
    session: str | None
    before: str | None
    after: str | None
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Clock:
    """What one side knows of a session: `seen` in words, and the last sign of use."""

    seen: str
    used_at: int | None = None
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a sweep would do with one session now."""

    finding: Finding
    action: str
    why: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One session, whole. `note` says what could not be told, and why."""

    row: Row
    ledger: Clock
    disk: Clock
    judgement: Judgement | None
    files: Sequence[tuple[str, int]]
    events: Sequence[Event]
    note: str = ""


# What an operator types to override a guard; the others cannot be overridden.
OVERRIDES = {Guard.CLOCK: "the clock is right", Guard.BRAKE: "past the brake"}


class Source(Protocol):
    """A ledger as the dashboard needs it. Called from worker threads, several at once.

    Any method may raise FAILURES; those that take a Cancel, Cancelled.
    """

    name: str  # of what is shown: a root, or a service
    sorts: frozenset[str]

    def now(self) -> int: ...

    # Before the end: what is asked for now may fail, so that nobody waits for it
    def stop(self) -> None: ...
    def close(self) -> None: ...

    # A list of sessions, of which only what is looked at is read
    def open(self, view: View, cancel: Cancel, *, at_end: bool = False) -> Window: ...
    def load(self, view: View, task: Task, cancel: Cancel) -> Part: ...
    def count(self, view: View, cancel: Cancel) -> int | None: ...
    def reread(self, view: View, around: Around, cancel: Cancel) -> Reread: ...
    def version(self) -> Hashable: ...

    # One session
    def look(self, session_id: str) -> Row | None: ...
    def detail(self, session_id: str) -> Detail: ...
    def delete(self, session_id: str) -> bool: ...
    def touch(self, session_id: str) -> None: ...
    def restore(self, session_id: str) -> None: ...

    # The sweep
    def report(self, progress: Progress) -> Report: ...
    # `keep`: so that `sweep` can carry it out; else nothing is written
    def dry_run(
        self, max_age_hours: float | None, progress: Progress, *, keep: bool = True
    ) -> Report: ...
    def sweep(self, plan: Report, overridden: frozenset[Guard], progress: Progress) -> Report: ...

    # History and health
    def sweeps(self, most: int) -> list[SweepInfo]: ...
    def events(self, most: int, before: int | None = None) -> list[Event]: ...
    def health(self) -> Health: ...


def name_of(row: Row) -> str:
    """A session by its short id and, where it has one, its label."""
    return f"{short(row.id)} “{row.label}”" if row.label else short(row.id)
