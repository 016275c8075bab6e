"""Tells what could not be done, and why, until one has read it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui.dialog import Dialog


class Notice(Dialog[None]):
    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__(title, no="Close", yes="")
        self._lines = lines

    def body(self) -> ComposeResult:
        yield Static(Content("\n".join(self._lines)))

    def action_yes(self) -> None:
        self.dismiss(None)
