"""The few calls that Python lacks, each with what does without it.

A name beside a `dir_fd` is one entry of that directory, never a path. Errors are `OSError`s as
Python's own calls raise them, with errno and names.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import re
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
RENAME_NOREPLACE = 1
# No mount crossed, no link followed, nothing above the directory.
RESOLVE_HERE = 0x01 | 0x02 | 0x04 | 0x08
# How a kernel, a file system or a container's filter says that it lacks a call.
LACKING = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP}
NETWORK = re.compile(
    r"9p|acfs|afp|afs|beegfs|ceph(-fuse)?|cifs|coda|davfs|gcsfuse|gfs2|glusterfs|goofys|gpfs|juicefs"
    r"|lustre|mfs|ncpfs|nfs4?|ocfs2|orangefs|prl_fs|pvfs2|rclone|s3fs|smb[23]|smbfs|sshfs|vboxsf"
)


def now_us() -> int:
    """The wall clock, in whole microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def boottime_us() -> int:
    """Microseconds since the machine started, asleep ones included where the system tells them."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


def boot_id() -> str:
    """What names this boot of the machine; "" where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


# -- Directories, by descriptor


def open_directory(name: str, *, dir_fd: int) -> int:
    """Opens the directory `name`. A link or a file: NotADirectoryError; a mount point: EXDEV."""
    return _open_here(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd)


def stat_directory(name: str, *, dir_fd: int) -> os.stat_result:
    """The facts of the directory `name`, readable or not; refuses what `open_directory` does."""
    with _pointing_at(name, dir_fd) as fd:
        return os.fstat(fd)


def chmod_private(name: str, *, dir_fd: int) -> None:
    """Gives the owner every right on the directory `name`; refuses what `open_directory` does."""
    if sys.platform != "linux":
        os.chmod(name, stat.S_IRWXU, dir_fd=dir_fd, follow_symlinks=False)
        return
    with _pointing_at(name, dir_fd) as fd:
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(os.fstat(fd).st_mode) | stat.S_IRWXU)


def with_rights(act: Callable[..., _T], name: str, dir_fd: int) -> _T:
    """Acts on the directory `name`; if that is refused, once more with every right on it."""
    try:
        return act(name, dir_fd=dir_fd)
    except PermissionError:
        with contextlib.suppress(OSError):
            chmod_private(name, dir_fd=dir_fd)
        return act(name, dir_fd=dir_fd)


def set_mtime(name: str, ns: int, *, dir_fd: int) -> None:
    """The directory's mtime is `ns`; now, where one may write into it without being its owner.

    Refuses what `open_directory` does; PermissionError where one may do neither.
    """
    try:
        fd = open_directory(name, dir_fd=dir_fd)
    except PermissionError:  # to date it, one need not read it
        with _pointing_at(name, dir_fd) as fd:
            _date(f"/proc/self/fd/{fd}", ns)
        return
    try:
        _date(fd, ns)
    finally:
        os.close(fd)


def _date(directory: int | str, ns: int) -> None:
    try:
        os.utime(directory, ns=(ns, ns))
    except PermissionError:
        os.utime(directory)


@contextlib.contextmanager
def _pointing_at(name: str, dir_fd: int) -> Iterator[int]:
    """A descriptor of the directory, whatever takes its name, for which no right on it is needed
    where the system has such."""
    fd = _open_here(name, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY, dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def fsync_dir(fd: int) -> None:
    """The directory's entries are on the disk; nothing to do where directories cannot be synced."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def fsync_entry(path: str | os.PathLike[str]) -> None:
    """What stands at the path stands there after a power cut, too."""
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync_dir(parent)
    finally:
        os.close(parent)


def _open_here(name: str, flags: int, dir_fd: int) -> int:
    if "/" in name or name in {"", ".", ".."}:
        raise ValueError(f"not the name of an entry: {name!r}")
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if openat2 := _openat2():
        how = struct.pack("QQQ", flags, 0, RESOLVE_HERE)
        fd = openat2(dir_fd, _encoded(name), how, len(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in LACKING:
            raise _os_error(name)
    return _open_and_compare(name, flags, dir_fd)


def _open_and_compare(name: str, flags: int, dir_fd: int) -> int:
    """Without openat2: opens first, and then asks whether that was another mount."""
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        if _mount_of(fd) != _mount_of(dir_fd):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    except OSError:
        os.close(fd)
        raise
    return fd


def _mount_of(fd: int) -> tuple[int, str]:
    """Device and mount id; without /proc no id, and bind mounts of one device go unseen."""
    mount_id = ""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/self/fdinfo/{fd}") as lines:
        mount_id = next((line for line in lines if line.startswith("mnt_id:")), "")
    return os.fstat(fd).st_dev, mount_id


# -- Renaming without replacing


def rename_noreplace(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Renames; whatever has the name `dst` already, FileExistsError.

    Where kernel or file system lack the call, somebody who takes the name between our look and our
    rename may lose a file, or an empty directory, to it: `rename_is_exclusive` tells.
    """
    args = src_dir_fd, _encoded(src), dst_dir_fd, _encoded(dst), RENAME_NOREPLACE
    if renameat2 := _renameat2():
        if renameat2(*args) == 0:
            return
        if ctypes.get_errno() not in LACKING:
            raise _os_error(src, dst)
    _look_and_rename(src, dst, src_dir_fd, dst_dir_fd)


def rename_is_exclusive() -> bool:
    """Whether the kernel has the call; a file system that lacks it shows only when renaming."""
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    renameat2(-1, b"a", -1, b"b", RENAME_NOREPLACE)
    return ctypes.get_errno() not in LACKING


def _look_and_rename(src: str, dst: str, src_dir_fd: int, dst_dir_fd: int) -> None:
    try:
        os.stat(dst, dir_fd=dst_dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), src, None, dst)


# -- Room and locks


def allocate(fd: int, size: int) -> None:
    """The file's first `size` bytes have their place on the disk; ENOSPC when there is none."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        _fill(fd, size)


def _fill(fd: int, size: int) -> None:
    zeros = bytes(1 << 20)
    done = 0
    while done < size:
        done += os.pwrite(fd, zeros[: size - done], done)
    # A late allocation would find the disk full only now.
    os.fsync(fd)


def lock_exclusive(fd: int) -> bool:
    """Takes the exclusive flock without waiting; False when somebody else holds one."""
    return _lock(fd, fcntl.LOCK_EX)


def lock_shared(fd: int) -> bool:
    """Takes a shared flock without waiting; False when somebody else holds the exclusive one."""
    return _lock(fd, fcntl.LOCK_SH)


def unlock(fd: int) -> None:
    """Gives the flock back; closing the last descriptor does the same."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# -- Mounts


class _Mount(NamedTuple):
    point: str
    kind: str


def mounts_below(path: str | os.PathLike[str]) -> frozenset[str]:
    """The mount points below `path`, itself not among them; bind mounts of one file system are."""
    inside = os.path.realpath(path).rstrip("/") + "/"
    return frozenset(m.point for m in _mounts() if m.point.startswith(inside) and m.point != inside)


def filesystem_of(path: str | os.PathLike[str]) -> str:
    """The type of the file system at `path`, as mount(8) names it; "" where nothing tells."""
    real = os.path.realpath(path)
    point, kind = "", ""
    for mount in _mounts():
        holds = real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
        # Of two mounts on one point, the later hides the earlier.
        if holds and len(mount.point) >= len(point):
            point, kind = mount
    return kind


def is_network_filesystem(path: str | os.PathLike[str]) -> str | None:
    """The file system's type when its files lie on other machines, else None."""
    kind = filesystem_of(path)
    return kind if NETWORK.fullmatch(kind.removeprefix("fuse.")) else None


def _mounts() -> list[_Mount]:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    return [_mount(line.split(b" ")) for line in lines]


def _mount(fields: list[bytes]) -> _Mount:
    """Of `id parent device root POINT options [more…] - TYPE source options`."""
    point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), fields[4])
    return _Mount(os.fsdecode(point), os.fsdecode(fields[fields.index(b"-", 6) + 1]))


# -- The C library


@cache
def _openat2() -> Callable[..., int] | None:
    return _call("openat2", {"x86_64": 437, "aarch64": 437, "riscv64": 437})


@cache
def _renameat2() -> Callable[..., int] | None:
    return _call("renameat2", {"x86_64": 316, "aarch64": 276, "riscv64": 276})


def _call(name: str, numbers: dict[str, int]) -> Callable[..., int] | None:
    """The C library's function, else the system call by its number on this machine, else None."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):
        found: Callable[..., int] = libc[name]
        return found
    number = numbers.get(platform.machine())
    if number is None or sys.maxsize < 1 << 32:
        return None
    call = libc["syscall"]
    call.restype = ctypes.c_long
    return partial(call, ctypes.c_long(number))


def _encoded(name: str) -> bytes:
    encoded = name.encode(_ENCODING, _ERRORS)
    if b"\0" in encoded:  # C would take the name to end there.
        raise ValueError("embedded null byte")
    return encoded


def _os_error(src: str, dst: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), src, None, dst)
