"""Sessions that we have no right to read or to remove. Each is reported with its reason, the rest
goes on, and once the right is there, it goes as well."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.places import OLD, WAYS, Act, add_a_file, without_rights
from tests.hostile.test_hostile_trees import give
from tests.hostile.trash import fill
from tests.hostile.worlds import needs_root
from tests.ledger.world import FILES, World, content, entry_of, findings

# -- Modes


def close(world: World, session_id: str, mode: int) -> None:
    (world.root / session_id / "inner").mkdir()
    (world.root / session_id / "inner/file").touch()
    world.date(world.root / session_id, OLD)
    (world.root / session_id / "inner").chmod(mode)
    (world.root / session_id).chmod(mode)


@pytest.mark.sqlite
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o300, 0o400, 0o500])
def test_a_session_that_its_owner_closed_is_reported_by_a_sweep_and_its_users_delete_removes_it(
    mode: int, world: World
) -> None:
    closed, other = world.create(age=OLD), world.create(age=OLD)
    close(world, closed, mode)

    def check() -> None:
        swept = world.sessions.sweep()
        assert swept.removed == 1
        assert world.standing() == {closed}
        why = entry_of(swept, closed).why if mode != 0o500 else swept.failures[0]
        assert "Permission denied" in why
        assert not world.sessions.report().settled
        assert world.sessions.delete_session(closed)
        assert world.state(closed) == "deleted"
        world.sessions.close()
        assert world.in_trash() == []

    without_rights(world, check)
    assert world.state(other) == "expired"
    assert world.sessions.report().settled


# -- Immutable


@needs_root
@pytest.mark.parametrize("flag", ["i", "a"])
def test_an_immutable_session_is_reported_with_its_reason_and_removed_once_it_is_mutable(
    flag: str, world: World, mark: Callable[[str, Path], None]
) -> None:
    session_id, other = world.create(age=OLD), world.create(age=OLD)
    mark(f"+{flag}", world.root / session_id)
    assert world.sessions.sweep().removed == 1
    for _ in range(2):
        (failure,) = world.sessions.sweep().failures
        assert failure == f"{session_id[:8]}: it could not be set aside: Operation not permitted"
        assert world.state(session_id) == "active"
    with pytest.raises(PermissionError):
        world.sessions.delete_session(session_id)
    assert (world.state(session_id), world.state(other)) == ("active", "expired")
    subprocess.run(["chattr", "-ia", world.root / session_id], check=True)
    assert world.sessions.sweep().removed == 1


@needs_root
@pytest.mark.parametrize("way", ["sweep", "delete"])
def test_immutable_files_are_reported_at_each_sweep_and_removed_once_they_are_mutable(
    way: str, world: World, mark: Callable[[str, Path], None]
) -> None:
    session_id = world.create(age=OLD)
    kept = fill(world.root / session_id / "inner") / "file-1"
    world.date(world.root / session_id, OLD)
    inode = kept.stat().st_ino
    mark("+i", kept)
    WAYS[way](world, session_id)
    world.reopen()
    assert world.state(session_id) in ("expired", "deleted")
    for _ in range(2):
        swept = world.sessions.sweep()
        (failure,) = swept.failures
        assert "file-1" in failure
        assert "marked immutable" in failure
        assert findings(swept) == {"unfinished": 1}
        [left] = [path for path in world.trash.rglob("*") if path.is_file()]
        assert left.stat().st_ino == inode
    assert not world.sessions.report().settled
    subprocess.run(["chattr", "-i", left], check=True)
    assert world.sessions.sweep().failures == []
    assert world.in_trash() == []
    assert world.sessions.report().settled


# -- Another user's


@pytest.mark.sqlite
@needs_root
def test_another_users_full_directory_inside_is_reported_and_all_else_goes(world: World) -> None:
    session_id, other = world.create(age=OLD), world.create(age=OLD)
    give(fill(world.root / session_id / "theirs"))
    world.date(world.root / session_id, OLD)

    def check() -> None:
        swept = world.sessions.sweep()
        assert swept.removed == 2
        for failure in (*swept.failures, *world.sessions.sweep().failures):
            assert "another user's" in failure
        assert len([path for path in world.trash.rglob("*") if path.is_file()]) == 3

    without_rights(world, check)
    assert (world.state(session_id), world.state(other)) == ("expired", "expired")
    assert world.sessions.sweep().failures == []
    assert world.in_trash() == []


@pytest.mark.sqlite
@needs_root
def test_another_users_session_can_be_touched_and_is_neither_removed_nor_lost(world: World) -> None:
    session_id = world.create(age=OLD)
    give(world.root / session_id)

    def check() -> None:
        (failure,) = world.sessions.sweep().failures
        assert failure == f"{session_id[:8]}: it could not be set aside: Permission denied"
        for act in (WAYS["delete"], WAYS["claim"]):
            with pytest.raises(PermissionError):
                act(world, session_id)
            assert world.state(session_id) == "active"
        with pytest.raises(PermissionError):
            add_a_file(world.sessions, session_id)
        world.sessions.touch(session_id)
        assert world.sessions.sweep().failures == []

    without_rights(world, check)
    assert content(world.root / session_id).keys() == set(FILES)
    assert world.known(session_id).files == len(FILES)


@pytest.mark.sqlite
@needs_root
def test_another_users_session_where_one_may_write_is_a_session_like_any_other(
    world: World,
) -> None:
    for act in WAYS.values():
        session_id = world.create()
        give(world.root / session_id)
        (world.root / session_id).chmod(0o777)

        def check(session_id: str = session_id, act: Act = act) -> None:
            add_a_file(world.sessions, session_id)
            world.clock.passes(OLD)
            act(world, session_id)
            world.reopen()

        without_rights(world, check)
        assert world.standing() == set()
        assert world.in_trash() == []
