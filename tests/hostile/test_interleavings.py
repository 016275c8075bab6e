"""What races showed, one step at a time: somebody else acts at the worst moment of an operation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ledger import SessionEnded
from ledger.demo import SCENES
from tests.ledger.world import Clock, World, around


@pytest.fixture
def world(tmp_path: Path, ledger_url: str) -> Iterator[World]:
    world = World(tmp_path, Clock(), ledger_url)
    yield world
    world.sessions.close()


def settled(world: World) -> bool:
    world.sessions.sweep()
    return world.sessions.report().settled and not world.in_trash()


def test_an_upload_whose_session_is_deleted_and_removed_under_it_is_told_so(world: World) -> None:
    its = world.create()

    def delete() -> None:
        assert world.sessions.delete_session(its)
        world.sessions._remover.close()

    with world.sessions.upload(its) as upload, around("moves.publish_new_file", before=delete):
        upload.open_file("late.txt")
        upload.write(b"late")
        with pytest.raises(SessionEnded, match="deleted"):
            upload.commit()
    assert settled(world)


def test_a_restore_that_a_delete_overtakes_brings_back_no_row_without_a_directory(
    world: World,
) -> None:
    its = str(SCENES["waiting"].build(world.sessions).session_id)
    with (
        around("moves.put_back", after=lambda: world.sessions.delete_session(its)),
        pytest.raises(SessionEnded),
    ):
        world.sessions.restore(its)
    assert world.state(its) == "deleted"
    assert settled(world)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sweep_leaves_a_delete_alone_that_is_being_carried_out(world: World, when: str) -> None:
    its = world.create()

    def write_and_sweep() -> None:
        with suppress(FileNotFoundError):
            (world.root / its / "written.txt").write_text("another program's")
        world.sessions.sweep()

    with around("moves.set_aside", **{when: write_and_sweep}):  # type: ignore[arg-type]
        assert world.sessions.delete_session(its)
    assert world.state(its) == "deleted"
    assert "active" not in world.path_of_life(its)[1:]
    assert settled(world)


def test_what_a_sweep_has_ended_and_is_removing_is_not_deleted_a_second_time(
    world: World,
) -> None:
    its = str(SCENES["stale"].build(world.sessions).session_id)
    told: list[bool] = []
    with around(
        "upkeep.bury_and_remove", before=lambda: told.append(world.sessions.delete_session(its))
    ):
        assert world.sessions.sweep().removed == 1
    assert told == [False]
    assert world.state(its) == "expired"
    assert settled(world)


def test_a_sweep_that_a_restore_is_quicker_than_has_not_failed(world: World) -> None:
    its = str(SCENES["due"].build(world.sessions).session_id)

    def touch_in_trash() -> None:
        [entry] = world.in_trash()
        os.utime(world.trash / entry)

    with (
        around("upkeep.finish_trash", before=touch_in_trash),
        around("upkeep.bring_back", before=lambda: world.sessions.restore(its)),
    ):
        assert world.sessions.sweep().failures == []
    assert world.state(its) == "active"
    assert world.standing() == {its}
    assert settled(world)
