"""What is told of each change: when, who and why, and never an id that is a right."""

import logging
from contextlib import suppress

import pytest

from ledger import Actor, NameTaken
from ledger.demo import SCENES
from ledger.models import SWEEPS, short
from tests.ledger.world import World

INTO = "spring"


def test_every_change_of_state_has_its_event_with_when_who_and_why(any_world: World) -> None:
    world = any_world
    begun = world.clock()
    deleted = world.sessions.create(by=Actor.API).id
    world.sessions.delete_session(deleted, by=Actor.API)
    claimed = world.sessions.create(by=Actor.LIBRARY).id
    world.sessions.claim(claimed, into=INTO, by=Actor.OPERATOR)
    expired = world.create(age=30)
    world.sessions.sweep()
    told = {
        name: [(e.from_state, e.to_state, e.by) for e in world.events(name)]
        for name in (deleted, claimed, expired)
    }
    assert told == {
        deleted: [
            (None, "active", "api"),
            ("active", "removing", "api"),
            ("removing", "deleted", "api"),
        ],
        claimed: [
            (None, "active", "library"),
            ("active", "claiming", "operator"),
            ("claiming", "claimed", "operator"),
        ],
        expired: [
            (None, "active", "library"),
            ("active", "removing", "sweep"),
            ("removing", "expired", "sweep"),
        ],
    }
    for event in world.all_events():
        assert event.why
        assert event.session_pk
        assert event.from_state != event.to_state
    for name in (deleted, claimed):
        assert all(begun <= event.at <= world.clock() for event in world.events(name))
    assert "longer than 24.0 h" in world.events(expired)[-1].why


def test_a_touch_is_no_change_of_state(world: World) -> None:
    session_id = world.create()
    world.sessions.touch(session_id)
    assert world.path_of_life(session_id) == ["active"]


@pytest.mark.parametrize(
    ("session_id", "shown"),
    [
        ("abcdefgh234567abcdefgh2345", "abcdefgh"),
        ("abcdefgh234567abcdefgh234", "efgh234"[-8:]),
        ("upload-2025-01-01-000017", "1-000017"),
        ("short", "short"),
        ("12345678", "12345678"),
    ],
)
def test_eight_characters_of_an_id_are_shown(session_id: str, shown: str) -> None:
    assert short(session_id).endswith(shown)
    assert len(short(session_id)) <= 8


@pytest.mark.sqlite
def test_whole_ids_are_in_no_event_no_log_and_no_record_of_a_sweep(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Knowing an id is the right to use that session."""
    caplog.set_level(logging.DEBUG)
    stands = [scene.build(world.sessions) for scene in SCENES.values()]
    ids = {stand.session_id for stand in stands if stand.session_id}
    more = [world.create() for _ in range(6)]
    ids |= set(more)
    world.sessions.claim(more[0], into=more[0])
    world.sessions.claim(more[1], into=world.claims / "by id" / more[1] / "files")
    (world.claims / more[2]).mkdir()
    with suppress(NameTaken):
        world.sessions.claim(more[2], into=more[2])
    world.sessions.delete_session(more[3])
    world.sessions.touch(more[4])
    # Whose removal fails, and whose name was taken.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.moves.set_aside", _denied)
        world.sessions.sweep()
    world.sessions.sweep()
    for stand in stands:
        stand.release()
    world.reopen()
    world.sessions.sweep()
    with world.sessions.place.database.read() as connection:
        runs = [str(tuple(run)) for run in connection.execute(SWEEPS.select())]
    events = [str(tuple(event)) for event in world.all_events()]
    logs = [record.getMessage() for record in caplog.records]
    health = [str(world.sessions.health())]
    assert any("not removed" in line for line in logs)
    for line in (*events, *runs, *logs, *health):
        for session_id in ids:
            if len(session_id) > 8:
                assert session_id not in line


def _denied(_: object, session_id: str, name: str, **__: object) -> None:
    raise PermissionError(13, "Permission denied", f"{session_id} -> {name}")
