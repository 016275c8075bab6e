"""SessionLedger, the one door: says what happens in which order, and leaves the doing to others."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from ledger import (
    adoption,
    dry_runs,
    files,
    guards,
    life,
    pairing,
    queries,
    restoring,
    runs,
    sweep,
    system,
)
from ledger.disk import StoredFile, few_files_of, files_of, is_session_id, open_directory
from ledger.errors import DryRunGone, LedgerFull, SessionNotFound, UsageError
from ledger.health import Health, health
from ledger.incoming import Upload
from ledger.models import ENDED, Actor, Origin, Record, State
from ledger.place import Place
from ledger.plan import Evidence, Policy, Verdict, judge
from ledger.remover import Remover
from ledger.report import Report, moment
from ledger.runs import Order, Progress
from ledger.settings import CENTURY_HOURS, HOUR_US, Settings, hours_us
from ledger.survey import gather, mounts_in

log = logging.getLogger("coatcheck")

SweepResult = Report  # after the fact, the same value


@dataclass(frozen=True, slots=True)
class Session:
    """One temp session as the ledger knows it; times are UTC.

    `path` is where its directory stands, or stood; a claimed one's is its destination.
    `files` counts them, `bytes` is the sum of their sizes.
    """

    id: str
    path: str
    state: State
    label: str | None
    created_at: datetime
    last_touch_at: datetime
    expires_at: datetime
    bytes: int
    files: int
    origin: Origin
    ended_at: datetime | None
    ended_by: str | None
    ended_why: str | None


class SessionLedger:
    """The sessions of one root and their ledger, open; safe from many threads.

    Any method may raise LedgerUnavailable or RootUnavailable, and one that acts on a single
    session OSError, where the disk refuses it; it may then be called again.
    `by` says in the audit events who asked. `clock` gives microseconds since 1970 UTC.
    """

    def __init__(self, place: Place, clock: Callable[[], int]) -> None:
        self.place = place
        self.settings = place.settings
        self.clock = clock
        self._remover = Remover(place, clock)

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        adopt: bool = False,
        clock: Callable[[], int] = system.now_us,
    ) -> Self:
        """The root and the ledger of `settings`, proven to belong together.

        A new or empty root with a new ledger is initialised. Any other new pairing needs consent
        (`adopt`, or the setting), else RootMismatch is raised and nothing written. Raises
        UsageError for wrong settings, RootUnavailable, LedgerUnavailable.
        """
        settings = settings or Settings()
        place = pairing.open_place(settings, clock(), adopt=adopt or settings.adopt)
        try:
            with suppress(LedgerFull):  # a sweep must be able to open it, to make room
                guards.beat(place, clock())
        except BaseException:
            place.close()
            raise
        return cls(place, clock)

    def close(self, *, finish: bool = True) -> None:
        """What was deleted is removed, and everything closed. With `finish=False`, soon: bytes
        that are left then, the next sweep removes."""
        self._remover.close(finish=finish)
        self.place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # A session's life

    def create(self, label: str | None = None, *, by: Actor = Actor.LIBRARY) -> Session:
        """A new session: its directory stands, and the ledger has it."""
        with self.upload(None, by=by) as upload:
            record, _ = upload.commit(label)
        return self.session_of(record)

    def upload(self, session_id: str | None, *, by: Actor = Actor.LIBRARY) -> Upload:
        """Files on their way into a session; for None, into one that the commit will create.

        Counts as a touch as it begins, goes and ends. Raises SessionError.
        """
        self.place.root.check()
        if session_id is None:
            return Upload(self.place, self.clock, None, by=by)
        record = life.touch(self.place, session_id, self.clock(), by)
        return Upload(self.place, self.clock, record, by=by)

    def touch(self, session_id: str, *, by: Actor = Actor.LIBRARY) -> Session:
        """The session counts as used now, by the ledger and by the disk. Raises SessionError."""
        self.place.root.check()
        return self.session_of(life.touch(self.place, session_id, self.clock(), by))

    def touch_all(self, ids: Sequence[str]) -> list[Session]:
        """Those of the sessions that are active and stand, touched in one transaction; whatever
        there is to say about another, `touch` says."""
        self.place.root.check()
        return [self.session_of(each) for each in life.touch_all(self.place, ids, self.clock())]

    def claim(
        self, session_id: str, into: str | os.PathLike[str], *, by: Actor = Actor.LIBRARY
    ) -> Session:
        """The session's directory is the claimed one, durably; repeated, it answers the same.

        `into`: a name, or a path below the claims directory. Raises UsageError, NameTaken,
        SessionError, OSError where the directory cannot be moved.
        """
        self.place.root.check()
        return self.session_of(life.claim(self.place, session_id, into, self.clock, by))

    def delete_session(self, session_id: str, *, by: Actor = Actor.LIBRARY) -> bool:
        """The session is out of the root, at once whatever its size; its bytes go in background.

        True for who deleted it; False when there was none, or it had ended. Raises SessionBusy
        while it is being claimed, SessionElsewhere, OSError where it cannot be moved.
        """
        self.place.root.check()
        entry = life.delete(self.place, session_id, self.clock, by)
        if entry is None:
            return False
        self._remover.add(entry)
        return True

    def delete_all(self, ids: Sequence[str], *, by: Actor = Actor.LIBRARY) -> set[str]:
        """The ids of those that were active, and are out of the root now, all in two
        transactions; whatever there is to say about another, `delete_session` says."""
        self.place.root.check()
        entries = life.delete_all(self.place, ids, self.clock, by)
        for entry in entries.values():
            self._remover.add(entry)
        return set(entries)

    def restore(self, session_id: str, *, by: Actor = Actor.LIBRARY) -> Session:
        """A swept session is back from the trash, whole, as if touched.

        Raises NameTaken when another directory has its place, SessionNotFound when the trash
        holds none of it.
        """
        self.place.root.check()
        return self.session_of(restoring.restore(self.place, session_id, self.clock(), by))

    # Its files

    def files(self, session_id: str) -> list[StoredFile]:
        """The regular files of a session, by name. Raises SessionNotFound, OSError."""
        fd = self._open(session_id)
        try:
            return files_of(fd)
        finally:
            os.close(fd)

    def few_files(self, session_id: str, most: int) -> list[StoredFile] | None:
        """The same, without looking on where it has more than `most` entries: None."""
        fd = self._open(session_id)
        try:
            return few_files_of(fd, most)
        finally:
            os.close(fd)

    def claimed_files(self, session: Session) -> list[StoredFile]:
        """The regular files of a claimed session where it went; none once it went on from there."""
        try:
            fd = os.open(session.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return files_of(fd)
        finally:
            os.close(fd)

    def open_file(self, session_id: str, name: str) -> int:
        """A descriptor to read one file of the session. Raises FileNotFoundError."""
        fd = self._open(session_id)
        try:
            return files.open_file(fd, name)
        finally:
            os.close(fd)

    def delete_file(self, session_id: str, name: str, *, by: Actor = Actor.LIBRARY) -> bool:
        """One file is taken back out of the session, as a touch; False when it was not there."""
        self.place.root.check()
        return files.delete_file(self.place, session_id, name, self.clock(), by)

    def _open(self, session_id: str) -> int:
        if not is_session_id(session_id):
            raise SessionNotFound(session_id)
        self.place.root.check()
        try:
            return open_directory(session_id, dir_fd=self.place.root.fd)
        except (FileNotFoundError, NotADirectoryError):
            raise SessionNotFound(session_id) from None

    # Sweeping

    def cleanup_stale_sessions(
        self, max_age_hours: float = 24, *, by: Actor = Actor.LIBRARY
    ) -> int:
        """Removes the sessions unused for longer than `max_age_hours` (fractions allowed), logs
        their number and returns it; those whose bytes wait in the trash are counted too.

        Raises SweepStopped when a guard stopped it, RootMismatch.
        """
        report = self._run(self._order(max_age_hours, by=by, keep_entries=False))
        return report.removed

    def report(
        self, max_age_hours: float | None = None, *, progress: Progress | None = None
    ) -> Report:
        """The orphan report: each finding, what a sweep would do with it, and why.

        `max_age_hours` unset: the settings'. Changes nothing. Raises RootMismatch.
        """
        order = self._order(max_age_hours, by=Actor.SWEEP, dry_run=True, progress=progress)
        return dry_runs.report(self.place, order, self.clock)

    def dry_run(
        self,
        max_age_hours: float | None = None,
        *,
        by: Actor = Actor.LIBRARY,
        progress: Progress | None = None,
    ) -> Report:
        """A report that is recorded as a sweep is, and kept for an hour; `sweep` carries it out
        once.

        Raises SweepUnderWay, RootMismatch.
        """
        order = self._order(max_age_hours, by=by, dry_run=True, progress=progress)
        return dry_runs.run(self.place, order, self.clock)

    def kept(self, sweep_id: int) -> Report:
        """What that dry run listed. Raises SweepUnderWay while it runs, DryRunGone."""
        with self.place.database.read() as connection:
            row = queries.sweep(connection, self.place.root_id, sweep_id)
        if row is None or not row.dry_run:
            raise DryRunGone(f"There is no dry run {sweep_id}.")
        return dry_runs.load(self.place, row, self.clock())

    def sweep(
        self,
        report: Report | None = None,
        *,
        max_age_hours: float | None = None,
        past_the_brake: bool = False,
        trust_clock: bool = False,
        by: Actor = Actor.LIBRARY,
        keep_entries: bool = True,
        progress: Progress | None = None,
    ) -> SweepResult:
        """Carries out exactly what `report` lists, by its own max age; without one, reports and
        sweeps in one. Each entry is looked at again first.

        `keep_entries=False` spares the memory that the listed findings take. Raises
        SweepStopped, SweepUnderWay, RootMismatch, UsageError for a report of another root.
        """
        order = self._order(
            max_age_hours if report is None else report.max_age_us / HOUR_US,
            by=by,
            listed=report,
            past_the_brake=past_the_brake,
            trust_clock=trust_clock,
            keep_entries=keep_entries,
            progress=progress,
        )
        return self._run(order)

    def cancel_sweep(self, sweep_id: int) -> bool:
        """A sweep or dry run that is under way, in whatever process, is to end between two
        sessions, and does within a second or two; False for one that is not under way."""
        return runs.cancel(self.place, sweep_id, self.clock())

    def _run(self, order: Order) -> Report:
        report = sweep.run(self.place, order, self.clock)
        log.info(
            "removed %d stale sessions (%d of them wait in the trash; %d failed)",
            report.removed,
            report.waiting,
            report.failed,
        )
        for failure in report.failures:
            log.warning("not removed: %s", failure)
        return report

    def _order(
        self, max_age_hours: float | None, *, progress: Progress | None = None, **values: Any
    ) -> Order:
        hours = self.settings.max_age_hours if max_age_hours is None else max_age_hours
        if not 0 < hours <= CENTURY_HOURS or hours_us(hours) == 0:
            raise UsageError(
                f"The max age must be above 0 hours, and {CENTURY_HOURS:,} at most; {hours} is not."
            )
        policy = Policy(hours_us(hours), self.settings.undo_us)
        return Order(policy, progress=progress or Progress(), **values)

    def judge(self, session_id: str) -> tuple[Evidence, Verdict | None]:
        """What a sweep would do with one session now, by the settings' max age, and why."""
        now = self.clock()
        [suspect] = gather(self.place, [session_id], now, mounts_in(self.place.root))
        policy = Policy(self.settings.max_age_us, self.settings.undo_us)
        return suspect.evidence, judge(suspect.evidence, now, policy)

    def adopt_all(self, *, by: Actor = Actor.OPERATOR, progress: Progress | None = None) -> int:
        """Every directory that has no row has one, with its times; how many were recorded."""
        return adoption.record_all(self.place, self.clock(), by, progress or Progress())

    # What is read

    def get(self, session_id: str) -> Session:
        """A session, ended ones too. Raises SessionNotFound, SessionElsewhere."""
        return self.session_of(life.known(self.place, session_id))

    def standing(self, session_id: str) -> Session:
        """A session that has not ended. Raises SessionEnded, saying how and when it did, and
        what `get` raises."""
        record = life.known(self.place, session_id)
        if record.state in ENDED:
            raise life.ended_error(record)
        return self.session_of(record)

    def page(self, **query: Any) -> list[Session]:
        """One page of sessions; see `queries.page`."""
        with self.place.database.read() as connection:
            records = queries.page(connection, self.place.root_id, **query)
        return [self.session_of(record) for record in records]

    def health(self) -> Health:
        """Whether ledger, root, clock and disk are well, in words. Raises nothing."""
        return health(self.place)

    def session_of(self, record: Record) -> Session:
        path = self.place.root.path_of(record.session_id)
        if record.state == State.CLAIMED and record.destination:
            path = f"{self.place.claims.path}/{record.destination}"
        return Session(
            id=record.session_id,
            path=path,
            state=State(record.state),
            label=record.label,
            created_at=moment(record.created_at),
            last_touch_at=moment(record.last_touch_at),
            expires_at=moment(record.last_touch_at + self.settings.max_age_us),
            bytes=record.bytes,
            files=record.files,
            origin=Origin(record.origin),
            ended_at=None if record.ended_at is None else moment(record.ended_at),
            ended_by=record.ended_by,
            ended_why=record.ended_why,
        )
