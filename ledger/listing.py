"""One pass over a root: every suspect judged, every finding listed. A dry run is this alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from ledger import counts, queries, system
from ledger.counts import STATES
from ledger.disk import HOUSE, INCOMING, TRASH
from ledger.models import State
from ledger.place import Place
from ledger.plan import Action, Evidence, Facts, Finding, Policy, Verdict, judge
from ledger.report import Entry, Report
from ledger.runs import Order
from ledger.survey import (
    BATCH,
    Survey,
    Suspect,
    TrashFinding,
    gather,
    leftovers,
    mounts_in,
    survey_trash,
)

LEFTOVER = Verdict(Finding.UNFINISHED, Action.FINISH, "an upload that nobody is at any more")

_KEEPS = frozenset({Action.KEEP, Action.HEAL, Action.REPORT, Action.ADOPT, Action.REVIVE})


class Listing:
    """Time goes on from `now` by the machine's uptime, so no clock that is set ahead meanwhile
    counts. `out` fills as it goes; of several threads, whoever adds to it holds `telling`."""

    def __init__(self, place: Place, order: Order, now: int, clock: Callable[[], int]) -> None:
        self.place = place
        self._clock = clock
        self._began = now, system.boottime_us()
        self.progress = order.progress
        self.mounts = mounts_in(place.root)
        self.policy = order.policy
        if order.listed is not None:
            self.policy = Policy(order.listed.max_age_us, order.policy.undo)
        self._keep_entries = order.keep_entries
        self.telling = threading.Lock()
        self.out = Report(
            now, place.root.path, place.root_id, self.policy.max_age, dry_run=order.dry_run
        )

    @property
    def now(self) -> int:
        """What is read from here on may have been used since the run began."""
        began, uptime = self._began
        # By a clock that was set back meanwhile, what is used from then on bears its times.
        return min(began + system.boottime_us() - uptime, self._clock())

    def report(self) -> Report:
        """Every finding, and nothing done about it."""
        self.expect()
        listed = self._list_unfinished()
        self._list_trash(listed)
        for entry in leftovers(self.place.root, self.now):
            self.list_leftover(entry)
        for names in self.names():
            for suspect in gather(self.place, names, self.now, self.mounts):
                verdict = self.judge(suspect)
                if verdict and suspect.evidence.session_id not in listed:
                    self.list(suspect.evidence, verdict)
        return self.out

    def _list_unfinished(self) -> dict[str, str | None]:
        """Lists what is being claimed or removed; by their id, the trash names of those."""
        listed: dict[str, str | None] = {}
        for batch in self.unfinished():
            for suspect in batch:
                evidence = suspect.evidence
                if verdict := self.judge(suspect):
                    row = evidence.row
                    listed[evidence.session_id] = row.trash if row else None
                    self.list(evidence, verdict)
        return listed

    def _list_trash(self, listed: dict[str, str | None]) -> None:
        its_row_is_listed = set(listed.values())
        for found in survey_trash(self.place, self.now):
            if found.entry.entry not in its_row_is_listed:
                self.list_trash(found)

    # What is looked at

    def judge(self, suspect: Suspect) -> Verdict | None:
        return judge(suspect.evidence, self.now, self.policy)

    def unfinished(self) -> Iterator[list[Suspect]]:
        """Sessions whose claim or removal the ledger has as under way, in batches."""
        after = 0
        while True:
            with self.place.database.read() as connection:
                rows = queries.unfinished(connection, self.place.root_id, after, BATCH)
            if not rows:
                return
            after = rows[-1].pk
            names = [row.session_id for row in rows]
            yield gather(self.place, names, self.now, self.mounts)

    def names(self) -> Generator[list[str]]:
        """Whom the root's survey leaves in doubt, in batches."""
        survey = Survey(self.place, lambda: self.now, self.policy, self.progress.advance)
        with closing(survey.suspects()) as found:
            for names in found:
                if self.progress.cancel.is_set():
                    break
                yield names
        with self.telling:
            self.out.count(Finding.LIVE, size=survey.live_bytes, sessions=survey.live)
            self.out.kept[Finding.LIVE] += survey.live

    def expect(self) -> None:
        """Sets the progress's total to what the ledger has."""
        with self.place.database.read() as connection:
            kept = counts.kept(connection, self.place.root_id)
        standing = (State.ACTIVE, State.CLAIMING)
        self.progress.total = sum(kept.get(counts.of(STATES, state), 0) for state in standing)

    # What is listed

    def list(self, evidence: Evidence, verdict: Verdict) -> None:
        path = self.place.root.path_of(evidence.session_id)
        self._add(verdict, evidence.session_id, path, evidence.disk)

    def list_trash(self, found: TrashFinding) -> None:
        path = self.house_path(TRASH, found.entry.entry)
        self._add(found.verdict, found.session_id, path, found.facts)

    def list_leftover(self, entry: str) -> None:
        self._add(LEFTOVER, None, self.house_path(INCOMING, entry), None)

    def house_path(self, folder: str, entry: str) -> str:
        return f"{self.place.root.path}/{HOUSE}/{folder}/{entry}"

    def _add(
        self, verdict: Verdict, session_id: str | None, path: str, facts: Facts | None
    ) -> None:
        files, size = (facts.files, facts.bytes) if facts else (0, 0)
        self.out.count(verdict.finding, size=size)
        self.out.kept[verdict.finding] += verdict.action in _KEEPS
        if verdict.finding is not Finding.LIVE and self._keep_entries:
            self.out.entries.append(
                Entry.of(verdict, session_id, path, self.now, files=files, size=size)
            )
