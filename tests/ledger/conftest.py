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
def world(tmp_path: Path, clock: Clock) -> Iterator[World]:
    """A new root with its new ledger, by the default settings."""
    world = World(tmp_path, clock)
    yield world
    world.sessions.close()
