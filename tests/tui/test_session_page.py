"""One session, opened from the list."""

from __future__ import annotations

import pytest

from tests.tui.worlds import World, shown, until, until_shown
from tui.screens.session import SessionPage
from tui.screens.sessions import SessionsPage

pytestmark = pytest.mark.anyio
SIZE = (120, 40)


async def test_enter_opens_a_session_with_its_files_both_clocks_and_the_verdict(
    world: World,
) -> None:
    world.create("order 17", **{"letter.pdf": 2048, "scan.tiff": 10})
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("enter")
        await until_shown(pilot, "letter.pdf", "2.0 KiB", "Files · 2.0 KiB", "last used")
        await until_shown(pilot, "A sweep now: live → keep", "active by library")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SessionsPage))


async def test_files_in_folders_are_a_tree_with_sizes(world: World) -> None:
    session = world.create("order 17", top=5)
    folder = world.root / session.id / "scans" / "deep"
    folder.mkdir(parents=True)
    (folder / "page 1").write_bytes(b"x" * 1024)
    (folder / "page 2").write_bytes(b"x" * 1024)
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("enter")
        await until_shown(pilot, "2.0 KiB  scans/", "2.0 KiB  deep/", "1.0 KiB  page 1")


async def test_a_stale_one_says_what_a_sweep_will_do_and_why(world: World) -> None:
    world.forget(world.create("forgotten", a=10), 30)
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await until_shown(pilot, "forgotten")
        await pilot.press("enter")
        await until_shown(pilot, "stale → set_aside: unused for 30.0 h, longer than 24.0 h")


async def test_a_life_is_told_as_it_goes_on(world: World) -> None:
    session = world.create("order 17", a=10)
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("enter")
        await until_shown(pilot, "active by library")
        world.sessions.delete_session(session.id)
        await until_shown(pilot, "removing", "└● deleted by library")
        await until_shown(pilot, "Both sides agree that it has ended")


async def test_what_waits_in_the_trash_is_restored_from_here(world: World) -> None:
    place = world.stray("legacy_7", 30)
    world.sessions.sweep()
    assert not place.exists()
    async with world.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "expired")
        await pilot.press("enter")
        await until_shown(pilot, "in the trash", "waiting → keep: set aside; restorable")
        await pilot.press("u")
        await until_shown(pilot, "legacy_7 is back", "active")
        assert place.exists()


async def test_one_deletes_and_touches_from_here(world: World) -> None:
    session = world.create("order 17", a=10)
    world.forget(session, 23)
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("enter")
        await until_shown(pilot, "!59m")
        await pilot.press("t")
        await until_shown(pilot, "23h59m")
        await pilot.press("d")
        await until_shown(pilot, "Delete 1 session?")
        await pilot.press("y")
        await until_shown(pilot, "deleted")
        assert isinstance(app.screen, SessionPage)
        assert not (world.root / session.id).exists()


async def test_what_is_nowhere_is_said_to_be(world: World) -> None:
    app = world.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await until_shown(pilot, "There are no sessions.")
        app.push_screen(SessionPage("nothing"))
        await until_shown(pilot, "Session 'nothing' not found")
        await pilot.press("d", "t", "u", "Y")  # nothing to act on, and no traceback
        assert "Session 'nothing' not found" in shown(pilot)
