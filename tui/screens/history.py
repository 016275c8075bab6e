"""Past sweeps, the event log, sessions and bytes over time, and the health of all in full."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ledger.health import SweepInfo
from tui import health, words
from tui.commands import HISTORY, bindings_for
from tui.host import WIDE
from tui.logs import Events, Sweeps
from tui.page import Page, dashboard, titled
from tui.rows import Rows
from tui.source import FAILURES, Event

_REREAD_S = 1.0
_SWEEPS = 200
_EVENTS = 200


class HistoryPage(Page):
    """Read anew every second while it is looked at."""

    place = HISTORY
    BINDINGS: ClassVar[list[BindingType]] = list(bindings_for(HISTORY))
    AUTO_FOCUS = "#events"

    @dataclass
    class Read(Message):
        sweeps: Sequence[SweepInfo]
        events: Sequence[Event]

    @dataclass
    class Older(Message):
        events: Sequence[Event]

    @dataclass
    class NotRead(Message):
        error: Exception

    @dataclass
    class PlotLoaded(Message):
        """The library that plots has been loaded, in a thread."""

        module: Any

    def __init__(self) -> None:
        super().__init__()
        self._asking = False
        self._asking_older = False
        self._sweeps: Sequence[SweepInfo] = ()
        self._plot: Any = None

    def body(self) -> ComposeResult:
        with Horizontal(id="above"):
            yield Vertical(id="plot")
            yield titled(Static(id="health"), "Health")
        with Vertical(id="lists"):
            yield titled(Sweeps(id="sweeps"), "Sweeps")
            yield titled(Events(id="events"), "Events")

    def on_mount(self) -> None:
        dashboard(self).status_heard.subscribe(self, lambda _: self._tell_health())
        self._load_plot()
        self.ask()
        self.set_interval(_REREAD_S, self.ask)

    def on_screen_resume(self) -> None:
        self.ask()

    def on_resize(self) -> None:
        self._tell_health()

    def ask(self) -> None:
        self._tell_health()
        if not self._asking and self.is_current:
            self._asking = True
            self._read()

    def _health(self) -> Content:
        status = dashboard(self).status
        return health.in_full(status, self.source.now(), terse=self.app.size.width < WIDE)

    def _tell_health(self) -> None:
        self.query_one("#health", Static).update(self._health())

    @work(thread=True, group="history", exit_on_error=False)
    def _read(self) -> None:
        try:
            sweeps = self.source.sweeps(_SWEEPS)
            self.post_message(self.Read(sweeps, self.source.events(_EVENTS)))
        except FAILURES as error:
            self.post_message(self.NotRead(error))

    def on_history_page_read(self, message: Read) -> None:
        self._asking = False
        events = self.query_one(Events)
        events.border_subtitle = ""
        if len(message.events) < _EVENTS:
            events.is_whole = True
        events.merge(message.events)
        if list(message.sweeps) != list(self._sweeps):
            self._sweeps = message.sweeps
            self.query_one(Sweeps).show(message.sweeps)
            self._draw()

    def on_history_page_not_read(self, message: NotRead) -> None:
        self._asking = self._asking_older = False
        self.query_one(Events).border_subtitle = f"not read: {words.failure(message.error)}"

    # Older events, when one comes to the end of those that are known

    def on_rows_moved(self, message: Rows.Moved) -> None:
        events = message.rows
        if not isinstance(events, Events) or events.is_whole or self._asking_older:
            return
        if events.total and events.cursor >= events.total - 1 and events.oldest is not None:
            self._asking_older = True
            self._read_older(events.oldest)

    @work(thread=True, group="history", exit_on_error=False)
    def _read_older(self, before: int) -> None:
        try:
            self.post_message(self.Older(self.source.events(_EVENTS, before)))
        except FAILURES as error:
            self.post_message(self.NotRead(error))

    def on_history_page_older(self, message: Older) -> None:
        self._asking_older = False
        events = self.query_one(Events)
        events.is_whole = len(message.events) < _EVENTS
        events.merge(message.events)

    # The plot

    @work(thread=True, group="plot", exit_on_error=False)
    def _load_plot(self) -> None:
        self.post_message(self.PlotLoaded(importlib.import_module("tui.plot")))

    async def on_history_page_plot_loaded(self, message: PlotLoaded) -> None:
        self._plot = message.module
        await self.query_one("#plot").mount(message.module.Plot())
        self._draw()

    def _draw(self) -> None:
        if self._plot is not None:
            found = self._plot.points(self._sweeps)
            self.query_one("#plot").border_title = self._plot.title(found)
            self.query_one(self._plot.Plot).show(found)

    def action_refresh_now(self) -> None:
        super().action_refresh_now()
        self.ask()
