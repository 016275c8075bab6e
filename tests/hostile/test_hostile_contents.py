"""Sessions that hold what was made to break a sweep, a claim or a request: links, mounts, depth,
width, names, devices, rights and sizes. Nothing outside is touched, and what stays is named."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ledger import Finding, Report
from ledger.disk import is_session_id
from ledger.system import mounts_below
from tests.cli import cc
from tests.hostile.places import (
    OLD,
    WAYS,
    in_own_mounts,
    needs_mounts,
    opened_kinds,
    put_a_socket,
)
from tests.hostile.test_hostile_trees import chain, peak_memory, wide
from tests.hostile.trash import AWKWARD, fill
from tests.hostile.worlds import bind, mount_tmpfs
from tests.ledger.world import World, around, content, entry_of, findings

every_way = pytest.mark.parametrize("way", WAYS)


def goes(world: World, session_id: str, way: str) -> None:
    """The session is removed, or claimed whole, and nothing is left to do."""
    before = content(world.root / session_id) if way == "claim" else {}
    WAYS[way](world, session_id)
    world.reopen()  # when it is closed, what was deleted is removed
    assert session_id not in world.standing()
    assert world.in_trash() == []
    if way == "claim":
        assert content(world.claims / session_id) == before
    else:
        assert world.state(session_id) in ("expired", "deleted")
    assert world.sessions.sweep().failures == []
    assert world.sessions.report().settled


# -- Links


@every_way
def test_links_to_the_outside_lead_nowhere_at_any_depth(
    way: str, world: World, untouched: Path
) -> None:
    session_id = world.create()
    level = world.root / session_id
    for depth in range(20):
        (level / "to-directory").symlink_to(untouched)
        (level / "to-file").symlink_to(untouched / "file-0")
        (level / "relative").symlink_to("../" * (depth + 2) + "untouched/deeper")
        (level / "to-root").symlink_to("/")
        (level / "up").symlink_to("..")
        (level / "loop").symlink_to("loop")
        level /= "deeper"
        level.mkdir()
    world.clock.passes(OLD)
    assert {file.name for file in world.sessions.files(session_id)} == {"list.txt", "photo.jpg"}
    with pytest.raises(FileNotFoundError):
        world.sessions.open_file(session_id, "to-file")
    goes(world, session_id, way)


@every_way
def test_hard_links_take_only_their_own_names(way: str, world: World, tmp_path: Path) -> None:
    theirs = fill(tmp_path / "theirs")
    os.utime(theirs / "file-0", (1, 1))
    before = content(theirs)
    session_id = world.create()
    os.link(theirs / "file-0", world.root / session_id / "linked")
    world.clock.passes(OLD)
    goes(world, session_id, way)
    assert content(theirs) == before


# -- Mounts inside


def a_point(world: World) -> tuple[str, Path]:
    session_id = world.create(age=OLD)
    point = world.root / session_id / "inner/point"
    fill(point)
    world.date(world.root / session_id, OLD)
    return session_id, point


def mount(kind: str, point: Path, untouched: Path) -> None:
    if kind == "tmpfs":
        mount_tmpfs(point)
        fill(point)
    else:
        bind(untouched, point)


each_kind = pytest.mark.parametrize("kind", ["bind", "tmpfs"])


@needs_mounts
@each_kind
def test_a_session_with_a_mount_inside_is_unreadable_to_a_sweep(
    kind: str, world: World, untouched: Path
) -> None:
    session_id, point = a_point(world)
    other = world.create(age=OLD)

    def check() -> None:
        mount(kind, point, untouched)
        report = world.sessions.report()
        assert findings(report) == {"unreadable": 1, "stale": 1}
        assert entry_of(report, session_id).why == (
            "cannot be read: a file system is mounted inside it"
        )
        assert world.sessions.sweep().removed == 1
        assert world.sessions.sweep().removed == 0
        assert len(os.listdir(point)) >= 3

    in_own_mounts(world, check)
    assert (world.state(session_id), world.state(other)) == ("active", "expired")
    assert world.sessions.sweep().removed == 1  # the mount is gone with the child
    assert world.sessions.report().settled


@needs_mounts
@each_kind
def test_what_is_mounted_between_the_look_and_the_rename_brings_the_session_back(
    kind: str, world: World, untouched: Path
) -> None:
    session_id, point = a_point(world)

    def check() -> None:
        with around("moves.set_aside", before=lambda: mount(kind, point, untouched)):
            swept = world.sessions.sweep()
        assert swept.removed == 0
        assert swept.failures == [f"{session_id[:8]}: another file system is mounted"]
        assert world.standing() == {session_id}
        assert world.state(session_id) == "active"

    in_own_mounts(world, check)
    assert world.sessions.sweep().removed == 1


@needs_mounts
@each_kind
@pytest.mark.parametrize("moment", ["moves.bury", "removal.remove_dead"])
def test_what_is_mounted_later_is_not_entered_and_named_until_it_is_gone(
    moment: str, kind: str, world: World, untouched: Path
) -> None:
    session_id, _ = a_point(world)

    def later() -> None:
        (entry,) = world.trash.iterdir()
        mount(kind, entry / "inner/point", untouched)

    def check() -> list[str]:
        with around(moment, before=later):
            swept = world.sessions.sweep()
        assert swept.removed == 1
        (failure,) = swept.failures
        assert "mounted" in failure
        (point,) = mounts_below(world.trash)
        assert len(os.listdir(point)) >= 3
        (again,) = world.sessions.sweep().failures
        assert again.endswith("something is mounted on it")
        return world.in_trash()

    assert in_own_mounts(world, check)
    assert world.state(session_id) == "expired"
    assert world.sessions.sweep().failures == []
    assert world.in_trash() == []


@needs_mounts
@each_kind
def test_a_users_delete_leaves_what_is_mounted_inside_and_a_sweep_names_it(
    kind: str, world: World, untouched: Path
) -> None:
    session_id, point = a_point(world)

    def check() -> None:
        mount(kind, point, untouched)
        assert world.sessions.delete_session(session_id)
        world.sessions.close()
        world.sessions = world.open()
        for _ in range(2):
            (failure,) = world.sessions.sweep().failures
            assert failure.endswith("something is mounted on it")
        (point_now,) = mounts_below(world.trash)
        assert len(os.listdir(point_now)) >= 3

    in_own_mounts(world, check)
    assert world.state(session_id) == "deleted"
    assert world.sessions.sweep().failures == []
    assert world.in_trash() == []


# -- Shapes


def check_deep(world: World, levels: int) -> None:
    """One deep tree is claimed, comes again, is swept, restored and deleted."""
    session_id = world.create()
    chain(world.root / session_id / "deep", levels)
    [*_, deepest] = sorted(len(file.name) for file in world.sessions.files(session_id))
    assert deepest > levels * len("level")
    claimed = world.sessions.claim(session_id, "deep")
    Path(claimed.path).rename(world.root / "again")
    world.clock.passes(OLD)
    world.reopen(undo_hours=1)
    assert world.sessions.sweep().waiting == 1
    assert world.sessions.restore("again").files == 3
    assert world.sessions.delete_session("again")
    world.reopen()
    assert (world.in_trash(), world.standing()) == ([], set())


@pytest.mark.slow
def test_a_tree_deeper_than_any_path_is_no_trouble(world: World) -> None:
    check_deep(world, 1_000)


@pytest.mark.torture
def test_ten_thousand_levels_are_no_trouble(world: World) -> None:
    check_deep(world, 10_000)


def check_wide(world: World, entries: int) -> None:
    session_id = world.create()
    wide(world.root / session_id / "wide", entries)
    world.clock.passes(OLD)
    world.sessions.report()  # so that memory is measured that is not taken once for all
    swept: list[Report] = []
    assert peak_memory(lambda: swept.append(world.sessions.sweep())) < 3_000_000
    assert entry_of(swept[0], session_id).files == entries + 2
    assert (swept[0].removed, swept[0].failures) == (1, [])
    assert world.in_trash() == []


@pytest.mark.torture
def test_a_session_of_a_million_files_takes_no_memory(world: World) -> None:
    check_wide(world, 1_000_000)


# -- Names


@every_way
def test_files_and_directories_may_have_any_name(way: str, world: World) -> None:
    session_id = world.create(age=OLD)
    for name in AWKWARD:
        inside = os.fsencode(world.root / session_id / "inner") + b"/" + name
        os.makedirs(inside)
        with open(inside + b"/" + name, "xb"):
            pass
    world.date(world.root / session_id, OLD)
    assert len(world.sessions.files(session_id)) == len(AWKWARD) + 2
    goes(world, session_id, way)


def test_names_in_the_root_that_are_no_ids_are_reported_fit_to_read_and_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {os.fsdecode(name) for name in AWKWARD if not is_session_id(os.fsdecode(name))}
    names |= {"[bold red]markup", "[unclosed", "=HYPERLINK()", "a" * 129}
    names -= {".coatcheck"}
    for number, name in enumerate(sorted(names)):
        (world.root / name).mkdir() if number % 2 else (world.root / name).touch()
    monkeypatch.setenv("COATCHECK_ROOT", str(world.root))
    for command in ("report", "report --json", "report --csv", "sweep", "sweep --json"):
        ran = cc(*command.split())
        assert ran.code == 0, ran.err
        assert all(line.isprintable() for line in ran.out.splitlines())
        assert "--json" not in command or ran.json["counts"]["foreign"] == len(names)
    assert world.standing() == names


# -- What is neither file nor directory


@every_way
def test_pipes_sockets_and_devices_are_neither_opened_nor_waited_for(
    way: str, world: World
) -> None:
    session_id = world.create(age=OLD)
    for place in (world.root / session_id, fill(world.root / session_id / "inner")):
        os.mkfifo(place / "pipe")
        put_a_socket(place / "socket")
        if os.geteuid() == 0:
            os.mknod(place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mknod(place / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    world.date(world.root / session_id, OLD)
    with opened_kinds() as opened:
        for name in ("pipe", "socket", "null", "disk"):
            with pytest.raises(FileNotFoundError):
                world.sessions.open_file(session_id, name)
        goes(world, session_id, way)
    assert opened
    assert all(stat.S_ISREG(mode) or stat.S_ISDIR(mode) for mode in opened)


# -- Sizes


@every_way
def test_a_sparse_file_counts_by_its_length_and_is_no_trouble(way: str, world: World) -> None:
    session_id = world.create()
    with open(world.root / session_id / "sparse", "wb") as file:
        file.truncate(1 << 40)
    world.clock.passes(OLD)
    assert entry_of(world.sessions.report(), session_id).bytes > 1 << 40
    WAYS[way](world, session_id)
    world.reopen()
    assert (world.standing(), world.in_trash()) == (set(), [])


@needs_mounts
def test_files_longer_than_the_ledger_can_count_stop_no_sweep(world: World) -> None:
    """On some file systems a file of eight exabytes takes no room."""

    def check() -> None:
        world.sessions.close()
        world.folder = world.folder / "mounted"
        world.folder.mkdir()
        mount_tmpfs(world.folder)
        with world.open() as world.sessions:
            for name in ("one", "two", "three"):
                world.stray(name)
                for file in ("long", "longer"):
                    with open(world.root / name / file, "wb") as opened:
                        opened.truncate(2**63 - 1)
            for _ in range(2):
                assert world.sessions.sweep().failures == []
            assert world.sessions.report().counts[Finding.LIVE] == 3
            assert world.sessions.health().bytes > 2**53
            world.clock.passes(2 * OLD)
            assert world.sessions.sweep().removed == 3
            assert world.sessions.delete_session(world.sessions.create().id)

    in_own_mounts(world, check)
