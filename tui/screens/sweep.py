"""The sweep: a dry run first, then exactly that list, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Input, Label, Static

from ledger import Action, Finding, Guard, Progress, Report, SweepStopped
from ledger.report import Objection
from tui import words
from tui.commands import SWEEP, bindings_for
from tui.deeds import Deeds
from tui.findings import Findings, about, totals
from tui.page import Page, dashboard
from tui.progress import ProgressLine
from tui.screens.confirm import Confirm
from tui.screens.session import SessionPage
from tui.source import FAILURES, OVERRIDES


class SweepPage(Deeds, Page):
    """Nothing is swept that was not listed here, and confirmed."""

    place = SWEEP
    BINDINGS: ClassVar[list[BindingType]] = list(bindings_for(SWEEP))
    AUTO_FOCUS = "#dry-run"

    @dataclass
    class Planned(Message):
        plan: Report

    @dataclass
    class Swept(Message):
        result: Report

    @dataclass
    class Looked(Message):
        """What is there after the sweep, what waits in the trash above all."""

        report: Report

    @dataclass
    class Stopped(Message):
        plan: Report
        error: SweepStopped

    @dataclass
    class Failed(Message):
        what: str
        error: Exception

    def __init__(self) -> None:
        super().__init__()
        self.plan: Report | None = None
        self.running: Progress | None = None
        self._root = ""

    def body(self) -> ComposeResult:
        with Horizontal(id="controls"):
            yield Button("Dry run", id="dry-run", variant="primary", compact=True)
            yield Label(" by a max age of ")
            yield Input(
                placeholder="the setting's",
                id="hours",
                compact=True,
                type="number",
                valid_empty=True,
            )
            yield Label(" hours ")
            yield Button("Sweep this list", id="sweep", variant="error", compact=True)
            yield Button("Cancel", id="stop", compact=True)
        yield Static(_BEFORE, id="summary")
        yield ProgressLine()
        yield Findings(id="findings")
        yield Static(id="about")

    def on_mount(self) -> None:
        self._show_buttons()

    def _show_buttons(self) -> None:
        acts = not dashboard(self).read_only
        self.query_one("#dry-run").disabled = self.running is not None
        self.query_one("#sweep").display = acts
        self.query_one("#sweep").disabled = self.plan is None or self.running is not None
        self.query_one("#stop").display = self.running is not None

    def on_button_pressed(self, event: Button.Pressed) -> None:
        actions = {"dry-run": self.dry_run, "sweep": self.action_sweep, "stop": self.action_stop}
        actions[event.button.id or "stop"]()

    # The dry run

    def dry_run(self) -> None:
        if self.running is None:
            hours = self.query_one("#hours", Input).value
            self.plan = None
            self._plan(float(hours) if hours else None, self._begin("Dry run"))

    def on_input_submitted(self) -> None:
        self.dry_run()

    @work(thread=True, group="sweep", exit_on_error=False)
    def _plan(self, max_age_hours: float | None, progress: Progress) -> None:
        try:
            keep = not dashboard(self).read_only
            plan = self.source.dry_run(max_age_hours, progress, keep=keep)
            self.post_message(self.Planned(plan))
        except FAILURES as error:
            self.post_message(self.Failed("No dry run", error))

    def on_sweep_page_planned(self, message: Planned) -> None:
        cancelled = self._end()
        if cancelled:
            self._say(Content("The dry run was cancelled; nothing was looked at to its end."))
            return
        self.plan = message.plan
        self._root = message.plan.root
        self._show_buttons()
        self._say(_planned(message.plan))
        findings = self.query_one(Findings)
        findings.show_report(message.plan)
        findings.focus()

    # The sweep

    def action_sweep(self) -> None:
        if self.plan is None:
            self.notify("A dry run comes first: it makes the list that is swept.")
        elif self.running is None:
            self._override(self.plan, list(self.plan.objections), frozenset())

    def _override(
        self, plan: Report, left: Sequence[Objection], overridden: frozenset[Guard]
    ) -> None:
        """Each guard that objects is overridden by its own words, or not at all."""
        if not left:
            self._ask(plan, overridden)
            return
        first, *rest = left
        typed = OVERRIDES[first.guard]
        dialog = Confirm(f"The {first.guard} says no", [first.why], yes="Override it", typed=typed)
        self.app.push_screen(
            dialog,
            lambda yes: self._override(plan, rest, overridden | {first.guard}) if yes else None,
        )

    def _ask(self, plan: Report, overridden: frozenset[Guard]) -> None:
        many = words.count(_going(plan), "session")
        dialog = Confirm(
            "Sweep exactly this list?",
            [
                *totals(plan).plain.split("\n"),
                "",
                "Each is looked at again first: what was used since the dry run stays.",
            ],
            yes=f"Sweep {many}",
        )
        self.app.push_screen(dialog, lambda yes: self._start(plan, overridden) if yes else None)

    def _start(self, plan: Report, overridden: frozenset[Guard]) -> None:
        self.plan = None  # a list is carried out once
        self._sweep(plan, overridden, self._begin("Sweeping"))

    @work(thread=True, group="sweep", exit_on_error=False)
    def _sweep(self, plan: Report, overridden: frozenset[Guard], progress: Progress) -> None:
        try:
            self.post_message(self.Swept(self.source.sweep(plan, overridden, progress)))
            if not progress.cancel.is_set():
                self.post_message(self.Looked(self.source.report(Progress())))
        except SweepStopped as stop:
            self.post_message(self.Stopped(plan, stop))
        except FAILURES as error:
            self.post_message(self.Failed("Not swept", error))

    def on_sweep_page_swept(self, message: Swept) -> None:
        cancelled = self._end()
        self._say(_swept(message.result, cancelled=cancelled))
        self.query_one(Findings).show_report(message.result)
        self.query_one("#dry-run").focus()
        dashboard(self).ask_health()

    def on_sweep_page_looked(self, message: Looked) -> None:
        if self.plan is None and self.running is None:
            self._root = message.report.root
            self.query_one(Findings).show_report(message.report)

    def on_sweep_page_stopped(self, message: Stopped) -> None:
        """A guard that was not asked ahead said no: its list is there still, to override it."""
        self._end()
        stop = message.error
        objections = [Objection(stop.by, str(stop))]
        again = stop.by in OVERRIDES
        self.plan = replace(message.plan, objections=objections) if again else None
        self._show_buttons()
        self._say(Content(f"✖ {stop.by}: {stop}").stylize("bold $text-error"))

    def on_sweep_page_failed(self, message: Failed) -> None:
        self._end()
        said = f"{message.what}: {words.failure(message.error)}"
        self._say(Content(said).stylize("bold $text-error"))
        self.query_one("#dry-run").focus()

    # A run

    def _begin(self, verb: str) -> Progress:
        self.running = Progress()
        dashboard(self).stops_at_exit(self.running.cancel)
        self.query_one(ProgressLine).watch_run(verb, self.running)
        self.query_one(Findings).focus()
        self._show_buttons()
        return self.running

    def _end(self) -> bool:
        """Whether the run that ends was cancelled."""
        cancelled = self.running is not None and self.running.cancel.is_set()
        self.running = None
        self.query_one(ProgressLine).watch_run("", None)
        self._show_buttons()
        return cancelled

    def action_stop(self) -> None:
        if self.running is None:
            self.notify("Nothing is running.")
        else:
            self.running.cancel.set()

    def _say(self, said: Content) -> None:
        self.query_one("#summary", Static).update(said)

    # The list

    def on_rows_moved(self) -> None:
        row = self.query_one(Findings).current
        self.query_one("#about", Static).update(about(row, self._root))

    def on_rows_opened(self) -> None:
        entry = self.query_one(Findings).entry
        if entry is not None and entry.session_id:
            self.app.push_screen(SessionPage(entry.session_id))

    def action_refresh_now(self) -> None:
        super().action_refresh_now()
        self.dry_run()

    def action_restore(self) -> None:
        entry = self.query_one(Findings).entry
        if entry is None or entry.finding is not Finding.WAITING or not entry.session_id:
            self.notify("Only what waits in the trash can be restored.", severity="warning")
        else:
            self.restore(entry.session_id)

    def restored(self) -> None:
        self.plan = None
        self._look()

    @work(thread=True, group="sweep", exit_on_error=False)
    def _look(self) -> None:
        try:
            self.post_message(self.Looked(self.source.report(Progress())))
        except FAILURES as error:
            self.post_message(self.Failed("No report", error))

    def action_copy_id(self) -> None:
        entry = self.query_one(Findings).entry
        if entry is not None and entry.session_id:
            self.copy(entry.session_id)

    def action_copy_path(self) -> None:
        if (entry := self.query_one(Findings).entry) is not None:
            self.copy(entry.path)


_BEFORE = (
    "A dry run lists what a sweep would do, and does nothing. Then that very list can be swept."
)


def _going(report: Report) -> int:
    return sum(entry.action is Action.SET_ASIDE for entry in report.entries)


def _planned(plan: Report) -> Content:
    by = f"Judged by {words.hours(plan.max_age_us)}. "
    parts = [totals(plan), Content(by)]
    for objection in plan.objections:
        said = Content(f"✖ {objection.guard}: {words.shown(objection.why)}")
        parts.append(said.stylize("bold $text-error"))
    if not plan.objections:
        parts[-1] = Content(by + "No guard objects.")
    return Content("\n").join(parts)


def _swept(result: Report, *, cancelled: bool) -> Content:
    """What came of it."""
    head = f"{words.count(result.removed, 'session')} removed"
    head += (
        f", {result.waiting:,} of them to the trash, where they wait." if result.waiting else "."
    )
    if result.changed:
        head += f" {words.count(result.changed, 'finding')} no longer as listed, and left alone."
    said = [Content.assemble(("Stopped. " if cancelled else "Swept. ", "bold"), head)]
    if result.failed:
        lines = [f"✖ {result.failed:,} failed:", *result.failures[:3]]
        said += [Content(words.shown(line)).stylize("bold $text-error") for line in lines]
    return Content("\n").join(said)
