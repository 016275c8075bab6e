"""What is counted: kept with what it counts, by however many, and as it was after a crash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, text

from ledger import (
    LedgerUnavailable,
    RootUnavailable,
    SessionEnded,
    SessionLedger,
    Settings,
    SweepStopped,
    counts,
    queries,
)
from ledger.counts import CLAIMS, CREATIONS, DELETIONS, TOUCHES, Key, Tally
from ledger.models import SESSIONS, State
from ledger.runs import RecordedRun
from tests.hostile.worlds import fork
from tests.ledger.schemas import to_first_schema
from tests.ledger.world import HOUR_US, World, around


def kept(world: World) -> dict[Key, int]:
    place = world.sessions.place
    place.write_counts()
    with place.database.read() as connection:
        found = counts.kept(connection, place.root_id)
        seen = counts.by_looking(connection, place.root_id)
    assert {key: n for key, n in found.items() if n and key[0] == counts.STATES} == seen
    return {key: n for key, n in found.items() if n}


def number(world: World, name: str, *labels: str) -> int:
    return kept(world).get(counts.of(name, *labels), 0)


# Sessions


def test_each_way_that_a_session_can_go_is_counted_once(any_world: World) -> None:
    world = any_world
    deleted, claimed, stale, gone, live = (world.create() for _ in range(5))
    world.sessions.delete_session(deleted)
    world.sessions.delete_session(deleted)  # nothing is left to delete
    for _ in range(2):
        world.sessions.claim(claimed, into="spring")
    for name in (stale, gone):
        world.alter(name, last_touch_at=world.hours_ago(30))
    world.date(world.root / stale, 30)
    shutil.rmtree(world.root / gone)
    world.stray(age=1)
    world.sessions.sweep()
    assert number(world, CREATIONS) == 5
    assert number(world, CLAIMS) == number(world, DELETIONS) == 1
    states = {key[1][0]: n for key, n in kept(world).items() if key[0] == counts.STATES}
    assert states == {"active": 2, "deleted": 1, "claimed": 1, "expired": 1, "missing": 1}
    assert world.state(live) == "active"


def test_a_delete_that_the_disk_refuses_is_put_back_and_counted_as_none(world: World) -> None:
    world.reopen(undo_hours=48)
    waiting = world.create(age=30)
    world.sessions.sweep()
    assert world.state(waiting) == "expired"
    with around("life._into_trash", before=_refuse), pytest.raises(OSError, match="refused"):
        world.sessions.delete_session(waiting)
    assert world.state(waiting) == "expired"
    assert number(world, DELETIONS) == 0
    assert world.sessions.delete_session(waiting)
    assert number(world, DELETIONS) == 1


def _refuse() -> None:
    raise OSError(5, "refused")


def test_a_creation_that_a_sweep_adopted_in_between_is_a_creation(world: World) -> None:
    def adopt() -> None:
        world.sessions.sweep()

    with around("moves.publish_directory", after=adopt):
        made = world.sessions.create("order 17")
    assert made.origin == "created"
    assert number(world, CREATIONS) == 1


def test_what_is_pruned_is_counted_no_more(any_world: World) -> None:
    world = any_world
    for _ in range(3):
        world.sessions.delete_session(world.create())
    world.clock.passes(31 * 24)
    world.sessions.sweep()
    assert number(world, counts.STATES, "deleted") == 0
    assert number(world, DELETIONS) == 3


def test_a_root_that_is_adopted_keeps_its_counts(world: World) -> None:
    world.create()
    world.sessions.close()
    (world.root / ".coatcheck/root-id").write_text("x" * 26)
    world.sessions = world.open(adopt=True)
    assert number(world, CREATIONS) == 1
    assert number(world, counts.STATES, "active") == 1


# Touches


def test_touches_are_written_once_in_a_while_and_at_the_end(world: World) -> None:
    session_id = world.create()
    place = world.sessions.place
    writes: list[str] = []
    with around("counts.add", before=lambda: writes.append("written"), times=1000):
        for _ in range(50):
            world.sessions.touch(session_id)
    assert len(writes) <= 1 + 50 // 10  # however slow this machine is, not one for each
    world.reopen()
    with world.sessions.place.database.read() as connection:
        assert counts.kept(connection, place.root_id)[counts.of(TOUCHES)] == 50


def test_a_touch_that_failed_is_none(world: World) -> None:
    session_id = world.create()
    world.sessions.delete_session(session_id)
    with pytest.raises(SessionEnded):
        world.sessions.touch(session_id)
    assert number(world, TOUCHES) == 0


def test_what_cannot_be_written_is_kept_for_the_next_time(world: World) -> None:
    place = world.sessions.place
    tally = Tally()
    tally.add({counts.of(TOUCHES): 3})
    with around("counts.add", before=_refuse), pytest.raises(OSError, match="refused"):
        tally.write(place.database, place.root_id)
    tally.add({counts.of(TOUCHES): 2})
    tally.write(place.database, place.root_id)
    assert number(world, TOUCHES) == 5


@pytest.mark.parametrize("processes", [4])
def test_many_processes_add_to_one_sum(any_world: World, processes: int) -> None:
    world = any_world
    world.sessions.close()

    def work() -> None:
        with world.open() as sessions:
            made = [sessions.create() for _ in range(6)]
            for session in made:
                sessions.touch(session.id)
            sessions.delete_session(made[0].id)
            sessions.claim(made[1].id, into=made[1].id)

    children = [fork(lambda: _or_fail(work)) for _ in range(processes)]
    assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {0}
    world.sessions = world.open()
    assert number(world, CREATIONS) == number(world, TOUCHES) == 6 * processes
    assert number(world, CLAIMS) == number(world, DELETIONS) == processes
    assert number(world, counts.STATES, "active") == 4 * processes


def _or_fail(act: Callable[[], None]) -> None:
    try:
        act()
    except BaseException:
        os._exit(1)


# Sweeps


def test_a_sweep_is_counted_with_what_it_found_and_kept(world: World) -> None:
    world.reopen(undo_hours=1)
    world.create(age=30)
    world.create()
    world.stray(age=1)
    (world.root / "a file").touch()
    world.sessions.sweep()
    world.sessions.sweep()
    found = kept(world)
    told = {key[1][0]: n for key, n in found.items() if key[0] == counts.SWEEP_FINDINGS}
    assert told == {"live": 3, "stale": 1, "unrecorded": 1, "foreign": 2, "waiting": 1}
    told = {key[1][0]: n for key, n in found.items() if key[0] == counts.SWEEP_KEPT}
    assert told == {"live": 3, "unrecorded": 1, "foreign": 2, "waiting": 1}
    assert number(world, counts.SWEEP_REMOVED) == 1
    assert number(world, counts.SWEEPS_ENDED, "done", "false") == 2
    buckets = [n for key, n in found.items() if key[0] == counts.SWEEP_SECONDS]
    assert len(buckets) >= 2


def test_what_was_used_while_a_sweep_was_at_it_is_kept_since_it_changed(world: World) -> None:
    stale = world.create(age=30)
    with around("moves.set_aside", before=lambda: world.sessions.touch(stale)):
        world.sessions.sweep()
    assert world.state(stale) == "active"
    assert number(world, counts.SWEEP_KEPT, "changed") == 1
    assert number(world, counts.SWEEP_REMOVED) == 0


def test_sweeps_that_did_not_come_to_their_end_are_counted_as_that(world: World) -> None:
    world.sessions.dry_run()
    world.create(age=30)
    with around("pruning.prune", before=_refuse), pytest.raises(RootUnavailable, match="refused"):
        world.sessions.sweep()
    world.clock.jumps(24 * 60)
    with pytest.raises(SweepStopped):
        world.sessions.sweep()
    assert number(world, counts.SWEEPS_ENDED, "done", "true") == 1
    assert number(world, counts.SWEEPS_ENDED, "failed", "false") == 1
    assert number(world, counts.SWEEPS_ENDED, "stopped", "false") == 1
    assert number(world, counts.SWEEP_REMOVED) == 1  # before it broke off
    with world.sessions.place.database.read() as connection:
        told = queries.sweeps(connection, world.sessions.place.root_id)
    assert {row.state: row.removed for row in told} == {"done": 0, "failed": 1, "stopped": 0}
    assert not any(key[0] == counts.SWEEP_SECONDS for key in kept(world))


def test_a_sweep_whose_process_was_killed_is_counted_by_who_finds_it(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordedRun, "done", lambda *_: None)
        world.sessions.sweep()
    world.sessions.sweep()
    assert number(world, counts.SWEEPS_ENDED, "failed", "false") == 1
    assert number(world, counts.SWEEPS_ENDED, "done", "false") == 1


def test_what_waits_in_the_trash_is_told_as_of_the_last_sweep(any_world: World) -> None:
    world = any_world
    world.reopen(undo_hours=48)
    for size in (1000, 234):
        world.create(age=30, files={"a": b"x" * size})
    world.create(files={"b": b"x" * 7})
    for _ in range(2):
        world.sessions.sweep()
        place = world.sessions.place
        with place.database.read() as connection:
            last = queries.last_sweep_done(connection, place.root_id)
        assert last is not None
        assert (last.live_bytes, last.trash_bytes) == (7, 1234)


def test_the_oldest_live_session_is_found_whatever_ended_before(any_world: World) -> None:
    world = any_world
    place = world.sessions.place

    def oldest() -> int | None:
        with place.database.read() as connection:
            return queries.oldest_live(connection, place.root_id)

    assert oldest() is None
    world.sessions.delete_session(world.create(age=3))
    for age in (1, 2):
        world.create(age=age)
    found = oldest()
    assert found is not None
    assert abs(found - world.hours_ago(2)) < HOUR_US // 10
    if place.database.is_sqlite:
        with place.database.read() as connection:
            plan = connection.execute(
                text(
                    "EXPLAIN QUERY PLAN SELECT min(created_at) FROM coatcheck_session "
                    "WHERE root_id = 'x' AND state = 'active'"
                )
            ).all()
        assert "coatcheck_session_live" in str(plan)


# A damaged one


@pytest.mark.sqlite
@pytest.mark.miscounts
@pytest.mark.parametrize(
    "state", ["'nowhere'", "''", "'a' || char(9) || 'b'", "x'ff'", "CAST(x'ff' AS TEXT)"]
)
def test_a_damaged_row_that_no_sweep_acts_on_stops_none_and_is_not_counted(
    world: World, state: str
) -> None:
    ended = world.create()
    world.sessions.delete_session(ended)
    world.reopen()  # nothing of it waits in the trash, where its row would be asked about
    with world.sessions.place.database.write() as connection:
        damage = f"UPDATE coatcheck_session SET state = {state} WHERE session_id = ?"
        connection.exec_driver_sql(damage, (ended,))
    stale = world.create(age=30)
    for _ in range(2):
        assert world.sessions.sweep().failures == []
    assert world.state(stale) == "expired"
    with world.sessions.place.database.read() as connection:
        kept = counts.kept(connection, world.sessions.place.root_id)
    assert {key[1][0] for key in kept if key[0] == counts.STATES} <= set(State)


def test_a_count_that_cannot_be_mended_fails_no_sweep(world: World) -> None:
    def refuse() -> None:
        raise LedgerUnavailable("The ledger stayed locked; try again.")

    stale = world.create(age=30)
    with around("counts.mend", before=refuse):
        assert world.sessions.sweep().removed == 1
    assert world.state(stale) == "expired"
    assert number(world, counts.SWEEPS_ENDED, "done", "false") == 1


# An older ledger


def test_a_ledger_of_the_first_schema_is_counted_once_when_it_is_opened(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path / "temp")
    with SessionLedger.open(settings) as sessions:
        ids = [sessions.create().id for _ in range(3)]
        sessions.delete_session(ids[0])
        to_first_schema(sessions.place.database)
        sessions.place.tally.take()
    with SessionLedger.open(settings) as sessions, sessions.place.database.read() as connection:
        found = counts.kept(connection, sessions.place.root_id)
        seen = counts.by_looking(connection, sessions.place.root_id)
    assert found == seen == {("sessions", ("active",)): 2, ("sessions", ("deleted",)): 1}


@pytest.mark.miscounts
def test_what_a_version_without_counts_wrote_is_counted_by_the_next_sweep(
    any_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world = any_world
    ended, pruned, _ = (world.create() for _ in range(3))
    world.alter(ended, state="deleted")
    with world.sessions.place.database.write() as connection:
        connection.execute(delete(SESSIONS).where(SESSIONS.c.session_id == pruned))
    for name in (ended, pruned):
        shutil.rmtree(world.root / name)
    world.sessions.sweep()
    assert "counted wrongly" in caplog.text
    assert number(world, counts.STATES, "active") == number(world, counts.STATES, "deleted") == 1
    caplog.clear()
    world.sessions.sweep()
    assert "counted wrongly" not in caplog.text
