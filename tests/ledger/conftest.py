"""What the ledger's tests share: a root with its ledger, and a clock that the test moves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.world import Clock, World


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The ledger's clock, and the machine's uptime, which the guards hold against it."""
    clock = Clock()
    monkeypatch.setattr("ledger.system.boottime_us", clock.uptime)
    return clock


@pytest.fixture
def world(tmp_path: Path, clock: Clock, usual_url: str) -> Iterator[World]:
    """A new root with its new ledger, by the default settings."""
    by_default = usual_url.startswith("sqlite")
    world = World(tmp_path, clock, "" if by_default else usual_url)
    yield world
    world.sessions.close()


@pytest.fixture
def any_world(tmp_path: Path, clock: Clock, ledger_url: str) -> Iterator[World]:
    """The same, once with a SQLite ledger and once with one on PostgreSQL."""
    world = World(tmp_path, clock, ledger_url)
    yield world
    world.sessions.close()


@pytest.fixture
def stale(world: World) -> str:
    files = {"photo.jpg": b"a photo", "list.txt": b"a list"}
    session_id = world.create(files=files)
    (world.root / session_id / "deeper").mkdir()
    (world.root / session_id / "deeper/note").write_bytes(b"a note")
    world.date(world.root / session_id, 30)
    world.alter(session_id, last_touch_at=world.hours_ago(30))
    return session_id
