"""What stops a sweep before its first removal: root identity, brake, clock, and the lock."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import (
    CoatcheckError,
    Guard,
    RootMismatch,
    RootUnavailable,
    SessionLedger,
    Settings,
    SweepStopped,
    SweepUnderWay,
    UsageError,
    queries,
    system,
)
from tests.hostile.worlds import fork, in_child
from tests.ledger.world import Clock, World, around, content, findings


def everything(world: World) -> dict[str, object]:
    return {**content(world.root)}


def last_run(world: World) -> tuple[str, str | None]:
    place = world.sessions.place
    with place.database.read() as connection:
        run = queries.sweeps(connection, place.root_id, most=1)[0]
    return run.state, run.stopped_by


EVERY_SWEEP: dict[str, Callable[[SessionLedger], object]] = {
    "sweep": lambda sessions: sessions.sweep(),
    "cleanup": lambda sessions: sessions.cleanup_stale_sessions(24),
    "past the brake": lambda sessions: sessions.sweep(past_the_brake=True),
    "trusting the clock": lambda sessions: sessions.sweep(trust_clock=True),
    "by any age": lambda sessions: sessions.sweep(max_age_hours=0.001),
}
every_sweep = pytest.mark.parametrize("sweep", EVERY_SWEEP.values(), ids=EVERY_SWEEP)


# -- Root identity


@pytest.fixture
def full(world: World) -> World:
    """A root with a stale session, a stranger, and a session whose directory is gone."""
    world.create(age=30)
    world.stray("stranger", age=1)
    gone = world.create(age=1)
    (world.root / gone).rename(world.folder / "gone")
    return world


def no_id(world: World) -> None:
    (world.root / ".coatcheck/root-id").rename(world.folder / "root-id")


def another_id(world: World) -> None:
    (world.root / ".coatcheck/root-id").write_text("anotherrootsid\n")


def an_empty_id(world: World) -> None:
    (world.root / ".coatcheck/root-id").write_text("")


@every_sweep
@pytest.mark.parametrize("lose", [no_id, another_id, an_empty_id])
def test_a_root_without_the_ledgers_id_is_never_swept(
    full: World, lose: Callable[[World], None], sweep: Callable[[SessionLedger], object]
) -> None:
    lose(full)
    before = everything(full)
    with pytest.raises(RootMismatch, match="coatcheck adopt") as stopped:
        sweep(full.sessions)
    assert full.sessions.place.root_id in str(stopped.value)
    assert str(full.root) in str(stopped.value)
    with pytest.raises(RootMismatch):
        full.sessions.report()
    assert last_run(full) == ("stopped", "root")
    assert everything(full).keys() - before.keys() <= {".coatcheck/sweep.lock"}
    assert {row.state for row in full.sessions.page()} == {"active"}
    assert full.row("stranger") is None
    assert "Nothing is touched" in str(full.sessions.health().root)


@pytest.mark.parametrize("lose", [no_id, another_id, an_empty_id])
def test_a_root_without_the_ledgers_id_is_not_opened(
    full: World, lose: Callable[[World], None]
) -> None:
    root_id = full.sessions.place.root_id
    lose(full)
    full.sessions.close()
    before = everything(full)
    with pytest.raises(RootMismatch, match="do not belong together") as refused:
        full.open()
    assert root_id in str(refused.value)
    assert everything(full) == before
    full.sessions = full.open(adopt=True)
    assert full.sessions.place.root_id not in (root_id, "anotherrootsid")


@pytest.mark.sqlite
def test_the_wrong_root_is_not_opened_with_this_ledger(full: World, tmp_path: Path) -> None:
    """A path that was mistyped, or an empty directory below which a disk should be mounted."""
    full.sessions.close()
    for name, fill in [("pile", True), ("empty", False)]:
        root = tmp_path / name
        root.mkdir()
        if fill:
            (root / "somebody").mkdir()
        before = content(root)
        with pytest.raises(RootMismatch, match="coatcheck adopt"):
            SessionLedger.open(full.settings.model_copy(update={"root": root}), clock=full.clock)
        assert content(root) == before
    full.sessions = full.open()


def test_a_root_that_does_not_exist_though_the_ledger_knows_it_is_not_made(full: World) -> None:
    full.sessions.close()
    full.root.rename(full.folder / "unmounted")
    with pytest.raises(RootUnavailable, match="is its disk mounted"):
        full.open()
    assert not full.root.exists()
    (full.folder / "unmounted").rename(full.root)
    full.sessions = full.open()


@every_sweep
def test_a_root_that_was_unmounted_under_way_is_not_taken_for_an_empty_one(
    full: World, sweep: Callable[[SessionLedger], object]
) -> None:
    full.root.rename(full.folder / "unmounted")
    for back in (False, True):
        if back:
            full.root.mkdir()
        for act in (sweep, lambda s: s.report(), lambda s: s.create(), lambda s: s.touch("a")):
            with pytest.raises(RootUnavailable):
                act(full.sessions)
    assert {row.state for row in full.sessions.page()} == {"active"}
    assert os.listdir(full.root) == []


def test_a_root_that_goes_away_during_the_survey_ends_nothing(full: World) -> None:
    def unmount() -> None:
        full.root.rename(full.folder / "unmounted")
        full.root.mkdir()

    with around("survey.Survey._active", before=unmount), pytest.raises(RootUnavailable):
        full.sessions.sweep()
    assert "missing" not in {row.state for row in full.sessions.page()}


def test_a_pile_of_another_program_needs_consent(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "temp/somebody").mkdir(parents=True)
    settings = Settings(root=tmp_path / "temp")
    with pytest.raises(RootMismatch, match="COATCHECK_ADOPT=1") as refused:
        SessionLedger.open(settings, clock=clock)
    assert "bears no id" in str(refused.value)
    assert os.listdir(tmp_path / "temp") == ["somebody"]
    consenting = settings.model_copy(update={"adopt": True})
    with SessionLedger.open(consenting, clock=clock) as sessions:
        assert findings(sessions.report()) == {"unrecorded": 1}
    SessionLedger.open(settings, clock=clock).close()


def test_a_new_or_empty_root_with_a_new_ledger_is_initialised(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign/no session id").mkdir(parents=True)
    (tmp_path / "foreign/file").write_text("kept")
    for name in ("new/of/new", "empty", "foreign"):
        settings = Settings(root=tmp_path / name, ledger=f"sqlite:///{tmp_path}/{name[:3]}.db")
        with SessionLedger.open(settings, clock=clock) as sessions:
            on_disk = (tmp_path / name / ".coatcheck/root-id").read_text()
            assert on_disk == sessions.place.root_id + "\n"
            assert len(sessions.place.root_id) == 26
    assert (tmp_path / "foreign/file").read_text() == "kept"


def test_an_initialisation_that_was_interrupted_is_resumed(tmp_path: Path, clock: Clock) -> None:
    """The id goes to the disk first, then into the ledger."""
    settings = Settings(root=tmp_path / "temp")

    def killed() -> None:
        with around("moves.write_root_id", after=lambda: os._exit(9)):
            SessionLedger.open(settings, clock=clock)

    os.waitpid(fork(killed), 0)
    on_disk = (tmp_path / "temp/.coatcheck/root-id").read_text().strip()
    with SessionLedger.open(settings, clock=clock) as sessions:
        assert sessions.place.root_id == on_disk


@pytest.mark.sqlite
def test_a_new_ledger_takes_over_no_root_in_which_anything_is_left(world: World) -> None:
    world.stray("stranger", age=30)
    world.sessions.sweep()
    assert world.standing() == set()
    world.sessions.close()
    (world.folder / "ledger.db").unlink()
    with pytest.raises(RootMismatch, match="is new"):
        world.open()
    world.sessions = world.open(adopt=True)
    assert findings(world.sessions.report()) == {"waiting": 1}


@pytest.mark.sqlite
def test_after_an_adoption_no_former_ledger_sweeps_there(full: World) -> None:
    former = full.open()
    full.sessions.close()
    (full.folder / "ledger.db").rename(full.folder / "former.db")
    full.sessions = full.open(adopt=True)
    with pytest.raises(CoatcheckError):
        former.sweep()
    former.close()
    settings = full.settings.model_copy(update={"ledger": f"sqlite:///{full.folder}/former.db"})
    with pytest.raises(RootMismatch):
        SessionLedger.open(settings, clock=full.clock)


def test_an_adoption_keeps_what_the_ledger_knows(full: World) -> None:
    known = {row.id for row in full.sessions.page()}
    another_id(full)
    full.sessions.close()
    full.sessions = full.open(adopt=True)
    assert {row.id for row in full.sessions.page()} == known
    assert full.sessions.sweep().removed == 1


def test_ten_processes_open_a_new_root_at_once_and_agree_on_its_id(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path / "temp")
    (tmp_path / "ids").mkdir()

    def open_it() -> None:
        with SessionLedger.open(settings) as sessions:
            (tmp_path / "ids" / str(os.getpid())).write_text(sessions.place.root_id)

    for child in [fork(open_it) for _ in range(10)]:
        assert os.waitpid(child, 0)[1] == 0
    ids = [path.read_text() for path in (tmp_path / "ids").iterdir()]
    assert len(ids) == 10
    assert len(set(ids)) == 1


HOME = str(Path.home())


@pytest.mark.parametrize(
    "wrong",
    [
        {"root": "/"},
        {"root": HOME},
        {"root": str(Path(HOME).parent)},
        {"root": "data", "ledger": "sqlite:///data/ledger.db"},
        {"root": "data/temp", "ledger": "sqlite:///data/temp"},
        {"root": "data/temp/ledger.db", "ledger": "sqlite:///data/temp"},
        {"root": "data", "claims": "data/claims"},
        {"root": "data/claims", "claims": "data"},
        {"root": "data", "claims": "data"},
        {"root": "data/temp", "claims": "data/link/claims"},
        {"ledger": "sqlite:///data/claims/ledger.db", "claims": "data/claims"},
        {"root": os.fsdecode(b"data/caf\xe9")},
    ],
    ids=str,
)
def test_places_inside_one_another_are_refused(wrong: dict[str, str], tmp_path: Path) -> None:
    Path("data").mkdir()
    Path("data/link").symlink_to("temp")
    with pytest.raises(UsageError, match="COATCHECK_"):
        SessionLedger.open(Settings(**wrong))  # type: ignore[arg-type]
    assert not list(tmp_path.rglob(".coatcheck"))


@pytest.mark.parametrize("what", ["a file", "a link", "a dangling link"])
def test_a_root_that_is_no_directory_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    if what == "a file":
        (tmp_path / "temp").write_text("")
    else:
        (tmp_path / "temp").symlink_to("elsewhere" if what == "a link" else "nowhere")
    with pytest.raises(RootUnavailable, match="name the directory itself"):
        SessionLedger.open(Settings(root=tmp_path / "temp"))
    assert os.listdir(tmp_path / "elsewhere") == []


# -- The brake


def old(world: World, *ages: float) -> None:
    for age in ages:
        world.create(age=age)


def test_a_lowered_max_age_that_would_take_too_many_is_stopped(world: World) -> None:
    world.reopen(brake=2)
    old(world, 2, 2, 2)
    before = world.standing()
    for sweep in (
        lambda: world.sessions.cleanup_stale_sessions(1),
        lambda: world.sessions.sweep(max_age_hours=1),
        lambda: world.sessions.sweep(world.sessions.report(max_age_hours=1)),
    ):
        with pytest.raises(SweepStopped, match="3 sessions are stale by the max age of 1 h") as no:
            sweep()
        assert no.value.by is Guard.BRAKE
        assert "--past-the-brake" in str(no.value)
        assert last_run(world) == ("stopped", "brake")
    assert world.standing() == before
    assert world.in_trash() == []
    assert findings(world.sessions.report(max_age_hours=1)) == {"stale": 3}
    assert "The last sweep was stopped" in str(world.sessions.health().sweep)
    assert world.sessions.health().ready


def test_a_lowered_setting_is_a_lowered_max_age(world: World) -> None:
    old(world, 2, 2, 2)
    world.reopen(brake=2, max_age_hours=1)
    with pytest.raises(SweepStopped):
        world.sessions.sweep()


def test_the_brake_counts_no_more_than_it_allows(world: World) -> None:
    world.reopen(brake=3)
    old(world, 2, 2, 2)
    assert world.sessions.cleanup_stale_sessions(1) == 3


def test_an_honest_burst_never_trips_the_brake(world: World) -> None:
    world.reopen(brake=0)
    old(world, *[30] * 20)
    assert world.sessions.cleanup_stale_sessions(24) == 20


def test_what_is_stale_by_the_accepted_age_as_well_does_not_count(world: World) -> None:
    world.reopen(brake=1)
    old(world, 30, 30, 30, 2)
    assert world.sessions.cleanup_stale_sessions(1) == 4


def test_strangers_count_as_well(world: World) -> None:
    world.reopen(brake=1)
    for name in ("a", "b"):
        world.stray(name, age=2)
    with pytest.raises(SweepStopped, match="brake"):
        world.sessions.cleanup_stale_sessions(1)


def test_past_the_brake_once_the_age_is_accepted_for_good(world: World) -> None:
    world.reopen(brake=1)
    old(world, 2, 2, 2)
    assert world.sessions.sweep(max_age_hours=1, past_the_brake=True).removed == 3
    old(world, 2, 2, 2)
    assert world.sessions.cleanup_stale_sessions(1) == 3
    old(world, 0.6, 0.6)
    with pytest.raises(SweepStopped):
        world.sessions.cleanup_stale_sessions(0.5)


def test_past_the_brake_by_a_longer_age_accepts_nothing_lower(world: World) -> None:
    world.reopen(brake=1)
    world.sessions.sweep(max_age_hours=48, past_the_brake=True)
    old(world, 2, 2)
    with pytest.raises(SweepStopped):
        world.sessions.cleanup_stale_sessions(1)


def test_a_sweep_under_the_brake_accepts_nothing(world: World) -> None:
    world.reopen(brake=1)
    old(world, 2)
    assert world.sessions.cleanup_stale_sessions(1) == 1
    old(world, 2, 2)
    with pytest.raises(SweepStopped):
        world.sessions.cleanup_stale_sessions(1)


def test_adopting_accepts_the_settings_age(world: World) -> None:
    old(world, 2, 2)
    another_id(world)
    world.reopen(adopt=True, brake=0, max_age_hours=1)
    assert world.sessions.sweep().removed == 2


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), 1e-20, 1e20])
def test_a_max_age_that_cannot_be_is_refused(world: World, hours: float) -> None:
    session_id = world.create()
    for act in (
        lambda: world.sessions.cleanup_stale_sessions(hours),
        lambda: world.sessions.report(max_age_hours=hours),
        lambda: world.sessions.sweep(max_age_hours=hours),
    ):
        with pytest.raises(UsageError, match="max age"):
            act()
    assert world.standing() == {session_id}


# -- The clock


def stopped_by_the_clock(world: World) -> str:
    with pytest.raises(SweepStopped, match="clock") as stopped:
        world.sessions.sweep()
    assert stopped.value.by is Guard.CLOCK
    assert last_run(world) == ("stopped", "clock")
    return str(stopped.value)


@pytest.mark.parametrize("hours", [24 * 365 * 10, 0.1, -0.1, -24])
def test_a_clock_that_jumped_within_a_boot_is_distrusted(world: World, hours: float) -> None:
    session_id = world.create(age=1)
    world.clock.jumps(hours)
    assert "against the machine's uptime" in stopped_by_the_clock(world)
    assert world.standing() == {session_id}
    # It is stored: setting it back in silence, or another process, changes nothing.
    world.clock.jumps(-hours)
    world.reopen()
    assert "--trust-clock" in stopped_by_the_clock(world)
    assert "The clock is not trusted" in str(world.sessions.health().clock)
    assert world.sessions.report().counts  # a report only looks
    assert world.sessions.sweep(trust_clock=True).removed == 0
    assert world.sessions.sweep().removed == 0
    assert world.sessions.health().clock is None


@pytest.mark.parametrize("minutes", [4.9, -4.9])
def test_a_clock_that_was_set_by_less_than_five_minutes_is_trusted(
    world: World, minutes: float
) -> None:
    world.clock.jumps(minutes / 60)
    world.sessions.sweep()


@pytest.mark.parametrize("days", [1, 29, 400])
def test_time_that_passed_for_the_machine_as_well_is_no_jump(world: World, days: float) -> None:
    world.clock.passes(days * 24)
    world.sessions.sweep()


def reboot(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    was = system.boot_id()
    monkeypatch.setattr("ledger.system.boot_id", lambda: was + "-and-later")
    clock.slept = -clock.uptime()  # a new boot begins at nought


@pytest.mark.parametrize(
    ("hours", "why"),
    [
        (-0.01, "s behind where it was before the restart"),
        (-24, "behind where it was"),
        (24 * 31, "31 days have passed since coatcheck last ran"),
        (24 * 365 * 10, "days have passed"),
    ],
)
def test_a_clock_that_is_odd_across_boots_is_distrusted(
    world: World, monkeypatch: pytest.MonkeyPatch, hours: float, why: str
) -> None:
    session_id = world.create(age=1)
    world.sessions.sweep()
    reboot(monkeypatch, world.clock)
    world.clock.jumps(hours)
    world.reopen()
    assert why in stopped_by_the_clock(world)
    assert world.standing() == {session_id}


@pytest.mark.parametrize("hours", [0.001, 24, 24 * 29])
def test_a_machine_that_was_off_for_less_than_a_month_is_trusted(
    world: World, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    reboot(monkeypatch, world.clock)
    world.clock.jumps(hours)
    world.reopen()
    world.sessions.sweep()


def test_after_max_age_of_steady_running_the_clock_is_trusted_again(world: World) -> None:
    old(world, 1)
    world.clock.jumps(24 * 365)
    stopped_by_the_clock(world)
    world.clock.passes(23)
    stopped_by_the_clock(world)
    live = world.create(age=0)
    world.clock.passes(1.1)
    assert world.sessions.sweep().removed == 1
    assert world.standing() == {live}


def test_another_jump_or_another_boot_begins_the_steady_running_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.clock.jumps(24 * 365)
    stopped_by_the_clock(world)
    world.clock.passes(23)
    world.clock.jumps(1)
    stopped_by_the_clock(world)
    world.clock.passes(23)
    stopped_by_the_clock(world)
    reboot(monkeypatch, world.clock)
    world.reopen()
    world.clock.passes(23)
    stopped_by_the_clock(world)
    world.clock.passes(1.1)
    world.sessions.sweep()


def test_steady_for_a_short_max_age_is_not_steady_for_a_long_one(world: World) -> None:
    world.reopen(brake=0)
    live = world.create(age=0.5)
    world.clock.jumps(24 * 365)
    stopped_by_the_clock(world)
    world.clock.passes(0.2)
    with pytest.raises(SweepStopped, match="brake"):  # by its own max age, it may
        world.sessions.cleanup_stale_sessions(0.1) if world.create(age=0.15) else None
    stopped_by_the_clock(world)
    assert live in world.standing()


def test_times_in_the_future_make_nothing_immortal(world: World) -> None:
    """The clock was ten days ahead while they were made, and has been put right since."""
    world.clock.jumps(240)
    names = {world.create(), world.stray("stranger")}
    world.clock.jumps(-240)
    world.sessions.sweep(trust_clock=True)
    assert world.standing() == names
    world.clock.passes(23)
    world.sessions.sweep()
    assert world.standing() == names
    world.clock.passes(2)
    world.sessions.sweep()
    assert world.standing() == set()


# -- One sweeper


def test_while_one_process_sweeps_another_is_told_so(world: World) -> None:
    session_id = world.create(age=30)

    def sweep() -> str:
        with world.open() as sessions, pytest.raises(SweepUnderWay) as under_way:
            sessions.sweep()
        with world.open() as sessions:
            sessions.report()  # looking needs no lock
        return str(under_way.value)

    said: list[str] = []
    with around("moves.set_aside", before=lambda: said.append(in_child(sweep))):
        assert world.sessions.sweep().removed == 1
    assert said == ["Another sweep of this root is under way. Wait until it is done."]
    assert world.state(session_id) == "expired"
    assert world.sessions.sweep().removed == 0


def test_the_lock_of_a_killed_sweep_is_free_and_its_run_is_not_under_way(world: World) -> None:
    world.create(age=30)
    assert world.dies(lambda sessions: sessions.sweep(), 3)
    assert world.sessions.sweep().removed == 1
    with world.sessions.place.database.read() as connection:
        runs = queries.sweeps(connection, world.sessions.place.root_id)
    assert [run.state for run in runs] == ["done", "failed"]
    assert world.sessions.health().running is None


@pytest.mark.parametrize("what", ["a directory", "a link", "no room"])
def test_a_lock_that_cannot_be_had_means_no_removal(world: World, what: str) -> None:
    session_id = world.create(age=30)
    lock = world.root / ".coatcheck/sweep.lock"
    lock.unlink()
    if what == "a directory":
        lock.mkdir()
    elif what == "a link":
        lock.symlink_to(world.folder / "elsewhere")

    def fail(fd: int) -> bool:
        raise OSError(37, "No locks available")

    with pytest.MonkeyPatch.context() as patch:
        if what == "no room":
            patch.setattr(system, "lock_exclusive", fail)
        with pytest.raises(SweepStopped, match="cannot be had") as stopped:
            world.sessions.sweep()
    assert stopped.value.by is Guard.LOCK
    assert world.standing() == {session_id}
    assert not (world.folder / "elsewhere").exists()
