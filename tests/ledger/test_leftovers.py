"""Uploads that nobody is at any more: each is asked for by its name, and locked while it goes."""

import dataclasses
import os

import pytest

from ledger import Report, system
from ledger.disk import open_directory
from tests.ledger.world import World, around


def leave(world: World, *names: str) -> Report:
    """Leftovers two hours old, and the report that lists them."""
    for name in names:
        (world.incoming / name).mkdir()
        (world.incoming / name / "part").write_bytes(b"bytes")
        world.date(world.incoming / name, 2)
    return world.sessions.report()


def test_a_listed_leftover_is_looked_for_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not among all the others: there may be thousands."""
    names = [f"left-{number}" for number in range(20)]
    report = leave(world, *names)
    opened: list[str] = []

    def watched(name: str, *, dir_fd: int) -> int:
        opened.append(name)
        return open_directory(name, dir_fd=dir_fd)

    monkeypatch.setattr("ledger.survey.open_directory", watched)
    done = world.sessions.sweep(report)
    assert (done.changed, done.failed, os.listdir(world.incoming)) == (0, 0, [])
    assert sorted(opened) == sorted(names)


@pytest.mark.parametrize("listed", [True, False])
def test_a_leftover_is_locked_until_it_is_gone(world: World, listed: bool) -> None:
    report = leave(world, "left")
    free: list[bool] = []

    def lock() -> None:
        fd = os.open(world.incoming / "left", os.O_RDONLY)
        free.append(system.lock_shared(fd))
        os.close(fd)

    with around("upkeep.remove_leftover", before=lock):
        world.sessions.sweep(report if listed else None)
    assert (free, os.listdir(world.incoming)) == ([False], [])


@pytest.mark.parametrize("name", ["", ".", "..", "nul\0", "\ud800", "gone", "a" * 300])
def test_a_listed_leftover_of_an_impossible_name_is_only_counted_as_changed(
    world: World, name: str
) -> None:
    report = leave(world, "left")
    [entry] = report.entries
    report.entries = [dataclasses.replace(entry, path=f"{world.incoming}/{name}")]
    done = world.sessions.sweep(report)
    assert (done.changed, done.failed, os.listdir(world.incoming)) == (1, 0, ["left"])
