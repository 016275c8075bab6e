"""The dashboard on a million sessions, against itself on a thousand: it should not be felt."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from textual.pilot import Pilot

from benchmarks.measured import Measured
from docs.looks import shown
from ledger import SessionLedger, Settings
from ledger.models import SESSIONS
from ledger.moves import new_id
from ledger.system import now_us
from tui.app import Dashboard
from tui.local import LocalSource
from tui.table import SessionTable

FEW, MANY = 1_000, 1_000_000
AT_ONCE = 20_000
BEAT_S = 0.005


@dataclass
class Felt:
    """What whoever sits before it feels, in seconds."""

    first: float = 0.0
    key: float = 0.0
    end: float = 0.0
    found: float = 0.0
    stall: float = 0.0
    memory: float = 0.0


def measure(place: Path) -> Iterator[Measured]:
    asyncio.run(felt(place / "warm", 10))  # what is loaded once is nobody's
    few = asyncio.run(felt(place / "few", FEW))
    many = asyncio.run(felt(place / "many", MANY))
    rival = f"the same with {FEW:,}"
    yield Measured(f"{MANY:,} sessions on the screen", many.first, few.first, rival)
    yield Measured("one key down", many.key, few.key, rival)
    yield Measured("to the last row (End)", many.end, few.end, rival)
    yield Measured("a filter that one row passes", many.found, few.found, rival)
    yield Measured("the longest stall of the screen", many.stall, few.stall, rival)
    yield Measured("memory that it took more", many.memory, few.memory or 1, rival, "B")


async def felt(place: Path, count: int) -> Felt:
    settings = Settings(root=place / "temp")
    with SessionLedger.open(settings) as sessions:
        fill(sessions, count)
    felt = Felt()
    before = resident()
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
            felt.memory = resident() - before
    finally:
        source.close()
    return felt


def fill(sessions: SessionLedger, count: int) -> None:
    now, chance = now_us(), random.Random(7)
    for first in range(0, count, AT_ONCE):
        rows = [
            {
                "root_id": sessions.place.root_id,
                "session_id": new_id(),
                "state": "active",
                "version": 0,
                "label": "needle" if number == count // 2 else f"straw {number}",
                "origin": "created",
                "touched": True,
                "created_at": now - number * 1000,
                "last_touch_at": now - number * 500,
                "bytes": chance.randrange(10**9),
                "files": chance.randrange(9),
            }
            for number in range(first, min(first + AT_ONCE, count))
        ]
        with sessions.place.database.write() as connection:
            connection.execute(SESSIONS.insert(), rows)


def resident() -> float:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


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
    await pilot.press("slash")
    begun = time.perf_counter()
    await pilot.press(*words)  # whose results may come as they are typed
    await until(pilot, lambda: "1 of 1  " in f"{shown(pilot)}  ")
    return time.perf_counter() - begun


async def until(pilot: Pilot[int], condition: Callable[[], object]) -> None:
    while not condition():
        await pilot.pause(0.002)
