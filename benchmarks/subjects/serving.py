"""A service that starts with a pile behind it: when it answers, and how well while it sweeps."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.http import Answers, ask, request
from benchmarks.measured import Row, Target, in_turn
from benchmarks.served import Served, coatcheck, plain
from benchmarks.trees import plain_tree, settings_in, stale_in

STALE = 100_000
CLIENTS = 4
SECONDS = 5.0
UPLOAD = "/api/v1/upload"


def measure(bench: Bench) -> Iterator[Row]:
    count = bench.sized(STALE)
    sweeping: list[float] = []
    idle: list[float] = []

    def piled(folder: Path) -> float:
        root = stale_in(folder, count).root
        with coatcheck(root) as served:
            sweeping.append(_asked(served, bench.seconds(SECONDS)).p99)
            return served.answered_s

    def empty(folder: Path) -> float:
        with coatcheck(settings_in(folder).root) as served:
            idle.append(_asked(served, bench.seconds(SECONDS)).p99)
            return served.answered_s

    def usual(folder: Path) -> float:
        with plain(plain_tree(folder, count, stale=True)) as served:
            return served.answered_s

    took = in_turn({"piled": piled, "empty": empty, "plain": usual}, bench.place, bench.rounds)
    work = f"start until the first answer, {count:,} stale"
    yield Row(work, "the same, empty root", took["piled"], took["empty"], Target(1.1))
    yield Row(work, "the plain way, rmtree at start-up", took["piled"], took["plain"])
    work = f"p99 of {CLIENTS} clients while that sweep runs"
    yield Row(work, "idle", sweeping, idle, Target(3))


def _asked(served: Served, seconds: float) -> Answers:
    """Touches, looks and health checks, in turn."""
    session = f"{UPLOAD}/{_create(served.port)}"
    asked = (("POST", f"{session}/touch"), ("GET", session), ("GET", "/healthz"))
    requests = cycle([request(*each, served.port) for each in asked])
    answers = asyncio.run(ask(served.port, requests, clients=CLIENTS, seconds=seconds))
    assert answers.failed == 0, answers.failed
    return answers


def _create(port: int) -> str:
    made = urllib.request.Request(f"http://127.0.0.1:{port}{UPLOAD}", method="POST")
    with urllib.request.urlopen(made) as answer:
        return str(json.load(answer)["session_id"])
