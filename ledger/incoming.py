"""Uploads on their way in: bytes stream into `incoming`, and are published in one step.

An upload holds the shared lock of its session from the first byte to the last, so that no sweep
and no claim comes in between; a delete waits for nobody, and then the upload finds it gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Self

from ledger import life, moves, queries, removal, states, system, upkeep
from ledger.claims import check_name
from ledger.disk import open_directory
from ledger.errors import (
    CoatcheckError,
    CommitUnknown,
    LimitExceeded,
    NameTaken,
    NoSpace,
    SessionBusy,
    SessionEnded,
    SessionNotFound,
    UsageError,
)
from ledger.models import Actor, Origin, Record, State
from ledger.place import Place
from ledger.publishing import Arriving, Received, numbered, publish, standing, telling_full
from ledger.states import New

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MULTIPART_OVERHEAD = 1 << 16
_MOST_LABEL = 1000


class Upload:
    """Files on their way into one session, new or standing; `commit` publishes them, all or none.

    Use it as a context manager: leaving it without a commit leaves nothing behind. Not for use
    by two threads at once. Raises UsageError, LimitExceeded, NoSpace, SessionError.
    """

    def __init__(
        self,
        place: Place,
        clock: Callable[[], int],
        record: Record | None,
        *,
        by: Actor,
    ) -> None:
        self._place = place
        self._by = by
        self._clock = clock
        self._record = record
        self._touched_at = clock()
        self._files: list[Arriving] = []
        self._written = 0
        self._given_back = 0  # by the files that are replaced
        self._room = self._measure_room()
        self._done = False
        self._stack = ExitStack()
        self._session_fd = -1
        try:
            if record is not None:
                self._session_fd = self._stack.enter_context(
                    place.hold(record.session_id, shared=True)
                )
            self._draft = moves.new_id()
            self._fd = self._make_draft()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    # Room

    def _measure_room(self) -> tuple[int, int | None]:
        """How many bytes the session, and the root, can take."""
        settings = self._place.settings
        session = settings.max_session_bytes - (self._record.bytes if self._record else 0)
        if settings.max_root_bytes is None:
            return session, None
        with self._place.database.read() as connection:
            _, held = queries.totals(connection, self._place.root_id)
        return session, settings.max_root_bytes - held

    def expect(self, size: int, *, multipart: bool = False) -> None:
        """Refuses at once what its own length says cannot fit. `size` is in bytes."""
        least = max(0, size - _MULTIPART_OVERHEAD) if multipart else size
        self._check_room(least)
        if least > self._place.root.free_bytes():
            raise NoSpace("The disk has no room for this upload.")

    @property
    def room(self) -> int:
        """How many bytes it can take in all, as far as was known when it began."""
        session, root = self._room
        return (session if root is None else min(session, root)) + self._given_back

    def _check_room(self, size: int) -> None:
        session, root = self._room
        size -= self._given_back
        if size > session:
            most = self._place.settings.max_session_bytes
            raise LimitExceeded(f"A session may hold {most} bytes; this upload is beyond that.")
        if root is not None and size > root:
            raise NoSpace("The upload quota of this server is used up; try again later.")

    # Bytes

    def open_file(self, name: str, *, replace: bool = False) -> None:
        """Begins the next file. Without `replace`, a name that is taken gets a number."""
        check_name(name, "A file name")
        most = self._place.settings.max_session_files
        held = self._record.files if self._record else 0
        if len(self._files) + (0 if replace else held) >= most:
            raise LimitExceeded(f"A session may hold {most} files; this upload is beyond that.")
        self.close_file()
        draft = self._free_name(name) if self._record is None else f"{len(self._files)}"
        with telling_full():
            fd = os.open(draft, _NEW_FILE, 0o666, dir_fd=self._fd)
        file = Arriving(draft, draft if self._record is None else name, replace, fd)
        self._files.append(file)
        if self._record is not None:
            self._given_back += standing(file, self._session_fd) or 0

    def _free_name(self, name: str) -> str:
        taken = {file.name for file in self._files}
        for free in numbered(name):
            if free not in taken:
                return free
        raise NameTaken(f"No free name is left for '{name}'.")

    def write(self, chunk: bytes) -> None:
        """Appends to the file that was begun last. At the first byte past a limit: refused."""
        self._check_room(self._written + len(chunk))
        file = self._files[-1]
        view = memoryview(chunk)
        with telling_full():
            while view:
                view = view[os.write(file.fd, view) :]
        file.bytes += len(chunk)
        self._written += len(chunk)
        self._keep_alive()

    def close_file(self) -> None:
        if self._files and self._files[-1].fd >= 0:
            os.close(self._files[-1].fd)
            self._files[-1].fd = -1

    def _keep_alive(self) -> None:
        now = self._clock()
        every = min(30_000_000, self._place.settings.max_age_us // 10)
        if self._record is not None and now - self._touched_at >= every:
            self._touched_at = now
            # One that is deleted meanwhile is found so at the commit.
            with suppress(SessionEnded, SessionBusy, SessionNotFound):
                life.touch(self._place, self._record.session_id, now, self._by)

    # The end

    def commit(self, label: str | None = None) -> tuple[Record, list[Received]]:
        """Publishes every file in one step; the session as it is then."""
        if label is not None:
            check_label(label)
        self.close_file()
        self._place.root.check()
        done = self._create(label) if self._record is None else self._add(self._record)
        self._finish()
        return done

    def discard(self) -> None:
        """Leaves nothing of what was not committed."""
        if self._done:
            return
        self.close_file()
        with suppress(OSError, CoatcheckError):
            upkeep.remove_leftover(self._place, self._draft)
        self._finish()

    def _finish(self) -> None:
        self._done = True
        if self._record is not None:
            with suppress(OSError):  # what stays, a sweep finishes; the locks must go
                removal.remove_empty_directory(self._draft, dir_fd=self._place.root.incoming)
        os.close(self._fd)
        self._stack.close()

    def _make_draft(self) -> int:
        """A directory in `incoming`, locked by us: what nobody locks is a leftover."""
        with telling_full():
            os.mkdir(self._draft, dir_fd=self._place.root.incoming)
        fd = open_directory(self._draft, dir_fd=self._place.root.incoming)
        system.lock_exclusive(fd)
        return fd

    def _create(self, label: str | None) -> tuple[Record, list[Received]]:
        """The directory, then its row; a create that fails leaves nothing."""
        now = self._clock()
        os.utime(self._fd, ns=(now * 1000, now * 1000))
        session_id = moves.new_id()
        with telling_full():
            moves.publish_directory(self._place.root, self._draft, session_id)
        try:
            record = self._write_row(session_id, label, now)
        except CommitUnknown:
            raise  # the row may stand, and then its directory must; else a sweep adopts it
        except BaseException:
            with suppress(OSError, CoatcheckError):
                dead = moves.bury(self._place.root, session_id, dir_fd=self._place.root.fd)
                removal.remove_dead(self._place.root.trash, dead)
            raise
        return record, [Received(file.name, file.bytes, False) for file in self._files]

    def _write_row(self, session_id: str, label: str | None, now: int) -> Record:
        new = New(
            session_id,
            Origin.CREATED,
            "created",
            last_touch_at=now,
            created_at=now,
            touched=True,
            label=label,
            bytes=self._written,
            files=len(self._files),
        )
        with self._place.database.write() as connection:
            made = states.insert(connection, self._place.root_id, [new], self._by, now)
            if session_id in made:
                return made[session_id]
            adopted = queries.record_of(connection, self._place.root_id, session_id)
            record = adopted and states.created(connection, adopted, label, now)
        if record is None:
            raise SessionEnded("The session was removed while it was being created.")
        return record

    def _add(self, record: Record) -> tuple[Record, list[Received]]:
        """The path is still that directory; one conditional UPDATE; then the renames, all or none
        of the new files."""
        if not self._place.stands(record.session_id, self._session_fd):
            raise self._why_not(record)
        replaced = [standing(file, self._session_fd) for file in self._files]
        settings = self._place.settings
        now = self._clock()
        with self._place.database.write() as connection:
            after = states.publish(
                connection,
                record,
                add_bytes=self._written - sum(size or 0 for size in replaced),
                add_files=sum(size is None for size in replaced),
                most_bytes=settings.max_session_bytes,
                most_files=settings.max_session_files,
                now=now,
            )
        if after is None:
            raise self._why_not(record)
        try:
            received = publish(self._files, self._fd, self._session_fd)
        except BaseException as error:
            self._count_out(after, replaced)
            gone = isinstance(error, FileNotFoundError)
            if gone and not self._place.stands(record.session_id, self._session_fd):
                raise self._why_not(record) from error  # a DELETE waits for nobody
            raise
        with suppress(OSError):
            os.utime(self._session_fd, ns=(now * 1000, now * 1000))
        return after, received

    def _count_out(self, record: Record, replaced: list[int | None]) -> None:
        """The files that the disk would not take are not in the session, nor counted as if."""
        pairs = zip(self._files, replaced, strict=True)
        missing = [(file.bytes, size) for file, size in pairs if file.received is None]
        with suppress(CoatcheckError), self._place.database.write() as connection:
            states.count_out(
                connection,
                record,
                size=sum(new - (old or 0) for new, old in missing),
                files=sum(old is None for _, old in missing),
            )

    def _why_not(self, record: Record) -> CoatcheckError:
        with self._place.database.read() as connection:
            row = queries.record_of(connection, self._place.root_id, record.session_id)
        if row is not None and row.state == State.CLAIMING:
            return SessionBusy("The session is just being claimed.")
        if row is None or row.state != State.ACTIVE:
            return life.ended_error(row)
        if not self._place.stands(record.session_id, self._session_fd):
            return SessionEnded("The session's directory is gone.")
        return LimitExceeded("The session's limit of bytes or files is reached.")


def check_label(label: str) -> str:
    """`label` itself, if it can be one. Raises UsageError saying why not."""
    if len(label) > _MOST_LABEL:
        raise UsageError(f"A label may have {_MOST_LABEL:,} characters, not {len(label):,}.")
    if "\0" in label or any("\ud800" <= character <= "\udfff" for character in label):
        raise UsageError("A label must be valid Unicode, without NUL.")
    return label
