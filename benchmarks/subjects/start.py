"""How long the command line takes to begin: what every script that calls it pays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measured import Row, Target, in_turn, timed
from benchmarks.served import HOUSE

TIMES = 2  # a round


def measure(bench: Bench) -> Iterator[Row]:
    imports = "import sqlmodel, pydantic_settings"
    commands = {
        "version": ["-m", "coatcheck_start", "--version"],
        "report": ["-m", "coatcheck_start", "report"],
        "pass": ["-c", "pass"],
        "imports": ["-c", imports],
    }
    root = bench.place / "empty/temp"
    root.parent.mkdir()
    _run(commands["report"], root)  # which makes it
    trials = {name: lambda _, c=command: _times(c, root) for name, command in commands.items()}
    took = in_turn(trials, bench.place / "rounds", max(bench.rounds, 5))
    yield Row("coatcheck --version", "python -c pass", took["version"], took["pass"], Target(2))
    work, rival = "coatcheck report, empty root", f'python -c "{imports}"'
    yield Row(work, rival, took["report"], took["imports"], Target(1.4))


def _times(arguments: list[str], root: Path) -> float:
    return sum(timed(lambda: _run(arguments, root)) for _ in range(TIMES)) / TIMES


def _run(arguments: list[str], root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "COATCHECK_ROOT": str(root)}
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, env=environment, cwd=root.parent, capture_output=True)
