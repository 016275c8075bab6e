"""Every operation killed behind each of its steps: nothing is lost, and nothing stays half done."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import Finding, SessionLedger
from ledger.demo import SCENES
from tests.everyday import params
from tests.ledger.afterwards import AFTER, where
from tests.ledger.world import World, around, findings, found


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
    assert at > 2, "the operation has no steps"


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


def test_a_delete_killed_anywhere_is_finished(world: World) -> None:
    """From its first step on it is asked for: the client may have had its answer."""
    for session_id in died_everywhere(world, world.create, lambda s, n: s.delete_session(n)):
        settled(world)
        assert world.state(session_id) == "deleted"
        assert session_id not in world.standing()
        assert world.in_trash() == []
        assert not world.sessions.delete_session(session_id)


@pytest.mark.slow
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


@pytest.mark.parametrize("undo", params({0}, [0, 2]))
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.torture)])
def test_a_finishing_that_is_killed_anywhere_is_finished_in_the_end(
    world: World, every: int
) -> None:
    """Each scene of a crash, and the sweep that finishes it crashes as well."""
    for number, (name, scene) in enumerate(SCENES.items()):
        if scene.finding is not Finding.UNFINISHED:
            continue
        for at in range(1 + number % every, 100, every):
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


def test_the_hook_is_called_where_it_is_told_to(world: World) -> None:
    """These tests would prove nothing if their hooks did not hold."""
    session_id = world.create(age=30)
    seen: list[bool] = []

    def look() -> None:
        seen.append(session_id in world.standing())

    with around("moves.set_aside", before=look, after=look) as done:
        world.sessions.sweep()
    assert (seen, done) == ([True, False], ["set_aside"])
