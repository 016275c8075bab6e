"""One comparison, and how it is printed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Seconds, or bytes, that coatcheck and its rival took for the same; less is better."""

    what: str
    ours: float
    theirs: float
    rival: str
    unit: str = "s"

    def cells(self) -> tuple[str, ...]:
        ratio = f"{self.ours / self.theirs:.2f}" if self.theirs else "-"
        return self.what, self._shown(self.ours), self._shown(self.theirs), ratio, self.rival

    def _shown(self, value: float) -> str:
        if self.unit == "s":
            return f"{value * 1000:,.2f} ms" if value < 1 else f"{value:,.2f} s"
        return f"{value / 1024**2:,.1f} MiB"


class Stopwatch:
    """Adds up what was timed; `worst` is the longest of it."""

    def __init__(self) -> None:
        self.total = self.worst = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - begun
            self.total += took
            self.worst = max(self.worst, took)
