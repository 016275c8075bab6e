"""What holds for every test: a folder of its own, default settings, and no silent skip."""

import gc
import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from ledger import counts
from ledger.database import Database

pytest_plugins = ["tests.ledgers"]

# Speed is nobody's claim here, and CI must find today what it found yesterday.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if "CI" in os.environ else "here")

NO_SKIPS = bool(os.environ.get("TESTS_MAY_NOT_SKIP"))
LEAKS = {"COLUMNS", "FORCE_COLOR", "LINES", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "NO_COLOR"}


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test stands in its own folder, so default places lie there, and sees default settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("COATCHECK_") or name in LEAKS:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _counted_rightly(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A sweep finds no count to mend, but for those that a test made wrong (`miscounts`)."""
    mend = counts.mend

    def finding_nothing(database: Database, root_id: str) -> Counter[counts.Key]:
        mended = mend(database, root_id)
        assert not mended, mended
        return mended

    if not request.node.get_closest_marker("miscounts"):
        monkeypatch.setattr(counts, "mend", finding_nothing)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no child that is forked copies it to look for garbage in it."""
    gc.collect()
    gc.freeze()


def _fail_a_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though TESTS_MAY_NOT_SKIP is set: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("may_skip") is None:
        _fail_a_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_a_skip(report)
    return report
