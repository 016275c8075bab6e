"""Touches: the request that a page sends again and again for as long as it is open."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator, Sequence

from benchmarks.bench import Bench
from benchmarks.http import ask, request
from benchmarks.measured import Row, Target
from benchmarks.served import plain, with_noop
from benchmarks.trees import make_tree, record, settings_in
from ledger import SessionLedger

ROWS = 1_000_000
CLIENTS = 16
SECONDS = 5.0


def measure(bench: Bench) -> Iterator[Row]:
    rows = bench.sized(ROWS)
    settings = settings_in(bench.place)
    with SessionLedger.open(settings) as sessions:
        ids = make_tree(settings.root, rows, files=0)
        record(sessions, ids, files=0)
    os.sync()
    (bench.place / "none").mkdir()
    touches, noops, bare = [], [], []
    seconds = bench.seconds(SECONDS)
    with with_noop(settings.root) as ours, plain(bench.place / "none") as rival:
        ours.wait_until_swept()
        for _ in range(bench.rounds):
            touches.append(_rate(ours.port, "/api/v1/upload/{}/touch", ids, seconds))
            noops.append(_rate(ours.port, "/noop/{}", ids, seconds))
            bare.append(_rate(rival.port, "/noop/{}", ids, seconds))
    work = f"touches, one worker, {CLIENTS} clients, {rows:,} rows"
    rival_is = "the same kind of route, doing nothing"
    yield Row(work, rival_is, touches, noops, Target(0.6, at_least=True), "/s")
    yield Row(work, "a bare FastAPI route, doing nothing", touches, bare, unit="/s")


def _rate(port: int, path: str, ids: Sequence[str], seconds: float) -> float:
    def requests() -> Iterator[bytes]:
        while True:
            yield request("POST", path.format(random.choice(ids)), port)

    answers = asyncio.run(ask(port, requests(), clients=CLIENTS, seconds=seconds))
    assert answers.failed == 0, answers.failed
    return answers.per_second
