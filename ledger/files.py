"""One file of a session: opened to be read, or taken back out."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from ledger import life, queries, removal, states
from ledger.claims import check_name
from ledger.disk import lying_there
from ledger.models import Actor
from ledger.place import Place

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LIMIT = 2**62


def open_file(session_fd: int, name: str) -> int:
    """A descriptor to read a regular file. Raises UsageError, FileNotFoundError, OSError."""
    check_name(name, "A file name")
    facts = os.stat(name, dir_fd=session_fd, follow_symlinks=False)
    if stat.S_ISREG(facts.st_mode):  # looked at first, since opening a device may do something
        with suppress(NotADirectoryError), lying_there(name):
            fd = os.open(name, _READ, dir_fd=session_fd)
            if os.path.samestat(os.fstat(fd), facts):
                return fd
            os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "no such file", name)


def delete_file(place: Place, session_id: str, name: str, now: int, by: Actor) -> bool:
    """The row counts it out first, so that who has lost the session touches no file of it."""
    check_name(name, "A file name")
    record = life.touch(place, session_id, now, by)
    with place.hold(session_id, shared=True) as fd:
        try:
            file = open_file(fd, name)
        except FileNotFoundError:
            return False
        size = os.fstat(file).st_size
        os.close(file)
        with place.database.write() as connection:
            before = queries.record_of(connection, place.root_id, session_id)
            counted = states.publish(
                connection,
                record,
                add_bytes=-size,
                add_files=-1,
                most_bytes=_NO_LIMIT,
                most_files=_NO_LIMIT,
                now=now,
            )
        if before is None or counted is None:
            raise life.changing_error(session_id)
        done = False
        try:
            done = removal.unlink_file(name, dir_fd=fd)
        finally:
            if not done:  # the disk refused, or another one was quicker
                back = {"size": counted.bytes - before.bytes, "files": counted.files - before.files}
                with place.database.write() as connection:
                    states.count_out(connection, counted, **back)
        with suppress(OSError):  # it was touched before, and the system dates what it unlinks from
            os.utime(fd, ns=(now * 1000, now * 1000))
        return done
