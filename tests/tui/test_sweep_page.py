"""A dry run, then exactly that list; guards, cancelling, and what can be brought back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Button, Input

from ledger import sharing
from ledger.survey import BATCH
from ledger.sweep import Sweep
from tests.tui.worlds import World, shown, until, until_shown, world_of
from tests.web.services import wait_for
from tui.screens.confirm import Confirm
from tui.screens.sweep import SweepPage

pytestmark = pytest.mark.anyio
SIZE = (120, 40)


async def test_nothing_is_swept_without_a_dry_run(local: World) -> None:
    place = local.stray("legacy_7", 30)
    app = local.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("3", "x")
        await until_shown(pilot, "A dry run comes first")
        assert app.screen.query_one("#sweep", Button).disabled
        assert place.exists()


async def test_a_dry_run_and_then_the_sweep_of_exactly_that_list(world: World) -> None:
    world.create("live")
    forgotten = world.create("forgotten", a=2048)
    world.forget(forgotten, 30)
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("3", "enter")
        await until_shown(pilot, "1 session would go, giving 2.0 KiB back", "No guard objects")
        await until_shown(pilot, "▾ stale · 1 entry, 2.0 KiB")
        later = world.create("forgotten later", a=2048)
        world.forget(later, 30)
        await pilot.press("x")
        await until_shown(pilot, "Sweep exactly this list?", "1 session would go")
        await pilot.press("enter")  # the safe answer
        assert (world.root / forgotten.id).exists()
        await pilot.press("x", "y")
        await until_shown(pilot, "Swept. 1 session removed")
        assert not (world.root / forgotten.id).exists()
        assert (world.root / later.id).exists()


async def test_what_was_used_since_the_dry_run_stays(world: World) -> None:
    session = world.create("forgotten", a=10)
    world.forget(session, 30)
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("3", "enter")
        await until_shown(pilot, "1 session would go")
        world.sessions.touch(session.id)
        await pilot.press("x", "y")
        await until_shown(pilot, "Swept. 0 sessions removed", "1 finding no longer as listed")
        assert (world.root / session.id).exists()


async def test_the_brake_is_overridden_only_by_typing_it(braked: World) -> None:
    session = braked.create("young", a=10)
    braked.forget(session, 2)
    app = braked.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("3", "tab", "1", "enter")
        await until_shown(pilot, "1 session would go", "Judged by 1 h")
        await until_shown(pilot, "✖ brake:", "brake allows 0")
        assert (braked.root / session.id).exists()
        await pilot.press("x")
        await until_shown(pilot, "The brake says no", "Type past the brake to confirm:")
        await pilot.press("tab")
        yes = app.screen.query_one("#yes", Button)
        assert yes.disabled
        app.screen.query_one("#typed", Input).focus()
        await pilot.press(*"past the brake")
        await until(pilot, lambda: not yes.disabled)
        await pilot.press("enter")
        await until_shown(pilot, "Sweep exactly this list?")
        await pilot.press("y")
        await until_shown(pilot, "Swept. 1 session removed")
        assert not (braked.root / session.id).exists()


async def test_a_word_that_is_not_the_right_one_overrides_nothing(braked: World) -> None:
    braked.forget(braked.create("young", a=10), 2)
    app = braked.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("3", "tab", "1", "enter")
        await until_shown(pilot, "✖ brake:")
        await pilot.press("x")
        await until_shown(pilot, "The brake says no")
        app.screen.query_one("#typed", Input).focus()
        await pilot.press(*"past it", "enter")
        await until_shown(pilot, "past it")
        assert isinstance(app.screen, Confirm)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SweepPage))


class Held:
    """Holds a sweep up behind its first batch, wherever it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, until_cancelled: bool) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        act = Sweep._act_on

        def act_and_wait(sweep: Sweep, *batch: Any) -> None:
            act(sweep, *batch)
            self.reached.set()
            going_on = sweep._progress.cancel if until_cancelled else self.go_on
            assert going_on.wait(20)

        monkeypatch.setattr(Sweep, "_act_on", act_and_wait)
        monkeypatch.setattr(sharing, "WAITS", 1.0)  # no second thread


async def test_a_sweep_is_cancelled_between_two_sessions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        world.stray(f"legacy_{number:03}", 30, 1)
    held = Held(monkeypatch, until_cancelled=True)
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("3", "enter")
        await until_shown(pilot, "200 sessions would go")
        await pilot.press("x", "y")
        await until(pilot, held.reached.is_set)
        await pilot.press("c")
        await until_shown(pilot, f"Stopped. {BATCH} sessions removed")
        left = sum(path.name.startswith("legacy") for path in world.root.iterdir())
        assert left == 200 - BATCH


async def test_what_a_service_has_begun_it_ends_when_one_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_of("remote", tmp_path) as world:
        places = [world.stray(f"legacy_{number:03}", 30, 1) for number in range(2 * BATCH)]
        held = Held(monkeypatch, until_cancelled=False)
        app = world.dashboard()
        async with app.run_test(size=SIZE) as pilot:
            await pilot.press("3", "enter")
            await until_shown(pilot, f"{len(places)} sessions would go")
            await pilot.press("x", "y")
            await until(pilot, held.reached.is_set)
            await pilot.press("q")
        assert app.return_code == 0
        held.go_on.set()
        wait_for(lambda: not any(place.exists() for place in places))


async def test_after_a_sweep_what_waits_is_shown_and_restored(world: World) -> None:
    place = world.stray("legacy_7", 30)
    async with world.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("3", "enter")
        await until_shown(pilot, "1 session would go")
        await pilot.press("x", "y")
        await until_shown(pilot, "1 session removed, 1 of them to the trash", "▾ waiting · 1 entry")
        assert not place.exists()
        await pilot.press("tab", "tab", "tab")
        pilot.app.screen.query_one("#findings").focus()
        await pilot.press("down", "u")
        await until_shown(pilot, "legacy_7 is back")
        assert place.exists()
        await until(pilot, lambda: "waiting" not in shown(pilot))


async def test_a_clock_that_is_not_trusted_objects_until_it_is_said_to_be_right(
    world: World,
) -> None:
    place = world.stray("legacy_7", 30)
    distrust(world)
    app = world.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await until_shown(pilot, "✖ clock: The clock is not trusted")
        await pilot.press("3", "enter")
        await until_shown(pilot, "✖ clock:", "1 session would go")
        await pilot.press("x")
        await until_shown(pilot, "Type the clock is right to confirm:")
        app.screen.query_one("#typed", Input).focus()
        await pilot.press(*"the clock is right", "enter")
        await until_shown(pilot, "Sweep exactly this list?")
        await pilot.press("y")
        await until_shown(pilot, "Swept. 1 session removed")
        assert not place.exists()
        await until_shown(pilot, "✔ clock")


def distrust(world: World) -> None:
    """As after a jump of the clock."""
    from sqlalchemy import update

    from ledger import system
    from ledger.models import ROOTS

    values = {
        "distrusted_why": "it moved by +3600 s against the machine's uptime",
        "steady_boot_id": system.boot_id(),
        "steady_since_us": system.boottime_us(),
    }
    with world.sessions.place.database.write() as connection:
        connection.execute(update(ROOTS).values(values))


async def test_a_run_that_cannot_begin_says_why(world: World) -> None:
    from ledger import guards

    with guards.one_sweeper(world.sessions.place):
        async with world.dashboard().run_test(size=SIZE) as pilot:
            await pilot.press("3", "enter")
            await until_shown(pilot, "No dry run: Another sweep of this root is under way.")
