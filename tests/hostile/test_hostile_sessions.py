"""Sessions that were made to lead a sweep, or a user's own request, astray. Nothing outside is
ever touched, what cannot be removed is reported with its reason, and the rest goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ledger import (
    CoatcheckError,
    SessionEnded,
    SessionError,
    SessionLedger,
    SessionNotFound,
    moves,
)
from tests.cli import cc
from tests.hostile.places import (
    OLD,
    YOUNG,
    add_a_file,
    fingerprint,
    identity,
    in_own_mounts,
    needs_mounts,
    put,
)
from tests.hostile.test_removal_races import exchange
from tests.hostile.trash import fill
from tests.hostile.worlds import (
    bind,
    mayhem,
    mount_tmpfs,
)
from tests.ledger.world import World, around, entry_of

# -- What took a session's place


def put_a_link(at: Path, untouched: Path) -> None:
    at.symlink_to(untouched)


def put_a_bind_mount(at: Path, untouched: Path) -> None:
    at.mkdir()
    bind(untouched, at)


def put_a_tmpfs(at: Path, untouched: Path) -> None:
    at.mkdir()
    mount_tmpfs(at)
    fill(at)


def a_name_to_take(world: World, row: str) -> str:
    """A session's id, its directory gone, and its row in this state."""
    if row == "no row":
        return "never-seen"
    session_id = world.create(age=OLD if row in ("stale", "ended") else YOUNG)
    if row == "ended":
        assert world.sessions.sweep().removed == 1
    else:
        (world.root / session_id).rename(world.folder / "moved away")
    return session_id


def no_request_reaches_it(world: World, name: str, row: str) -> None:
    sessions = world.sessions
    gone: type[SessionError] = SessionNotFound if row == "no row" else SessionEnded
    with pytest.raises(gone):
        sessions.touch(name)
    with pytest.raises(gone):
        sessions.upload(name)
    with pytest.raises(gone):
        sessions.claim(name, "spring")
    with pytest.raises(gone):
        sessions.delete_file(name, "file-0")
    with pytest.raises(SessionError):
        sessions.restore(name)
    with pytest.raises(SessionNotFound):
        sessions.files(name)
    with pytest.raises(SessionNotFound):
        sessions.open_file(name, "file-0")
    assert os.listdir(world.claims) == []


def check_taken(world: World, put: Callable[[Path, Path], None], row: str, untouched: Path) -> None:
    name = a_name_to_take(world, row)
    path = world.root / name
    put(path, untouched)
    before = identity(path)
    facts = fingerprint(path) if path.is_dir() else {}
    assert world.sessions.sweep().removed == 0
    no_request_reaches_it(world, name, row)
    assert world.sessions.delete_session(name) is (row in ("live", "stale"))
    after = world.sessions.sweep()
    assert (after.removed, after.failures) == (0, [])
    report = world.sessions.report()
    assert report.settled
    assert "never touched" in entry_of(report, name).why
    assert identity(path) == before
    assert not facts or fingerprint(path) == facts
    assert world.in_trash() == []


each_row = pytest.mark.parametrize("row", ["live", "stale", "ended", "no row"])


@each_row
def test_a_link_in_a_sessions_place_stays_and_leads_nowhere(
    row: str, world: World, untouched: Path
) -> None:
    check_taken(world, put_a_link, row, untouched)


@pytest.mark.sqlite
def test_the_command_line_says_in_words_what_stands_in_a_sessions_place(
    world: World, untouched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COATCHECK_ROOT", str(world.root))
    session_id = a_name_to_take(world, "live")
    (world.root / session_id).symlink_to(untouched)
    for command in (["touch", session_id], ["claim", session_id, "spring"]):
        ran = cc(*command)
        assert (ran.code, ran.err) == (1, "coatcheck: The session's directory is gone.\n")
    assert "a symbolic link" in cc("show", session_id).out
    assert cc("delete", session_id).code == 0
    assert cc("delete", session_id).code == 1
    assert cc("report", "--check").code == 0
    assert os.readlink(world.root / session_id) == str(untouched)


@needs_mounts
@each_row
@pytest.mark.parametrize("put", [put_a_bind_mount, put_a_tmpfs])
def test_a_mount_in_a_sessions_place_stays_and_is_not_entered(
    put: Callable[[Path, Path], None], row: str, world: World, untouched: Path
) -> None:
    in_own_mounts(world, lambda: check_taken(world, put, row, untouched))


# -- Swapped in the middle of it


ACTS: dict[str, Callable[[SessionLedger, str], object]] = {
    "sweep": lambda sessions, _: sessions.sweep(),
    "delete": lambda sessions, session_id: sessions.delete_session(session_id),
    "touch": lambda sessions, session_id: sessions.touch(session_id),
    "claim": lambda sessions, session_id: sessions.claim(session_id, "spring"),
    "upload": add_a_file,
    "delete a file": lambda sessions, session_id: sessions.delete_file(session_id, "file-0"),
    "report": lambda sessions, _: sessions.report(),
    "files": lambda sessions, session_id: sessions.files(session_id),
}
OPEN, RENAME, STANDS = "system.open_directory", "system.rename_noreplace", "place.Place.stands"
MOMENTS = [
    *(("sweep", OPEN), ("sweep", STANDS), ("sweep", RENAME)),
    *(("delete", "system.stat_directory"), ("delete", RENAME)),
    *(("touch", "system.set_mtime"), ("upload", "system.set_mtime")),
    *(("claim", OPEN), ("claim", STANDS), ("claim", RENAME)),
    *(("upload", STANDS), ("upload", RENAME)),
    *(("delete a file", STANDS), ("delete a file", "removal.os.unlink")),
    *(("report", OPEN), ("files", OPEN)),
]


@pytest.mark.parametrize(("act", "moment"), MOMENTS)
def test_a_session_swapped_for_a_link_at_the_worst_moment_leads_nowhere(
    act: str, moment: str, world: World, untouched: Path
) -> None:
    world.sessions.claim(world.create(), "first")  # so that claiming is known to work,
    world.sessions.sweep()  # and all that is opened once is open
    session_id = world.create(age=OLD, files={"file-0": b"a file"})
    path, away = world.root / session_id, world.folder / "away"

    def swap() -> None:
        path.rename(away)
        path.symlink_to(untouched)

    with around(moment, before=swap) as swapped, suppress(CoatcheckError):
        ACTS[act](world.sessions, session_id)
    assert swapped
    assert os.readlink(path) == str(untouched)
    link = identity(path)
    assert sorted(os.listdir(world.claims)) == ["first"]
    world.reopen().sweep()
    assert identity(path) == link
    assert world.in_trash() == []
    path.unlink()
    away.rename(path)
    assert world.sessions.sweep().failures == []
    assert world.sessions.report().settled


@pytest.mark.parametrize("by_user", [True, False])
def test_a_link_that_got_into_the_trash_instead_of_its_session_goes_back(
    by_user: bool, world: World, untouched: Path
) -> None:
    """What a crash between a rename and its check may leave."""
    name = str(moves.trash_name("session", by_user=by_user, seen=1))
    (world.trash / name).symlink_to(untouched)
    world.stray("session")
    (failure,) = world.sessions.sweep().failures
    assert failure.endswith("waits in the trash until its name in the root is free")
    assert world.in_trash() == [name]
    (world.root / "session").rename(world.folder / "away")
    assert world.sessions.sweep().failures == []
    assert os.readlink(world.root / "session") == str(untouched)
    assert world.in_trash() == []
    assert world.sessions.report().settled


PAIRS = range(4)


def fill_arena(world: World, parked: Path) -> None:
    """Of each pair, one name is a directory and one a link; whatever was done to the others."""
    for n in PAIRS:
        for path in (world.root / f"session-{n}", parked / f"{n}"):
            new = fill(world.folder / "new")
            with suppress(FileExistsError):
                put(new, path)


def links_in(world: World, parked: Path) -> list[int]:
    """Of each pair, how many of its two names are links."""
    pairs = [(world.root / f"session-{n}", parked / f"{n}") for n in PAIRS]
    return [sum(path.is_symlink() for path in pair) for pair in pairs]


def one_round(world: World, number: int) -> None:
    sessions = world.sessions
    for n in PAIRS:
        name, act = f"session-{n}", list(ACTS)[(number + n) % len(ACTS)]
        with suppress(CoatcheckError):
            if act == "claim":
                assert Path(sessions.claim(name, f"{number}-{n}").path).lstat().st_nlink >= 2
            else:
                ACTS[act](sessions, name)


def check_swaps(world: World, untouched: Path, rounds: int) -> None:
    parked = world.folder / "parked"
    parked.mkdir()
    for n in PAIRS:
        (parked / f"{n}").symlink_to(untouched)
    world.clock.passes(100)  # whatever is not touched is stale at once

    def swap() -> int:
        return sum(exchange(world.root / f"session-{n}", parked / f"{n}") for n in PAIRS)

    with mayhem(swap) as swaps:
        number = 0
        while number < rounds or swaps() < rounds or not os.listdir(world.claims):
            fill_arena(world, parked)
            one_round(world, number)
            number += 1
    world.sessions.close()  # what was deleted is removed
    world.sessions = world.open()
    assert world.sessions.sweep().failures == []
    assert world.sessions.report().settled
    assert links_in(world, parked) == [1] * len(PAIRS)
    assert not any(path.is_symlink() for path in [*world.trash.iterdir(), *world.claims.iterdir()])


@pytest.mark.slow
def test_a_process_that_swaps_sessions_for_links_reaches_nothing_outside(
    world: World, untouched: Path
) -> None:
    check_swaps(world, untouched, 40)


@pytest.mark.torture
def test_a_thousand_rounds_against_swapped_sessions_reach_nothing_outside(
    world: World, untouched: Path
) -> None:
    check_swaps(world, untouched, 1000)
