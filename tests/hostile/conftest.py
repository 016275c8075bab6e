"""What the tests of hostile places share."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile.places import fingerprint
from tests.hostile.scenario import Stage
from tests.hostile.trash import Trash, fill, open_fds, seen
from tests.ledger.conftest import clock, world

__all__ = ["clock", "mark", "outside", "trash", "untouched", "world"]


@pytest.fixture
def mark() -> Iterator[Callable[[str, Path], None]]:
    """chattr, taken back when the test ends, wherever what it marked is by then."""
    marked: list[int] = []

    def chattr(flag: str, path: Path) -> None:
        done = subprocess.run(["chattr", flag, path], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"chattr {flag}: {done.stderr.strip()}")
        marked.append(os.open(path, os.O_RDONLY))

    yield chattr
    for fd in marked:
        path = os.readlink(f"/proc/self/fd/{fd}")
        subprocess.run(["chattr", "-ia", path], capture_output=True, check=False)
        os.close(fd)


@pytest.fixture
def stage(tmp_path: Path, empty_ledger: Path) -> Stage:
    """A place whose processes are killed, refused and cut off, and that is then held to account."""
    return Stage(tmp_path, empty_ledger)


@pytest.fixture
def trash(tmp_path: Path) -> Iterator[Trash]:
    """Afterwards, no descriptor is open that was not before."""
    (tmp_path / "trash").mkdir()
    fd = os.open(tmp_path / "trash", os.O_RDONLY)
    before = open_fds()
    yield Trash(tmp_path / "trash", fd)
    assert open_fds() == before
    os.close(fd)


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[Path]:
    """A full directory that nobody may have touched when the test ends, not even its ctimes."""
    place = fill(tmp_path / "untouched")
    fill(place / "deeper")
    before = fingerprint(place)
    yield place
    assert fingerprint(place) == before


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A full directory, of which nothing may have changed when the test ends."""
    place = fill(tmp_path / "outside")
    fill(place / "deeper" / "still")
    before = seen(place)
    yield place
    assert seen(place) == before
