"""Recorded dry runs: kept for an hour, carried out once, and told like any other run."""

import errno
import json
import os
from typing import Any

import pytest

from ledger import (
    Actor,
    DryRunGone,
    LedgerFull,
    Progress,
    RootMismatch,
    SweepStopped,
    SweepUnderWay,
    guards,
    queries,
    sweep,
)
from ledger.disk import HOUSE, REPORTS
from tests.ledger.world import World


def runs(world: World) -> list[Any]:
    place = world.sessions.place
    with place.database.read() as connection:
        return list(queries.sweeps(connection, place.root_id))


def test_a_dry_run_is_recorded_and_what_it_listed_is_what_is_kept(any_world: World) -> None:
    old, young = any_world.create(age=30), any_world.create()
    before = any_world.row(old)
    report = any_world.sessions.dry_run(by=Actor.OPERATOR)
    [run] = runs(any_world)
    assert (run.sweep_id, run.state, run.dry_run) == (report.sweep_id, "done", True)
    assert (run.by, run.done, run.total, run.removed) == ("operator", 2, 2, 0)
    assert json.loads(run.counts)["stale"] == 1
    assert any_world.standing() == {old, young}
    assert any_world.row(old) == before
    assert report.sweep_id is not None
    kept = any_world.sessions.kept(report.sweep_id)
    assert kept.sweep_id == report.sweep_id
    assert [entry.as_json() for entry in kept.entries] == [
        entry.as_json() for entry in report.entries
    ]


def test_its_list_is_carried_out_once_from_memory_and_from_the_disk(world: World) -> None:
    old = world.create(age=30)
    report = world.sessions.dry_run()
    assert report.sweep_id is not None
    kept = world.sessions.kept(report.sweep_id)
    assert world.sessions.sweep(report).removed == 1
    assert world.state(old) == "expired"
    for list_of_it in (report, kept):
        with pytest.raises(DryRunGone, match="already"):
            world.sessions.sweep(list_of_it)
    with pytest.raises(DryRunGone, match="already"):
        world.sessions.kept(report.sweep_id)
    assert [run.state for run in runs(world)] == ["done", "done"]


def test_a_report_that_is_not_recorded_may_be_carried_out_again(world: World) -> None:
    report = world.sessions.report()
    for _ in range(2):
        world.sessions.sweep(report)
    assert [run.dry_run for run in runs(world)] == [False, False]


def test_a_result_is_not_taken_for_a_dry_runs_list(world: World) -> None:
    done = world.sessions.sweep()
    assert done.sweep_id is not None
    assert world.sessions.sweep(done).changed == 0
    with pytest.raises(DryRunGone, match="no dry run"):
        world.sessions.kept(done.sweep_id)


def test_a_list_that_a_guard_kept_from_being_carried_out_is_given_back(world: World) -> None:
    world.reopen(brake=0)
    world.create(age=3)
    report = world.sessions.dry_run(1)
    with pytest.raises(SweepStopped):
        world.sessions.sweep(report)
    assert world.sessions.sweep(report, past_the_brake=True).removed == 1
    with pytest.raises(DryRunGone):
        world.sessions.sweep(report, past_the_brake=True)


def test_a_list_is_not_used_up_by_the_try_that_found_the_ledger_full(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create(age=30)
    report = world.sessions.dry_run()
    real, tries = sweep.Sweep.run, []

    def full_once(self: sweep.Sweep) -> Any:
        tries.append(self)
        if len(tries) == 1:
            raise LedgerFull("no room")
        return real(self)

    monkeypatch.setattr(sweep.Sweep, "run", full_once)
    assert world.sessions.sweep(report).removed == 1
    assert [run.state for run in runs(world)] == ["done", "failed", "done"]


def test_a_list_is_kept_for_an_hour_by_the_ledgers_clock(world: World) -> None:
    report = world.sessions.dry_run()
    assert report.sweep_id is not None
    world.clock.passes(1.01)
    with pytest.raises(DryRunGone, match="make a new one"):
        world.sessions.kept(report.sweep_id)


def test_the_next_dry_run_removes_lists_that_are_kept_no_more(world: World) -> None:
    world.sessions.dry_run()
    [first] = os.listdir(world.root / HOUSE / REPORTS)
    world.clock.passes(1.01)
    world.sessions.dry_run()
    assert first not in os.listdir(world.root / HOUSE / REPORTS)


def test_a_cancelled_dry_run_keeps_no_list(world: World) -> None:
    world.create(age=30)
    progress = Progress()
    progress.cancel.set()
    report = world.sessions.dry_run(progress=progress)
    [run] = runs(world)
    assert (run.state, run.why) == ("stopped", "cancelled")
    assert report.sweep_id is not None
    with pytest.raises(DryRunGone):
        world.sessions.kept(report.sweep_id)


def test_a_list_that_finds_no_room_leaves_nothing_and_fails_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ledger.report.Report.json_pieces", no_room)
    with pytest.raises(OSError, match="No space left"):
        world.sessions.dry_run()
    assert os.listdir(world.root / HOUSE / REPORTS) == []
    assert [run.state for run in runs(world)] == ["failed"]


def test_a_dry_run_holds_the_root_as_a_sweep_does(world: World) -> None:
    held: list[type[Exception]] = []

    def try_another(progress: Progress) -> None:
        if progress.sweep_id is not None and not held:
            try:
                world.sessions.sweep()
            except SweepUnderWay as error:
                held.append(type(error))

    world.sessions.dry_run(progress=Progress(on_change=try_another))
    assert held == [SweepUnderWay]
    with guards.one_sweeper(world.sessions.place), pytest.raises(SweepUnderWay):
        world.sessions.dry_run()
    assert len(runs(world)) == 1


def test_a_list_of_a_dry_run_under_way_is_not_to_be_had(world: World) -> None:
    asked: list[bool] = []

    def ask(progress: Progress) -> None:
        if progress.sweep_id is not None:
            with pytest.raises(SweepUnderWay):
                world.sessions.kept(progress.sweep_id)
            asked.append(True)

    world.sessions.dry_run(progress=Progress(on_change=ask))
    assert asked


def test_in_a_root_that_is_not_the_ledgers_nothing_is_recorded(world: World) -> None:
    (world.root / HOUSE / "root-id").write_text("b" * 26)
    with pytest.raises(RootMismatch):
        world.sessions.dry_run()
    assert runs(world) == []


def test_a_list_is_not_followed_through_a_link(world: World) -> None:
    report = world.sessions.dry_run()
    assert report.sweep_id is not None
    path = world.root / HOUSE / REPORTS / f"{report.sweep_id}.json"
    path.rename(world.folder / "elsewhere.json")
    path.symlink_to(world.folder / "elsewhere.json")
    with pytest.raises(OSError, match="symbolic"):
        world.sessions.kept(report.sweep_id)


def test_how_far_it_is_can_be_read_while_it_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.runs._SAVE_EVERY_S", 0)
    for _ in range(3):
        world.create()
    seen: list[tuple[int, int | None]] = []

    def look(progress: Progress) -> None:
        if progress.done:
            [run] = runs(world)
            seen.append((run.done, run.total))

    world.sessions.dry_run(progress=Progress(on_change=look))
    assert seen[-1] == (3, 3)
