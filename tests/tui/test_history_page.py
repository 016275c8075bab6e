"""Past sweeps, the event log, the plot, and health in full."""

from __future__ import annotations

import shutil
import sys

import pytest

from tests.tui.worlds import World, until, until_shown
from tui.logs import Events

pytestmark = pytest.mark.anyio
SIZE = (140, 40)


async def test_sweeps_are_listed_with_counts_and_durations(world: World) -> None:
    world.stray("legacy_7", 30)
    world.sessions.sweep()
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("4")
        await until_shown(pilot, "done", "1 unrecorded", "library")


async def test_the_event_log_follows_live(world: World) -> None:
    app = world.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        events = app.screen.query_one(Events)
        session = world.create("order 17")
        await until_shown(pilot, "new → active")
        world.sessions.delete_session(session.id)
        await until_shown(pilot, "removing → deleted")
        assert events.cursor == 0


async def test_what_one_reads_in_the_log_stays_where_it_is(local: World) -> None:
    for number in range(30):
        local.create(str(number))
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        events = app.screen.query_one(Events)
        await until(pilot, lambda: events.total == 30)
        await pilot.press("down", "down", "down")
        here, line = events.current, events.cursor - events.top
        local.create("new")
        await until(pilot, lambda: events.total == 31)
        assert events.current == here
        assert events.cursor - events.top == line


async def test_older_events_are_read_when_one_comes_to_the_end(world: World) -> None:
    for number in range(210):
        world.create(str(number))
    app = world.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        events = app.screen.query_one(Events)
        await until(pilot, lambda: events.total == 200)
        await pilot.press("end")
        await until(pilot, lambda: events.total == 210)


async def test_sessions_and_bytes_are_plotted_by_a_library_loaded_only_then(local: World) -> None:
    for number in range(4):
        local.create(str(number), a=1 << 20)
        local.sessions.sweep()
    for name in [name for name in sys.modules if name.startswith(("textual_plotext", "tui.plot"))]:
        del sys.modules[name]
    async with local.dashboard().run_test(size=SIZE) as pilot:
        await until_shown(pilot, "1 of 4")
        assert "tui.plot" not in sys.modules
        await pilot.press("4")
        await until_shown(pilot, "● active sessions, left · ▞ their MiB, right", "4┤")


async def test_health_is_in_full_and_what_is_wrong_is_red_and_worded_everywhere(
    world: World,
) -> None:
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("4")
        await until_shown(pilot, "Root and ledger belong together.", "The clock is trusted.")
        away = world.root.parent / "unmounted"
        shutil.move(world.root, away)
        await until_shown(pilot, "✖ root: The root", "does not exist: is its disk mounted")
        for page in ("1", "2", "3"):
            await pilot.press(page)
            await until_shown(pilot, "✖ root: The root")
            assert pilot.app.screen.query_one("HealthLine").has_class("-bad")
        shutil.move(away, world.root)
        await until_shown(pilot, "✔ root")
