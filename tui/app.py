"""The application: its pages, its keys and its palette."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from tui.commands import EVERYWHERE, bindings_for
from tui.host import WIDE, Host
from tui.palette import Commands
from tui.screens.help import Help
from tui.screens.history import HistoryPage
from tui.screens.orphans import OrphansPage
from tui.screens.sessions import SessionsPage
from tui.screens.sweep import SweepPage


class Dashboard(Host):
    """Its pages are modes: each keeps what lies on it while one is on another."""

    TITLE = "coatcheck"
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings_for(EVERYWHERE))
    COMMANDS = {Commands}
    MODES = {
        "sessions": SessionsPage,
        "orphans": OrphansPage,
        "sweep": SweepPage,
        "history": HistoryPage,
    }
    DEFAULT_MODE = "sessions"
    HORIZONTAL_BREAKPOINTS = [(0, "-slim"), (WIDE, "-wide")]

    def action_help(self) -> None:
        self.push_screen(Help(read_only=self.read_only))
