"""Each row of the cross-check's table, set up for real: what is found, done, and left behind."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ledger import Finding, Report
from ledger.demo import SCENES, Scene
from tests.ledger.afterwards import AFTER, TRASH, After, where
from tests.ledger.world import World, around, content, entry_of, findings, found

MINUTE_US = 60_000_000

each_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)


@contextmanager
def staged(world: World, scene: Scene) -> Iterator[tuple[str | None, str]]:
    stands = scene.build(world.sessions)
    try:
        yield stands.session_id, stands.path
    finally:
        stands.release()


def everything(world: World) -> object:
    """The whole disk and every session's row."""
    rows = [world.row(name) for name in sorted(world.standing())]
    return content(world.root), rows, len(world.all_events())


def check(world: World, after: After, session_id: str | None, path: str, report: Report) -> None:
    assert where(world, session_id, path) == after.where
    assert findings(report) == after.report
    if session_id:
        assert world.state(session_id) == after.state
    if session_id and after.state:
        assert tuple(world.path_of_life(session_id)) == after.life
        assert all(event.by and event.why for event in world.events(session_id))


def test_every_scene_is_expected_to_end_somehow() -> None:
    assert AFTER.keys() == SCENES.keys()
    assert {scene.finding for scene in SCENES.values()} == {*Finding}


@each_scene
def test_a_report_tells_what_a_sweep_would_do_and_changes_nothing(
    world: World, scene: Scene
) -> None:
    with staged(world, scene) as (session_id, path):
        before = everything(world)
        report = world.sessions.report()
        assert findings(report) == {str(scene.finding): 1}
        if scene.finding is not Finding.LIVE:  # which is counted, and not listed
            entry = entry_of(report, session_id)
            assert (entry.finding, entry.action) == (scene.finding, scene.action)
            assert entry.path == path
            assert entry.why
        assert everything(world) == before


@each_scene
def test_a_sweep_does_what_the_table_says_and_then_all_is_settled(
    any_world: World, scene: Scene
) -> None:
    world = any_world
    after = AFTER[scene.name]
    with staged(world, scene) as (session_id, path):
        planned = world.sessions.report()
        done = world.sessions.sweep()
        again = world.sessions.report()
        check(world, after, session_id, path, again)
        assert again.settled is (scene.finding is not Finding.UNREADABLE)
        assert (done.removed, done.waiting) == (
            after.removed,
            after.removed * (after.where == TRASH),
        )
        assert (done.changed, done.failed, done.dry_run) == (0, 0, False)
        # What came back to life in this run is judged, and so listed, once more.
        assert {entry.path for entry in done.entries} == {entry.path for entry in planned.entries}
        # A second sweep finds nothing to do.
        before = everything(world)
        second = world.sessions.sweep()
        assert (second.removed, second.changed, second.failed) == (0, 0, 0)
        assert everything(world) == before


@each_scene
def test_a_report_that_is_carried_out_does_the_same(world: World, scene: Scene) -> None:
    after = AFTER[scene.name]
    with staged(world, scene) as (session_id, path):
        done = world.sessions.sweep(world.sessions.report())
        if scene.name == "sweep_begun":  # nothing but what was listed: it is judged next time
            assert world.state(str(session_id)) == "active"
            done = world.sessions.sweep(world.sessions.report())
        check(world, after, session_id, path, world.sessions.report())
        assert (done.removed, done.changed, done.failed) == (after.removed, 0, 0)


@each_scene
def test_one_session_is_judged_as_the_report_judges_it(world: World, scene: Scene) -> None:
    with staged(world, scene) as (session_id, path):
        report = world.sessions.report()
        if session_id is None or Path(path).parent == world.trash:
            return  # those are no sessions any more
        evidence, verdict = world.sessions.judge(session_id)
        assert evidence.session_id == session_id
        assert verdict is not None
        assert (verdict.finding, verdict.action) == (scene.finding, scene.action)
        if report.entries:
            entry = entry_of(report, session_id)
            assert (verdict.activity, verdict.action) == (entry.last_activity, entry.action)


def test_all_scenes_at_once_keep_out_of_each_others_way(world: World) -> None:
    stands = {name: scene.build(world.sessions) for name, scene in SCENES.items()}
    try:
        report = world.sessions.report()
        assert sum(report.counts.values()) == len(SCENES)
        for scene in SCENES.values():
            same = [s for s in SCENES.values() if s.finding is scene.finding]
            assert report.counts[scene.finding] == len(same)
        done = world.sessions.sweep()
        assert done.removed == sum(after.removed for after in AFTER.values())
        assert (done.changed, done.failed) == (0, 0)
        again = world.sessions.report()
        for name, after in AFTER.items():
            session_id, path, _ = stands[name]
            assert where(world, session_id, path) == after.where
            if session_id:
                assert world.state(session_id) == after.state
        expected = [finding for after in AFTER.values() for finding in after.report]
        assert findings(again) == {name: expected.count(name) for name in set(expected)}
    finally:
        for stand in stands.values():
            stand.release()


# -- What waits


@pytest.mark.parametrize("name", [name for name, after in AFTER.items() if after.where == TRASH])
def test_what_waits_is_removed_when_it_is_due(world: World, name: str) -> None:
    with staged(world, SCENES[name]) as (session_id, _):
        world.sessions.sweep()
        world.clock.passes(11)
        world.sessions.sweep()
        assert [entry.endswith(str(session_id)) for entry in world.in_trash()] == [True]
        world.clock.passes(14)
        assert findings(world.sessions.report()) == {"unfinished": 1}
        done = world.sessions.sweep()
        assert world.in_trash() == []
        assert (done.removed, done.failed) == (0, 0)
        assert world.sessions.report().settled


def test_undo_keeps_every_swept_session_for_its_hours(world: World) -> None:
    world.reopen(undo_hours=2)
    session_id = world.create(age=30)
    done = world.sessions.sweep()
    assert (done.removed, done.waiting) == (1, 1)
    assert world.state(session_id) == "expired"
    world.clock.passes(1.9)
    world.sessions.sweep()
    assert len(world.in_trash()) == 1
    world.clock.passes(0.2)
    world.sessions.sweep()
    assert world.in_trash() == []


# -- Incoming


def test_a_leftover_in_incoming_goes_when_it_is_an_hour_old_and_nobody_is_at_it(
    world: World,
) -> None:
    for name, age in [("young", 0.9), ("old", 1.1), ("locked", 1.1), ("written", 1.1)]:
        (world.incoming / name).mkdir()
        (world.incoming / name / "part").write_bytes(b"bytes")
        world.date(world.incoming / name, age)
    os.utime(world.incoming / "written/part")
    with locked(world.incoming / "locked"):
        assert findings(world.sessions.report()) == {"unfinished": 1}
        world.sessions.sweep()
        assert sorted(os.listdir(world.incoming)) == ["locked", "written", "young"]
        assert world.sessions.report().settled
    world.sessions.sweep()
    assert sorted(os.listdir(world.incoming)) == ["written", "young"]


def test_an_upload_of_two_hours_keeps_its_bytes_in_incoming(world: World) -> None:
    with world.sessions.upload(None) as upload:
        upload.open_file("video")
        upload.write(b"first")
        world.clock.passes(2)
        world.sessions.sweep()
        upload.write(b" and last")
        record, _ = upload.commit()
    assert (world.root / record.session_id / "video").read_bytes() == b"first and last"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    import fcntl

    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(fd)


# -- In use


@pytest.mark.parametrize("recorded", [True, False])
def test_a_directory_that_a_program_locks_is_left_alone(world: World, recorded: bool) -> None:
    session_id = world.create(age=30) if recorded else world.stray(age=30)
    with locked(world.root / session_id):
        assert findings(world.sessions.report()) == {"in_use": 1}
        assert world.sessions.sweep().removed == 0
        assert session_id in world.standing()
        assert world.sessions.report().settled
    assert found(world.sessions, session_id) in (Finding.STALE, Finding.UNRECORDED)
    assert world.sessions.sweep().removed == 1


def test_what_is_locked_after_it_was_judged_is_kept_all_the_same(world: World) -> None:
    world.stray(age=30)
    world.sessions.sweep()
    [entry] = world.in_trash()
    world.clock.passes(25)
    with ExitStack() as held:

        def lock() -> None:
            held.enter_context(locked(world.trash / entry))

        with around("survey.judge_trash", after=lock):
            world.sessions.sweep()
        assert world.in_trash() == [entry]
    world.sessions.sweep()
    assert world.in_trash() == []


def test_what_is_locked_in_the_trash_is_kept_when_it_is_due(world: World) -> None:
    session_id = world.stray(age=30)
    world.sessions.sweep()
    [entry] = world.in_trash()
    world.clock.passes(25)
    with locked(world.trash / entry):
        assert findings(world.sessions.report()) == {"in_use": 1}
        world.sessions.sweep()
        assert world.in_trash() == [entry]
    world.sessions.sweep()
    assert world.in_trash() == []
    assert world.state(session_id) == "expired"


# -- Ended, and its directory stands again


@pytest.mark.parametrize("end", ["delete", "expire", "claim", "lose"])
@pytest.mark.parametrize("age", [1, 30])
def test_a_directory_that_stands_again_is_young_and_lives_or_old_and_waits(
    world: World, end: str, age: int
) -> None:
    session_id = world.create(age=30 if end == "expire" else 2)
    if end == "delete":
        world.sessions.delete_session(session_id)
    elif end == "claim":
        world.sessions.claim(session_id, into="spring")
    elif end == "lose":
        (world.root / session_id).rename(world.folder / "elsewhere")
    world.sessions.sweep()
    ended = world.state(session_id)
    assert ended in ("deleted", "expired", "claimed", "missing")
    world.stray(session_id, age=age)
    report = world.sessions.report()
    assert findings(report) == {"revived": 1}
    assert ended in entry_of(report, session_id).why or age == 30
    world.sessions.sweep()
    row = world.known(session_id)
    assert not row.touched  # the ledger never saw a touch of this one
    if age == 1:
        assert row.state == "active"
        assert abs(row.last_touch_at - world.hours_ago(1)) < MINUTE_US
        assert (row.files, row.bytes, row.ended_at) == (1, 17, None)
        assert row.destination is None
    else:
        assert row.state == "expired"
        assert len(world.in_trash()) == 1
        assert world.sessions.restore(session_id).state == "active"
    assert world.sessions.report().settled
    assert (world.root / session_id / "deeper/file").exists()
    if end == "claim":
        assert (world.claims / "spring/photo.jpg").read_bytes() == b"a photo"


@pytest.mark.parametrize("scene", ["delete_lost", "sweep_lost"])
def test_a_removal_that_a_power_cut_took_back_is_not_finished_on_what_was_used_since(
    world: World, scene: str
) -> None:
    with staged(world, SCENES[scene]) as (session_id, path):
        Path(path, "photo.jpg").write_bytes(b"written after its end")
        assert findings(world.sessions.report()) == {"revived": 1}
        world.sessions.sweep()
        assert world.state(str(session_id)) == "active"
        assert Path(path, "photo.jpg").read_bytes() == b"written after its end"


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_a_ledger_of_many_pages_is_compared_to_its_last_row(
    any_world: World, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = any_world
    ages = (
        0.0,
        1.0,
        30.0,
        -40.0,
    )  # the last is touched in what is the future, when it is looked at
    ids = [world.create(age=age, files={"f": b"12345"}) for age in ages for _ in range(3)]
    at = world.hours_ago(1)
    for session_id in ids[3:6]:
        world.alter(session_id, last_touch_at=at)  # of one and the same touch
    for gone in ids[::3]:
        (world.root / gone).rename(world.folder / gone)
    monkeypatch.setattr("ledger.survey._ROWS_AT_ONCE", at_once)
    report = world.sessions.report()
    assert findings(report) == {"live": 4, "stale": 2, "drifted": 2, "missing": 4}
    assert report.bytes[Finding.LIVE] == 20


def test_two_that_list_the_root_at_once_both_see_all_of_it(world: World) -> None:
    ids = {world.create() for _ in range(50)}
    root = world.sessions.place.root
    with root.names() as entries:
        seen = {next(entries).name}
        assert root.all_names() == ids
        seen |= {entry.name for entry in entries}
    assert seen == ids
