"""How each page looks, at the smallest size and at a wide one, by a clock that stands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from docs import scene
from docs.looks import LOOKS, lead, shown, until, until_shown
from ledger.health import Health
from tui.app import Dashboard

SIZES = [(80, 24), (140, 40)]
EVERY_DAY = {
    ("sessions", 140),
    *((name, 80) for name in ("sessions", "session", "dry-run")),
}
Before = Callable[[Pilot[int]], Awaitable[None]]


@pytest.fixture
def source(built_scene: Path, tmp_path: Path) -> Iterator[scene.SceneSource]:
    scene.copy(built_scene, tmp_path)
    source = scene.SceneSource(tmp_path)
    yield source
    source.close()


def looks_and_sizes() -> Iterator[Any]:
    """Each look at each size."""
    for name in LOOKS:
        for size in SIZES:
            marks = [] if (name, size[0]) in EVERY_DAY else [pytest.mark.slow]
            yield pytest.param(name, size, id=f"{name}-{size[0]}x{size[1]}", marks=marks)


def leading_to(name: str, theme: str = "dark") -> Before:
    async def before(pilot: Pilot[int]) -> None:
        pilot.app.theme = theme
        await lead(pilot, LOOKS[name])

    return before


@pytest.mark.parametrize(("name", "size"), looks_and_sizes())
def test_a_page_looks_as_it_should(
    source: scene.SceneSource, snap_compare: Any, name: str, size: tuple[int, int]
) -> None:
    app = Dashboard(source)
    assert snap_compare(app, terminal_size=size, run_before=leading_to(name))


@pytest.mark.parametrize("theme", ["light", "contrast"])
def test_a_look_is_another_one(source: scene.SceneSource, snap_compare: Any, theme: str) -> None:
    before = leading_to("sessions", theme)
    assert snap_compare(Dashboard(source), terminal_size=(80, 24), run_before=before)


def test_without_colour(
    source: scene.SceneSource, snap_compare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    before = leading_to("orphans")
    assert snap_compare(Dashboard(source), terminal_size=(80, 24), run_before=before)


@pytest.mark.slow
def test_read_only(source: scene.SceneSource, snap_compare: Any) -> None:
    before = leading_to("dry-run")
    app = Dashboard(source, read_only=True)
    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


WRONG = (
    "The root /srv/uploads/temp does not exist: is its disk mounted, is COATCHECK_ROOT right?",
    "The root's disk has 2.1 % free, less than 10 %.",
)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_something_is_wrong(
    source: scene.SceneSource,
    snap_compare: Any,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = source.health

    def health() -> Health:
        return replace(ask(), root=WRONG[0], disk=WRONG[1], disk_free_percent=2.1)

    monkeypatch.setattr(source, "health", health)

    async def before(pilot: Pilot[int]) -> None:
        await until_shown(pilot, "✖ root: The root /srv/uploads/temp does not exist")
        await pilot.press("4")
        await until(pilot, lambda: shown(pilot).count("✖ root") == 2)
        await until_shown(pilot, "✖ disk", "active sessions, left", "new → active")
        await pilot.pause()

    assert snap_compare(Dashboard(source), terminal_size=size, run_before=before)
