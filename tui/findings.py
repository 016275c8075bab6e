"""A report on the screen: its entries grouped by finding, and its totals in words."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import dataclass

from textual.content import Content

from ledger import Action, Entry, Finding, Report
from ledger.models import is_ours, short
from tui import words
from tui.rows import Cell, Column, ListRows

COLUMNS = (
    Column("pointer", "", 2),
    Column("id", "Session", 12),
    Column("age", "Age", 6, right=True),
    Column("size", "Size", 8, right=True),
    Column("files", "Files", 6, right=True, drop=3),
    Column("action", "A sweep", 9, drop=2),
    Column("why", "Why", 24, grow=3),
    Column("path", "Path", 28, grow=1, drop=4),
)
# What each finding means, in the order in which an operator wants to see them.
MEANINGS = {
    Finding.STALE: "unused for longer than the max age",
    Finding.UNRECORDED: "on the disk, not in the ledger",
    Finding.MISSING: "in the ledger, not on the disk",
    Finding.DRIFTED: "used later than the ledger knows",
    Finding.REVIVED: "ended, but a directory stands again",
    Finding.UNFINISHED: "left by an interruption",
    Finding.UNREADABLE: "cannot be read, so it is kept",
    Finding.WAITING: "swept; waits in the trash, restorable",
    Finding.IN_USE: "held by an upload or a program",
    Finding.FOREIGN: "no session; never touched",
}
_INKS = {
    Action.SET_ASIDE: "warn",
    Action.FINISH: "warn",
    Action.REPORT: "bad",
    Action.KEEP: "good",
}
LEDGER_ONLY = frozenset({Action.HEAL, Action.END, Action.ADOPT, Action.REVIVE})
STAYS = frozenset({Action.KEEP, Action.REPORT})


@dataclass(slots=True)
class Group:
    """The entries of one finding; folded, only its heading shows."""

    finding: Finding
    entries: list[Entry]
    folded: bool = False

    @property
    def heading(self) -> str:
        mark = "▸" if self.folded else "▾"
        size = words.size(sum(entry.bytes for entry in self.entries))
        count = words.count(len(self.entries), "entry", "entries")
        return f"{mark} {self.finding} · {count}, {size} · {MEANINGS[self.finding]}"


def grouped(entries: Iterable[Entry]) -> list[Group]:
    """The findings that there are, each with its entries, the largest first."""
    groups = {finding: Group(finding, []) for finding in MEANINGS}
    for entry in entries:
        if entry.finding in groups:
            groups[entry.finding].entries.append(entry)
    for group in groups.values():
        group.entries.sort(key=lambda entry: (-entry.bytes, entry.path))
    return [group for group in groups.values() if group.entries]


class Findings(ListRows):
    """Enter on a heading folds its group."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(COLUMNS, id=id)
        self.groups: list[Group] = []
        self._root = ""

    def show_report(self, report: Report) -> None:
        folded = {group.finding for group in self.groups if group.folded}
        self._root = report.root
        self.groups = grouped(report.entries)
        for group in self.groups:
            group.folded = group.finding in folded
        gc.freeze()  # a long list is not searched for garbage as long as it is shown
        self._show_groups()

    def clear(self) -> None:
        self.groups = []
        self._show_groups()

    def _show_groups(self) -> None:
        items: list[Group | Entry] = []
        for group in self.groups:
            items.append(group)
            items += [] if group.folded else group.entries
        self.show(items)

    @property
    def entry(self) -> Entry | None:
        """The entry under the cursor."""
        return self.current if isinstance(self.current, Entry) else None

    def action_open(self) -> None:
        if isinstance(self.current, Group):
            self.current.folded = not self.current.folded
            self._show_groups()
        else:
            super().action_open()

    def heading(self, row: Group | Entry) -> str | None:
        return row.heading if isinstance(row, Group) else None

    def cell(self, row: Entry, column: str) -> Cell:
        match column:
            case "pointer":
                return " ", ""
            case "id":
                return _name(row), ""
            case "age":
                return "" if row.age_us is None else words.span(row.age_us), ""
            case "size":
                return words.size(row.bytes), ""
            case "files":
                return f"{row.files:,}", ""
            case "action":
                ink = "dim" if row.finding is Finding.FOREIGN else _INKS.get(row.action, "accent")
                return row.action.replace("_", " "), ink
            case "why":
                return words.shown(row.why), ""
        return words.shown(within(row.path, self._root)), "dim"


def _name(entry: Entry) -> str:
    """Our ids by their beginning, other names by their end: there one tells them apart."""
    name = words.shown(entry.session_id or entry.path.rpartition("/")[2])
    if is_ours(name):
        return short(name)
    return name if len(name) <= 12 else f"…{name[-11:]}"


def within(path: str, root: str) -> str:
    """A path without the root that it is in."""
    return path.removeprefix(f"{root}/")


def totals(report: Report) -> Content:
    """What a sweep of this report would take, give back, change and leave."""
    taken = [e for e in report.entries if e.action is Action.SET_ASIDE]
    finished = [e for e in report.entries if e.action is Action.FINISH]
    changed = [e for e in report.entries if e.action in LEDGER_ONLY]
    kept = [e for e in report.entries if e.action in STAYS]
    back = words.size(sum(entry.bytes for entry in (*taken, *finished)))
    live = words.count(report.counts[Finding.LIVE], "live session")
    more = f", {words.count(len(finished), 'leftover')} too" if finished else ""
    right = f" {words.count(len(changed), 'row')} would be set right." if changed else ""
    return Content.assemble(
        (f"{words.count(len(taken), 'session')} would go{more}, giving {back} back.", "bold"),
        f"{right}\n{live}, {words.size(report.bytes[Finding.LIVE])}, and "
        f"{words.count(len(kept), 'finding')} stay.",
    )


def about(row: Entry | Group | None, root: str) -> Content:
    """What is under the cursor, in full: where it is, and why."""
    if row is None:
        return Content("")
    if isinstance(row, Group):
        return Content.assemble((row.finding, "bold"), f"\n{MEANINGS[row.finding]}")
    entry = row
    action = entry.action.replace("_", " ")
    return Content.assemble(
        (words.shown(within(entry.path, root)), "bold"),
        f"\n{entry.finding} → {action}: {words.shown(entry.why)}",
    )
