"""How the command line shows things: tables for people, one JSON document for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ledger import (
    Action,
    Entry,
    Finding,
    Progress,
    Report,
    RootMismatch,
    Session,
    SessionLedger,
    Settings,
)
from ledger.adoption import Pile
from ledger.checks import Check, Status
from ledger.plan import Facts
from ledger.report import moment, printable
from ledger.settings import HOUR_US
from ledger.views import Page, Seen, files_of, session_json

_MOST_ROWS = 200
_PIPE_WIDTH = 160
_LONG_ID = 40
_TAKES = (Action.SET_ASIDE, Action.FINISH)
_STYLES = {
    Action.SET_ASIDE: "yellow",
    Action.FINISH: "yellow",
    Action.END: "yellow",
    Action.REPORT: "magenta",
    Action.KEEP: "dim",
}
_DOES = {
    Action.KEEP: "leave it alone",
    Action.HEAL: "keep it, and mend its last touch in the ledger",
    Action.SET_ASIDE: "take it out of the root",
    Action.END: "end it in the ledger",
    Action.ADOPT: "record it in the ledger",
    Action.REVIVE: "make it active again",
    Action.FINISH: "finish what was interrupted",
    Action.REPORT: "report it, and touch nothing",
}
_MARKS = {Status.OK: ("ok", "green"), Status.WARN: ("warn", "yellow"), Status.BAD: ("BAD", "red")}


def _console(*, stderr: bool) -> Console:
    # Names of strangers are shown as they are: none is markup, an emoji code or a number to colour.
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def write(text: str) -> None:
    sys.stdout.write(text)


def say(text: str) -> None:
    """Words for people, on standard error."""
    sys.stderr.write(text + "\n")


def emit(document: dict[str, Any]) -> None:
    """The one JSON document of a command; plain ASCII, which every terminal and pipe can take."""
    write(json.dumps(document, indent=2) + "\n")


def show(value: Any, in_words: Callable[[Any], None], *, as_json: bool) -> None:
    """What a command found, for a program or for people."""
    if as_json:
        emit(value.as_json())
    else:
        in_words(value)


@contextmanager
def watching(what: str, total: int | None = None) -> Iterator[Progress]:
    """The progress of a run, as a bar where standard error is a terminal.

    A first Ctrl-C, or SIGTERM, ends the run between two sessions: `progress.cancel` is set.
    """
    progress = Progress(total=total)

    def cancel(_number: int, _frame: object) -> None:
        if progress.cancel.is_set():
            raise KeyboardInterrupt
        progress.cancel.set()
        say("Stopping after this step. Once more stops at once; the next sweep mends what it left.")

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _bar(what, progress):
            yield progress
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(what: str, progress: Progress) -> Iterator[None]:
    console = _console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Bar(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=progress.total)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total)

        progress.on_change = show
        yield


# A report


def show_report(report: Report) -> None:
    """The findings by their kind, the totals of each, and what was or would be taken out."""
    console = _console(stderr=False)
    kinds = {(entry.finding, entry.action) for entry in report.entries}
    for finding, action in sorted(kinds, key=_order):
        same = [e for e in report.entries if (e.finding, e.action) == (finding, action)]
        style = _STYLES.get(action, "")
        console.print(f"\n{finding.value}: a sweep would {_DOES[action]}", style=style)
        console.print(_findings(same[:_MOST_ROWS]))
        if (more := len(same) - _MOST_ROWS) > 0:
            console.print(f"… and {more:,} more: --json and --csv have them all.")
    console.print(_totals(report))
    console.print(_in_one_line(report), soft_wrap=True)


def _order(kind: tuple[Finding, Action]) -> tuple[int, int]:
    return list(Finding).index(kind[0]), list(Action).index(kind[1])


def _findings(entries: Sequence[Entry]) -> Table:
    names = [printable(each.session_id or each.path.rpartition("/")[2]) for each in entries]
    table = _table("session", "unused", "size", "because", ids=names)
    table.show_header, table.box = False, None
    for name, entry in zip(names, entries, strict=True):
        table.add_row(
            name,
            _span(entry.age_us),
            decimal(entry.bytes),
            printable(entry.why),
        )
    return table


def _totals(report: Report) -> Table:
    table = _table("finding", "sessions", "size")
    for finding in Finding:
        if report.counts[finding]:
            size = decimal(report.bytes[finding])
            table.add_row(finding.value, f"{report.counts[finding]:,}", size)
    return table


def _in_one_line(report: Report) -> str:
    where = f"{report.root}, max age {report.max_age_us / HOUR_US:g} h"
    if report.dry_run:
        takes = [entry for entry in report.entries if entry.action in _TAKES]
        size = decimal(sum(entry.bytes for entry in takes))
        return f"{where}: a sweep would take out or finish {len(takes):,}, up to {size}."
    waiting = f" ({report.waiting:,} of them wait in the trash)" if report.waiting else ""
    rest = f"{report.changed:,} changed meanwhile, {report.failed:,} failed"
    return f"{where}: removed {report.removed:,}{waiting}, {rest}."


# Sessions


def tell(sessions: SessionLedger, session: Session, words: str, *, as_json: bool) -> None:
    """What became of one session; without `as_json`, standard output has its id alone."""
    if as_json:
        emit(session_json(session, files_of(sessions, session)))
    else:
        write(f"{session.id}\n")
        say(printable(words))


def show_page(page: Page) -> None:
    ids = [each.id for each, _ in page.sessions]
    table = _table("session", "state", "label", "unused", "files", "size", ids=ids)
    now = datetime.now(UTC)
    for each, _ in page.sessions:
        table.add_row(
            each.id,
            each.state.value,
            printable(each.label or ""),
            _span(round((now - each.last_touch_at).total_seconds() * 1_000_000)),
            f"{each.files:,}",
            decimal(each.bytes),
        )
    console = _console(stderr=False)
    console.print(table)
    if page.after:
        console.print(f"More: --cursor {page.after}", soft_wrap=True)


# One session


def show_session(seen: Seen) -> None:
    console = _console(stderr=False)
    session, disk = seen.session, seen.evidence.disk
    state = session.state.value if session else "not in the ledger"
    label = f" · {printable(session.label)}" if session and session.label else ""
    console.print(f"{seen.session_id} · {state}{label}", style="bold", soft_wrap=True)
    if session:
        ended = f", {session.ended_why}" if session.ended_why else ""
        console.print(f"{session.origin.value}, {printable(session.path)}{ended}", soft_wrap=True)
    console.print(_both_clocks(session, disk))
    console.print(_verdict_in_words(seen), soft_wrap=True)
    for entry in seen.trash:
        console.print(f"In the trash: {printable(entry.why)} ({decimal(entry.bytes)}).")
    if seen.files:
        files = _table("file", "size")
        for name, size in seen.files[:_MOST_ROWS]:
            files.add_row(printable(name), decimal(size))
        console.print(files)
    if seen.events:
        life = _table("at", "from", "to", "by", "because")
        for each in seen.events:
            at = when(datetime.fromisoformat(each["at"]))
            life.add_row(at, each["from"] or "", each["to"] or "", each["by"], each["why"])
        console.print(life)


def _both_clocks(session: Session | None, disk: Facts) -> Table:
    table = _table("", "ledger", "disk")
    stands = f"{disk.kind.value} {disk.what}".strip()
    table.add_row("stands", session.state.value if session else "-", printable(stands))
    if session:
        table.add_row("created", when(session.created_at), "")
    touch = when(session.last_touch_at) if session else "-"
    table.add_row("last used", touch, _moment(disk.mtime))
    table.add_row("changed", "", _moment(disk.ctime))
    table.add_row("files", f"{session.files:,}" if session else "-", f"{disk.files:,}")
    table.add_row("size", decimal(session.bytes) if session else "-", decimal(disk.bytes))
    return table


def _verdict_in_words(seen: Seen) -> str:
    if seen.verdict is None:
        return "A sweep now would do nothing: it has ended, and nothing of it stands in the root."
    verdict = seen.verdict
    return (
        f"A sweep now would {_DOES[verdict.action]}. Found {verdict.finding.value}: "
        f"{printable(verdict.why)}."
    )


# Taking over, and the doctor


def show_pile(settings: Settings, pile: Pile, mismatch: RootMismatch) -> None:
    """What taking a pile over would mean, before it is asked for."""
    say(str(mismatch).partition(" To take the directories")[0])
    hours = f"{settings.max_age_hours:g} h"
    say(
        f"Taking it over would record {pile.directories:,} directories ({decimal(pile.bytes)}). "
        f"The next sweep would take {pile.stale:,} of them, unused for longer than {hours}. "
        f"{pile.foreign:,} other entries would never be touched."
    )


def show_adopted(
    sessions: SessionLedger, pile: Pile | None, recorded: int, *, as_json: bool
) -> None:
    if as_json:
        emit(
            {
                "root": sessions.place.root.path,
                "root_id": sessions.place.root_id,
                "taken_over": pile is not None,
                "recorded": recorded,
                **(dataclasses.asdict(pile) if pile else {}),
            }
        )
        return
    if pile is None:
        write(f"{sessions.place.root.path} and its ledger belong together already. ")
    write(f"Recorded {recorded:,} directories, with their times.\n")
    if pile is not None:
        write(f"The next sweep will take {pile.stale:,} of them. ")
    write("See what it would do: coatcheck sweep --dry-run\n")


def show_checks(checks: Sequence[Check]) -> None:
    table = _table("check", "", "found")
    for check in checks:
        mark, style = _MARKS[check.status]
        todo = f"\n→ {printable(check.todo)}" if check.todo else ""
        table.add_row(check.what, Text(mark, style), printable(check.said) + todo)
    console = _console(stderr=False)
    console.print(table)
    bad = sum(check.status is Status.BAD for check in checks)
    console.print(f"{bad} of {len(checks)} checks are bad." if bad else "Nothing is bad.")


# The demo


class Play:
    """Says what the demo does, as the commands that one would type; or all of it as JSON."""

    def __init__(self, settings: Settings, *, as_json: bool) -> None:
        self._settings = settings
        self._as_json = as_json
        self._acts: dict[str, Any] = {}
        self._say(f"A root with every kind of finding in it: {settings.root}")

    def report(self, command: str, report: Report, name: str) -> None:
        self._acts[name] = report.as_json()
        self._say(f"\n$ coatcheck {command}", style="bold")
        if not self._as_json:
            show_report(report)

    def dry_run(self, report: Report) -> None:
        self._say("\n$ coatcheck sweep --dry-run", style="bold")
        self._say("The same plan, not carried out. " + _in_one_line(report))

    def restored(self, seen: Seen) -> None:
        self._acts["restored"] = seen.as_json()
        self._say(f"\n$ coatcheck restore {seen.session_id}", style="bold")
        self._say("Back in the root, whole, while its bytes still waited in the trash.")
        self._say(f"\n$ coatcheck show {seen.session_id}", style="bold")
        if not self._as_json:
            show_session(seen)

    def end(self, *, kept: bool) -> None:
        if self._as_json:
            emit({"kept": str(self._settings.root) if kept else None, **self._acts})
        elif kept:
            self._say("\nThe root is still there. To look around in it:")
            self._say(f"export COATCHECK_ROOT={shlex.quote(str(self._settings.root))}")
            self._say("coatcheck dashboard")
        else:
            self._say("\nIt is gone again. To keep it and look around: coatcheck demo --keep")

    def _say(self, words: str, style: str = "") -> None:
        if not self._as_json:
            _console(stderr=False).print(words, style=style, soft_wrap=True)


# Small words


def when(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _moment(at: int | None) -> str:
    return "-" if at is None else when(moment(at))


def _span(us: int | None) -> str:
    if us is None:
        return "-"
    seconds = us / 1_000_000
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _table(*columns: str, ids: Iterable[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        right = name in ("files", "size", "sessions", "unused")
        # An id is of use only whole, so it is the other columns that give way, if that is enough.
        whole = name == "session" and max(map(len, ids), default=0) <= _LONG_ID
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=whole)
    return table
