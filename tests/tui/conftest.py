"""The fixtures of the dashboard's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import scene
from tests.tui.worlds import World, world_of


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[World]:
    with world_of("local", tmp_path) as world:
        yield world


@pytest.fixture(params=["local", "remote"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty root, once seen directly and once through a service."""
    with world_of(request.param, tmp_path) as world:
        yield world


@pytest.fixture(params=["local", "remote"])
def braked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The same, where the brake lets no session through by a lowered max age."""
    with world_of(request.param, tmp_path, brake=0) as world:
        yield world


@pytest.fixture(scope="session")
def built_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the pictures, built once a worker."""
    place = tmp_path_factory.mktemp("scene")
    scene.build(place)
    return place
