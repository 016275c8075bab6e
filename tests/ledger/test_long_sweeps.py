"""A sweep may take hours: what was used since it began was used all the same."""

import os
from collections.abc import Callable

import pytest

from ledger import Progress, Report, SessionLedger
from tests.ledger.world import World, around, findings

EARLIER_H = 1


@pytest.fixture
def begun(world: World) -> SessionLedger:
    """The ledger as one sees it who began an hour ago."""
    return SessionLedger(world.sessions.place, lambda: world.hours_ago(EARLIER_H))


def sweep(sessions: SessionLedger) -> Report:
    return sessions.sweep(trust_clock=True)


def test_what_another_program_wrote_since_the_sweep_began_keeps_the_session(
    world: World, begun: SessionLedger, stale: str
) -> None:
    (world.root / stale / "deeper/young").write_bytes(b"precious")
    done = sweep(begun)
    assert (done.removed, findings(done)) == (0, {"drifted": 1})
    assert (world.root / stale / "deeper/young").read_bytes() == b"precious"
    assert world.known(stale).last_touch_at > world.hours_ago(EARLIER_H)


def test_what_was_written_into_a_strangers_directory_since_keeps_it(
    world: World, begun: SessionLedger
) -> None:
    stranger = world.stray("stranger", age=30)
    (world.root / stranger / "young").write_bytes(b"precious")
    assert findings(sweep(begun)) == {"unrecorded": 1}
    assert world.state(stranger) == "active"


@pytest.mark.parametrize("hook", ["aside.newer_than", "moves.bury"])
def test_what_was_written_after_the_first_look_brings_the_session_back(
    world: World, begun: SessionLedger, stale: str, hook: str
) -> None:
    inside = os.open(world.root / stale, os.O_RDONLY)

    def write() -> None:
        os.close(os.open("young", os.O_WRONLY | os.O_CREAT, dir_fd=inside))

    with around(hook, before=write):
        done = sweep(begun)
    os.close(inside)
    assert (done.removed, done.changed) == (0, 1)
    assert "young" in os.listdir(world.root / stale)
    assert world.state(stale) == "active"


def test_what_was_moved_in_since_the_sweep_began_waits(world: World, begun: SessionLedger) -> None:
    world.stray("unpacked", age=30)
    assert (sweep(begun).waiting, len(world.in_trash())) == (1, 1)


@pytest.mark.parametrize("use", [SessionLedger.touch, lambda sessions, _: sessions.create()])
def test_a_session_used_since_the_sweep_began_is_live_and_keeps_its_touch(
    world: World, use: Callable[[SessionLedger, str], object]
) -> None:
    session_id = world.create(age=5)
    touched: list[int] = []

    def an_hour_later() -> None:
        world.clock.passes(EARLIER_H)
        use(world.sessions, session_id)
        touched.append(world.known(session_id).last_touch_at)

    with around("survey.Survey.suspects", before=an_hour_later):
        report = world.sessions.sweep()
    assert set(findings(report)) == {"live"}
    assert world.known(session_id).last_touch_at == touched[0]


# -- Nobody waits for it


@pytest.mark.parametrize("age", [0, 30])
def test_an_upload_need_not_wait_until_the_bytes_of_others_are_gone(
    world: World, stale: str, age: float
) -> None:
    """One that lives on, and one that is touched while the sweep is setting it aside."""
    session_id = world.create(age=5 if age == 0 else age)
    world.alter(session_id, last_touch_at=world.hours_ago(30))
    sent: list[str] = []

    def upload() -> None:
        with world.sessions.upload(session_id) as upload:
            upload.open_file("late.txt")
            upload.write(b"late")
            sent.extend(file.name for file in upload.commit()[1])

    def touch() -> None:
        world.sessions.touch(session_id)

    with (
        around("aside.SettingAside._begin", after=touch if age else None),
        around("upkeep.bury_and_remove", before=upload),
    ):
        assert world.sessions.sweep().removed == 1
    assert (sent, world.state(stale)) == (["late.txt"], "expired")


def test_a_sweep_that_is_cancelled_stops_counting_for_the_brake(world: World, stale: str) -> None:
    world.reopen(brake=0)
    world.create(age=5)
    progress = Progress()
    progress.cancel.set()
    done = world.sessions.sweep(max_age_hours=1, progress=progress)
    assert (done.removed, len(world.standing())) == (0, 2)
