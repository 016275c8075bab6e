"""How the cost grows with the number of sessions, as a picture and as exponents."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.bench import Bench, alone
from benchmarks.measured import Row
from benchmarks.picture import loglog
from benchmarks.served import HOUSE
from benchmarks.subjects.dashboard import felt, fill
from benchmarks.subjects.live import swept
from benchmarks.subjects.report import reported, with_orphans
from benchmarks.trees import sessions_in, stale_in
from ledger import Settings

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PICTURE = HOUSE / "docs/pictures/growth.svg"
Points = dict[int, float]


def measure(bench: Bench) -> Iterator[Row]:
    sizes = [bench.sized(size, least=50 * nth) for nth, size in enumerate(SIZES, 1)]
    lines: dict[str, Points] = {}
    for name, take in KINDS.items():
        lines[name] = {size: _taken(take, bench.place / name / str(size), size) for size in sizes}
        yield Row(f"{name}: its time grows as N to the power of", "", note=_in_words(lines[name]))
    if bench.scale >= 1:
        PICTURE.write_text(loglog(lines, "sessions", "seconds"))


def _taken(take: Callable[[Path, int], float], place: Path, size: int) -> float:
    try:
        return take(place, size)
    finally:
        shutil.rmtree(place)  # several millions of files at once are more than some disks take


def _live(place: Path, size: int) -> float:
    return _alone(swept, sessions_in(place, size, files=0))


def _stale(place: Path, size: int) -> float:
    return _alone(swept, stale_in(place, size, files=1))


def _report(place: Path, size: int) -> float:
    return _alone(reported, with_orphans(place, size))


def _paint(place: Path, size: int) -> float:
    fill(place, size)
    felt(place, size)
    return felt(place, size).first


def _alone(act: Callable[[Settings], float], settings: Settings) -> float:
    return float(alone(act, settings).result)


KINDS: Mapping[str, Callable[[Path, int], float]] = {
    "sweep, none stale": _live,
    "sweep, all stale": _stale,
    "report, 1 % orphans": _report,
    "dashboard, first paint": _paint,
}


def _in_words(points: Points) -> str:
    told = ", ".join(f"{size:,}: {took:.3g} s" for size, took in points.items())
    return f"{_exponent(points):.2f} ({told})"


def _exponent(points: Points) -> float:
    """The slope of the line through the two largest, both axes logarithmic."""
    (small, before), (large, after) = sorted(points.items())[-2:]
    return math.log(after / before) / math.log(large / small)
