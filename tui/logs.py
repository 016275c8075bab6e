"""Past sweeps and the event log as lists, the newest first."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.health import SweepInfo
from tui import words
from tui.rows import Cell, Column, ListRows
from tui.source import Event

SWEEP_COLUMNS = (
    Column("pointer", "", 2),
    Column("started", "Started, UTC", 19),
    Column("took", "Took", 7, right=True),
    Column("state", "Ended", 8),
    Column("by", "By", 8, drop=3),
    Column("removed", "Removed", 7, right=True),
    Column("waiting", "Waiting", 7, right=True, drop=2),
    Column("failed", "Failed", 6, right=True),
    Column("what", "What", 12, grow=1),
)
EVENT_COLUMNS = (
    Column("pointer", "", 2),
    Column("at", "At, UTC", 19),
    Column("session", "Session", 8),
    Column("change", "Change", 18),
    Column("by", "By", 8),
    Column("why", "Why", 12, grow=1),
)
_ENDS = {"done": "good", "running": "accent", "stopped": "warn", "failed": "bad"}
_KEPT = 5000


class Sweeps(ListRows):
    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(SWEEP_COLUMNS, id=id)

    def cell(self, row: SweepInfo, column: str) -> Cell:
        match column:
            case "started":
                return words.instant(_at(row)), ""
            case "took":
                return _took(row), ""
            case "state":
                return row.state, _ENDS.get(row.state, "")
            case "by":
                return row.by, "dim"
            case "removed" | "waiting" | "failed":
                count = int(row.result.get(column) or 0)
                return f"{count:,}", "bad" if count and column == "failed" else ""
            case "what":
                return words.shown(what(row)), ""
        return " ", ""


def _at(row: SweepInfo) -> int:
    return round(row.started_at.timestamp() * words.SECOND)


def _took(row: SweepInfo) -> str:
    if row.finished_at is None:
        return words.NOTHING
    seconds = (row.finished_at - row.started_at).total_seconds()
    return f"{seconds:.2f}s" if seconds < 60 else words.span(round(seconds * words.SECOND))


def what(row: SweepInfo) -> str:
    """Why it stopped; else what it found, but for what is live."""
    if row.state == "running":
        return f"{row.done:,} of {row.total:,}" if row.total else f"{row.done:,} so far"
    if row.why:
        return row.why
    counts = dict(row.result.get("counts") or {})
    found = [f"{n:,} {name}" for name, n in counts.items() if n and name != "live"]
    said = ", ".join(found) or "all well"
    return f"dry run: {said}" if row.dry_run else said


class Events(ListRows):
    """Follows the newest while the cursor is at the top; else what one reads stays where it is."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(EVENT_COLUMNS, id=id)
        self._known: dict[int, Event] = {}
        self.is_whole = False  # nothing older is left to be asked for

    @property
    def oldest(self) -> int | None:
        return min(self._known) if self._known else None

    def merge(self, events: Sequence[Event]) -> None:
        """A number can become visible after a higher one, so each goes to its own place."""
        here = self.current
        fresh = {event.event_id: event for event in events}
        if fresh.keys() <= self._known.keys():
            return
        self._known |= fresh
        order = sorted(self._known, reverse=True)[:_KEPT]
        self._known = {number: self._known[number] for number in order}
        follow = self.cursor == 0 and self.top == 0
        line = self.cursor - self.top
        self.show(list(self._known.values()))
        if here is not None and not follow and here.event_id in self._known:
            at = order.index(here.event_id)
            self.scroll_rows(at - line)
            self.cursor = at

    def cell(self, row: Event, column: str) -> Cell:
        match column:
            case "at":
                return words.instant(row.at), ""
            case "session":
                return words.shown(row.session or words.NOTHING), ""
            case "change":
                return f"{row.before or 'new'} → {row.after or words.NOTHING}", ""
            case "by":
                return row.by, "dim"
            case "why":
                return words.shown(row.why), ""
        return " ", ""
