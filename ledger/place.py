"""One root and its ledger, paired and open: what every operation works on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ledger import system
from ledger.claims import Claims
from ledger.counts import Key, Tally
from ledger.database import Database
from ledger.disk import Root, inode_of, open_directory, stands
from ledger.errors import CoatcheckError, SessionBusy, SessionEnded
from ledger.models import short
from ledger.reserve import Reserve
from ledger.settings import Settings

# A report's probe holds a directory's lock for microseconds, a sweep for the time of a look.
_PATIENCE_S = {True: 5.0, False: 0.5}
_ABSENCE_S = 0.5
_GLANCE_S = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """One root and its ledger, open."""

    settings: Settings
    root: Root
    claims: Claims
    database: Database
    reserve: Reserve
    root_id: str
    tally: Tally = field(default_factory=Tally, compare=False)

    def close(self) -> None:
        with suppress(CoatcheckError):
            self.write_counts()
        self.root.close()
        self.database.close()

    def count(self, counted: Mapping[Key, int]) -> None:
        """What comes by the thousand is counted now, and written once in a while."""
        self.tally.add(counted)
        self.tally.write_if_due(self.database, self.root_id)

    def write_counts(self) -> None:
        """What was counted stands in the ledger. Raises CoatcheckError: then it waits."""
        self.tally.write(self.database, self.root_id)

    @contextmanager
    def hold(self, session_id: str, *, shared: bool) -> Iterator[int]:
        """The session's directory, open and locked: no sweep, and no claim, comes in between.

        Raises SessionBusy when somebody else keeps it, SessionEnded when it is not there.
        """
        fd = self._locked(session_id, shared=shared)
        try:
            yield fd
        finally:
            os.close(fd)

    def _locked(self, session_id: str, *, shared: bool) -> int:
        lock = system.lock_shared if shared else system.lock_exclusive
        began = time.monotonic()
        while True:
            gone = False
            try:
                fd = open_directory(session_id, dir_fd=self.root.fd)
            except (FileNotFoundError, NotADirectoryError):
                gone = True  # for a moment only, where a sweep is just putting it back
            else:
                try:
                    if lock(fd) and self.stands(session_id, fd):
                        return fd
                except BaseException:
                    os.close(fd)
                    raise
                os.close(fd)
            waited = time.monotonic() - began
            if gone and waited > _ABSENCE_S:
                raise SessionEnded("The session's directory is gone.")
            if waited > _PATIENCE_S[shared]:
                raise SessionBusy(
                    f"Session {short(session_id)}… is in use by another upload or program; "
                    "try again in a moment."
                )
            time.sleep(0.005)

    @contextmanager
    def presence(self, session_id: str, *, at_once: bool = False) -> Iterator[None]:
        """Meanwhile a sweep sees, by a shared lock where one can be had, soon or `at_once`, that
        somebody is at it."""
        try:
            fd = open_directory(session_id, dir_fd=self.root.fd)
        except OSError:
            yield
            return
        try:
            until = time.monotonic() + (0 if at_once else _GLANCE_S)
            while not system.lock_shared(fd) and time.monotonic() < until:
                time.sleep(0.001)
            yield
        finally:
            os.close(fd)

    def inode_of(self, session_id: str) -> str | None:
        """The inode of the session's directory; None where none stands at its name."""
        return inode_of(session_id, self.root.fd)

    def stands(self, session_id: str, fd: int) -> bool:
        """Whether the open directory is the one that stands at the session's name."""
        return stands(session_id, fd, self.root.fd)
