"""Several sessions touched, or deleted, at once: each as it would be by itself, or left out."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ledger import LedgerUnavailable, RootUnavailable, counts
from ledger.database import Database
from ledger.models import Actor
from tests.ledger.world import HOUR_US, World, around

MANY = 16


@contextmanager
def counted_writes(*, refused_from: int = 1000) -> Iterator[list[int]]:
    """The numbers of the write transactions that begin meanwhile; from one on they are refused."""
    write, writes = Database.write, list[int]()

    @contextmanager
    def counting(self: Database, **values: Any) -> Iterator[Any]:
        writes.append(len(writes))
        if writes[-1] >= refused_from:
            raise LedgerUnavailable("The ledger stayed locked; try again.")
        with write(self, **values) as connection:
            yield connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "write", counting)
        yield writes


def refuse() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def counted(world: World, name: str) -> int:
    place = world.sessions.place
    place.write_counts()
    with place.database.read() as connection:
        return counts.kept(connection, place.root_id).get((name, ()), 0)


def updates_of(world: World) -> Callable[[], list[str]]:
    """From here on, what SQLite is told to change of the sessions."""
    raw = world.sessions.place.database.engine.raw_connection()
    text: list[str] = []
    raw.driver_connection.set_trace_callback(text.append)  # type: ignore[union-attr]
    raw.close()
    return lambda: [each for each in text if each.startswith("UPDATE coatcheck_session ")]


# Touched


def test_all_are_touched_in_one_transaction(any_world: World) -> None:
    ids = [any_world.create(age=2) for _ in range(MANY)]
    before = {name: any_world.known(name) for name in ids}
    touches = counted(any_world, counts.TOUCHES)
    with counted_writes() as writes:
        told = any_world.sessions.touch_all(ids)
    assert sorted(session.id for session in told) == sorted(ids)
    assert len(writes) <= 2  # the other is that of the counts, once a second
    for session in told:
        row = any_world.known(session.id)
        assert row.version == before[session.id].version + 1
        assert abs(row.last_touch_at - any_world.clock()) < 60_000_000
        assert round(session.last_touch_at.timestamp() * 1e6) == row.last_touch_at
        assert (any_world.root / session.id).stat().st_mtime_ns // 1000 == row.last_touch_at
    assert counted(any_world, counts.TOUCHES) == touches + MANY


def test_a_touch_of_many_moves_none_back(world: World) -> None:
    name, other = world.create(), world.create(age=2)
    ahead = world.clock() + HOUR_US
    world.alter(name, last_touch_at=ahead)
    world.sessions.touch_all([name, other])
    assert world.known(name).last_touch_at == ahead
    assert world.known(other).last_touch_at < ahead


def test_whose_touch_is_not_just_a_touch_is_left_out(world: World) -> None:
    live, ended, removing, gone = (world.create(age=2) for _ in range(4))
    world.sessions.delete_session(ended)
    world.alter(removing, state="removing", remover=str(Actor.SWEEP))
    os.rename(world.root / gone, world.folder / "elsewhere")
    stray = world.stray()
    before = {name: world.row(name) for name in (ended, removing, stray)}
    asked = [live, ended, removing, gone, stray, "never-there", "../elsewhere", ""]
    assert [each.id for each in world.sessions.touch_all(asked)] == [live]
    assert {name: world.row(name) for name in before} == before
    assert world.sessions.touch_all([ended]) == []
    assert world.sessions.touch_all([]) == []


def test_one_that_the_disk_refuses_keeps_no_other_from_its_touch(world: World) -> None:
    first, refused, last = (world.create(age=2) for _ in range(3))

    with around("system.set_mtime", before=refuse, times=1):
        told = world.sessions.touch_all([first, refused, last])
    assert len(told) == 2


def test_touches_of_a_root_that_is_gone_are_refused(world: World) -> None:
    name = world.create(age=2)
    before = world.known(name)
    os.rename(world.root, world.folder / "elsewhere")
    with pytest.raises(RootUnavailable):
        world.sessions.touch_all([name])
    with pytest.raises(RootUnavailable):
        world.sessions.delete_all([name])
    assert world.known(name) == before
    os.rename(world.folder / "elsewhere", world.root)


@pytest.mark.sqlite
@pytest.mark.parametrize("many", [1, 3])
def test_touches_read_their_own_rows_however_many_are_active(world: World, many: int) -> None:
    """By the index of the state, SQLite would read every active session."""
    database = world.sessions.place.database
    ids = [world.create() for _ in range(many)]
    text = updates_of(world)
    world.sessions.touch_all(ids)
    [statement] = set(text())
    with database.read() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
    [plan] = rows
    assert "coatcheck_session_by_id (root_id=? AND session_id=?)" in str(plan)


def test_whose_directory_is_gone_is_left_out_and_who_holds_one_is_not_waited_for(
    world: World,
) -> None:
    """To look for it in the trash, or to wait for who holds it, takes time of all the others."""
    gone, held, free = (world.create() for _ in range(3))
    os.rename(world.root / gone, world.folder / "elsewhere")
    before = world.known(gone)
    with world.sessions.place.hold(held, shared=False):
        slept: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "sleep", slept.append)
            assert world.sessions.delete_all([gone, held, free]) == {held, free}
        assert slept == []
    assert world.known(gone) == before
    assert world.sessions.delete_session(gone)


@pytest.mark.sqlite
@pytest.mark.parametrize("ends", ["deleted", "expired"])
def test_an_end_sets_no_column_that_stays_as_it_is(world: World, ends: str) -> None:
    """Of each that is set, every index is written anew."""
    ids = [world.create(age=30, files={"a.txt": b"a"}) for _ in range(MANY)]
    text = updates_of(world)
    if ends == "deleted":
        world.sessions.delete_all(ids)
    else:
        world.sessions.sweep()
    updates = text()
    assert len(updates) == 2 * MANY
    for column in ("bytes", "files", "last_touch_at", "created_at", "touched"):
        assert not any(f"{column}=" in each for each in updates), (column, updates[0])
    assert {str(world.known(name).state) for name in ids} == {ends}


# Deleted


def test_all_are_deleted_in_two_transactions(any_world: World) -> None:
    ids = [any_world.create(files={"a.txt": b"a"}) for _ in range(MANY)]
    with counted_writes() as writes:
        gone = any_world.sessions.delete_all(ids)
    assert gone == set(ids)
    assert len(writes) == 2
    assert any_world.standing() == set()
    for name in ids:
        life = [(event.from_state, event.to_state) for event in any_world.events(name)]
        assert life == [(None, "active"), ("active", "removing"), ("removing", "deleted")]
    assert counted(any_world, counts.DELETIONS) == MANY
    any_world.reopen()  # what was deleted is removed by then
    assert any_world.in_trash() == []
    assert any_world.sessions.sweep().failures == []
    assert any_world.sessions.report().settled


def test_whose_deletion_is_not_just_that_is_left_out(world: World) -> None:
    live, ended, claimed, removing = (world.create() for _ in range(4))
    world.sessions.delete_session(ended)
    world.sessions.claim(claimed, "kept")
    world.alter(removing, state="removing", remover=str(Actor.SWEEP))
    stray = world.stray()
    before = {name: world.row(name) for name in (ended, claimed, removing, stray)}
    asked = [live, ended, claimed, removing, stray, "never-there", "../claims", ""]
    assert world.sessions.delete_all(asked) == {live}
    assert {name: world.row(name) for name in before} == before
    assert (world.claims / "kept/photo.jpg").read_bytes() == b"a photo"
    assert world.standing() == {removing, stray}
    assert world.sessions.delete_all([live]) == set()
    assert world.sessions.delete_all([]) == set()


def test_one_that_cannot_be_moved_stays_and_the_others_go(world: World) -> None:
    ids = [world.create() for _ in range(3)]

    with around("moves.set_aside", before=refuse, times=1):
        gone = world.sessions.delete_all(ids)
    [stayed] = set(ids) - gone
    assert world.standing() == {stayed}
    assert (world.root / stayed / "photo.jpg").read_bytes() == b"a photo"
    assert world.path_of_life(stayed) == ["active", "removing", "active"]
    assert {world.state(name) for name in gone} == {"deleted"}
    assert world.sessions.delete_all([stayed]) == {stayed}


def test_one_that_cannot_be_looked_at_stays_and_the_others_go(world: World) -> None:
    ids = [world.create() for _ in range(3)]

    with around("life._beginning", before=refuse, times=1):
        gone = world.sessions.delete_all(ids)
    [stayed] = set(ids) - gone
    assert world.path_of_life(stayed) == ["active"]
    with around("life._beginning", before=refuse, times=1), pytest.raises(OSError, match="Input"):
        world.sessions.delete_session(stayed)
    assert world.standing() == {stayed}


def test_a_ledger_that_is_lost_in_between_is_finished_later(world: World) -> None:
    ids = [world.create() for _ in range(3)]
    with counted_writes(refused_from=1), pytest.raises(LedgerUnavailable):
        world.sessions.delete_all(ids)
    assert {world.state(name) for name in ids} == {"removing"}
    assert world.standing() == set()
    assert world.sessions.sweep().failures == []
    assert {world.state(name) for name in ids} == {"deleted"}
    assert world.in_trash() == []


def test_one_that_another_deletes_in_between_is_his(world: World) -> None:
    name, other = world.create(), world.create()
    with world.open() as second:

        def delete_too() -> None:
            assert second.delete_session(name)

        with around("moves.set_aside", before=delete_too, times=1):
            gone = world.sessions.delete_all([name, other])
    assert gone == {other}
    assert counted(world, counts.DELETIONS) == 2
    assert world.standing() == set()
    world.reopen()
    assert world.in_trash() == []


# Two transactions and a rename for each; then each is buried, and its file and it unlinked.
STEPS = 2 + 2 + 2 * 3


@pytest.mark.parametrize("at", range(1, STEPS + 2))
def test_killed_behind_any_step_each_is_whole_or_deleted(world: World, at: int) -> None:
    ids = [world.create(files={"a.txt": b"a"}) for _ in range(2)]
    assert world.dies(lambda sessions: sessions.delete_all(ids), at) == (at <= STEPS)
    world.sessions.sweep()
    for name in ids:
        if world.state(name) == "active":
            assert (world.root / name / "a.txt").read_bytes() == b"a"
        else:
            assert world.state(name) == "deleted"
            assert not (world.root / name).exists()
    assert world.in_trash() == []
    assert world.sessions.report().settled
