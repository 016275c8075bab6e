"""The orphan report on the screen."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ledger import parse_report
from tests.tui.worlds import World, shown, until, until_shown
from tui.screens.session import SessionPage

pytestmark = pytest.mark.anyio
SIZE = (120, 40)


def disarray(world: World) -> None:
    world.create("live")
    world.forget(world.create("forgotten", a=2048), 30)
    world.stray("legacy_7", 40, 5000)
    world.stray("import", 2)
    (world.root / "README").write_text("x")


async def test_the_report_is_grouped_by_finding_with_reasons_and_totals(world: World) -> None:
    disarray(world)
    async with world.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("2")
        await until_shown(pilot, "2 sessions would go, giving 6.9 KiB back")
        await until_shown(pilot, "▾ stale · 1 entry, 2.0 KiB", "▾ unrecorded · 2 entries")
        await until_shown(pilot, "▾ foreign · 1 entry", "1 live session")
        await pilot.press("down")
        await until_shown(pilot, "stale → set aside: unused for 30.0 h, longer than 24.0 h")


async def test_enter_folds_a_group_and_opens_a_session(local: World) -> None:
    disarray(local)
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2")
        await until_shown(pilot, "▾ stale", "30.0 h")
        await pilot.press("enter")
        await until_shown(pilot, "▸ stale")
        assert "30.0 h" not in shown(pilot)
        await pilot.press("enter", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, SessionPage))
        await until_shown(pilot, "forgotten")


def read(place: Path) -> str:
    return place.read_text()


@pytest.mark.parametrize("ending", ["json", pytest.param("csv", marks=pytest.mark.slow)])
async def test_the_report_is_saved_and_no_file_is_written_over(
    local: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    disarray(local)
    monkeypatch.chdir(tmp_path)
    place = Path(f"report.{ending}")
    app = local.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until_shown(pilot, "would go")
        await pilot.press("w")
        await until_shown(pilot, "Save the report")
        await pilot.press("ctrl+u", *str(place), "enter")
        await until_shown(pilot, "Saved")
        text = read(place)
        if ending == "json":
            assert {e.path for e in parse_report(text).entries} >= {f"{local.root}/legacy_7"}
            assert json.loads(text)["counts"]["live"] == 1
        else:
            assert {row["finding"] for row in csv.DictReader(text.splitlines())} >= {"stale"}
        await pilot.press("w", "ctrl+u", *str(place), "enter")
        await until_shown(pilot, "Not saved", "File exists")


async def test_a_name_that_says_neither_is_asked_again(local: World) -> None:
    async with local.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("2")
        await until_shown(pilot, "would go")
        await pilot.press("w", *".txt", "enter")
        await until_shown(pilot, "The name must end in .json or .csv.")


async def test_what_waits_in_the_trash_is_restored(world: World) -> None:
    place = world.stray("legacy_7", 30)
    world.sessions.sweep()
    async with world.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until_shown(pilot, "▾ waiting · 1 entry")
        await pilot.press("u")
        await until_shown(pilot, "Only what waits in the trash can be restored.")
        await pilot.press("down", "u")
        await until_shown(pilot, "legacy_7 is back")
        await until(pilot, lambda: "waiting" not in shown(pilot))
        assert place.exists()


async def test_one_copies_an_id_or_a_path(local: World) -> None:
    disarray(local)
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2")
        await until_shown(pilot, "▾ stale")
        await pilot.press("end", "Y")
        assert app.clipboard == f"{local.root}/README"


async def test_a_refresh_shows_what_has_changed(local: World) -> None:
    async with local.dashboard().run_test(size=SIZE) as pilot:
        await pilot.press("2")
        await until_shown(pilot, "0 sessions would go")
        local.stray("legacy_7", 30)
        await pilot.press("r")
        await until_shown(pilot, "1 session would go")
