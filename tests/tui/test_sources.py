"""One suite for both sources: the ledger itself, and a service before it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from ledger import Finding, Guard, Progress, SessionNotFound, SweepStopped, guards, runs, states
from ledger.models import SESSIONS, Actor, Origin
from ledger.states import New
from tests.tui.worlds import HOUR, World
from tui.filters import Filter, Row
from tui.source import FAILURES, Around, View
from tui.window import Window
from web.asking import Cancel, Cancelled


def read_all(world: World, view: View, *, at_end: bool = False) -> list[Row]:
    """The whole list, as a table reads it that is scrolled through."""
    window = world.source.open(view, Cancel(), at_end=at_end)
    while True:
        tasks = window.tasks(0, 0) if at_end else window.tasks(0, window.total)
        if not tasks:
            return rows_of(window)
        for task in tasks:
            window.put(world.source.load(view, task, Cancel()))


def rows_of(window: Window) -> list[Row]:
    rows = [window.row(rank) for rank in range(window.total)]
    return [row for row in rows if row is not None]


def labels(rows: list[Row]) -> list[str | None]:
    return [row.label for row in rows]


def test_sessions_come_newest_first_with_what_the_ledger_knows(world: World) -> None:
    world.create("older", a=5)
    newer = world.create("newer", a=10, b=20)
    first, second = read_all(world, View())
    assert (first.label, second.label) == ("newer", "older")
    assert first.id == newer.id
    assert (first.bytes, first.files, first.state) == (30, 2, "active")
    assert first.path == newer.path
    assert first.expires_at - first.last_touch_at == world.sessions.settings.max_age_us


@pytest.mark.parametrize("count", [0, 128, 129, 1001])
def test_a_list_of_any_length_is_read_to_its_end(world: World, count: int) -> None:
    place = world.sessions.place
    new = [New(f"row-{n}", Origin.CREATED, "created", n, n) for n in range(count)]
    with place.database.write() as connection:
        states.insert(connection, place.root_id, new, Actor.LIBRARY, world.sessions.clock())
    window = world.source.open(View(), Cancel())
    assert window.total == min(count, 1000) or not window.exact
    ids = [row.id for row in read_all(world, View())]
    assert ids == [f"row-{n}" for n in reversed(range(count))]
    end = world.source.open(View(), Cancel(), at_end=True)
    last = end.row(end.total - 1)
    assert last is None if not count else last is not None and last.id == "row-0"


@pytest.mark.parametrize("down", [True, False])
def test_every_order_that_is_offered_is_kept_from_either_end(world: World, down: bool) -> None:
    for size, label in ((30, "c"), (10, "a"), (20, "b")):
        world.create(label, file=size)
    for sort in sorted(world.source.sorts):
        view = View(sort, down)
        rows = read_all(world, view)
        assert len(rows) == 3
        assert [row.id for row in read_all(world, view, at_end=True)] == [row.id for row in rows]
        if sort == "bytes":
            assert labels(rows) == (["c", "b", "a"] if down else ["a", "b", "c"])


FILTERS = {
    "order": {"order 17", "order 18"},
    "ORDER 17": {"order 17"},
    "size>1k": {"order 18"},
    "size<1k order": {"order 17"},
    "age>2h": {"claim 3"},
    "touch<1h": {"order 17", "order 18"},
    "left<23h": {"claim 3"},
    "files>1": {"order 18"},
    "active claim": {"claim 3"},
    "expired": set[str](),
    "origin:adopted": set[str](),
    "origin:created order": {"order 17", "order 18"},
}


def test_a_filter_passes_what_it_says(world: World) -> None:
    world.create("order 17", a=10)
    world.create("order 18", a=1500, b=1500)
    world.forget(world.create("claim 3", a=10), 3)
    passed = {text: labels(read_all(world, View(filter=Filter.parse(text)))) for text in FILTERS}
    assert {text: set(found) for text, found in passed.items()} == FILTERS


@pytest.mark.slow
def test_a_list_longer_than_a_page_is_read_without_a_gap(world: World) -> None:
    made = [world.create(f"{number}").id for number in range(450)]
    rows = read_all(world, View(down=False))
    assert [row.id for row in rows] == made
    ends = world.source.open(View(down=False), Cancel(), at_end=True)
    last = ends.row(ends.total - 1)
    assert last is not None
    assert last.id == made[-1]


def test_a_row_is_found_again_where_it_is_now(world: World) -> None:
    made = [world.create(f"{number}") for number in range(5)]
    view = View()
    row = read_all(world, view)[3]
    world.create("new above")
    again = world.source.reread(view, Around(row, 3, 3, 10, 5), Cancel())
    assert again.rank == 4
    assert again.row is not None
    assert again.row.id == made[1].id
    found = again.window.row(4)
    assert found is not None
    assert found.id == made[1].id


def test_a_row_that_left_the_list_is_told_of(world: World) -> None:
    session = world.create("one")
    world.create("two")
    view = View(filter=Filter.parse("active"))
    row = read_all(world, view)[1]
    world.sessions.delete_session(session.id)
    again = world.source.reread(view, Around(row, 1, 1, 10, 2), Cancel())
    assert again.row is None
    assert again.outside is not None
    assert again.outside.state == "deleted"
    assert again.outside.ended_why == "deleted"


def test_the_version_moves_with_every_change(world: World) -> None:
    session = world.create("one")
    seen = [world.source.version()]
    for change in (
        lambda: world.create("two"),
        lambda: world.sessions.touch(session.id),
        lambda: world.sessions.delete_session(session.id),
        lambda: world.sessions.sweep(),
    ):
        change()
        seen.append(world.source.version())
    assert len(set(seen)) == 5
    assert world.source.version() == seen[-1]


def test_what_is_cancelled_before_it_begins_is_not_begun(world: World) -> None:
    cancel = Cancel()
    cancel()
    with pytest.raises(Cancelled):
        world.source.open(View(), cancel)


# One session


def test_a_session_is_told_of_whole(world: World) -> None:
    session = world.create("order 17", a=10)
    world.sessions.touch(session.id)
    detail = world.source.detail(session.id)
    assert detail.row.label == "order 17"
    assert detail.files == [("a", 10)]
    assert [event.after for event in detail.events] == ["active"]
    assert detail.ledger.used_at == world.sessions.get(session.id).last_touch_at.timestamp() * 1e6
    assert detail.judgement is not None
    assert (detail.judgement.finding, detail.judgement.action) == (Finding.LIVE, "keep")


def test_a_stale_session_is_told_with_the_verdict_and_its_reason(world: World) -> None:
    session = world.create("forgotten", a=10)
    world.forget(session, 30)
    judgement = world.source.detail(session.id).judgement
    assert judgement is not None
    assert judgement.finding is Finding.STALE
    assert "unused for 30.0 h" in judgement.why


def test_an_ended_session_has_its_whole_life(world: World) -> None:
    session = world.create("order 17", a=10)
    world.sessions.delete_session(session.id)
    detail = world.source.detail(session.id)
    assert [event.after for event in detail.events] == ["active", "removing", "deleted"]
    assert detail.files == []
    assert detail.note
    # Its bytes are removed in the background, and may be there yet.
    assert detail.judgement is None or detail.judgement.finding is Finding.UNFINISHED


def test_a_directory_without_a_row_is_told_of(world: World) -> None:
    world.stray("legacy_7", 30)
    detail = world.source.detail("legacy_7")
    assert detail.ledger.seen == "no row"
    assert detail.judgement is not None
    assert detail.judgement.finding is Finding.UNRECORDED
    assert (detail.disk.seen, detail.disk.files, detail.disk.bytes) == ("directory", 1, 1000)
    assert detail.note == "Its files are named once the ledger has a row of it."
    assert world.source.look("legacy_7") == detail.row


def test_what_only_the_trash_knows_is_told_of(world: World) -> None:
    world.stray("legacy_7", 30, 1000)
    world.sessions.sweep()
    with world.sessions.place.database.write() as connection:
        connection.execute(SESSIONS.delete())
    detail = world.source.detail("legacy_7")
    assert (detail.row.state, detail.row.bytes, detail.ledger.seen) == ("waiting", 1000, "no row")
    assert detail.row.path.startswith(f"{world.root}/.coatcheck/trash/")
    assert world.source.look("legacy_7") == detail.row


def test_what_is_no_directory_is_said_to_be_none(world: World) -> None:
    (world.root / "README").write_text("x")
    detail = world.source.detail("README")
    assert (detail.row.state, detail.judgement and detail.judgement.action) == ("foreign", "report")
    assert detail.disk.seen.startswith("foreign: ")
    assert "cannot be read" in detail.note


def test_both_clocks_are_told_apart(world: World) -> None:
    session = world.create("order 17", a=10)
    world.forget(session, 30)
    used = world.sessions.clock() - 2 * HOUR
    os.utime(world.root / session.id / "a", ns=(used * 1000, used * 1000))
    detail = world.source.detail(session.id)
    assert detail.disk.used_at == used
    assert detail.ledger.used_at is not None
    assert detail.ledger.used_at < used - 27 * HOUR
    assert detail.judgement is not None
    assert detail.judgement.finding is Finding.DRIFTED


def test_a_claimed_session_has_its_files_where_it_went(world: World) -> None:
    session = world.create("order 17", a=10)
    world.sessions.claim(session.id, "spring")
    detail = world.source.detail(session.id)
    assert (detail.row.state, detail.files) == ("claimed", [("a", 10)])
    assert detail.row.path.endswith("/claims/spring")
    assert (detail.disk.seen, detail.judgement) == ("no directory", None)


def test_nothing_is_told_of_what_there_is_not(world: World) -> None:
    with pytest.raises(SessionNotFound):
        world.source.detail("nothing")
    assert world.source.look("nothing") is None


def test_one_deletes_once(world: World) -> None:
    session = world.create("order 17", a=10)
    assert world.source.delete(session.id)
    assert not world.source.delete(session.id)
    assert not (world.root / session.id).exists()
    row = world.source.look(session.id)
    assert row is not None
    assert row.state == "deleted"


def test_a_touch_keeps_alive_and_is_refused_for_what_has_ended(world: World) -> None:
    session = world.create("order 17")
    before = world.source.look(session.id)
    world.source.touch(session.id)
    after = world.source.look(session.id)
    assert before is not None
    assert after is not None
    assert after.last_touch_at > before.last_touch_at
    world.source.delete(session.id)
    with pytest.raises(FAILURES, match="deleted"):
        world.source.touch(session.id)


# Sweeps


def test_the_report_lists_what_a_sweep_would_do(world: World) -> None:
    world.create("live")
    world.stray("legacy_7", 30)
    world.stray("import", 2)
    report = world.source.report(Progress())
    assert {entry.session_id: str(entry.action) for entry in report.entries} == {
        "legacy_7": "set_aside",
        "import": "adopt",
    }
    assert report.counts[Finding.LIVE] == 1
    assert report.root == str(world.root)


def test_a_sweep_does_exactly_what_its_dry_run_listed(world: World) -> None:
    forgotten = world.create("forgotten", a=10)
    world.forget(forgotten, 30)
    plan = world.source.dry_run(None, Progress())
    assert [entry.session_id for entry in plan.entries] == [forgotten.id]
    assert plan.objections == []
    later = world.create("forgotten later", a=10)
    world.forget(later, 30)
    result = world.source.sweep(plan, frozenset(), Progress())
    assert (result.removed, result.changed, result.failed) == (1, 0, 0)
    assert not (world.root / forgotten.id).exists()
    assert (world.root / later.id).exists()


def test_a_list_is_carried_out_once(world: World) -> None:
    plan = world.source.dry_run(None, Progress())
    world.source.sweep(plan, frozenset(), Progress())
    with pytest.raises(FAILURES, match="carried out"):
        world.source.sweep(plan, frozenset(), Progress())


def test_by_a_lower_max_age_the_brake_says_no_until_it_is_overridden(braked: World) -> None:
    session = braked.create("young", a=10)
    braked.forget(session, 2)
    plan = braked.source.dry_run(1.0, Progress())
    assert plan.counts[Finding.STALE] == 1
    assert plan.max_age_us == HOUR
    unkept = braked.source.dry_run(1.0, Progress(), keep=False)
    for report in (plan, unkept):
        [objection] = report.objections
        assert objection.guard is Guard.BRAKE
        assert "brake allows 0" in objection.why
    with pytest.raises(SweepStopped, match="brake allows 0") as stop:
        braked.source.sweep(plan, frozenset(), Progress())
    assert stop.value.by is Guard.BRAKE
    assert braked.source.sweep(plan, frozenset({Guard.BRAKE}), Progress()).removed == 1


def test_a_sweep_under_way_is_said_to_be(world: World) -> None:
    with guards.one_sweeper(world.sessions.place), pytest.raises(FAILURES, match="under way"):
        world.source.dry_run(None, Progress())


def test_a_dry_run_that_writes_nothing_goes_by_any_max_age(world: World) -> None:
    world.forget(world.create("forgotten", a=10), 2)
    before = world.source.sweeps(5)
    for hours, stale in ((1.5, 1), (2.5, 0)):
        report = world.source.dry_run(hours, Progress(), keep=False)
        assert (report.counts[Finding.STALE], report.max_age_us) == (stale, hours * HOUR)
    assert world.source.sweeps(5) == before


@pytest.mark.parametrize("dry", [True, False])
def test_a_run_is_cancelled_by_whoever_sees_it_and_says_so(
    world: World, dry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.stray("legacy_7", 30)
    plan = world.source.dry_run(None, Progress())
    monkeypatch.setattr(runs, "_SAVE_EVERY_S", 0.0)
    begin = Progress.begin

    def begun_and_cancelled(progress: Progress, sweep_id: int) -> None:
        begin(progress, sweep_id)
        assert world.sessions.cancel_sweep(sweep_id)

    monkeypatch.setattr(Progress, "begin", begun_and_cancelled)
    progress = Progress()
    if dry:
        world.source.dry_run(None, progress)
    else:
        world.source.sweep(plan, frozenset(), progress)
    assert progress.cancel.is_set()
    newest, *_ = world.source.sweeps(1)
    assert (newest.state, newest.why, newest.dry_run) == ("stopped", "cancelled", dry)
    assert place.exists()


def test_what_waits_is_restored_once(world: World) -> None:
    place = world.stray("legacy_7", 30)
    plan = world.source.dry_run(None, Progress())
    assert world.source.sweep(plan, frozenset(), Progress()).waiting == 1
    assert not place.exists()
    detail = world.source.detail("legacy_7")
    assert detail.disk.seen == "in the trash"
    assert detail.judgement is not None
    assert detail.judgement.finding is Finding.WAITING
    world.source.restore("legacy_7")
    assert place.exists()
    assert world.source.detail("legacy_7").events[-1].by == "operator"
    with pytest.raises(FAILURES, match="Nothing of session legacy_7 waits"):
        world.source.restore("legacy_7")
    with pytest.raises(FAILURES, match="not found"):
        world.source.restore("nothing")


# History and health


def test_sweeps_are_told_newest_first_with_what_they_counted(world: World) -> None:
    world.create("live", a=10)
    world.sessions.sweep()
    world.sessions.sweep()
    newest, *_ = world.source.sweeps(5)
    assert (newest.state, newest.dry_run) == ("done", False)
    assert newest.result["counts"]["live"] == 1
    assert (newest.result["live_sessions"], newest.result["live_bytes"]) == (1, 10)
    assert [s.sweep_id for s in world.source.sweeps(2)] == [newest.sweep_id, newest.sweep_id - 1]


def test_events_are_told_newest_first_and_further_back_from_any_page(world: World) -> None:
    for number in range(7):
        world.create(str(number))
    events = world.source.events(3)
    assert [event.after for event in events] == ["active"] * 3
    older = world.source.events(3, events[-1].event_id)
    assert [event.event_id for event in events + older] == sorted(
        (event.event_id for event in events + older), reverse=True
    )
    assert len(world.source.events(5, older[-1].event_id)) == 1


def test_health_is_told_and_what_is_wrong_is_in_words(world: World) -> None:
    assert world.source.health().problems == []
    world.sessions.sweep()
    assert world.source.health().last_sweep_at is not None
    shutil.move(world.root, world.root.parent / "unmounted")
    health = world.source.health()
    assert health.root is not None
    assert "does not exist" in health.root
    assert replace(health, root=None).problems == []


def test_time_is_told_by_whom_the_ledger_believes(world: World) -> None:
    assert abs(world.source.now() - world.sessions.clock()) < 3_000_000
