"""A sweep that finds nothing stale: what a schedule costs, every quarter of an hour."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Spent, alone
from benchmarks.measured import Row, Target, in_turn, timed
from benchmarks.plain import clean_up
from benchmarks.trees import plain_tree, sessions_in
from ledger import SessionLedger, Settings

SESSIONS, MANY = 100_000, 1_000_000
MOST_MEMORY = 300 * 1024**2
WAY = "iterdir, is_dir, st_mtime"


def measure(bench: Bench) -> Iterator[Row]:
    yield from _against_rivals(bench)
    yield from _many(bench)


def _against_rivals(bench: Bench) -> Iterator[Row]:
    count = bench.sized(SESSIONS)
    settings = sessions_in(bench.place / "ours", count)
    plain = plain_tree(bench.place / "plain", count)
    tmpfiles = bench.rivals.program("systemd-tmpfiles")
    trials = {
        "ours": lambda _: swept(settings),
        "plain": lambda _: timed(lambda: clean_up(plain)),
    }
    if tmpfiles:
        trials["tmpfiles"] = lambda folder: timed(lambda: by_tmpfiles(tmpfiles, plain, folder))
    took = in_turn(trials, bench.place / "rounds", bench.rounds)
    work = f"sweep of {count:,} sessions, none stale"
    yield Row(work, WAY, took["ours"], took["plain"], Target(0.35))
    name = "systemd-tmpfiles --clean"
    if tmpfiles:
        yield Row(work, name, took["ours"], took["tmpfiles"], Target(0.25))
    else:
        yield Row(work, name, note="is missing")


def _many(bench: Bench) -> Iterator[Row]:
    """Empty directories: what the ledger knows to be fresh, nobody looks into."""
    few, many = bench.sized(SESSIONS), bench.sized(MANY)
    with_few = sessions_in(bench.place / "few", few, files=0)
    with_many = sessions_in(bench.place / "many", many, files=0)
    spent: dict[str, list[Spent]] = {"few": [], "many": []}
    for _ in range(bench.rounds):
        spent["few"].append(alone(swept, with_few))
        spent["many"].append(alone(swept, with_many))
    each = [[s.result / few for s in spent["few"]], [s.result / many for s in spent["many"]]]
    work = f"a session's part of a sweep of {many:,}, none stale"
    yield Row(work, f"of one of {few:,}", each[1], each[0], Target(1.25))
    peaks = [s.peak_bytes for s in spent["many"]]
    limit = [float(MOST_MEMORY)] * bench.rounds
    yield Row("peak memory of that process", "the limit", peaks, limit, Target(1.0), "B")


def swept(settings: Settings) -> float:
    """Seconds of one sweep, inside the process, that removes nothing."""
    with SessionLedger.open(settings) as sessions:
        return timed(lambda: sessions.sweep(keep_entries=False))


def by_tmpfiles(program: str, root: Path, folder: Path) -> None:
    """By systemd-tmpfiles, which is told to go by mtimes alone, as the others do."""
    config = folder / "clean.conf"
    config.write_text(f"e {root} - - - mM:1d\n")
    command = [program, "--clean", str(config)]
    subprocess.run(command, check=True, capture_output=True)
