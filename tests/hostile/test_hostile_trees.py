"""Trees that were made to break a removal. Nothing outside them is ever touched."""

import os
import socket
import stat
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import removal, system
from ledger.removal import Removed, remove_dead
from tests.hostile.trash import AWKWARD, NAME, Trash, fill, seen
from tests.hostile.worlds import (
    NOBODY,
    become_nobody,
    bind,
    enter_own_mounts,
    in_child,
    leave_descriptors,
    make_read_only,
    mount_tmpfs,
    needs_root,
)


@pytest.fixture(params=["openat2", "mount ids"])
def _either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a kernel of today, and on one without openat2."""
    if request.param == "mount ids":
        monkeypatch.setattr(system, "_openat2", lambda: None)


either_way = pytest.mark.usefixtures("_either_way")


def gone(trash: Trash, removed: Removed) -> bool:
    return removed.failures == () and trash.left() == []


# -- Links


@either_way
def test_links_to_the_outside_go_and_what_they_point_to_stays(trash: Trash, outside: Path) -> None:
    level = trash.dead
    for depth in range(30):
        level.mkdir()
        (level / "to-directory").symlink_to(outside)
        (level / "to-file").symlink_to(outside / "file-0")
        (level / "relative").symlink_to("../" * (depth + 2) + "outside/deeper")
        (level / "to-root").symlink_to("/")
        (level / "up").symlink_to("..")
        (level / "loop").symlink_to("loop")
        (level / "through-fd").symlink_to(f"/proc/self/fd/{trash.fd}")
        level /= "deeper"
    removed = trash.remove()
    assert gone(trash, removed)
    assert removed.entries == 30 * 8


def test_a_hard_link_takes_only_its_own_name(trash: Trash, outside: Path) -> None:
    fill(trash.dead, 0)
    os.link(outside / "file-0", trash.dead / "theirs")
    (trash.dead / "ours").write_bytes(b"x" * 1000)
    os.link(trash.dead / "ours", trash.dead / "ours-again")
    assert trash.remove() == Removed(entries=4, failures=())
    assert (outside / "file-0").stat().st_nlink == 1


# -- Shapes


def chain(top: Path, levels: int) -> None:
    """A chain of directories far longer than any path may be, a file at its end."""
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels - 1):
        os.mkdir("level", dir_fd=fd)
        fd, above = os.open("level", os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    os.close(os.open("end", os.O_CREAT, dir_fd=fd))
    os.close(fd)


@pytest.mark.slow
def test_ten_thousand_levels_go_with_two_descriptors(trash: Trash) -> None:
    chain(trash.dead, 10_000)

    def remove() -> Removed:
        leave_descriptors(2)
        return trash.remove()

    removed = in_child(remove)
    assert gone(trash, removed)
    assert removed.entries == 10_001


def peak_memory(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def wide(top: Path, files: int) -> None:
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for number in range(files):
        os.close(os.open(f"upload-{number:020d}", os.O_CREAT, dir_fd=fd))
    os.close(fd)


def check_wide(trash: Trash, files: int) -> None:
    wide(trash.dead, files)
    outcome: list[Removed] = []
    assert peak_memory(lambda: outcome.append(trash.remove())) < 500_000
    assert gone(trash, outcome[0])
    assert outcome[0].entries == files + 1


@pytest.mark.slow
def test_a_wide_directory_takes_no_memory(trash: Trash) -> None:
    check_wide(trash, 20_000)


@pytest.mark.torture
def test_a_million_entries_in_one_directory_take_no_memory(trash: Trash) -> None:
    check_wide(trash, 1_000_000)


def test_of_many_full_directories_only_some_wait_in_the_trash_at_a_time(
    trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "WAITING", 50)
    for number in range(200):
        fill(trash.dead / f"{number}", 1)
    most = 0

    def watch(_: int) -> None:
        nonlocal most
        most = max(most, len(trash.left()))

    removed = remove_dead(trash.fd, NAME, on_entry=watch)
    assert gone(trash, removed)
    assert removed.entries == 401
    assert most == 51


@pytest.mark.slow
def test_directories_that_are_wide_at_every_level_hardly_wait_in_greater_numbers(
    trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "WAITING", 50)
    level = trash.dead
    for _ in range(5):
        for number in range(60):
            fill(level / f"{number}", 1)
        level /= "7"
    most = 0

    def watch(_: int) -> None:
        nonlocal most
        most = max(most, len(trash.left()))

    assert gone(trash, remove_dead(trash.fd, NAME, on_entry=watch))
    assert most <= 50 + 5 * 17


# -- Names


def test_any_name_is_removed(trash: Trash) -> None:
    fill(trash.dead, 0)
    for parent in (b"", b"directory/"):
        for name in AWKWARD:
            at = os.fsencode(trash.dead) + b"/" + parent + name
            os.makedirs(at + b"/" + name)
            with open(at + b"/" + name + b"/" + name, "xb"):
                pass
            with open(at + b"/file", "xb"):
                pass
    removed = trash.remove()
    assert gone(trash, removed)
    assert removed.entries == 2 + 2 * 4 * len(AWKWARD)


# -- What is neither file nor directory


def test_pipes_and_sockets_are_unlinked_and_not_opened(trash: Trash) -> None:
    inner = fill(trash.dead / "inner")
    for place in (trash.dead, inner):
        os.mkfifo(place / "pipe")
        fd = os.open(place, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{fd}/socket")  # a socket's path must be short
        os.close(fd)
    assert gone(trash, trash.remove())


@needs_root
def test_devices_are_unlinked(trash: Trash) -> None:
    for place in (fill(trash.dead), fill(trash.dead / "inner")):
        os.mknod(place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(place / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    assert gone(trash, trash.remove())


# -- Rights


def give(place: Path, uid: int = NOBODY) -> None:
    """From root to another user, whole; without root, everything is that user's already."""
    if os.geteuid() == 0:
        for path in [place, *place.rglob("*")]:
            os.lchown(path, uid, uid)


def remove_as_nobody(trash: Trash) -> Removed:
    os.chown(trash.path, NOBODY if os.geteuid() == 0 else -1, -1)

    def remove() -> Removed:
        become_nobody()
        return trash.remove()

    return in_child(remove)


@either_way
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o400, 0o500, 0o555, 0o077])
def test_a_directory_that_its_owner_locked_is_removed(mode: int, trash: Trash) -> None:
    tree = [trash.dead, trash.dead / "a", trash.dead / "a/b", trash.dead / "empty"]
    for place in tree:
        fill(place, 0 if place.name == "empty" else 2)
    for file in trash.dead.rglob("file-*"):
        file.chmod(0)
    give(trash.dead)
    for place in reversed(tree):
        place.chmod(mode)
    assert gone(trash, remove_as_nobody(trash))


@needs_root
def test_another_users_files_go_and_their_full_directories_are_reported(trash: Trash) -> None:
    fill(trash.dead / "mine")
    give(trash.dead)
    fill(trash.dead / "mine/theirs-full", 1)
    fill(trash.dead / "mine/theirs-empty", 0)
    (trash.dead / "mine/theirs").write_text("another user's")
    removed = remove_as_nobody(trash)
    (failure,) = removed.failures
    assert failure.startswith("mine/theirs-full (in the trash: dead-")
    assert failure.endswith("it, or its directory, is another user's")
    (still,) = [path for path in trash.path.rglob("*") if path.is_file()]
    assert still.parent.name == "theirs-full"
    assert len(trash.left()) == 1  # `mine`, lifted; the entry that it lay in went
    assert all(each.failures == () for each in trash.remove_all())
    assert trash.left() == []


@needs_root
def test_in_a_directory_where_only_owners_remove_the_rest_is_reported(trash: Trash) -> None:
    fill(trash.dead, 1)
    (trash.dead / "mine").touch()
    give(trash.dead / "mine")
    trash.dead.chmod(0o1777)
    removed = remove_as_nobody(trash)
    assert removed.entries == 1
    assert os.listdir(trash.dead) == ["file-0"]
    (failure,) = removed.failures
    assert failure == (
        f"{NAME}/file-0: not permitted: it, or its directory, is marked immutable or another user's"
    )


@needs_root
@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("what", ["file-1", "inner/deep/file-1", "inner/deep", "inner"])
def test_what_is_marked_immutable_stays_and_is_named_and_all_else_goes(
    what: str, flag: str, trash: Trash, mark: Callable[[str, Path], None]
) -> None:
    for place in ("", "inner", "inner/deep", "other"):
        fill(trash.dead / place)
    inode = (trash.dead / what).stat().st_ino
    mark(f"+{flag}", trash.dead / what)
    removed = trash.remove()
    assert removed.failures
    assert all("marked immutable" in failure for failure in removed.failures)
    assert any(Path(what).name in failure for failure in removed.failures)
    (marked,) = [path for path in trash.path.rglob("*") if path.stat().st_ino == inode]
    left = [path for path in trash.path.rglob("*") if path.is_file()]
    assert left
    assert all(path == marked or marked in path.parents for path in left)
    for sign in ("-i", "-a"):
        subprocess.run(["chattr", sign, marked], check=True)
    assert all(each.failures == () for each in trash.remove_all())
    assert trash.left() == []


# -- Mounts


@needs_root
@either_way
@pytest.mark.parametrize("kind", ["bind", "bind of a file", "tmpfs", "bind, twice"])
def test_a_mount_inside_is_not_entered_and_is_named(kind: str, trash: Trash, outside: Path) -> None:
    for place in ("", "inner", "inner/point", "zz-rest"):
        fill(trash.dead / place)
    point = trash.dead / ("inner/point/file-1" if "file" in kind else "inner/point")

    def check() -> Removed:
        enter_own_mounts()
        if kind == "tmpfs":
            mount_tmpfs(point)
            fill(point, 2)
        else:
            bind({"bind of a file": outside / "file-0"}.get(kind, outside), point)
        if kind == "bind, twice":
            bind(outside / "deeper", point)
        mounted = seen(point)
        removed = remove_dead(os.open(trash.path, os.O_RDONLY), NAME)
        (now,) = system.mounts_below(trash.path)
        assert seen(Path(now)) == mounted
        return removed

    (failure,) = in_child(check).failures
    assert failure.startswith(str(point.relative_to(trash.dead)) + " (in the trash: dead-")
    assert failure.endswith("something is mounted on it")
    # The child's mounts are gone with it.
    assert all(each.failures == () for each in trash.remove_all())
    assert trash.left() == []


@needs_root
@either_way
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_a_mount_on_the_dead_entry_itself_is_not_entered(
    kind: str, trash: Trash, outside: Path
) -> None:
    fill(trash.dead)

    def check() -> Removed:
        enter_own_mounts()
        if kind == "bind":
            bind(outside, trash.dead)
        else:
            mount_tmpfs(trash.dead)
            fill(trash.dead)
        removed = remove_dead(os.open(trash.path, os.O_RDONLY), NAME)
        assert len(os.listdir(trash.dead)) >= 3
        return removed

    assert in_child(check) == Removed(0, (f"{NAME}: another file system is mounted on it",))


@needs_root
@either_way
def test_a_mount_on_a_locked_directory_keeps_its_rights(trash: Trash, outside: Path) -> None:
    """Making a directory removable must not change the one that is mounted on it."""
    fill(trash.dead / "locked").chmod(0o500)
    give(trash.dead)
    os.chown(trash.path, NOBODY, NOBODY)
    theirs = outside.parent / "theirs"
    fill(theirs).chmod(0o500)
    give(theirs)
    before = seen(theirs)

    def check() -> Removed:
        enter_own_mounts()
        bind(theirs, trash.dead / "locked")
        fd = os.open(trash.path, os.O_RDONLY)
        become_nobody()
        return remove_dead(fd, NAME)

    removed = in_child(check)
    assert len(removed.failures) == 1
    assert removed.failures[0].startswith(f"{NAME}/locked: ")
    assert seen(theirs) == before


@needs_root
def test_a_trash_that_is_read_only_is_one_failure_and_no_exception(trash: Trash) -> None:
    fill(trash.dead / "inner")

    def check() -> Removed:
        enter_own_mounts()
        bind(trash.path, trash.path)
        make_read_only(trash.path)
        return remove_dead(os.open(trash.path, os.O_RDONLY), NAME)

    assert in_child(check) == Removed(0, (f"{NAME}: Read-only file system",))
    assert gone(trash, trash.remove())
