"""What these tests share: a ledger that is reached through a proxy, and little patience."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ledger.database import Database
from tests.ledger.world import Clock, World
from tests.ledgers import Server
from tests.postgres.proxy import Proxy

PATIENCE_S = 0.3


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledgers wait an instant for what they wait five seconds in earnest."""
    monkeypatch.setattr(Database.__init__, "__kwdefaults__", {"timeout_s": PATIENCE_S})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("ledger.system.boottime_us", clock.uptime)
    return clock


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Proxy]:
    proxy = Proxy(postgres)
    yield proxy
    proxy.close()


@pytest.fixture
def far_world(
    tmp_path: Path, clock: Clock, proxy: Proxy, database: str, impatient: None
) -> Iterator[World]:
    """A root whose ledger is on the other side of the proxy."""
    world = World(tmp_path, clock, proxy.url(database))
    yield world
    proxy.mend()
    world.sessions.close()


@pytest.fixture
def near_world(tmp_path: Path, clock: Clock, postgres_url: str, impatient: None) -> Iterator[World]:
    """A root whose ledger is right beside the server."""
    world = World(tmp_path, clock, postgres_url)
    yield world
    world.sessions.close()


@pytest.fixture
def database(postgres_url: str) -> str:
    """The name of the database that the test was lent."""
    return str(make_url(postgres_url).database)
