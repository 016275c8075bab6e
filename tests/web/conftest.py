"""The fixtures of the services' tests; what they are made of stands in services.py."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ledgers import BOTH, Lend
from tests.web.services import Process, Serve, Service, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, usual_ledgers: Lend) -> Iterator[Service]:
    """A service with the default settings, shared by the tests of a file."""
    folder = tmp_path_factory.mktemp("service")
    with usual_ledgers(folder) as url, serving(folder, url) as service:
        yield service


@pytest.fixture(scope="module", params=BOTH)
def on_both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The same, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("service")
        return
    folder = tmp_path_factory.mktemp("on-postgresql")
    with request.getfixturevalue("databases").lent() as url, serving(folder, url) as service:
        yield service


@pytest.fixture
def serve(tmp_path: Path, usual_url: str) -> Iterator[Serve]:
    """Starts a service of the test's own, with these settings."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serving(tmp_path, usual_url, **options))


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A service in a process of its own, not yet started."""
    made = Process(tmp_path)
    yield made
    if made.running.poll() is None:
        made.running.kill()
        made.running.wait()
