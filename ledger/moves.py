"""The only file that renames: publish, set aside, put back, restore, claim, bury.

Every move is one rename between directories that are open, and never replaces a directory.
"""

from __future__ import annotations

import base64
import errno
import os
import secrets
import stat
from contextlib import closing, suppress

from ledger import system
from ledger.disk import ROOT_ID, Root, TrashName, file_identity, inode_of
from ledger.removal import DEAD
from ledger.walk import walk

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def new_id(length: int = 26) -> str:
    """Random lower-case base32 characters from a secure source, 5 bits each."""
    random = secrets.token_bytes(-(-length * 5 // 8))
    return base64.b32encode(random).decode("ascii")[:length].lower()


def trash_name(session_id: str, *, by_user: bool, seen: int, due: int = 0) -> TrashName:
    """A new name in the trash; see `disk.TrashName` for its parts."""
    return TrashName(by_user, seen, due, secrets.token_hex(6), session_id)


def set_aside(root: Root, session_id: str, name: str, *, final: bool = False) -> os.stat_result:
    """The session's directory is in the trash; where that is final, whatever its mode. Its facts.

    Raises OSError: FileNotFoundError when it is not in the root, EBUSY when it is a mount point,
    NotADirectoryError when something else took its place in that very instant; it has it again.
    """

    def move(session_id: str, *, dir_fd: int) -> None:
        system.rename_noreplace(session_id, name, src_dir_fd=dir_fd, dst_dir_fd=root.trash)

    if final:
        # Moving a directory to another parent changes its `..`, which takes the right to write it.
        system.with_rights(move, session_id, root.fd)
    else:
        move(session_id, dir_fd=root.fd)
    there = os.stat(name, dir_fd=root.trash, follow_symlinks=False)
    if not stat.S_ISDIR(there.st_mode):
        with suppress(FileExistsError):  # then `finish_trash` tells of it
            put_back(root, name, session_id)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), session_id)
    return there


def put_back(root: Root, name: str, session_id: str) -> None:
    """The directory is in the root again. Raises FileExistsError when its name is taken."""
    system.rename_noreplace(name, session_id, src_dir_fd=root.trash, dst_dir_fd=root.fd)


def rename_in_trash(root: Root, name: str, new: str) -> None:
    """The entry of the trash bears the new name. Raises FileNotFoundError when it is gone."""
    system.rename_noreplace(name, new, src_dir_fd=root.trash, dst_dir_fd=root.trash)


def bury(root: Root, name: str, *, dir_fd: int | None = None) -> str:
    """The entry is dead: nobody brings it back. Its new name; FileNotFoundError when it is gone."""
    dead = DEAD + secrets.token_hex(8)
    source = root.trash if dir_fd is None else dir_fd
    system.rename_noreplace(name, dead, src_dir_fd=source, dst_dir_fd=root.trash)
    return dead


def publish_directory(root: Root, incoming: str, session_id: str) -> None:
    """A directory made in `incoming` is a session's directory, with all that is in it."""
    system.rename_noreplace(incoming, session_id, src_dir_fd=root.incoming, dst_dir_fd=root.fd)


def publish_file(source: str, name: str, *, incoming_fd: int, session_fd: int) -> None:
    """A file is in the session; one of that name is replaced by it."""
    os.rename(source, name, src_dir_fd=incoming_fd, dst_dir_fd=session_fd)


def publish_new_file(source: str, name: str, *, incoming_fd: int, session_fd: int) -> None:
    """A file is in the session. Raises FileExistsError when one of that name is there."""
    system.rename_noreplace(source, name, src_dir_fd=incoming_fd, dst_dir_fd=session_fd)


def take_back_file(
    name: str, draft: str, identity: tuple[int, int], *, incoming_fd: int, session_fd: int
) -> bool:
    """A file that was published is in `incoming` again; False where it is not as it came, or
    another has its name.

    Raises OSError: FileNotFoundError when it is gone.
    """
    if file_identity(name, session_fd) != identity:
        return False
    system.rename_noreplace(name, draft, src_dir_fd=session_fd, dst_dir_fd=incoming_fd)
    if file_identity(draft, incoming_fd) == identity:
        return True
    with suppress(FileExistsError):  # it was replaced in that very instant
        system.rename_noreplace(draft, name, src_dir_fd=incoming_fd, dst_dir_fd=session_fd)
    return False


def claim(root: Root, session_id: str, inode: str, parent_fd: int, name: str) -> None:
    """The session's directory, of this inode, is the claimed one, durably.

    Raises FileExistsError; FileNotFoundError when another took its place in that very instant.
    """
    system.rename_noreplace(session_id, name, src_dir_fd=root.fd, dst_dir_fd=parent_fd)
    if inode_of(name, parent_fd) != inode:
        with suppress(FileExistsError):
            system.rename_noreplace(name, session_id, src_dir_fd=parent_fd, dst_dir_fd=root.fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), session_id)
    system.fsync_dir(parent_fd)
    system.fsync_dir(root.fd)


def probe(root: Root, name: str, claims_fd: int) -> None:
    """A directory of `incoming` is in the claims directory. Raises OSError where none can go."""
    system.rename_noreplace(name, name, src_dir_fd=root.incoming, dst_dir_fd=claims_fd)


def make_durable(fd: int) -> None:
    """Every file and directory below an open directory is on stable storage. Raises OSError."""
    with closing(walk(fd)) as found:
        for parent, _, name, facts in found:
            if stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode):
                entry = os.open(name, _READ, dir_fd=parent)
                try:
                    os.fsync(entry)
                finally:
                    os.close(entry)
    os.fsync(fd)


def write_root_id(root: Root, root_id: str) -> None:
    """The root bears this id, durably."""
    draft = f"{ROOT_ID}.new"
    fd = os.open(draft, _WRITE, 0o644, dir_fd=root.house)
    with os.fdopen(fd, "w") as file:
        file.write(root_id + "\n")
        file.flush()
        os.fsync(fd)
    os.rename(draft, ROOT_ID, src_dir_fd=root.house, dst_dir_fd=root.house)
    os.fsync(root.house)
    os.fsync(root.fd)
