"""Every benchmark runs, at a size at which it tells nothing; what it would say is no claim here."""

from pathlib import Path

import pytest

from benchmarks.__main__ import SUBJECTS, measured
from benchmarks.measured import Row, Target
from benchmarks.paper import MARK, write
from benchmarks.picture import loglog
from benchmarks.rivals import Rivals

SERVED = {"serving", "delete", "touch", "upload", "life"}  # start servers, each a second or two
LONG = SERVED | {"growth", "start", "dashboard"}
MISSING = "stale"  # runs in its own test


def runs(subject: str, at: Path) -> list[Row]:
    return measured(subject, at, scale=0.0001, rounds=1, rivals=Rivals(at / "kept"))


@pytest.mark.slow
@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s not in {*LONG, MISSING}])
def test_a_benchmark_runs(subject: str, tmp_path: Path) -> None:
    rows = runs(subject, tmp_path)
    assert rows
    assert not [row for row in rows if row.verdict == "not measured"]


@pytest.mark.torture
@pytest.mark.parametrize("subject", sorted(LONG))
def test_a_long_benchmark_runs(subject: str, tmp_path: Path) -> None:
    assert runs(subject, tmp_path)


@pytest.mark.slow
def test_a_rival_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    rows = runs(MISSING, tmp_path)
    missing = [row.rival for row in rows if row.verdict == "is missing"]
    assert {"tuspyserver gc_files", "@tus/server"} <= set(missing)


def test_a_ratio_is_that_of_the_rounds_and_not_of_the_medians() -> None:
    row = Row("work", "rival", ours=[1, 10, 3], theirs=[2, 20, 3], target=Target(0.9))
    assert row.ratio == 0.5
    assert row.verdict == "reached"
    assert Row("work", "rival", [1], [2], Target(0.6, at_least=True)).verdict == "MISSED"


def test_what_was_measured_is_written_behind_what_stands_there(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Speed\n\nWords.\n\n{MARK}\n\nold\n")
    row = Row("a sweep", "the plain way", [0.5], [1.0], Target(0.9))
    write(page, [("ext4", [row])], Rivals(tmp_path), "make bench")
    words = page.read_text()
    assert words.startswith("# Speed\n\nWords.\n")
    assert "old" not in words
    assert "| a sweep | 500.00 ms | the plain way | 1.00 s | 0.50 | ≤ 0.9 | reached |" in words


def test_a_picture_has_a_line_for_each() -> None:
    drawn = loglog({"a < b": {1000: 0.1, 10_000: 1.0}, "c": {1000: 0.5, 10_000: 0.6}}, "x", "y")
    assert drawn.count("<polyline") == 2
    assert "a &lt; b" in drawn
