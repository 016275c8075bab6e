"""One comparison with its target, how several are run in turn, and how they are printed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Trial = Callable[[Path], float]
"""One contender's turn in an empty folder of its own: makes what it needs, and tells how long, or
how much, the work itself took."""


@dataclass(frozen=True)
class Target:
    """What the ratio of ours to theirs must be: at most this, or at least."""

    limit: float
    at_least: bool = False

    def is_reached(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """What coatcheck and a rival took for the same, round by round; in seconds, unless `unit` says
    else. `note`: why there is no more to tell."""

    work: str
    rival: str
    ours: Sequence[float] = ()
    theirs: Sequence[float] = ()
    target: Target | None = None
    unit: str = "s"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' own ratios: what slows a round, slows both."""
        if not self.ours or not self.theirs:
            return None
        return median(a / b if b else 0.0 for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return self.note or ("" if self.ours else "not measured")
        if self.target is None:
            return self.note
        return "reached" if self.target.is_reached(self.ratio) else "MISSED"

    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            self.work,
            shown(self.ours, self.unit),
            self.rival,
            shown(self.theirs, self.unit),
            ratio,
            "" if self.target is None else str(self.target),
            self.verdict,
        )


HEADS = ("work", "coatcheck", "rival", "it took", "ratio", "target", "")


def shown(values: Sequence[float], unit: str) -> str:
    """The median of the values, in the unit that suits its size."""
    if not values:
        return "-"
    value = median(values)
    if unit == "B":
        return f"{value / 1024**2:,.1f} MiB"
    if unit != "s":
        return f"{value:,.2f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    if value < 0.001:
        return f"{value * 1_000_000:,.2f} µs"
    return f"{value * 1000:,.2f} ms" if value < 1 else f"{value:,.2f} s"


def in_turn(trials: Mapping[str, Trial], place: Path, rounds: int) -> dict[str, list[float]]:
    """Every contender once a round, each second round in the opposite order: what every one of them
    took, round by round."""
    took: dict[str, list[float]] = {name: [] for name in trials}
    for number in range(rounds):
        names = list(trials) if number % 2 == 0 else list(reversed([*trials]))
        for name in names:
            folder = place / f"{number}-{names.index(name)}"
            folder.mkdir(parents=True)
            took[name].append(trials[name](folder))
            shutil.rmtree(folder, ignore_errors=True)
    return took


class Stopwatch:
    """Adds up what was timed."""

    def __init__(self) -> None:
        self.total = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.total += time.perf_counter() - begun


def timed(act: Callable[[], object]) -> float:
    """Seconds that it took."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun
