"""The few calls that Python lacks: as the kernel does them, and as we do without it."""

import ctypes
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import time_machine

from ledger import system
from ledger.props import without_roots_rights
from tests.hostile.trash import open_fds
from tests.hostile.worlds import (
    become_nobody,
    bind,
    enter_own_mounts,
    in_child,
    mount_tmpfs,
    needs_root,
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def answering(number: int) -> Callable[..., int]:
    """A system call that always fails with this errno."""

    def call(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    return call


LACKS = {
    "kernel": lambda: answering(errno.ENOSYS),
    "file system": lambda: answering(errno.EINVAL),
    "container": lambda: answering(errno.EPERM),
    "C library": lambda: None,
}


@pytest.fixture(params=["nothing", *LACKS])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What lacks the calls: each test below holds all the same."""
    lacking: str = request.param
    if lacking != "nothing":
        monkeypatch.setattr(system, "_renameat2", LACKS[lacking])
        monkeypatch.setattr(system, "_openat2", LACKS[lacking])
    return lacking


# -- Renaming without replacing


def rename(src: str, dst: str, fd: int) -> None:
    system.rename_noreplace(src, dst, src_dir_fd=fd, dst_dir_fd=fd)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize(
    "name", ["plain", "with space", "naïve ☂", "\udcff\udcfe", "n\nl", "x" * 255]
)
def test_a_rename_moves_any_name(name: str, tmp_path: Path, here: int) -> None:
    (tmp_path / "source").write_text("bytes")
    rename("source", name, here)
    assert os.listdir(tmp_path) == [name]
    rename(name, "back", here)
    assert (tmp_path / "back").read_text() == "bytes"


@pytest.mark.usefixtures("without")
def test_a_rename_goes_from_one_directory_to_the_other(tmp_path: Path) -> None:
    fds = []
    for name in "ab":
        (tmp_path / name).mkdir()
        fds.append(os.open(tmp_path / name, os.O_RDONLY))
    (tmp_path / "a/x/y").mkdir(parents=True)
    system.rename_noreplace("x", "z", src_dir_fd=fds[0], dst_dir_fd=fds[1])
    assert (tmp_path / "b/z/y").is_dir()
    for fd in fds:
        os.close(fd)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("taken", ["file", "empty directory", "full directory", "dangling link"])
def test_a_rename_never_replaces(taken: str, tmp_path: Path, here: int) -> None:
    target = tmp_path / "target"
    if taken == "file":
        target.write_text("theirs")
    elif taken == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
    if taken == "full directory":
        (target / "theirs").touch()
    (tmp_path / "source").mkdir()
    before = target.lstat()
    with pytest.raises(FileExistsError) as refused:
        rename("source", "target", here)
    assert (refused.value.errno, refused.value.filename) == (errno.EEXIST, "source")
    assert refused.value.filename2 == "target"
    assert target.lstat() == before
    assert (tmp_path / "source").is_dir()


@pytest.mark.usefixtures("without")
def test_renaming_what_is_not_there_says_so(here: int) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        rename("source", "target", here)
    assert (refused.value.filename, refused.value.filename2) == ("source", "target")


@pytest.mark.usefixtures("without")
def test_a_directory_cannot_be_renamed_into_itself(tmp_path: Path, here: int) -> None:
    (tmp_path / "a").mkdir()
    inside = os.open(tmp_path / "a", os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid argument"):
        system.rename_noreplace("a", "b", src_dir_fd=here, dst_dir_fd=inside)
    os.close(inside)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("names", [("a\0b", "c"), ("a", "c\0d")])
def test_a_name_does_not_end_at_a_null_byte(
    names: tuple[str, str], tmp_path: Path, here: int
) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="null byte"):
        rename(*names, here)
    assert os.listdir(tmp_path) == ["a"]


def test_of_many_who_rename_to_one_name_exactly_one_wins(tmp_path: Path, here: int) -> None:
    for round_ in range(100):
        won: list[int] = []
        start = threading.Barrier(4)

        def claim(
            who: int, round_: int = round_, won: list[int] = won, start: threading.Barrier = start
        ) -> None:
            (tmp_path / f"{round_}-{who}").mkdir()
            start.wait()
            try:
                rename(f"{round_}-{who}", f"{round_}-target", here)
            except FileExistsError:
                return
            won.append(who)

        claimants = [threading.Thread(target=claim, args=(who,)) for who in range(4)]
        for claimant in claimants:
            claimant.start()
        for claimant in claimants:
            claimant.join()
        assert len(won) == 1
        left = {who for who in range(4) if (tmp_path / f"{round_}-{who}").exists()}
        assert left == {0, 1, 2, 3} - set(won)


def test_doctor_hears_whether_renaming_is_exclusive(without: str) -> None:
    assert system.rename_is_exclusive() is (without == "nothing")


# -- Directories


def make_old(name: str, *, dir_fd: int) -> None:
    system.set_mtime(name, 1_000_000_000, dir_fd=dir_fd)


ACTS = [system.open_directory, system.stat_directory, system.chmod_private, make_old]


@pytest.mark.usefixtures("without")
def test_a_directory_is_opened_by_name(tmp_path: Path, here: int) -> None:
    (tmp_path / "d").mkdir()
    fd = system.open_directory("d", dir_fd=here)
    assert os.path.samestat(os.fstat(fd), (tmp_path / "d").stat())
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("kind", ["file", "link to a directory", "dangling link", "fifo"])
@pytest.mark.parametrize("act", ACTS)
def test_what_is_no_directory_is_neither_opened_nor_changed(
    kind: str, act: Callable[..., object], tmp_path: Path, here: int
) -> None:
    (tmp_path / "target").mkdir(mode=0o500)
    match kind:
        case "file":
            (tmp_path / "x").touch(mode=0o400)
        case "fifo":
            os.mkfifo(tmp_path / "x")
        case _:
            (tmp_path / "x").symlink_to("target" if "to" in kind else "nowhere")
    before = (tmp_path / "x").lstat()
    with pytest.raises(NotADirectoryError):
        act("x", dir_fd=here)
    assert (tmp_path / "x").lstat() == before
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o500


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/b", "../a", "/etc"])
@pytest.mark.parametrize("act", ACTS)
def test_a_path_is_no_name(
    name: str, act: Callable[..., object], tmp_path: Path, here: int
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    with pytest.raises(ValueError, match="not the name of an entry"):
        act(name, dir_fd=here)


@pytest.mark.usefixtures("without")
def test_an_absent_directory_is_an_error_with_its_name(here: int) -> None:
    with pytest.raises(FileNotFoundError) as absent:
        system.open_directory("d", dir_fd=here)
    assert absent.value.filename == "d"


@needs_root
@pytest.mark.usefixtures("without")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_a_mount_is_not_entered(kind: str, act: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o500)
    (tmp_path / "point").mkdir()

    def check() -> int:
        enter_own_mounts()
        if kind == "bind":
            bind(tmp_path / "outside", tmp_path / "point")
        else:
            mount_tmpfs(tmp_path / "point")
        (tmp_path / "point").chmod(0o500)
        fd = os.open(tmp_path, os.O_RDONLY)
        before = open_fds(), (tmp_path / "point").stat()
        with pytest.raises(OSError) as refused:
            act("point", dir_fd=fd)
        assert refused.value.errno == errno.EXDEV
        assert (open_fds(), (tmp_path / "point").stat()) == before
        return stat.S_IMODE((tmp_path / "point").stat().st_mode)

    assert in_child(check) == 0o500


@pytest.mark.usefixtures("without")
def test_a_directory_made_private_is_its_owners_and_keeps_its_other_rights(
    tmp_path: Path, here: int
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o2055)
    system.chmod_private("d", dir_fd=here)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o2755


@pytest.mark.usefixtures("without")
def test_a_directory_is_seen_and_dated_whatever_its_rights(tmp_path: Path, here: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0)
    with without_roots_rights():
        facts = system.stat_directory("d", dir_fd=here)
        make_old("d", dir_fd=here)
    assert os.path.samestat(facts, (tmp_path / "d").stat())
    assert (tmp_path / "d").stat().st_mtime == 1


@needs_root
def test_anothers_directory_where_one_may_write_is_dated_as_of_now(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, mode in (("open", 0o777), ("closed", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        os.utime(tmp_path / name, (1, 1))

    def date() -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        become_nobody()
        make_old("open", dir_fd=fd)
        with pytest.raises(PermissionError):
            make_old("closed", dir_fd=fd)

    before = time.time()
    in_child(date)
    assert (tmp_path / "open").stat().st_mtime > before - 1
    assert (tmp_path / "closed").stat().st_mtime == 1


@needs_root
@pytest.mark.may_skip  # a container may not let it mount
def test_a_directory_is_dated_without_proc(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()

    def date() -> None:
        enter_own_mounts()
        mount_tmpfs("/proc")
        make_old("d", dir_fd=os.open(tmp_path, os.O_RDONLY))

    in_child(date)
    assert (tmp_path / "d").stat().st_mtime == 1


def test_a_directory_is_synced(here: int) -> None:
    system.fsync_dir(here)


def test_a_directory_that_cannot_be_synced_is_no_error_and_a_closed_one_is() -> None:
    reader, writer = os.pipe()  # EINVAL, as of a file system that syncs no directories
    system.fsync_dir(reader)
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        system.fsync_dir(reader)


# -- Room and locks


@pytest.mark.parametrize("lacking", [None, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
@pytest.mark.parametrize("size", [1, 4096, 3_000_001])
def test_what_is_allocated_has_its_blocks(
    size: int, lacking: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        assert lacking
        raise OSError(lacking, os.strerror(lacking))

    if lacking:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    fd = os.open(tmp_path / "reserve", os.O_RDWR | os.O_CREAT)
    system.allocate(fd, size)
    os.fsync(fd)
    info = os.fstat(fd)
    os.close(fd)
    assert info.st_size == size
    assert info.st_blocks * 512 >= size


@needs_root
def test_room_that_the_disk_lacks_is_enospc(tmp_path: Path) -> None:
    def check() -> int | None:
        enter_own_mounts()
        mount_tmpfs(tmp_path)
        room = os.statvfs(tmp_path)
        fd = os.open(tmp_path / "reserve", os.O_RDWR | os.O_CREAT)
        with pytest.raises(OSError) as refused:
            system.allocate(fd, room.f_blocks * room.f_frsize * 2)
        return refused.value.errno

    assert in_child(check) == errno.ENOSPC


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The same directory, opened twice: two holders."""
    fds = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    yield fds
    for fd in fds:
        os.close(fd)


def test_an_exclusive_lock_is_one_holders(two: tuple[int, int]) -> None:
    a, b = two
    assert system.lock_exclusive(a)
    assert system.lock_exclusive(a)
    assert not system.lock_exclusive(b)
    assert not system.lock_shared(b)
    system.unlock(a)
    assert system.lock_exclusive(b)


def test_a_shared_lock_is_everybodys_and_keeps_the_exclusive_one_away(two: tuple[int, int]) -> None:
    a, b = two
    assert system.lock_shared(a)
    assert system.lock_shared(b)
    assert not system.lock_exclusive(b)
    system.unlock(a)
    assert system.lock_exclusive(b)


def test_a_lock_is_gone_with_its_descriptor(two: tuple[int, int], tmp_path: Path) -> None:
    third = os.open(tmp_path, os.O_RDONLY)
    assert system.lock_exclusive(third)
    assert not system.lock_exclusive(two[0])
    os.close(third)
    assert system.lock_exclusive(two[0])


@pytest.mark.parametrize("lock", [system.lock_exclusive, system.lock_shared])
def test_a_lock_that_cannot_be_had_at_all_is_an_error(
    lock: Callable[[int], bool], tmp_path: Path
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lock(fd)


# -- Clocks


def test_now_is_the_wall_clock_in_microseconds() -> None:
    before = time.time_ns()
    assert before // 1000 <= system.now_us() <= time.time_ns() // 1000


def test_now_goes_by_a_clock_that_a_test_has_set() -> None:
    with time_machine.travel(datetime(2031, 2, 3, tzinfo=UTC), tick=False):
        assert system.now_us() == int(datetime(2031, 2, 3, tzinfo=UTC).timestamp()) * 1_000_000


def test_the_boot_time_clock_counts_from_the_start_whatever_the_wall_clock_says() -> None:
    before = system.boottime_us()
    with time_machine.travel(datetime(2031, 2, 3, tzinfo=UTC)):
        during = system.boottime_us()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 < before <= during <= (uptime + 1) * 1_000_000


def test_a_boot_has_one_name() -> None:
    assert len(system.boot_id()) == 36
    assert system.boot_id() == system.boot_id()


def test_where_proc_is_missing_nothing_is_known_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(path: object, *_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr("builtins.open", absent)
    told = system.boot_id(), system.mounts_below(tmp_path), system.filesystem_of(tmp_path)
    network = system.is_network_filesystem(tmp_path)
    monkeypatch.undo()
    assert told == ("", frozenset(), "")
    assert network is None


# -- Mounts


@needs_root
def test_mounts_below_are_found_whatever_their_names(tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = ["plain", "with space", "tab\tand\nnewline", "back\\slash", "\udcff", "hash#", "a/deep"]
    for name in [*names, "outside"]:
        (root / name).mkdir(parents=True)
    (tmp_path / "root-too").mkdir()
    (tmp_path / "link").symlink_to(root)

    def check() -> tuple[frozenset[str], ...]:
        enter_own_mounts()
        assert system.mounts_below(root) == frozenset()
        mount_tmpfs(tmp_path / "root-too")
        for name in names:
            bind(root / "outside", root / name)
        bare = system.mounts_below(root)
        bind(root / "outside", root)
        return bare, system.mounts_below(tmp_path / "link"), system.mounts_below("/")

    bare, with_itself, everywhere = in_child(check)
    assert bare == {str(root / name) for name in names}
    assert with_itself == bare
    assert everywhere > bare | {str(root), str(tmp_path / "root-too")}
    assert "/" not in everywhere


@needs_root
def test_the_file_system_is_that_of_the_nearest_mount_and_the_latest_on_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    def check() -> list[str]:
        enter_own_mounts()
        mount_tmpfs(tmp_path / "a")
        (tmp_path / "a/b").mkdir()
        below = system.filesystem_of(tmp_path / "a/b"), system.filesystem_of(tmp_path / "a/not/yet")
        bind("/proc", tmp_path / "a")
        return [*below, system.filesystem_of(tmp_path / "a"), system.filesystem_of(tmp_path / "ab")]

    *inside, hidden, beside = in_child(check)
    assert inside == ["tmpfs", "tmpfs"]
    assert hidden == "proc"
    assert beside == system.filesystem_of(tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nas:/x {} rw,relatime shared:7 - nfs4 nas:/x rw", "nfs4"),
        ("/ {} rw - cifs //nas/x rw", "cifs"),
        ("/ {} rw - fuse.sshfs me@there: rw", "fuse.sshfs"),
        ("/ {} rw master:1 propagate_from:2 - 9p host rw", "9p"),
        ("/ {} rw - fuse.glusterfs g:/v rw", "fuse.glusterfs"),
        ("/ {} rw - ceph mon:/ rw", "ceph"),
        ("/ {} rw - ext4 /dev/nfs rw", None),
        ("/ {} rw - fuse.encfs encfs rw", None),
        ("/nfs {} rw - xfs nfs rw", None),
    ],
)
def test_a_network_file_system_is_told_by_its_type(
    line: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:40 " + line.format(tmp_path / "m") + "\n"
    )
    real_open = open
    monkeypatch.setattr("builtins.open", lambda _path, *args: real_open(mountinfo, *args))
    found = system.is_network_filesystem(tmp_path / "m/root"), system.filesystem_of(tmp_path)
    monkeypatch.undo()
    assert found == (told, "ext4")


def test_the_place_of_this_test_has_a_file_system(tmp_path: Path) -> None:
    assert system.filesystem_of(tmp_path)
