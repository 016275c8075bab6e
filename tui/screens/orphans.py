"""The orphan report: what a sweep would do, and why, grouped by finding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ledger import Finding, Progress, Report
from ledger.report import moment
from tui import words
from tui.commands import ORPHANS, bindings_for
from tui.deeds import Deeds
from tui.findings import Findings, about, totals
from tui.page import Page, dashboard
from tui.progress import ProgressLine
from tui.screens.save import Save
from tui.screens.session import SessionPage
from tui.source import FAILURES


class OrphansPage(Deeds, Page):
    """Read when it is opened, and again at `r`."""

    place = ORPHANS
    BINDINGS: ClassVar[list[BindingType]] = list(bindings_for(ORPHANS))
    AUTO_FOCUS = "#findings"

    @dataclass
    class Reported(Message):
        report: Report

    @dataclass
    class NotReported(Message):
        error: Exception

    @dataclass
    class Saved(Message):
        path: str
        why_not: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.report: Report | None = None
        self._progress: Progress | None = None

    def body(self) -> ComposeResult:
        yield Static(id="totals")
        yield ProgressLine()
        yield Findings(id="findings")
        yield Static(id="about")

    @property
    def findings(self) -> Findings:
        return self.query_one(Findings)

    def on_mount(self) -> None:
        self.action_refresh_now()

    # The report

    def action_refresh_now(self) -> None:
        super().action_refresh_now()
        if self._progress is None:
            self._progress = Progress()
            dashboard(self).stops_at_exit(self._progress.cancel)
            self.query_one(ProgressLine).watch_run("Looking", self._progress)
            self._read(self._progress)

    @work(thread=True, group="report", exit_on_error=False)
    def _read(self, progress: Progress) -> None:
        try:
            self.post_message(self.Reported(self.source.report(progress)))
        except FAILURES as error:
            self.post_message(self.NotReported(error))

    def on_orphans_page_reported(self, message: Reported) -> None:
        self._end()
        self.report = message.report
        at = words.instant(message.report.at)
        by = Content(f"\nJudged by {words.hours(message.report.max_age_us)} at {at} UTC.")
        self.query_one("#totals", Static).update(totals(message.report) + by)
        self.findings.show_report(message.report)

    def on_orphans_page_not_reported(self, message: NotReported) -> None:
        self._end()
        said = Content(f"No report: {words.failure(message.error)}").stylize("bold $text-error")
        self.query_one("#totals", Static).update(said)

    def _end(self) -> None:
        self._progress = None
        self.query_one(ProgressLine).watch_run("", None)

    def on_rows_moved(self) -> None:
        root = self.report.root if self.report else ""
        self.query_one("#about", Static).update(about(self.findings.current, root))

    def on_rows_opened(self) -> None:
        if (entry := self.findings.entry) is not None and entry.session_id:
            self.app.push_screen(SessionPage(entry.session_id))

    # Commands

    def action_save(self) -> None:
        if self.report is not None:
            name = f"coatcheck-{moment(self.report.at):%Y%m%d-%H%M%S}.json"
            self.app.push_screen(Save(name), self._save)

    def _save(self, path: str | None) -> None:
        if path is not None and self.report is not None:
            self._write(self.report, path)

    @work(thread=True, group="save", exit_on_error=False)
    def _write(self, report: Report, path: str) -> None:
        try:
            self.post_message(self.Saved(write(report, path)))
        except OSError as error:
            self.post_message(self.Saved(path, words.failure(error)))

    def on_orphans_page_saved(self, message: Saved) -> None:
        if message.why_not:
            self.notify(message.why_not, title="Not saved", severity="error", markup=False)
        else:
            self.notify(message.path, title="Saved", markup=False)

    def action_restore(self) -> None:
        entry = self.findings.entry
        if entry is None or entry.finding is not Finding.WAITING or not entry.session_id:
            self.notify("Only what waits in the trash can be restored.", severity="warning")
        else:
            self.restore(entry.session_id)

    def restored(self) -> None:
        self.action_refresh_now()

    def action_copy_id(self) -> None:
        if (entry := self.findings.entry) is not None and entry.session_id:
            self.copy(entry.session_id)

    def action_copy_path(self) -> None:
        if (entry := self.findings.entry) is not None:
            self.copy(entry.path)


def write(report: Report, path: str) -> str:
    """Where the report was written: as CSV where the name says so, else as JSON.

    Raises FileExistsError rather than write over a file.
    """
    import json

    place = Path(path).expanduser()
    is_csv = place.suffix.lower() == ".csv"
    text = report.as_csv() if is_csv else json.dumps(report.as_json(), indent=1) + "\n"
    with place.open("x", encoding="utf-8", newline="" if is_csv else None) as file:
        file.write(text)
    return str(place.absolute())
