"""DELETE: how soon it answers, what others feel meanwhile, and how many a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.http import Answers, ask, request
from benchmarks.measured import Row, Target
from benchmarks.served import Served, coatcheck, plain
from benchmarks.trees import FILES, make_tree, record, settings_in
from ledger import SessionLedger

LARGE = 10_000
LARGE_ONES, SMALL_ONES = 10, 2000  # of each, twice as many
CLIENTS, WATCHERS = 16, 32
IDLE_S = 5.0
WAY = "rmtree in an async def route"

Start = Callable[[Path], AbstractContextManager[Served]]


def measure(bench: Bench) -> Iterator[Row]:
    large = bench.sized(LARGE)
    ours, theirs = [], []
    for number in range(bench.rounds):
        ours.append(_round(bench, f"ours-{number}", large, coatcheck))
        theirs.append(_round(bench, f"plain-{number}", large, plain))
    latency = [each.large for each in ours]
    work = f"DELETE of a session with {large:,} files, to its 204"
    yield Row(work, f"of one with {FILES}", latency, [each.small for each in ours], Target(2))
    yield Row(work, WAY, latency, [each.large for each in theirs])
    work = f"p99 of GET /healthz while such go, {WATCHERS} clients"
    yield Row(work, "idle", [e.meanwhile for e in ours], [e.idle for e in ours], Target(2))
    work = "the same, the plain way"
    yield Row(work, "idle", [e.meanwhile for e in theirs], [e.idle for e in theirs], None)
    rates = [e.rate for e in ours], [e.rate for e in theirs]
    work = f"DELETEs of {FILES} files, one worker, {CLIENTS} clients"
    yield Row(work, WAY, *rates, Target(1, at_least=True), "/s")


class _Round:
    """What one server took: seconds, and DELETEs a second."""

    small = large = idle = meanwhile = rate = 0.0


def _round(bench: Bench, name: str, large: int, start: Start) -> _Round:
    folder = bench.place / name
    small_ones, large_ones = bench.sized(SMALL_ONES), bench.sized(LARGE_ONES)
    settings = settings_in(folder)
    with SessionLedger.open(settings) as sessions:
        small = make_tree(settings.root, 2 * small_ones)
        big = make_tree(settings.root, 2 * large_ones, files=large)
        record(sessions, small)
        record(sessions, big, files=large)
    found = _Round()
    with start(settings.root) as served:
        port = served.port
        found.idle = _watched(port, bench.seconds(IDLE_S))
        one_by_one = _deleted(port, small[:small_ones], clients=1)
        found.small = median(one_by_one.took)
        found.rate = _deleted(port, small[small_ones:], clients=CLIENTS).per_second
        found.large = median(_deleted(port, big[:large_ones], clients=1).took)
        found.meanwhile = asyncio.run(_meanwhile(port, big[large_ones:]))
    return found


def _deleted(port: int, ids: Sequence[str], *, clients: int) -> Answers:
    answers = asyncio.run(ask(port, _deletes(port, ids), clients=clients))
    assert answers.failed == 0, answers.failed
    return answers


def _deletes(port: int, ids: Sequence[str]) -> Iterator[bytes]:
    return (request("DELETE", f"/api/v1/upload/{name}", port) for name in ids)


def _watched(port: int, seconds: float) -> float:
    requests = repeat(request("GET", "/healthz", port))
    return asyncio.run(ask(port, requests, clients=WATCHERS, seconds=seconds)).p99


async def _meanwhile(port: int, ids: Sequence[str]) -> float:
    """The p99 of who asks for something else while large sessions go."""
    stop = asyncio.Event()

    def until_stopped() -> Iterator[bytes]:
        while not stop.is_set():
            yield request("GET", "/healthz", port)

    watching = asyncio.create_task(ask(port, until_stopped(), clients=WATCHERS))
    await ask(port, _deletes(port, ids), clients=1)
    stop.set()
    return (await watching).p99
