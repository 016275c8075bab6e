"""`make bench`, or `make bench ARGS="live stale --scale 0.01"`: coatcheck beside its rivals."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import paper
from benchmarks.bench import Bench
from benchmarks.measured import HEADS, Row
from benchmarks.rivals import Rivals
from benchmarks.served import HOUSE
from ledger.system import filesystem_of

SUBJECTS = (
    *("start", "live", "stale", "report", "check", "serving", "delete", "touch", "upload"),
    *("dashboard", "life", "growth"),
)


def main() -> None:
    asked = _asked(sys.argv[1:])
    rivals = Rivals(HOUSE / ".bench", install=asked.install)
    told: list[tuple[str, list[Row]]] = []
    for place in asked.at:
        rows: list[Row] = []
        told.append((filesystem_of(place), rows))
        for subject in asked.subjects:
            begun = time.monotonic()
            rows += measured(subject, Path(place), asked.scale, asked.rounds, rivals)
            print(f"{subject} took {time.monotonic() - begun:.0f} s", file=sys.stderr)
            if asked.write:  # what was measured for hours is kept, whatever comes next
                paper.write(Path(asked.write), told, rivals, _command(asked))
    for kind, rows in told:
        _print(f"on {kind}", rows)
    if asked.check and any(row.verdict == "MISSED" for _, rows in told for row in rows):
        sys.exit(1)


def measured(subject: str, at: Path, scale: float, rounds: int, rivals: Rivals) -> list[Row]:
    """The rows of one subject, in a scratch directory of its own, which is gone afterwards."""
    module = import_module(f"benchmarks.subjects.{subject}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="coatcheck-bench-", dir=at) as scratch:
        for row in module.measure(Bench(Path(scratch), scale, rounds, rivals)):
            rows.append(row)
            print(" | ".join(filter(None, row.cells())), file=sys.stderr)
    return rows


def _asked(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", help=", ".join(SUBJECTS))
    parser.add_argument(
        "--at", action="append", help="where the trees are made; again: once more, there"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes of the targets")
    parser.add_argument("--rounds", type=int, default=5, help="how often everybody has a turn")
    parser.add_argument("--install", action="store_true", help="fetch rivals from pip and npm")
    parser.add_argument("--write", metavar="FILE", help="where the Markdown goes")
    parser.add_argument("--check", action="store_true", help="exit with 1 where one is missed")
    asked = parser.parse_args(words)
    asked.at = asked.at or [tempfile.gettempdir()]
    asked.subjects = asked.subjects or list(SUBJECTS)
    if unknown := set(asked.subjects) - set(SUBJECTS):
        parser.error(f"no subject: {', '.join(sorted(unknown))}")
    return asked


def _command(asked: argparse.Namespace) -> str:
    subjects = "" if asked.subjects == list(SUBJECTS) else " ".join(asked.subjects) + " "
    options = [f"--scale {asked.scale:g}", f"--rounds {asked.rounds}"]
    options += [f"--at {place}" for place in asked.at]
    return f'make bench ARGS="{subjects}{" ".join(options)}"'


def _print(title: str, rows: Sequence[Row]) -> None:
    table = Table(*HEADS, box=None, title=title)
    for row in rows:
        table.add_row(*row.cells())
    Console(width=170, highlight=False, markup=False).print(table)


if __name__ == "__main__":
    main()
