"""The fixtures of the dashboard's tests."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import scene
from tests.tui.worlds import World, world_of


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
