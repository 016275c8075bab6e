"""Looks: ledger rows and disk facts side by side, streamed, as frozen evidence.

The comparison in bulk only raises suspicion. `Survey` names the suspects; `gather` reads each
of them, row and then disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice

from ledger import queries, system
from ledger.disk import (
    Root,
    TrashName,
    examine,
    is_session_id,
    look,
    newer_than,
    open_directory,
)
from ledger.models import Record, State
from ledger.place import Place
from ledger.plan import (
    ABSENT,
    FUTURE_US,
    Action,
    Evidence,
    Facts,
    Finding,
    Kind,
    Policy,
    Verdict,
)
from ledger.queries import ActivePage
from ledger.removal import DEAD
from ledger.settings import HOUR_US

BATCH = 64
_DEAD_NAME = re.compile(f"{DEAD}[a-z0-9]+")
_NAMES_AT_ONCE = 500
_ROWS_AT_ONCE = 20_000


class Survey:
    """One pass over a root: who is live by the ledger's own word, and who must be looked at.

    Its memory is that of the root's names.
    """

    def __init__(
        self,
        place: Place,
        now: Callable[[], int],
        policy: Policy,
        on_seen: Callable[[int], None],
    ) -> None:
        self.live = 0
        self.live_bytes = 0
        self._place = place
        self._now = now
        self._policy = policy
        self._on_seen = on_seen

    def suspects(self) -> Generator[list[str]]:
        """Names to be looked at, in batches: sessions untouched for long, what else stands on the
        disk, and what stands in the ledger alone."""
        on_disk = self._place.root.all_names()
        untouched: list[str] = []
        missing: list[str] = []
        for page, is_fresh in self._active():
            here = [name for name in page.ids if name in on_disk]
            if len(here) < len(page.ids):
                missing += (name for name in page.ids if name not in on_disk)
            on_disk.difference_update(here)
            if is_fresh:
                self._count(page, here)
            else:
                untouched += here
        yield from self._batched(chain(untouched, on_disk, missing))

    def _active(self) -> Iterator[tuple[ActivePage, bool]]:
        """All that are active, and whether the ledger alone knows them to be live.

        From the last touch backwards: who is touched meanwhile is met once, or left in doubt.
        """
        now = self._now()
        ahead, old = now + FUTURE_US + 1, now - self._policy.max_age
        for before, since in ((queries.MOST, ahead), (ahead, old), (old, queries.LEAST)):
            edge: tuple[int, int] | None = (before, 0)
            while edge is not None:
                with self._place.database.read() as connection:
                    page = queries.active_page(
                        connection, self._place.root_id, since, edge, _ROWS_AT_ONCE
                    )
                yield page, since == old
                edge = page.edge

    def _count(self, page: ActivePage, live: Sequence[str]) -> None:
        self.live += len(live)
        self.live_bytes += page.bytes
        if len(live) < len(page.ids):
            self.live_bytes -= page.bytes - self._bytes_of(live)
        self._on_seen(len(live))

    def _bytes_of(self, names: Iterable[str]) -> int:
        left, size = iter(names), 0
        while some := list(islice(left, _NAMES_AT_ONCE)):
            with self._place.database.read() as connection:
                size += queries.bytes_of(connection, self._place.root_id, some)
        return size

    def _batched(self, names: Iterable[str]) -> Generator[list[str]]:
        left = iter(names)
        while batch := list(islice(left, BATCH)):
            self._on_seen(len(batch))
            yield batch


@dataclass(slots=True)
class Suspect:
    """One session's evidence, and its directory, open and locked, where a sweep asked for it."""

    evidence: Evidence
    fd: int | None = None

    def release(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def gather(
    place: Place,
    names: Sequence[str],
    now: int,
    mounts: frozenset[str],
    *,
    keep: bool = False,
) -> list[Suspect]:
    """The evidence on each of the names, its row read before its directory.

    A directory that is not there is looked for twice. With `keep`, the directories come back
    open and exclusively locked, to be released by the caller.
    """
    with place.database.read() as connection:
        rows = queries.records_of(connection, place.root_id, filter(is_session_id, names))
    suspects: list[Suspect] = []
    try:
        for name in names:  # one by one, so that those before are released should one raise
            suspects.append(_suspect(place, name, rows.get(name), now, mounts, keep))  # noqa: PERF401
    except BaseException:
        for suspect in suspects:
            suspect.release()
        raise
    return suspects


def _suspect(
    place: Place, name: str, row: Record | None, now: int, mounts: frozenset[str], keep: bool
) -> Suspect:
    if not is_session_id(name):
        return Suspect(Evidence(name, None, Facts(Kind.FOREIGN, "a name that is no session id")))
    found = examine(place.root, name, now, mounts, keep=keep)
    if found.facts.kind is Kind.ABSENT and row is not None:
        if row.state == State.CLAIMING:
            return Suspect(Evidence(name, row, _at_destination(place, row)))
        place.root.check()
        found = examine(place.root, name, now, mounts, keep=keep)
    return Suspect(Evidence(name, row, found.facts), found.fd)


def _at_destination(place: Place, row: Record) -> Facts:
    """A claim is somebody's as long as the directory's lock is held, wherever it stands."""
    with suppress(OSError):
        parent, name = place.claims.open_parent(row.destination or "")
        try:
            fd = open_directory(name, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            held = not system.lock_exclusive(fd)
        finally:
            os.close(fd)
        return replace(ABSENT, in_use=held)
    return ABSENT


def mounts_in(root: Root) -> frozenset[str]:
    """Where other file systems are mounted in the root; read anew for each run."""
    return system.mounts_below(root.real)


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """One directory in the trash; `name` None: a dead one, of which only bytes are left."""

    entry: str
    name: TrashName | None


def trash_entries(root: Root) -> Iterator[TrashEntry]:
    """What lies in the trash; names that are not ours are passed over."""
    return filter(None, map(_trash_entry, os.listdir(root.trash)))


def _trash_entry(entry: str) -> TrashEntry | None:
    name = TrashName.parse(entry)
    return TrashEntry(entry, name) if name is not None or _DEAD_NAME.fullmatch(entry) else None


def last_set_aside(root: Root, session_id: str) -> TrashName | None:
    """What a sweep took of this session, and of several the last; None where nothing waits."""
    names = [
        entry.name
        for entry in trash_entries(root)
        if entry.name and entry.name.session_id == session_id and not entry.name.by_user
    ]
    return max(names, key=lambda name: (name.seen, name.due), default=None)


def bytes_in_trash(place: Place) -> int:
    """What lies in the trash, as the ledger knows it; of what it does not know, nothing."""
    entries = (entry.name for entry in trash_entries(place.root))
    ids = (name.session_id for name in entries if name)
    found = 0
    while some := set(islice(ids, _NAMES_AT_ONCE)):
        with place.database.read() as connection:
            found += queries.bytes_of(connection, place.root_id, some)
    return found


@dataclass(frozen=True, slots=True)
class TrashFinding:
    """An entry of the trash and what a sweep does with it; `row`: that of its session, where it
    is the one that names this entry."""

    entry: TrashEntry
    verdict: Verdict
    facts: Facts
    row: Record | None

    @property
    def session_id(self) -> str | None:
        return self.entry.name.session_id if self.entry.name else None


def survey_trash(
    place: Place, now: int, entries: Iterator[TrashEntry] | None = None
) -> Iterator[TrashFinding]:
    """Every entry of the trash, or each of those, judged, its row read before it."""
    entries = trash_entries(place.root) if entries is None else entries
    while some := list(islice(entries, _NAMES_AT_ONCE)):
        ids = {entry.name.session_id for entry in some if entry.name}
        with place.database.read() as connection:
            rows = queries.records_of(connection, place.root_id, ids)
        for entry in some:
            row = rows.get(entry.name.session_id) if entry.name else None
            mine = row if row is not None and row.trash == entry.entry else None
            if (found := judge_trash(place.root, entry, mine, now)) is not None:
                yield TrashFinding(entry, *found, mine)


def find_in_trash(place: Place, entry: str, now: int) -> TrashFinding | None:
    """The one entry of this name, judged; None where there is none."""
    known = _trash_entry(entry)
    return next(survey_trash(place, now, iter([known])), None) if known else None


def judge_trash(
    root: Root, entry: TrashEntry, row: Record | None, now: int
) -> tuple[Verdict, Facts] | None:
    """What a sweep does with an entry of the trash; None when it is gone by now."""
    name = entry.name
    if name is None:
        return _DEAD if _stands(root, entry.entry) else None
    try:
        facts = _facts_in_trash(root, entry.entry, row, now)
    except FileNotFoundError:
        return None
    except OSError as error:
        facts = Facts(Kind.UNREADABLE, error.strerror or str(error))
    if row is not None and row.state == State.ACTIVE:
        why = "touched after it was set aside; it goes back"
        return Verdict(Finding.UNFINISHED, Action.FINISH, why, name.seen), facts
    if name.by_user:
        why = "deleted by its user; its bytes are still to be removed"
        return Verdict(Finding.UNFINISHED, Action.FINISH, why, name.seen), facts
    if facts.in_use:
        return Verdict(Finding.IN_USE, Action.KEEP, "set aside, but a program holds it"), facts
    if name.due <= now:
        why = "set aside, and due to be removed"
        return Verdict(Finding.UNFINISHED, Action.FINISH, why, name.seen), facts
    hours = (name.due - now) / HOUR_US
    why = f"set aside; restorable, and removed in {hours:.1f} h"
    return Verdict(Finding.WAITING, Action.KEEP, why, name.seen), facts


_DEAD = Verdict(Finding.UNFINISHED, Action.FINISH, "its removal was interrupted"), ABSENT


def _stands(root: Root, entry: str) -> bool:
    try:
        os.stat(entry, dir_fd=root.trash, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _facts_in_trash(root: Root, entry: str, row: Record | None, now: int) -> Facts:
    fd = open_directory(entry, dir_fd=root.trash)
    try:
        held = not system.lock_exclusive(fd)
        if row is not None:  # its sizes are known, so it need not be looked at in each run
            return Facts(Kind.DIRECTORY, files=row.files, bytes=row.bytes, in_use=held)
        return replace(look(fd, now), in_use=held)
    finally:
        os.close(fd)


def leftovers(root: Root, now: int, entries: Iterable[str] | None = None) -> Generator[str]:
    """Uploads in `incoming`, or those of `entries`, that nobody is at: unlocked, and an hour old.

    Each is locked while it is in hand.
    """
    for entry in os.listdir(root.incoming) if entries is None else entries:
        with suppress(OSError, ValueError):  # an edited report lists what is no name at all
            fd = open_directory(entry, dir_fd=root.incoming)
            try:
                old = os.fstat(fd).st_mtime_ns // 1000 < now - HOUR_US
                if old and not newer_than(fd, now - HOUR_US, now) and system.lock_exclusive(fd):
                    yield entry
            finally:
                os.close(fd)
