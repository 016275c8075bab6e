"""What every page finds in its App: the source, the health of all, and the way out."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import dataclass

from textual import work
from textual.app import App
from textual.message import Message
from textual.signal import Signal

from ledger.health import Health
from tui import words
from tui.health import Status
from tui.source import FAILURES, Source
from tui.themes import DARK, THEMES

WIDE = 120  # columns, from which on there is room for whole sentences
_HEALTH_S = 2.0
_REST = 10  # one that takes long to ask for is left alone for so many times as long


class Host(App[int]):
    """`through_service`: the source is one, and can fall silent."""

    @dataclass
    class Heard(Message):
        health: Health

    @dataclass
    class Unheard(Message):
        error: Exception

    def __init__(
        self, source: Source, *, read_only: bool = False, through_service: bool = False
    ) -> None:
        super().__init__()
        self.source = source
        self.read_only = read_only
        self.status = Status(through_service)
        self.status_heard: Signal[Status] = Signal(self, "status")
        self._asking = False
        self._next_ask = 0.0
        self._stops: weakref.WeakSet[threading.Event] = weakref.WeakSet()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = DARK.name

    def on_mount(self) -> None:
        self.ask_health()
        self.set_interval(_HEALTH_S, self._ask_when_due)

    def on_ready(self) -> None:
        # What is loaded by now stays, and is not searched for garbage any more: that took 0.1 s.
        gc.freeze()

    # Health

    def _ask_when_due(self) -> None:
        if time.monotonic() >= self._next_ask:
            self.ask_health()

    def ask_health(self) -> None:
        if not self._asking:
            self._asking = True
            self._ask()

    @work(thread=True, group="health", exit_on_error=False)
    def _ask(self) -> None:
        began = time.monotonic()
        try:
            self.post_message(self.Heard(self.source.health()))
        except FAILURES as error:
            self.post_message(self.Unheard(error))
        ended = time.monotonic()
        self._next_ask = ended + min(60.0, _REST * (ended - began))

    def on_host_heard(self, message: Heard) -> None:
        self._show(self.status.heard(message.health))

    def on_host_unheard(self, message: Unheard) -> None:
        self._show(self.status.unheard(words.failure(message.error)))

    def _show(self, status: Status) -> None:
        self._asking = False
        self.status = status
        self.status_heard.publish(status)

    # Commands

    def action_go(self, page: str) -> None:
        """To one of the pages; from what lies on a page, to the page itself."""
        while len(self.screen_stack) > 1:
            self.pop_screen()
        if page != self.current_mode:
            self.switch_mode(page)

    def use_theme(self, name: str) -> None:
        self.theme = name

    # The end

    def stops_at_exit(self, stop: threading.Event) -> None:
        """What runs in a thread ends soon when this is set, and so one need not wait for it."""
        self._stops.add(stop)

    def action_leave(self) -> None:
        self.exit(0)

    def on_unmount(self) -> None:
        self.source.stop()  # first: what a service has begun, it ends without us
        for stop in self._stops:
            stop.set()
