"""The fixtures of the dashboard's tests."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

from docs import scene
from tests.tui.worlds import World, world_of

# What a page does is the same through a service, whose answers test_sources holds to the ledger's.
PAGES = {"sessions", "session", "orphans", "sweep", "history"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Through a service, these pages are looked at in torture alone."""
    through_a_service = [item for item in items if "[remote" in item.name]
    for item in through_a_service:
        if item.path.name in {f"test_{page}_page.py" for page in PAGES}:
            item.add_marker(pytest.mark.torture)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _styles_parsed_once() -> Iterator[None]:
    """The same style sheets are parsed once a run, and not anew by every dashboard: a quarter of
    all the time."""
    parse = Stylesheet._parse_rules
    known: dict[Any, list[RuleSet]] = {}

    def parsed(self: Stylesheet, css: str, *of: Any, **named: Any) -> list[RuleSet]:
        variables = tuple(sorted(self._variables.items()))
        key = (css, of, tuple(sorted(named.items())), variables)
        if key not in known:
            known[key] = parse(self, css, *of, **named)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", parsed)
        yield


@pytest.fixture
def local(tmp_path: Path, usual_url: str) -> Iterator[World]:
    with world_of("local", tmp_path, ledger=usual_url) as world:
        yield world


@pytest.fixture(params=["local", "remote"])
def world(request: pytest.FixtureRequest, tmp_path: Path, usual_url: str) -> Iterator[World]:
    """An empty root, once seen directly and once through a service."""
    with world_of(request.param, tmp_path, ledger=usual_url) as world:
        yield world


@pytest.fixture(params=["local", "remote"])
def braked(request: pytest.FixtureRequest, tmp_path: Path, usual_url: str) -> Iterator[World]:
    """The same, where the brake lets no session through by a lowered max age."""
    with world_of(request.param, tmp_path, ledger=usual_url, brake=0) as world:
        yield world


@pytest.fixture(scope="session")
def built_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the pictures, built once a run, by the worker that comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place = shared / "scene"
    with open(shared / "scene.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            scene.build(place)
    return place
