"""Many at one session, and one in the way of another: exactly one wins, and nothing is lost."""

import itertools
import os
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from ledger import (
    CoatcheckError,
    LedgerUnavailable,
    SessionBusy,
    SessionEnded,
    SessionError,
    SessionNotFound,
    removal,
)
from tests.hostile.worlds import fork
from tests.ledger.world import World, around, findings

INTO = "spring"


def at_once(*acts: Callable[[], object]) -> list[object]:
    """What comes of all of them, begun in the same moment; errors among it."""
    results: list[object] = [None] * len(acts)
    start = threading.Barrier(len(acts))

    def run(number: int, act: Callable[[], object]) -> None:
        start.wait()
        try:
            results[number] = act()
        except CoatcheckError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("recorded", [True, False])
def test_of_ten_threads_that_delete_one_session_exactly_one_has_done_it(
    any_world: World, recorded: bool
) -> None:
    for number in range(5):
        name = any_world.create() if recorded else any_world.stray(f"stray-{number}")
        answers = at_once(*[lambda name=name: any_world.sessions.delete_session(name)] * 10)
        assert sorted(answers, key=str) == [False] * 9 + [True]
        assert any_world.state(name) == "deleted"
    any_world.sessions.sweep()
    any_world.reopen()
    assert any_world.standing() == set()
    assert any_world.in_trash() == []


@pytest.mark.slow
def test_of_ten_processes_that_delete_one_session_exactly_one_has_done_it(world: World) -> None:
    for _ in range(3):
        session_id = world.create()
        reader, writer = os.pipe()

        def delete(session_id: str = session_id, writer: int = writer) -> None:
            with world.open() as sessions:
                os.write(writer, b"%d" % sessions.delete_session(session_id))

        children = [fork(delete) for _ in range(10)]
        os.close(writer)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
        with open(reader, "rb") as answers:
            assert sorted(answers.read()) == sorted(b"0000000001")
    world.sessions.sweep()
    assert world.in_trash() == []


def test_of_ten_threads_that_claim_or_delete_exactly_one_wins(any_world: World) -> None:
    for number in range(5):
        session_id = any_world.create()
        claims = [
            lambda n=n: any_world.sessions.claim(session_id, into=f"{number}-{n}")  # noqa: B023
            for n in range(5)
        ]
        deletes = [lambda: any_world.sessions.delete_session(session_id)] * 5  # noqa: B023
        answers = at_once(*claims, *deletes)
        won = [a for a in answers if a and not isinstance(a, Exception)]
        assert len(won) == 1
        lost = [a for a in answers if isinstance(a, Exception)]
        assert {type(error) for error in lost} <= {SessionBusy, SessionEnded, SessionNotFound}
        state = any_world.state(session_id)
        assert state == ("deleted" if won[0] is True else "claimed")
        taken = [name for name in os.listdir(any_world.claims) if name.startswith(f"{number}-")]
        assert len(taken) == (state == "claimed")
    any_world.sessions.sweep()
    any_world.reopen()
    assert any_world.standing() == set()
    assert any_world.in_trash() == []
    assert any_world.sessions.report().settled


def test_of_ten_threads_that_claim_with_one_destination_nobody_is_told_wrong(
    any_world: World,
) -> None:
    session_id = any_world.create()
    answers = at_once(*[lambda: any_world.sessions.claim(session_id, into=INTO)] * 10)
    states = {str(getattr(answer, "state", type(answer).__name__)) for answer in answers}
    assert "claimed" in states
    assert states <= {"claimed", "SessionBusy"}
    assert os.listdir(any_world.claims / INTO)


def test_sweeps_and_users_at_once_lose_nothing_that_was_acknowledged(any_world: World) -> None:
    """A max age that is so small that they really collide."""
    world = any_world
    world.reopen(max_age_hours=0.02 / 3600, brake=10_000)
    acknowledged: dict[str, str] = {}
    stop = threading.Event()

    def use(number: int) -> None:
        while not stop.is_set():
            with suppress(SessionError):
                session_id = world.sessions.create().id
                stop.wait(0.01)
                with world.sessions.upload(session_id) as upload:
                    upload.open_file("photo.jpg")
                    upload.write(b"a photo")
                    upload.commit()
                world.sessions.touch(session_id)
                world.sessions.claim(session_id, into=session_id)
                acknowledged[session_id] = f"by {number}"

    users = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for user in users:
        user.start()
    for _ in range(10):
        assert world.sessions.sweep().failed == 0
        stop.wait(0.01)
    stop.set()
    for user in users:
        user.join()
    assert acknowledged
    for session_id in acknowledged:
        assert (world.claims / session_id / "photo.jpg").read_bytes() == b"a photo"
        assert world.state(session_id) == "claimed"
    stop.wait(0.1)
    world.sessions.sweep()
    assert world.standing() == set()
    assert world.sessions.report().settled


# -- One in the way of another


def test_a_session_that_is_just_being_claimed_is_busy_for_everybody_else(world: World) -> None:
    session_id = world.create()
    acts: list[Callable[[], object]] = [
        lambda: world.sessions.delete_session(session_id),
        lambda: world.sessions.touch(session_id),
        lambda: world.sessions.upload(session_id),
        lambda: world.sessions.claim(session_id, into=INTO),
        lambda: world.sessions.claim(session_id, into="elsewhere"),
    ]

    def try_them() -> None:
        for act in acts:
            with pytest.raises(SessionBusy):
                act()
        assert findings(world.sessions.report()) == {"in_use": 1}
        assert world.sessions.sweep().removed == 0

    for when in ("before", "after"):
        with around("moves.claim", **{when: try_them}):  # type: ignore[arg-type]
            assert world.sessions.claim(session_id, into=INTO).state == "claimed"
        assert (world.claims / INTO / "photo.jpg").exists()
        session_id = world.create()
        (world.claims / INTO).rename(world.claims / when)


def test_a_session_that_a_sweep_adopts_while_it_is_created_is_its_creators(world: World) -> None:
    """The directory stands before its row does."""
    with around("moves.publish_directory", after=world.sessions.sweep) as done:
        session = world.sessions.create(label="order 17")
    assert done
    assert (session.origin, session.label, session.state) == ("created", "order 17", "active")
    assert world.known(session.id).touched
    assert findings(world.sessions.report()) == {"live": 1}


def test_a_create_whose_row_cannot_be_written_leaves_nothing(world: World) -> None:
    def fail() -> None:
        raise LedgerUnavailable("away")

    with around("states.insert", before=fail), pytest.raises(LedgerUnavailable):
        world.create()
    assert world.standing() == set()
    assert (world.in_trash(), os.listdir(world.incoming)) == ([], [])


def test_a_delete_waits_for_no_upload_and_the_upload_is_told(world: World) -> None:
    session_id = world.create()
    with world.sessions.upload(session_id) as upload:
        upload.open_file("third")
        upload.write(b"third")
        assert world.sessions.delete_session(session_id)
        with pytest.raises(SessionEnded):
            upload.commit()
    world.reopen()
    assert world.standing() == set()
    assert (world.in_trash(), os.listdir(world.incoming)) == ([], [])
    assert world.state(session_id) == "deleted"


@pytest.mark.parametrize(("max_age", "every"), [(24, 30), (0.05, 18)])
def test_an_upload_in_progress_touches_its_session_now_and_then(
    world: World, max_age: float, every: int
) -> None:
    world.reopen(max_age_hours=max_age)
    session_id = world.create()
    with world.sessions.upload(session_id) as upload:
        upload.open_file("video")
        versions = []
        for _ in range(4):
            world.clock.passes((every * 0.6) / 3600)
            upload.write(b"chunk")
            versions.append(world.known(session_id).version)
        last = world.known(session_id).last_touch_at
    assert [after - before for before, after in itertools.pairwise(versions)] == [1, 0, 1]
    assert abs(last - world.clock()) < 2_000_000


def test_who_closes_in_a_hurry_waits_for_no_bytes_and_the_next_sweep_removes_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    big, waiting = world.create(), world.create()
    for number in range(20):
        (world.root / big / f"{number}").touch()
    remover, count = world.sessions._remover, removal._Removal._count
    reached = threading.Event()

    def count_and_wait(self: removal._Removal) -> None:
        reached.set()
        assert remover._stop.wait(20)
        count(self)

    monkeypatch.setattr(removal._Removal, "_count", count_and_wait)
    for each in (big, waiting):
        assert world.sessions.delete_session(each)
    assert reached.wait(20)
    world.sessions.close(finish=False)
    [dead, set_aside] = world.in_trash()
    assert dead.startswith(removal.DEAD)
    assert set_aside.endswith(waiting)
    assert len(os.listdir(world.trash / dead)) >= 20
    world.sessions = world.open()
    assert world.sessions.sweep().failed == 0
    assert world.in_trash() == []
    assert (world.state(big), world.state(waiting)) == ("deleted", "deleted")


def test_a_delete_that_comes_while_the_ledger_is_closed_keeps_nobody_waiting(world: World) -> None:
    first, second = world.create(), world.create()
    remover = world.sessions._remover
    closing = threading.Thread(target=remover.close, daemon=True)
    late = threading.Thread(target=world.sessions.delete_session, args=(second,), daemon=True)

    begun = threading.Event()

    def meanwhile() -> None:
        closing.start()
        while remover._thread is not None and not remover._starting.locked():
            closing.join(0.001)
        late.start()
        begun.set()
        late.join(0.2)  # it may wait for the closing, but not the other way round

    with around("upkeep.remove_deleted", before=meanwhile):
        world.sessions.delete_session(first)
        assert begun.wait(10)
        closing.join(10)
        late.join(10)
    assert not closing.is_alive()
    assert not late.is_alive()
    assert world.standing() == set()
