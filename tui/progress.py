"""How far a run is, read from its Progress as often as the screen can show it."""

from __future__ import annotations

from textual.content import Content
from textual.timer import Timer

from ledger import Progress
from tui.page import Line

_EVERY_S = 0.1


class ProgressLine(Line):
    """A bar, while there is a run to watch; else nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._verb = ""
        self._run: Progress | None = None
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        self._timer = self.set_interval(_EVERY_S, self.refresh, pause=True)
        self.display = False

    def watch_run(self, verb: str, run: Progress | None) -> None:
        self._verb, self._run = verb, run
        self.display = run is not None
        if self._timer is not None:
            (self._timer.resume if run is not None else self._timer.pause)()

    def render(self) -> Content:
        if self._run is None:
            return Content("")
        return bar(self._verb, self._run, self.size.width)


def bar(verb: str, run: Progress, width: int) -> Content:
    """`Sweeping ██████░░░░ 60 % · 600 of 1,000 · 12 removed`."""
    if run.cancel.is_set():
        verb = "Stopping"
    total = run.total
    far = f"{run.done:,}" if total is None else f"{min(run.done, total):,} of {total:,}"
    removed = f" · {run.removed:,} removed" if run.removed else ""
    if not total:
        return Content(f" {verb} · {far}{removed}").stylize("bold")
    part = min(1.0, run.done / total)
    tail = f" {part:4.0%} · {far}{removed}"
    room = max(4, min(40, width - len(verb) - len(tail) - 4))
    full = round(room * part)
    return Content.assemble(
        (f" {verb} ", "bold"), ("█" * full, "$text-accent"), "░" * (room - full), tail
    )
