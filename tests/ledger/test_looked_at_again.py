"""Between judging and removing, whoever uses the session wins: at every step, by every means."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger import Actor, NameTaken, SessionEnded, SessionError, life
from ledger.demo import SCENES
from tests.hostile.worlds import fork
from tests.ledger.world import World, around, content, findings

LOOK = "survey.examine"
STEP_1 = "states.move_all"
RENAME = "moves.set_aside"
SECOND_LOOK = "aside.newer_than"
BURIAL = "moves.bury"

# From the first look on to the last moment before the first unlink.
BETWEEN = [
    (LOOK, "after"),
    (STEP_1, "before"),
    (STEP_1, "after"),
    (RENAME, "before"),
    (RENAME, "after"),
    (SECOND_LOOK, "before"),
    (SECOND_LOOK, "after"),
    ("aside.SettingAside._end", "after"),
    ("upkeep.bury_and_remove", "before"),
    (BURIAL, "before"),
    (BURIAL, "after"),
]
# Step 1 has been committed, and no write transaction is open.
WHILE_REMOVING = [
    ("aside.SettingAside._begin", "after"),
    (RENAME, "before"),
    (RENAME, "after"),
    (SECOND_LOOK, "before"),
    (SECOND_LOOK, "after"),
]
between_any_two_steps = pytest.mark.parametrize(("hook", "when"), BETWEEN)
between_steps_1_and_3 = pytest.mark.parametrize(("hook", "when"), WHILE_REMOVING)


@contextmanager
def at(hook: str, when: str, act: Callable[[], object]) -> Iterator[None]:
    before, after = (act, None) if when == "before" else (None, act)
    with around(hook, before=before, after=after) as done:
        yield
    assert done, f"{hook} was never called"


# -- A program that works in the directory, wherever it is by now


@contextmanager
def inside(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def put(directory: int, name: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=directory)
    os.write(fd, b"written")
    os.close(fd)


def append(directory: int) -> None:
    fd = os.open("list.txt", os.O_WRONLY | os.O_APPEND, dir_fd=directory)
    os.write(fd, b"written")
    os.close(fd)


def in_another_process(directory: int) -> None:
    os.waitpid(fork(lambda: put(directory, "new")), 0)


PROGRAMS: dict[str, Callable[[int], object]] = {
    "a new file": lambda directory: put(directory, "new"),
    "a new file, deeper": lambda directory: put(directory, "deeper/new"),
    "into a file that is there": append,
    "a new directory": lambda directory: os.mkdir("new", dir_fd=directory),
    "takes a file out": lambda directory: os.unlink("deeper/note", dir_fd=directory),
    "dates a file": lambda directory: os.utime("photo.jpg", dir_fd=directory),
    "dates the directory": os.utime,
    "another process": in_another_process,
}


@between_any_two_steps
@pytest.mark.parametrize("program", ["a new file, deeper", "into a file that is there"])
def test_a_program_that_writes_between_any_two_steps_wins(
    world: World, stale: str, hook: str, when: str, program: str
) -> None:
    with inside(world.root / stale) as directory:
        with at(hook, when, lambda: PROGRAMS[program](directory)):
            done = world.sessions.sweep()
        assert os.path.samestat(os.stat(world.root / stale), os.fstat(directory))
    assert world.state(stale) == "active"
    assert (done.removed, done.waiting, done.failed) == (0, 0, 0)
    assert world.in_trash() == []
    written = (world.root / stale / "list.txt").read_bytes()
    assert b"written" in written or (world.root / stale / "deeper/new").exists()
    world.sessions.sweep()  # its times on the disk are healed into the ledger
    assert findings(world.sessions.report()) == {"live": 1}
    assert all(event.by and event.why for event in world.events(stale))


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("hook", [RENAME, SECOND_LOOK, BURIAL])
def test_whatever_a_program_does_in_the_directory_brings_it_back(
    world: World, stale: str, hook: str, program: str
) -> None:
    with (
        inside(world.root / stale) as directory,
        at(hook, "after", lambda: PROGRAMS[program](directory)),
    ):
        assert world.sessions.cleanup_stale_sessions(24) == 0
    assert world.state(stale) == "active"
    assert (world.root / stale / "photo.jpg").read_bytes() == b"a photo"


@between_any_two_steps
def test_a_program_that_writes_into_a_strangers_directory_wins_as_well(
    world: World, hook: str, when: str
) -> None:
    world.stray("stranger", age=30)
    if hook in ("upkeep.bury_and_remove", BURIAL):  # its ctimes disagree: not before it is due
        world.sessions.sweep()
        world.clock.passes(25)
        [entry] = world.in_trash()
        path = world.trash / entry
    else:
        path = world.root / "stranger"
    fresh = world.clock() * 1000
    with (
        inside(path) as directory,
        at(
            hook if hook != STEP_1 else "states.insert",
            when,
            lambda: os.utime("deeper/file", ns=(fresh, fresh), dir_fd=directory),
        ),
    ):
        done = world.sessions.sweep()
    if done.removed:  # it was too late to be seen at once; it waits, and is seen when it is due
        assert (hook, when) in [(SECOND_LOOK, "after"), ("aside.SettingAside._end", "after")]
        assert (done.waiting, world.state("stranger")) == (1, "expired")
        world.clock.passes(25)
        world.sessions.sweep()
    assert world.state("stranger") == "active"
    assert (world.root / "stranger/deeper/file").read_bytes() == b"another program's"


def test_what_is_written_while_it_waits_comes_back_when_it_would_be_due(world: World) -> None:
    world.stray("stranger", age=30)
    world.sessions.sweep()
    [entry] = world.in_trash()
    world.clock.passes(20)
    world.date(world.trash / entry / "deeper", 0)
    world.clock.passes(5)
    done = world.sessions.sweep()
    assert done.changed == 1
    assert world.state("stranger") == "active"
    assert findings(world.sessions.report()) == {"live": 1}
    assert world.path_of_life("stranger")[-1] == "active"


def test_a_directory_that_was_swapped_for_another_is_left_where_it_is(
    world: World, stale: str
) -> None:
    def swap() -> None:
        (world.root / stale).rename(world.folder / "first")
        world.stray(stale, age=50)

    with at(RENAME, "before", swap):
        done = world.sessions.sweep()
    assert (done.removed, done.changed) == (0, 1)
    assert (world.root / stale / "deeper/file").read_bytes() == b"another program's"
    assert (world.folder / "first/photo.jpg").read_bytes() == b"a photo"
    assert world.state(stale) == "active"


def test_a_directory_that_went_away_meanwhile_is_no_removal(world: World, stale: str) -> None:
    with at(RENAME, "before", lambda: (world.root / stale).rename(world.folder / "away")):
        done = world.sessions.sweep()
    assert (done.removed, done.changed, done.failed) == (0, 1, 0)
    assert (world.folder / "away/photo.jpg").exists()
    world.sessions.sweep()
    assert world.state(stale) == "missing"


# -- A user, between the sweep's steps 1 and 3


@between_steps_1_and_3
def test_a_touch_wins(world: World, stale: str, hook: str, when: str) -> None:
    touched = []
    with at(hook, when, lambda: touched.append(world.sessions.touch(stale))):
        done = world.sessions.sweep()
    assert touched[0].state == "active"
    assert (done.removed, done.changed, done.failed) == (0, 1, 0)
    assert world.known(stale).last_touch_at == round(touched[0].last_touch_at.timestamp() * 1e6)
    assert world.path_of_life(stale) == ["active", "removing", "active"]
    check_is_live_and_whole(world, stale)


def test_a_touch_finds_the_directory_that_is_put_back_while_it_looks(
    world: World, stale: str
) -> None:
    touched = []

    def put_back() -> None:
        [entry] = world.in_trash()
        (world.trash / entry).rename(world.root / stale)

    def touch() -> None:
        with at("life.stamp", "after", put_back):
            touched.append(world.sessions.touch(stale))

    with at(RENAME, "after", touch):
        assert world.sessions.sweep().removed == 0
    assert touched[0].state == "active"
    check_is_live_and_whole(world, stale)


def check_is_live_and_whole(world: World, stale: str) -> None:
    assert world.state(stale) == "active"
    assert (world.root / stale / "photo.jpg").read_bytes() == b"a photo"
    assert (world.root / stale / "deeper/note").read_bytes() == b"a note"
    assert world.in_trash() == []
    assert findings(world.sessions.report()) == {"live": 1}


def test_a_look_that_fails_since_a_delete_empties_the_directory_is_no_failure(
    world: World, stale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted_while_read(*_: object) -> bool:
        assert world.sessions.delete_session(stale)
        raise OSError(errno.ESTALE, "the tree was moved about while it was read")

    monkeypatch.setattr("ledger.aside.newer_than", deleted_while_read)
    done = world.sessions.sweep()
    assert (done.removed, done.changed, done.failures) == (0, 1, [])
    assert world.state(stale) == "deleted"


@between_steps_1_and_3
def test_a_delete_takes_it_over(world: World, stale: str, hook: str, when: str) -> None:
    answers = []
    with at(hook, when, lambda: answers.append(world.sessions.delete_session(stale))):
        done = world.sessions.sweep()
    assert answers == [True]
    assert (done.removed, done.changed, done.failed) == (0, 1, 0)
    row = world.known(stale)
    assert (row.state, row.ended_by) == ("deleted", "library")
    world.reopen()  # the remover has done its work
    assert world.in_trash() == []
    assert world.standing() == set()
    assert not world.sessions.delete_session(stale)
    assert world.sessions.report().settled


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delete_after_step_3_finds_a_session_that_has_ended(
    world: World, stale: str, when: str
) -> None:
    answers = []
    with at(BURIAL, when, lambda: answers.append(world.sessions.delete_session(stale))):
        world.sessions.sweep()
    assert answers == [False]
    assert world.state(stale) == "expired"
    world.reopen()
    assert world.in_trash() == []


@between_steps_1_and_3
def test_a_restore_wins(world: World, stale: str, hook: str, when: str) -> None:
    with at(hook, when, lambda: world.sessions.restore(stale)):
        done = world.sessions.sweep()
    assert (done.removed, done.changed, done.failed) == (0, 1, 0)
    check_is_live_and_whole(world, stale)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_restore_after_step_3_is_whole_or_refused(world: World, stale: str, when: str) -> None:
    said: list[object] = []

    def restore() -> None:
        try:
            said.append(world.sessions.restore(stale).state)
        except SessionError as error:
            said.append(str(error))

    with at(BURIAL, when, restore):
        world.sessions.sweep()
    if when == "before":
        assert said == ["active"]
        check_is_live_and_whole(world, stale)
    else:
        assert "its bytes are gone" in str(said[0])
        assert world.state(stale) == "expired"


class InAnotherThread:
    """Something that has to wait for the sweep; until it has begun, the sweep waits for it."""

    def __init__(self, world: World, session_id: str, act: Callable[[], object]) -> None:
        self._world, self._session_id, self._act = world, session_id, act
        self._thread = threading.Thread(target=self._run)
        self.came_of_it: object = None

    def _run(self) -> None:
        try:
            self.came_of_it = self._act()
        except Exception as error:
            self.came_of_it = error

    def begin(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + 30
        while self._world.state(self._session_id) == "removing":
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def end(self) -> object:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if isinstance(self.came_of_it, Exception):
            raise self.came_of_it
        return self.came_of_it


@between_steps_1_and_3
def test_a_claim_wins(world: World, stale: str, hook: str, when: str) -> None:
    claim = InAnotherThread(world, stale, lambda: world.sessions.claim(stale, into="spring"))
    with at(hook, when, claim.begin):
        done = world.sessions.sweep()
    claim.end()
    assert (done.removed, done.failed) == (0, 0)
    assert world.state(stale) == "claimed"
    assert (world.claims / "spring/deeper/note").read_bytes() == b"a note"
    assert world.standing() == set()
    assert world.sessions.report().settled


@between_steps_1_and_3
def test_an_upload_wins(world: World, stale: str, hook: str, when: str) -> None:
    def add() -> None:
        with world.sessions.upload(stale) as upload:
            upload.open_file("third")
            upload.write(b"third")
            upload.commit()

    upload = InAnotherThread(world, stale, add)
    with at(hook, when, upload.begin):
        done = world.sessions.sweep()
    upload.end()
    assert (done.removed, done.failed) == (0, 0)
    assert (world.root / stale / "third").read_bytes() == b"third"
    check_is_live_and_whole(world, stale)


@pytest.mark.parametrize("act", ["touch", "claim", "upload"])
def test_after_step_3_it_is_too_late_and_the_user_is_told(
    world: World, stale: str, act: str
) -> None:
    acts: dict[str, Callable[[], object]] = {
        "touch": lambda: world.sessions.touch(stale),
        "claim": lambda: world.sessions.claim(stale, into="spring"),
        "upload": lambda: world.sessions.upload(stale),
    }

    def late() -> None:
        with pytest.raises(SessionEnded, match="expired at"):
            acts[act]()

    with at("upkeep.bury_and_remove", "before", late):
        assert world.sessions.sweep().removed == 1
    assert world.standing() == set()


def test_a_touch_that_came_before_the_look_is_no_race_at_all(world: World, stale: str) -> None:
    with at("survey.Survey.suspects", "before", lambda: world.sessions.touch(stale)):
        done = world.sessions.sweep()
    assert (done.removed, done.changed) == (0, 0)
    check_is_live_and_whole(world, stale)


@pytest.mark.parametrize("hook", ["upkeep._is_used", "upkeep.queries.record_of"])
def test_a_touch_wins_against_the_finishing_of_a_sweep_that_crashed(
    world: World, hook: str
) -> None:
    """Even before it has dated the directory: its row is enough."""
    session_id = str(SCENES["sweep_half_done"].build(world.sessions).session_id)
    place = world.sessions.place

    def touch() -> None:
        life._touch_row(place, session_id, world.clock(), Actor.API)

    with at(hook, "after", touch):
        assert world.sessions.sweep().removed == 0
    world.sessions.sweep()
    assert world.state(session_id) == "active"
    assert (world.root / session_id / "photo.jpg").exists()
    assert world.in_trash() == []
    assert findings(world.sessions.report()) == {"live": 1}


# -- A name that is taken when the directory should go back


@pytest.mark.parametrize("how", ["written", "touched"])
def test_a_directory_whose_name_was_taken_waits_for_max_age_and_is_reported(
    world: World, stale: str, how: str
) -> None:
    whole = content(world.root / stale)

    def take() -> None:
        if how == "touched":
            world.sessions.touch(stale)
        else:
            [entry] = world.in_trash()
            os.utime(world.trash / entry)
        world.stray(stale, age=1)

    with at(RENAME, "after", take):
        done = world.sessions.sweep()
    assert (done.removed, done.failed) == (0, 1)
    assert "its name is taken" in done.failures[0]
    report = world.sessions.report()
    assert report.settled or world.sessions.sweep().failed == 0
    assert findings(world.sessions.report()) == {"live": 1, "waiting": 1}
    assert (world.root / stale / "deeper/file").read_bytes() == b"another program's"
    with pytest.raises(NameTaken, match="Move it away first"):
        world.sessions.restore(stale)
    world.clock.passes(20)
    world.sessions.sweep()
    (world.root / stale).rename(world.folder / "away")
    world.sessions.sweep()
    assert world.state(stale) == "missing"
    world.sessions.restore(stale)
    assert content(world.root / stale) == whole
    assert findings(world.sessions.report()) == {"live": 1}


def test_when_it_would_be_due_and_its_name_is_taken_it_waits_on(world: World) -> None:
    world.stray("stranger", age=30)
    world.sessions.sweep()
    [entry] = world.in_trash()
    world.clock.passes(25)
    world.date(world.trash / entry, 0)
    world.stray("stranger", age=0)
    done = world.sessions.sweep()
    assert (done.removed, done.failed) == (0, 1)
    assert findings(world.sessions.report()) == {"live": 1, "waiting": 1}
    world.clock.passes(23)
    world.sessions.sweep()
    assert len(world.in_trash()) == 1
    world.clock.passes(2)
    world.sessions.sweep()
    assert world.in_trash() == []
