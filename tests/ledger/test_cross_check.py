"""Each row of the cross-check's table, set up for real: what is found, done, and left behind."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ledger import Finding, Report, SessionLedger
from ledger.demo import SCENES, Scene
from ledger.props import without_roots_rights
from tests.hostile.worlds import bind, enter_own_mounts, in_child, needs_root
from tests.ledger.world import World, around, content, entry_of, findings, found

MINUTE_US = 60_000_000
ROOT, TRASH, CLAIMS, GONE = "root", "trash", "claims", "gone"


@dataclass(frozen=True)
class After:
    """What a sweep leaves of a scene: the row's state, where its directory is, the next report."""

    state: str | None
    where: str
    report: dict[str, int] = field(default_factory=dict)
    life: tuple[str, ...] = ()
    removed: int = 0


LIVE, WAITING, FOREIGN = {"live": 1}, {"waiting": 1}, {"foreign": 1}

AFTER = {
    "live": After("active", ROOT, LIVE, ("active",)),
    "drifted": After("active", ROOT, LIVE, ("active",)),
    "ahead": After("active", ROOT, LIVE, ("active",)),
    "stale": After("expired", GONE, {}, ("active", "removing", "expired"), removed=1),
    "moved_in": After("expired", TRASH, WAITING, ("active", "removing", "expired"), removed=1),
    "missing": After("missing", GONE, {}, ("active", "missing")),
    "unrecorded": After("active", ROOT, LIVE, ("active",)),
    "forgotten": After("expired", TRASH, WAITING, ("removing", "expired"), removed=1),
    "revived": After("active", ROOT, LIVE, ("active", "missing", "active")),
    "revived_old": After(
        "expired", TRASH, WAITING, ("active", "missing", "removing", "expired"), removed=1
    ),
    "delete_begun": After("deleted", GONE, {}, ("active", "removing", "deleted"), removed=1),
    "delete_half_done": After("deleted", GONE, {}, ("active", "removing", "deleted")),
    "deleted_bytes_left": After("deleted", GONE, {}, ("active", "removing", "deleted")),
    "delete_lost": After("deleted", GONE, {}, ("active", "removing", "deleted"), removed=1),
    # Finished means active again; then the same sweep judges it as any other.
    "sweep_begun": After(
        "expired", GONE, {}, ("active", "removing", "active", "removing", "expired"), removed=1
    ),
    "sweep_half_done": After("expired", GONE, {}, ("active", "removing", "expired")),
    "due": After("expired", GONE, {}, ("active", "removing", "expired")),
    "sweep_lost": After("expired", GONE, {}, ("active", "removing", "expired"), removed=1),
    "claim_begun": After("active", ROOT, LIVE, ("active", "claiming", "active")),
    "claim_half_done": After("claimed", CLAIMS, {}, ("active", "claiming", "claimed")),
    "dead": After(None, GONE),
    "leftover": After(None, GONE),
    "waiting": After("expired", TRASH, WAITING, ("active", "removing", "expired")),
    "in_use": After("active", ROOT, {"in_use": 1}, ("active",)),
    "unreadable": After(None, ROOT, {"unreadable": 1}),
    "file": After(None, ROOT, FOREIGN),
    "link": After(None, ROOT, FOREIGN),
    "pipe": After(None, ROOT, FOREIGN),
    "socket": After(None, ROOT, FOREIGN),
    "name": After(None, ROOT, FOREIGN),
}

each_scene = pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)


@contextmanager
def staged(world: World, scene: Scene) -> Iterator[tuple[str | None, str]]:
    stands = scene.build(world.sessions)
    try:
        yield stands.session_id, stands.path
    finally:
        stands.release()


def where(world: World, session_id: str | None, path: str) -> str:
    """The one place where the session's directory is."""
    places = set()
    if os.path.lexists(world.root / (session_id or "")) and session_id:
        places.add(ROOT)
    if session_id and any(name.endswith(f"-{session_id}") for name in world.in_trash()):
        places.add(TRASH)
    row = world.row(session_id) if session_id else None
    if row and row.destination and os.path.lexists(world.claims / row.destination):
        places.add(CLAIMS)
    if session_id is None and os.path.lexists(path):
        places.add(path)
    assert len(places) < 2
    return places.pop() if places else GONE


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
    world: World, scene: Scene
) -> None:
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


# -- What is not ours


@pytest.mark.parametrize(
    "name",
    ["-dash", ".hidden", "two words", "é", "x" * 129, "new\nline", "per%cent", "a~", "..."],
)
def test_a_directory_whose_name_is_no_session_id_is_never_touched(world: World, name: str) -> None:
    world.stray(name, age=30)
    before = content(world.root / name)
    assert findings(world.sessions.report()) == FOREIGN
    assert world.sessions.sweep().removed == 0
    assert content(world.root / name) == before


def test_a_name_that_is_not_utf_8_is_reported_and_stays(world: World) -> None:
    name = os.fsdecode(b"caf\xe9")
    world.stray(name, age=30)
    report = world.sessions.report()
    assert report.as_json()["findings"][0]["path"].endswith(r"caf\xe9")
    world.sessions.sweep()
    assert name in world.standing()


@pytest.mark.parametrize("name", ["a", "A9_-.x", "_x", "0", "x" * 128])
def test_a_directory_that_can_be_a_session_is_one(world: World, name: str) -> None:
    world.stray(name, age=1)
    world.sessions.sweep()
    assert world.state(name) == "active"


def put_a_file(path: Path) -> None:
    path.write_bytes(b"not coatcheck's")


def put_a_link(path: Path) -> None:
    (path.parent.parent / "elsewhere").mkdir(exist_ok=True)
    (path.parent.parent / "elsewhere/kept").write_bytes(b"kept")
    path.symlink_to("../elsewhere")


def put_a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as unheard:
            unheard.bind(path.name)
    finally:
        os.chdir(here)


OTHERS: dict[str, Callable[[Path], object]] = {
    "a file": put_a_file,
    "a symbolic link": put_a_link,
    "a pipe": os.mkfifo,
    "a socket": put_a_socket,
}
each_other = pytest.mark.parametrize("what", OTHERS)


@each_other
def test_what_took_a_sessions_place_is_never_touched(world: World, what: str) -> None:
    """Not by a sweep, and not by the session's own DELETE."""
    session_id = world.create(age=30)
    path = world.root / session_id
    path.rename(world.folder / "moved away")
    OTHERS[what](path)
    before = path.lstat()
    report = world.sessions.report()
    assert findings(report) == FOREIGN
    assert entry_of(report, session_id).why == f"{what}, which is never touched"
    assert world.sessions.sweep().removed == 0
    assert world.sessions.delete_session(session_id)
    world.sessions.sweep()
    assert os.path.samestat(path.lstat(), before)
    assert world.in_trash() == []
    assert (world.folder / "moved away/photo.jpg").read_bytes() == b"a photo"
    assert world.state(session_id) == "deleted"
    assert world.sessions.report().settled


@each_other
def test_delete_of_something_that_is_no_directory_finds_nothing(world: World, what: str) -> None:
    OTHERS[what](world.root / "thing")
    assert not world.sessions.delete_session("thing")
    assert world.row("thing") is None
    assert world.standing() == {"thing"}


@each_other
def test_an_interrupted_removal_whose_place_was_taken_ends(world: World, what: str) -> None:
    for name in ("delete_begun", "delete_half_done", "sweep_begun", "sweep_half_done"):
        session_id, path, _ = SCENES[name].build(world.sessions)
        if os.path.lexists(path):
            os.rename(path, world.folder / f"moved-{session_id}")
        OTHERS[what](Path(path))
        world.sessions.sweep()
        assert os.path.lexists(path)
        assert world.in_trash() == []
        assert world.state(str(session_id)) in ("deleted", "expired", "missing", "active")
        assert findings(world.sessions.report()).keys() == {"foreign"}


@needs_root
def test_a_device_is_never_touched(world: World) -> None:
    os.mknod(world.root / "null", 0o20666, os.makedev(1, 3))
    assert findings(world.sessions.report()) == FOREIGN
    world.sessions.sweep()
    assert world.standing() == {"null"}


@needs_root
@pytest.mark.may_skip  # a container may not let it mount
def test_a_mount_in_the_root_is_foreign_and_one_inside_a_session_keeps_it(world: World) -> None:
    session_id = world.create(age=30)
    (world.root / session_id / "inside").mkdir()
    world.date(world.root / session_id, 30)
    world.stray("mounted", age=30)
    outside = world.folder / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    world.date(outside, 30)

    def sweep() -> tuple[dict[str, int], int, list[str]]:
        enter_own_mounts()
        bind(outside, world.root / "mounted")
        bind(outside, world.root / session_id / "inside")
        sessions = world.open()
        report = sessions.report()
        done = sessions.sweep()
        why = sorted(entry.why for entry in report.entries)
        return findings(report), done.removed, why

    told, removed, why = in_child(sweep)
    assert told == {"foreign": 1, "unreadable": 1}
    assert removed == 0
    assert why == [
        "a mounted file system, which is never touched",
        "cannot be read: a file system is mounted inside it",
    ]
    assert (outside / "kept").read_bytes() == b"kept"
    assert world.standing() == {"mounted", session_id}


# -- What cannot be read


@pytest.mark.parametrize("where", [".", "deeper"])
def test_what_cannot_be_read_is_kept_and_the_rest_goes_on(world: World, where: str) -> None:
    session_id = world.stray("shut", age=30)
    other = world.create(age=30)
    (world.root / session_id / where).chmod(0)
    try:
        with without_roots_rights():
            report = world.sessions.report()
            done = world.sessions.sweep()
    finally:
        (world.root / session_id / where).chmod(0o700)
    assert findings(report) == {"unreadable": 1, "stale": 1}
    assert "Permission denied" in entry_of(report, session_id).why
    assert not report.settled
    assert done.removed == 1
    assert world.standing() == {session_id}
    assert world.state(other) == "expired"


def test_a_tree_whose_files_cannot_be_read_still_tells_its_age(world: World) -> None:
    session_id = world.create(age=30)
    (world.root / session_id / "photo.jpg").chmod(0)
    with without_roots_rights():
        assert world.sessions.sweep().removed == 1
    assert world.in_trash() == []


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


# -- Killed between any two steps


def died_everywhere(
    world: World, begin: Callable[[], str], act: Callable[[SessionLedger, str], object]
) -> Iterator[str]:
    """A new session for each step at which the operation on it was killed; then a sweep."""
    at = 0
    killed = True
    while killed:
        at += 1
        session_id = begin()
        killed = world.dies(lambda sessions, name=session_id: act(sessions, name), at)  # type: ignore[misc]
        yield session_id
    assert at > 3, "the operation has no steps"


def settled(world: World) -> dict[str, int]:
    """Sweeps; nothing is unfinished afterwards."""
    done = world.sessions.sweep()
    assert done.failed == 0
    report = world.sessions.report()
    assert report.settled
    return findings(report)


WHOLE = {"photo.jpg": b"a photo", "list.txt": b"a list"}


def is_whole(path: Path) -> bool:
    return {file.name: file.read_bytes() for file in path.iterdir()} == WHOLE


def test_a_claim_killed_anywhere_is_whole_on_one_side(world: World) -> None:
    def claim(sessions: SessionLedger, session_id: str) -> None:
        sessions.claim(session_id, into=world.claims / "c" / session_id)

    ends = set()
    for session_id in died_everywhere(world, world.create, claim):
        settled(world)
        state = world.state(session_id)
        claimed = world.claims / "c" / session_id
        assert is_whole(claimed if state == "claimed" else world.root / session_id)
        assert claimed.exists() is (state == "claimed")
        assert (session_id in world.standing()) is (state == "active")
        ends.add(state)
        # Whatever came of it, asking again ends it.
        again = world.sessions.claim(session_id, into=world.claims / "c" / session_id)
        assert (again.state, is_whole(claimed)) == ("claimed", True)
    assert ends == {"active", "claimed"}


def test_a_delete_killed_anywhere_happens_whole_or_not_at_all(world: World) -> None:
    ends = set()
    for session_id in died_everywhere(world, world.create, lambda s, n: s.delete_session(n)):
        settled(world)
        state = world.state(session_id)
        ends.add(state)
        assert world.in_trash() == []
        if state == "active":
            assert is_whole(world.root / session_id)
        else:
            assert session_id not in world.standing()
        assert world.sessions.delete_session(session_id) is (state == "active")
    assert ends == {"active", "deleted"}


@pytest.mark.parametrize("by_user", [True, False])
def test_a_delete_killed_anywhere_can_be_asked_again_at_once(world: World, by_user: bool) -> None:
    for session_id in died_everywhere(world, world.create, lambda s, n: s.delete_session(n)):
        if by_user:
            world.sessions.delete_session(session_id)
        else:
            with pytest.MonkeyPatch.context() as patch:  # a sweep, before any request
                patch.setattr(world.sessions._remover, "add", lambda entry: None)
                world.sessions.sweep()
                world.sessions.delete_session(session_id)
        settled(world)
        assert world.state(session_id) == "deleted"
        assert world.in_trash() == []
        assert session_id not in world.standing()


@pytest.mark.parametrize("undo", [0, 2])
def test_a_sweep_killed_anywhere_is_finished_by_the_next(world: World, undo: int) -> None:
    world.reopen(undo_hours=undo)
    live = world.create(age=1)

    def begin() -> str:
        return world.create(age=30)

    for session_id in died_everywhere(world, begin, lambda s, _: s.sweep()):
        settled(world)
        assert world.state(session_id) == "expired"
        assert session_id not in world.standing()
        waiting = [name for name in world.in_trash() if name.endswith(session_id)]
        assert len(waiting) == (1 if undo else 0)
        if undo:
            assert is_whole(world.trash / waiting[0])
        assert world.state(live) == "active"
        assert is_whole(world.root / live)


def test_a_sweep_of_a_stranger_killed_anywhere_loses_nothing(world: World) -> None:
    numbers = iter(range(100))

    def begin() -> str:
        return world.stray(f"stray-{next(numbers)}", age=30)

    for name in died_everywhere(world, begin, lambda s, _: s.sweep()):
        settled(world)
        assert world.state(name) == "expired"
        world.sessions.restore(name)
        assert (world.root / name / "deeper/file").read_bytes() == b"another program's"
        assert world.sessions.delete_session(name)
        world.reopen()


def test_a_restore_killed_anywhere_leaves_it_whole(world: World) -> None:
    ends = set()
    world.reopen(undo_hours=2)

    def begin() -> str:
        session_id = world.create(age=30)
        world.sessions.sweep()
        return session_id

    for session_id in died_everywhere(world, begin, lambda s, n: s.restore(n)):
        settled(world)
        state = world.state(session_id)
        ends.add(state)
        if state == "expired":
            world.sessions.restore(session_id)
        assert world.state(session_id) == "active"
        assert is_whole(world.root / session_id)
        world.sessions.delete_session(session_id)
        world.reopen()
    assert ends == {"active", "expired"}


def test_a_create_killed_anywhere_leaves_a_session_or_nothing(world: World) -> None:
    def create(sessions: SessionLedger, _: str) -> None:
        with sessions.upload(None) as upload:
            for name, its_bytes in WHOLE.items():
                upload.open_file(name)
                upload.write(its_bytes)
            upload.commit("order 17")

    before: set[str] = set()
    for _ in died_everywhere(world, str, create):
        settled(world)
        for name in world.standing() - before:
            assert is_whole(world.root / name)
            assert world.state(name) == "active"
            before.add(name)
    world.clock.passes(2)
    settled(world)
    assert os.listdir(world.incoming) == []
    assert world.in_trash() == []


def test_an_upload_killed_anywhere_loses_nothing_that_was_there(world: World) -> None:
    def add(sessions: SessionLedger, session_id: str) -> None:
        with sessions.upload(session_id) as upload:
            upload.open_file("third")
            upload.write(b"third")
            upload.open_file("list.txt", replace=True)
            upload.write(b"a longer list")
            upload.commit()

    for session_id in died_everywhere(world, world.create, add):
        settled(world)
        path = world.root / session_id
        assert world.state(session_id) == "active"
        assert (path / "photo.jpg").read_bytes() == b"a photo"
        assert (path / "list.txt").read_bytes() in (b"a list", b"a longer list")
        assert not (path / "third").exists() or (path / "third").read_bytes() == b"third"


def test_a_touch_killed_anywhere_is_a_touch_or_none(world: World) -> None:
    def begin() -> str:
        return world.create(age=2)

    for session_id in died_everywhere(world, begin, lambda s, n: s.touch(n)):
        settled(world)
        assert world.state(session_id) == "active"
        assert is_whole(world.root / session_id)


def test_a_touch_between_a_killed_sweep_and_the_next_brings_the_session_back(
    world: World,
) -> None:
    """The sweep died after its rename: the directory lies in the trash, the user is still there."""
    world.reopen(undo_hours=2)

    def begin() -> str:
        return world.create(age=30)

    for session_id in died_everywhere(world, begin, lambda s, _: s.sweep()):
        if world.state(session_id) == "expired":
            continue  # it was done: the touch is told so
        world.sessions.touch(session_id)
        settled(world)
        assert world.state(session_id) == "active"
        assert is_whole(world.root / session_id)
        assert found(world.sessions, session_id) is Finding.LIVE


def test_a_finishing_that_is_killed_anywhere_is_finished_in_the_end(world: World) -> None:
    """Each scene of a crash, and the sweep that finishes it crashes as well."""
    for name, scene in SCENES.items():
        if scene.finding is not Finding.UNFINISHED:
            continue
        for at in range(1, 100):
            stands = scene.build(world.sessions)
            killed = world.dies(lambda sessions: sessions.sweep(), at)
            settled(world)
            after = AFTER[name]
            assert where(world, stands.session_id, stands.path) == after.where
            if stands.session_id:
                assert world.state(stands.session_id) == after.state
                world.sessions.delete_session(stands.session_id)
                world.sessions.sweep()
            if not killed:
                break
        assert at > 3


def test_the_hook_is_called_where_it_is_told_to(world: World) -> None:
    """These tests would prove nothing if their hooks did not hold."""
    session_id = world.create(age=30)
    seen: list[bool] = []

    def look() -> None:
        seen.append(session_id in world.standing())

    with around("moves.set_aside", before=look, after=look) as done:
        world.sessions.sweep()
    assert (seen, done) == ([True, False], ["set_aside"])
