"""What stands in the root and is not coatcheck's, or cannot be read: reported, never touched."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.demo import SCENES
from ledger.props import without_roots_rights
from tests.hostile.worlds import bind, enter_own_mounts, in_child, needs_root
from tests.ledger.afterwards import FOREIGN
from tests.ledger.world import World, content, entry_of, findings


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
