"""Roots that are none, are no longer there, or cannot be used: nothing is swept, nothing is written
into what stands in their place, and once they are back, all goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ledger import (
    CoatcheckError,
    NoSpace,
    RootMismatch,
    RootUnavailable,
    SessionLedger,
    Settings,
    SweepStopped,
)
from ledger.demo import SCENES
from ledger.disk import HOUSE
from tests.cli import cc
from tests.hostile.places import OLD, add_a_file, fingerprint, in_own_mounts, needs_mounts
from tests.hostile.trash import fill
from tests.hostile.worlds import bind, make_read_only, mount_tmpfs
from tests.ledger.world import World, around, content, findings

Change = Callable[[Path, Path], None]


ACTS: dict[str, Callable[[SessionLedger, str], object]] = {
    "create": lambda sessions, _: sessions.create(),
    "upload": add_a_file,
    "a new upload": lambda sessions, _: add_a_file(sessions, None),
    "touch": lambda sessions, session_id: sessions.touch(session_id),
    "claim": lambda sessions, session_id: sessions.claim(session_id, "spring"),
    "delete": lambda sessions, session_id: sessions.delete_session(session_id),
    "delete a file": lambda sessions, session_id: sessions.delete_file(session_id, "photo.jpg"),
    "restore": lambda sessions, session_id: sessions.restore(session_id),
    "files": lambda sessions, session_id: sessions.files(session_id),
    "report": lambda sessions, _: sessions.report(),
    "sweep": lambda sessions, _: sessions.sweep(),
    "dry run": lambda sessions, _: sessions.dry_run(),
}


# -- Roots that are none


def a_link(root: Path, untouched: Path) -> None:
    root.symlink_to(untouched)


def a_dangling_link(root: Path, untouched: Path) -> None:
    root.symlink_to(untouched / "nowhere")


def a_file(root: Path, untouched: Path) -> None:
    root.write_bytes(b"a file")


def a_file_above(root: Path, untouched: Path) -> None:
    root.parent.write_bytes(b"a file")


@pytest.mark.parametrize("put", [a_link, a_dangling_link, a_file, a_file_above])
def test_a_root_that_is_no_directory_is_refused_and_not_made_one(
    put: Change, tmp_path: Path, untouched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "above/temp" if put is a_file_above else tmp_path / "temp"
    put(root, untouched)
    before = content(tmp_path)
    monkeypatch.setenv("COATCHECK_ROOT", str(root))
    monkeypatch.setenv("COATCHECK_LEDGER", f"sqlite:///{tmp_path}/ledger/ledger.db")
    for command in ("report", "sweep", "adopt --yes", "create"):
        ran = cc(*command.split())
        assert ran.code == 4
        assert f"coatcheck: The root {root} " in ran.err
    assert cc("doctor").code == 1
    after = content(tmp_path)
    assert {name: after[name] for name in after if not name.startswith("ledger")} == before


def no_house(house: Path, untouched: Path) -> None:
    house.symlink_to(untouched)


def no_trash(house: Path, untouched: Path) -> None:
    house.mkdir()
    (house / "trash").symlink_to(untouched)


def a_house_that_is_a_file(house: Path, untouched: Path) -> None:
    house.touch()


def a_draft_that_is_a_link(house: Path, untouched: Path) -> None:
    house.mkdir()
    (house / "root-id.new").symlink_to(untouched / "file-0")


@pytest.mark.parametrize(
    "put", [no_house, no_trash, a_house_that_is_a_file, a_draft_that_is_a_link]
)
def test_a_link_in_place_of_what_is_coatchecks_own_leads_nowhere(
    put: Change, tmp_path: Path, untouched: Path
) -> None:
    (tmp_path / "temp").mkdir()
    put(tmp_path / "temp" / HOUSE, untouched)
    for adopt in (False, True):
        with pytest.raises(RootUnavailable):
            SessionLedger.open(Settings(root="temp"), adopt=adopt)


@pytest.mark.sqlite
def test_a_root_that_its_ledger_knows_and_that_is_missing_is_not_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.root.rename(world.folder / "away")
    monkeypatch.setenv("COATCHECK_ROOT", str(world.root))
    for command in ("report", "sweep", "create"):
        ran = cc(command)
        assert ran.code == 4
        assert "is its disk mounted?" in ran.err
    assert not world.root.exists()


# -- Roots that went away while they were open


def removed(root: Path, untouched: Path) -> None:
    root.rename(root.with_name("away"))


def replaced_by_a_link(root: Path, untouched: Path) -> None:
    removed(root, untouched)
    root.symlink_to(untouched)


def replaced_by_a_link_to_itself(root: Path, untouched: Path) -> None:
    removed(root, untouched)
    root.symlink_to(root.with_name("away"))


def replaced_by_a_directory(root: Path, untouched: Path) -> None:
    removed(root, untouched)
    fill(root / "session")


def replaced_by_a_copy(root: Path, untouched: Path) -> None:
    removed(root, untouched)
    subprocess.run(["cp", "-a", root.with_name("away"), root], check=True)


def put_back(root: Path) -> None:
    if root.is_symlink():
        root.unlink()
    elif root.exists():
        root.rename(root.with_name("other"))
    root.with_name("away").rename(root)


def refuses_everything(world: World, session_id: str) -> None:
    for name, act in ACTS.items():
        with pytest.raises(RootUnavailable):
            act(world.sessions, session_id)
        assert world.state(session_id) == "active", name
    assert not world.sessions.health().ready
    assert str(world.root) in str(world.sessions.health().root)


def all_that_stands(world: World) -> dict[str, object]:
    """In the root, away, and in what took its place; without our own lock."""
    found: dict[str, object] = {}
    for place in (world.root, world.folder / "away"):
        for name, facts in content(place).items():
            if name not in (HOUSE, f"{HOUSE}/sweep.lock"):
                found[f"{place.name}/{name}"] = facts
    return found


def works_again(world: World, session_id: str) -> None:
    assert world.sessions.health().ready
    assert world.sessions.sweep().removed == 1
    assert world.state(session_id) == "expired"
    add_a_file(world.sessions, world.sessions.create().id)


@pytest.mark.parametrize(
    "change",
    [
        *(removed, replaced_by_a_link, replaced_by_a_link_to_itself),
        *(replaced_by_a_directory, replaced_by_a_copy),
    ],
)
def test_a_root_that_was_replaced_while_it_was_open_is_not_used_until_it_is_back(
    change: Change, world: World, untouched: Path
) -> None:
    session_id = world.create(age=OLD)
    change(world.root, untouched)
    before = all_that_stands(world)
    refuses_everything(world, session_id)
    assert all_that_stands(world) == before
    put_back(world.root)
    works_again(world, session_id)


@pytest.mark.parametrize("folder", ["trash", "incoming", "."])
@pytest.mark.parametrize("change", [removed, replaced_by_a_link, replaced_by_a_copy])
def test_without_its_own_folders_a_root_is_not_used_either(
    folder: str, change: Change, world: World, untouched: Path
) -> None:
    """A DELETE would be answered, and its directory stay."""
    session_id = world.create(age=OLD)
    world.sessions.sweep(max_age_hours=2 * OLD)  # so that all is open
    path = world.root / HOUSE / folder
    change(path, untouched)
    for name, act in ACTS.items():
        with pytest.raises((RootUnavailable, RootMismatch)):
            act(world.sessions, session_id)
        assert world.state(session_id) == "active", name
    assert not world.sessions.health().ready
    put_back(path)
    works_again(world, session_id)


def test_a_trash_that_is_lost_is_made_anew_at_the_next_start(world: World) -> None:
    session_id = world.create(age=OLD)
    (world.root / HOUSE / "trash").rename(world.folder / "away")
    works_again_after = world.reopen()
    assert works_again_after.sweep().removed == 1
    assert world.state(session_id) == "expired"


# -- Mounts


@contextmanager
def a_mounted_root(world: World) -> Iterator[Path]:
    """Only in a child: the root is a mount; what lies on it, and what is beneath."""
    world.sessions.close()
    disk = world.folder / "disk"
    world.root.rename(disk)
    world.root.mkdir()
    bind(disk, world.root)
    with world.open() as world.sessions:
        yield disk


def unmount(root: Path) -> None:
    subprocess.run(["umount", "-l", root], check=True)


@needs_mounts
def test_a_root_that_is_unmounted_or_hidden_is_not_used_until_it_is_back(
    world: World, untouched: Path
) -> None:
    session_id = world.create(age=OLD)

    def check() -> None:
        with a_mounted_root(world) as disk:
            unmount(world.root)
            refuses_everything(world, session_id)
            assert os.listdir(world.root) == []
            bind(untouched, world.root)
            refuses_everything(world, session_id)
            unmount(world.root)
            bind(disk, world.root)
            mount_tmpfs(world.root)
            refuses_everything(world, session_id)
            assert os.listdir(world.root) == []
            unmount(world.root)
            works_again(world, session_id)

    in_own_mounts(world, check)


@needs_mounts
def test_another_root_that_is_mounted_there_at_the_start_is_refused_and_not_written_to(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COATCHECK_ROOT", str(world.root))
    session_id = world.create(age=OLD)
    other = World(tmp_path / "other", world.clock)
    other.stray("theirs", age=OLD)
    other.sessions.close()
    before = fingerprint(other.root)

    def check() -> None:
        world.sessions.close()
        bind(other.root, world.root)
        with pytest.raises(RootMismatch):
            world.open()
        ran = cc("sweep")
        assert (ran.code, "do not belong together" in ran.err) == (3, True)

    in_own_mounts(world, check)
    assert fingerprint(other.root) == before
    assert world.state(session_id) == "active"


@needs_mounts
@pytest.mark.parametrize(
    "moment",
    [
        *("sweep.Sweep._judged", "sweep.gather", "upkeep.finish_session", "listing.gather"),
        "sweep.survey_trash",
    ],
)
def test_a_root_that_is_unmounted_between_the_look_and_the_removal_loses_nothing_live(
    moment: str, world: World
) -> None:
    live, stale = world.create(), world.create(age=OLD)
    SCENES["delete_begun"].build(world.sessions)

    def check() -> None:
        with a_mounted_root(world) as disk:
            before = content(disk / live)
            going = around(moment, before=lambda: unmount(world.root))
            with going as gone, suppress(RootUnavailable):
                world.sessions.sweep()
            assert gone
            assert os.listdir(world.root) == []
            assert content(disk / live) == before
            assert {world.state(live), world.state(stale)} <= {"active", "expired"}
            bind(disk, world.root)
            assert world.sessions.sweep().failures == []
            assert world.sessions.report().settled
            assert set(os.listdir(disk)) == {live, HOUSE}
            assert world.state(live) == "active"

    in_own_mounts(world, check)


@needs_mounts
def test_a_root_that_became_read_only_is_reported_on_and_not_swept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COATCHECK_ROOT", str(world.root))
    live, stale = world.create(), world.create(age=OLD)

    def check() -> None:
        with a_mounted_root(world):
            make_read_only(world.root)
            assert findings(world.sessions.report()) == {"live": 1, "stale": 1}
            with pytest.raises(SweepStopped, match="Read-only file system"):
                world.sessions.sweep()
            for name in ("create", "upload", "a new upload", "claim", "delete", "delete a file"):
                with pytest.raises((OSError, CoatcheckError), match="Read-only file system"):
                    ACTS[name](world.sessions, live)
                assert world.state(live) == "active", name
            world.sessions.touch(live)
            with world.open() as again:
                assert again.report().counts == world.sessions.report().counts
            assert cc("sweep").code == 3
            subprocess.run(["mount", "-o", "remount,bind,rw", world.root], check=True)
            assert world.known(live).files == 2
            works_again(world, stale)

    in_own_mounts(world, check)


def no_room(directory: Path) -> None:
    with suppress(OSError), open(directory / "filling", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def no_names(directory: Path) -> None:
    with suppress(OSError):
        for number in range(100):
            (directory / f"filling-{number}").touch()


@needs_mounts
@pytest.mark.parametrize("fill_up", [no_room, no_names])
def test_a_full_root_takes_nothing_half_and_a_sweep_frees_it(
    fill_up: Callable[[Path], None], world: World
) -> None:
    options = "size=1m,nr_inodes=40"

    def check() -> None:
        world.sessions.close()
        world.folder = world.folder / "full"
        world.root.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", world.root], check=True)
        with world.open() as world.sessions:
            stale = world.create(age=OLD, files={"large": b"x" * 500_000})
            live = world.create()
            fill_up(world.root / live)
            before = content(world.root / live)
            for act in (add_a_file, lambda sessions, _: add_a_file(sessions, None)):
                with pytest.raises(NoSpace):
                    act(world.sessions, live)
            assert content(world.root / live) == before
            assert os.listdir(world.incoming) == []
            assert world.sessions.sweep().removed == 1
            add_a_file(world.sessions, live)
            assert (world.state(live), world.state(stale)) == ("active", "expired")

    in_own_mounts(world, check)
