"""The fixtures of the operators' tests, which name this file as a plugin of theirs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.world import Clock
from tests.web.operators import Operator, operator_of, settings_in


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The ledger's clock, and the machine's uptime, which the guards hold against it."""
    clock = Clock()
    monkeypatch.setattr("ledger.system.boottime_us", clock.uptime)
    return clock


@pytest.fixture
def operator(tmp_path: Path, clock: Clock, empty_ledger: Path) -> Iterator[Operator]:
    """An application with an empty ledger, and who has its token."""
    shutil.copy(empty_ledger, tmp_path / "ledger.db")
    with operator_of(settings_in(tmp_path), clock) as operator:
        yield operator


@pytest.fixture
def either(tmp_path: Path, clock: Clock, ledger_url: str) -> Iterator[Operator]:
    """The same, once on SQLite and once on PostgreSQL."""
    with operator_of(settings_in(tmp_path, ledger_url), clock) as operator:
        yield operator
