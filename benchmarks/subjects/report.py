"""The orphan report of a large root, one session in a hundred an orphan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Spent, alone
from benchmarks.measured import Row, Target, timed
from benchmarks.subjects.live import MOST_MEMORY, swept
from benchmarks.trees import make_tree, record, sessions_in, settings_in
from ledger import SessionLedger, Settings

SESSIONS = 1_000_000


def measure(bench: Bench) -> Iterator[Row]:
    count = bench.sized(SESSIONS, least=100)
    known = sessions_in(bench.place / "known", count, files=0)
    settings = with_orphans(bench.place / "orphans", count)
    reports: list[Spent] = []
    sweeps: list[float] = []
    for _ in range(bench.rounds):
        reports.append(alone(reported, settings))
        sweeps.append(alone(swept, known).result)
    took = [spent.result for spent in reports]
    work, rival = f"orphan report of {count:,}, 1 % orphans", "the sweep of as many, none stale"
    yield Row(work, rival, took, sweeps, Target(2))
    limit = [float(MOST_MEMORY)] * bench.rounds
    peaks = [spent.peak_bytes for spent in reports]
    yield Row("peak memory of that process", "the limit", peaks, limit, Target(1), "B")


def with_orphans(folder: Path, count: int) -> Settings:
    """A root of which the ledger does not know every hundredth directory."""
    settings = settings_in(folder)
    with SessionLedger.open(settings) as sessions:
        ids = make_tree(folder / "temp", count, files=0)
        record(sessions, [name for number, name in enumerate(ids) if number % 100], files=0)
    return settings


def reported(settings: Settings) -> float:
    """Seconds of one report, inside the process."""
    with SessionLedger.open(settings) as sessions:
        return timed(sessions.report)
