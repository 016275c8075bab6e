"""The palette: the commands that work here, and the themes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider

from tui.commands import PALETTE, commands_for
from tui.page import Page, dashboard
from tui.themes import THEMES

Entry = tuple[str, str, Any]


class Commands(Provider):
    """What the table of commands has for the page below the palette."""

    def _entries(self) -> Iterator[Entry]:
        app = dashboard(self.screen)
        place = self.screen.place if isinstance(self.screen, Page) else "everywhere"
        for command in commands_for(place, read_only=app.read_only):
            if command.action and command.action != PALETTE:
                run = partial(self.screen.run_action, command.action)
                yield f"{command.name} ({command.shown})", command.help, run
        for theme in THEMES:
            yield f"Theme: {theme.name}", "Another look.", partial(app.use_theme, theme.name)

    async def discover(self) -> Hits:
        for name, help_text, run in self._entries():
            yield DiscoveryHit(name, run, help=help_text)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, help_text, run in self._entries():
            if (score := matcher.match(name)) > 0:
                yield Hit(score, matcher.highlight(name), run, help=help_text)
