"""A connection lost about every COMMIT of every operation: nothing is lost, and repeating works."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger import CommitUnknown, LedgerUnavailable, SessionError
from ledger.demo import SCENES
from tests.everyday import params
from tests.ledger.world import FILES, World, findings
from tests.postgres.proxy import Cut, Proxy

pytestmark = pytest.mark.postgresql

MOST_COMMITS = 20


@dataclass(frozen=True)
class Operation:
    """`do` acts on the session that `scene` set up; `done` says whether it has been done."""

    scene: str
    do: Callable[[World, str], object]
    done: Callable[[World, str], bool]


def bytes_at(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()} if place.exists() else {}


def set_up(world: World, scene: str) -> str:
    return str(SCENES[scene].build(world.sessions).session_id)


def add_file(world: World, session_id: str) -> None:
    with world.sessions.upload(session_id) as upload:
        upload.open_file("new.txt", replace=True)
        upload.write(b"new")
        upload.commit()


OPERATIONS = {
    "touch": Operation(
        "live",
        lambda world, its: world.sessions.touch(its),
        lambda world, its: world.known(its).version > 1 and (world.root / its).exists(),
    ),
    "upload": Operation(
        "live", add_file, lambda world, its: bytes_at(world.root / its).get("new.txt") == b"new"
    ),
    "claim": Operation(
        "live",
        lambda world, its: world.sessions.claim(its, into=its),
        lambda world, its: world.state(its) == "claimed" and (world.claims / its).exists(),
    ),
    "delete": Operation(
        "live",
        lambda world, its: world.sessions.delete_session(its),
        lambda world, its: world.state(its) == "deleted" and not (world.root / its).exists(),
    ),
    "delete of a stray": Operation(
        "unrecorded",
        lambda world, its: world.sessions.delete_session(its),
        lambda world, its: world.state(its) == "deleted" and not (world.root / its).exists(),
    ),
    "restore": Operation(
        "waiting",
        lambda world, its: world.sessions.restore(its),
        lambda world, its: world.state(its) == "active" and (world.root / its).exists(),
    ),
    "sweep": Operation(
        "stale",
        lambda world, its: world.sessions.sweep(),
        lambda world, its: world.state(its) == "expired" and not (world.root / its).exists(),
    ),
    "sweep of a stray": Operation(
        "forgotten",
        lambda world, its: world.sessions.sweep(),
        lambda world, its: world.state(its) == "expired" and not (world.root / its).exists(),
    ),
}


def all_is_well(world: World, bystander: str) -> None:
    """A sweep has nothing left to do, and has not touched who was not concerned."""
    world.sessions.sweep()
    assert world.state(bystander) == "active"
    assert bytes_at(world.root / bystander) == FILES
    assert world.sessions.report().settled
    assert findings(world.sessions.report()).keys() <= {"live", "waiting"}


def for_every_day(chosen: set[str], *, slow: set[str]) -> list[Any]:
    """All operations; those that are not chosen take too long for every day."""
    longer = {
        name: pytest.mark.slow if name in slow else pytest.mark.torture for name in OPERATIONS
    }
    return [
        name if name in chosen else pytest.param(name, marks=longer[name]) for name in OPERATIONS
    ]


@pytest.mark.parametrize("cut", params({Cut.ANSWERED}, Cut))
@pytest.mark.parametrize("name", for_every_day({"sweep"}, slow={"claim", "delete"}))
def test_a_connection_lost_about_any_commit_loses_nothing_and_the_operation_may_be_repeated(
    name: str, cut: Cut, far_world: World, proxy: Proxy
) -> None:
    world, operation = far_world, OPERATIONS[name]
    for at in range(1, MOST_COMMITS):
        its, bystander = set_up(world, operation.scene), world.create()
        proxy.arm(cut, at)
        failed = False
        try:
            operation.do(world, its)
        except CommitUnknown:
            raise AssertionError("the server was there to be asked") from None
        except LedgerUnavailable:
            failed = True
            operation.do(world, its)
        was_cut = proxy.was_cut
        proxy.mend()
        if cut is not Cut.AT_ONCE:
            assert failed == (was_cut and cut is Cut.BEFORE)
        assert operation.done(world, its)
        all_is_well(world, bystander)
        if not was_cut:
            assert at > 1
            return
    raise AssertionError("the operation has no end")


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.ANSWERED])
@pytest.mark.parametrize("name", for_every_day(set(), slow={"claim"}))
def test_a_server_that_stays_away_about_any_commit_is_waited_for_and_nothing_is_lost(
    name: str, cut: Cut, far_world: World, proxy: Proxy
) -> None:
    world, operation = far_world, OPERATIONS[name]
    for at in range(1, MOST_COMMITS):
        its, bystander = set_up(world, operation.scene), world.create()
        proxy.arm(cut, at, stays_away=True)
        failed = False
        try:
            operation.do(world, its)
        except LedgerUnavailable:
            failed = True
            with pytest.raises(LedgerUnavailable):
                world.sessions.touch(bystander)
        was_cut = proxy.was_cut
        proxy.mend()
        assert failed == was_cut
        if failed:
            with suppress(SessionError):  # it was done, and cannot be done twice
                operation.do(world, its)
        assert operation.done(world, its)
        all_is_well(world, bystander)
        if not was_cut:
            assert at > 1
            return
    raise AssertionError("the operation has no end")


@pytest.mark.parametrize("stays_away", [False, True])
@pytest.mark.parametrize("cut", Cut)
def test_a_session_is_created_whole_or_not_at_all(
    cut: Cut, stays_away: bool, far_world: World, proxy: Proxy
) -> None:
    world = far_world
    proxy.arm(cut, 1, stays_away=stays_away)
    created: str | None = None
    unknown = False
    try:
        created = world.create()
    except CommitUnknown:
        unknown = True
    except LedgerUnavailable:
        assert not world.standing()
    assert proxy.was_cut
    proxy.mend()
    assert unknown == stays_away
    assert cut is Cut.AT_ONCE or (created is not None) == (cut is Cut.ANSWERED and not unknown)
    # What nobody knows is kept, whole: the row may stand, and then its directory must.
    assert len(world.standing()) == (created is not None or unknown)
    for session_id in world.standing():
        all_is_well(world, session_id)
    all_is_well(world, world.create())
