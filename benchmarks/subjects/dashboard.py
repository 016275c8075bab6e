"""The dashboard on a million sessions, against itself on a thousand: it should not be felt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input

from benchmarks.bench import Bench
from benchmarks.measured import Row, Target
from benchmarks.trees import record, settings_in
from docs.looks import shown
from ledger import SessionLedger
from ledger.moves import new_id
from tui.app import Dashboard
from tui.local import LocalSource
from tui.table import SessionTable

FEW, MANY = 1_000, 1_000_000
KEY_S = 0.05
BEAT_S = 0.005


@dataclass
class Felt:
    """What whoever sits before it feels, in seconds."""

    first: float = 0.0
    key: float = 0.0
    end: float = 0.0
    found: float = 0.0
    stall: float = 0.0


def measure(bench: Bench) -> Iterator[Row]:
    few, many = bench.sized(FEW), bench.sized(MANY)
    places = {count: bench.place / str(count) for count in (few, many)}
    for count, place in places.items():
        fill(place, count)
    felt(places[few], few)  # what is loaded once is nobody's
    found: dict[int, list[Felt]] = {few: [], many: []}
    for _ in range(bench.rounds):
        for count, place in places.items():
            found[count].append(felt(place, count))
    rival = f"the same with {few:,}"

    def row(work: str, name: str, target: float | None = None, unit: str = "s") -> Row:
        ours, theirs = ([getattr(each, name) for each in found[count]] for count in (many, few))
        return Row(work, rival, ours, theirs, Target(target) if target else None, unit)

    yield row(f"dashboard, first paint with {many:,} sessions", "first", 1.2)
    keys = [each.key for each in found[many]]
    yield Row("one key to its paint", "the limit", keys, [KEY_S] * bench.rounds, Target(1))
    yield row("one key to its paint", "key")
    yield row("to the last row (End)", "end")
    yield row("a filter that one row passes, from its last letter", "found")
    yield row("the longest stall of the screen", "stall")


def felt(place: Path, count: int) -> Felt:
    return asyncio.run(_felt(place, count))


async def _felt(place: Path, count: int) -> Felt:
    settings = settings_in(place)
    felt = Felt()
    source = LocalSource(SessionLedger.open(settings))
    app = Dashboard(source)
    begun = time.perf_counter()
    try:
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: "straw 0" in shown(pilot))
            felt.first = time.perf_counter() - begun
            beating = asyncio.create_task(stalls(felt))
            felt.key = await keys(pilot, 100) / 100
            felt.end = await timed(pilot, "end", f"of {count:,}")
            await pilot.press("home")
            felt.found = await search(pilot, "needle")
            beating.cancel()
    finally:
        source.close()
    return felt


def fill(place: Path, count: int) -> None:
    """Rows alone: the dashboard looks at no directory until one is opened."""
    with SessionLedger.open(settings_in(place)) as sessions:
        ids = [new_id() for _ in range(count)]
        record(sessions, ids, label=lambda number: _label(number, count), apart_us=500)


def _label(number: int, count: int) -> str:
    return "needle" if number == count // 2 else f"straw {number}"


async def stalls(felt: Felt) -> None:
    """How much too late a beat comes at most: so long the screen stood still."""
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(BEAT_S)
        felt.stall = max(felt.stall, time.perf_counter() - begun - BEAT_S)


async def keys(pilot: Pilot[int], count: int) -> float:
    """Seconds for so many keys, each painted; the pilot's own waiting is not asked for."""
    table = pilot.app.screen.query_one(SessionTable)
    begun = time.perf_counter()
    for _ in range(count):
        table.action_move(1)
        await asyncio.sleep(0)
        pilot.app.screen._compositor.render_update(full=True)
    return time.perf_counter() - begun


async def timed(pilot: Pilot[int], key: str, text: str) -> float:
    begun = time.perf_counter()
    await pilot.press(key)
    await until(pilot, lambda: text in shown(pilot) and "▸" in shown(pilot))
    return time.perf_counter() - begun


async def search(pilot: Pilot[int], words: str) -> float:
    """Seconds from the last letter on; what the pilot waits between letters is not asked for."""
    await pilot.press("slash")
    begun = time.perf_counter()
    pilot.app.screen.query_one("#filter", Input).value = words
    await until(pilot, lambda: "1 of 1  " in f"{shown(pilot)}  ")
    return time.perf_counter() - begun


async def until(pilot: Pilot[int], condition: Callable[[], object]) -> None:
    while not condition():
        await pilot.pause(0.002)
