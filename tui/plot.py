"""Sessions and bytes over time, as the sweeps counted them. Its library is loaded when shown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from textual_plotext import PlotextPlot

from ledger.health import SweepInfo
from ledger.report import moment
from tui import words

DOT = "●"
Point = tuple[int, int, int]  # when, sessions, bytes


def points(sweeps: Sequence[SweepInfo]) -> list[Point]:
    """What the sweeps counted when they ended, the oldest first."""
    found = []
    for sweep in sweeps:
        sessions, size = sweep.result.get("live_sessions"), sweep.result.get("live_bytes")
        if sweep.finished_at is not None and sessions is not None and size is not None:
            at = round(sweep.finished_at.timestamp() * words.SECOND)
            found.append((at, int(sessions), int(size)))
    return sorted(found)


class Plot(PlotextPlot):
    """Two lines over one time: sessions by the left scale, bytes by the right one."""

    def show(self, found: Sequence[Point]) -> None:
        plot = self.plt
        plot.clear_figure()
        if len(found) > 1:
            _draw(plot, found)
        self.refresh()


def _draw(plot: Any, found: Sequence[Point]) -> None:
    times = [at / words.SECOND for at, _, _ in found]
    unit, _ = _unit(found)
    counts = [sessions for _, sessions, _ in found]
    sizes = [size / unit for _, _, size in found]
    plot.plot(times, sizes, marker="hd", yside="right", color="blue")
    plot.plot(times, counts, marker=DOT, yside="left", color="orange")
    for values, side, least in ((counts, "left", 1.0), (sizes, "right", 0.01)):
        ticks = scale(max(values), least)
        plot.ylim(0, ticks[-1], yside=side)
        plot.yticks(ticks, [f"{tick:,g}" for tick in ticks], yside=side)
    ends = [times[0], times[-1]]
    plot.xticks(ends, [f"{moment(round(at * words.SECOND)):%m-%d %H:%M}" for at in ends])
    plot.grid(False, False)


def scale(largest: float, least: float) -> list[float]:
    """Three to six round numbers from 0 to `largest` or just past it, `least` or more apart."""
    step = least
    for factor in itertools.cycle((2, 2.5, 2)):  # 1, 2, 5, 10, 20, 50 …
        if largest <= 5 * step:
            break
        step *= factor
    steps = max(2, math.ceil(largest / step))
    return [round(step * each, 2) for each in range(steps + 1)]


def title(found: Sequence[Point]) -> str:
    """What the lines are; by their marks, not by their colours."""
    if len(found) < 2:
        return "Sessions over time: a line from the second sweep on"
    return f"{DOT} active sessions, left · ▞ their {_unit(found)[1]}, right"


def _unit(found: Sequence[Point]) -> tuple[int, str]:
    largest = max(size for _, _, size in found)
    for power, name in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if largest >= 1024**power:
            return 1024**power, name
    return 1, "B"
