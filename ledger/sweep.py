"""Acts: carries a report out, entry by entry, each looked at again first.

The same pass makes the report: a dry run is the sweep that does nothing with its verdicts.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update

from ledger import guards, moves, queries, states, upkeep
from ledger.disk import HOUSE, INCOMING, TRASH, TrashName, newer_than
from ledger.errors import CoatcheckError, Guard, LedgerFull, RootMismatch, SweepStopped, UsageError
from ledger.models import ENDED, SWEEPS, Actor, Origin, Record, State, short
from ledger.place import Place
from ledger.plan import Action, Evidence, Facts, Finding, Policy, Verdict, judge
from ledger.report import Entry, Report
from ledger.states import Move, New
from ledger.survey import (
    BATCH,
    Survey,
    Suspect,
    gather,
    judge_trash,
    leftovers,
    mounts_in,
    trash_entries,
)
from ledger.upkeep import Outcome

_LEFTOVER = Verdict(Finding.UNFINISHED, Action.FINISH, "an upload that nobody is at any more")
_SAVE_EVERY_S = 1.0


@dataclass(slots=True)
class Progress:
    """How far a run is, for who watches it from another thread; `total` is an estimate."""

    done: int = 0
    total: int | None = None
    removed: int = 0
    on_change: Callable[[Progress], None] | None = None
    cancel: threading.Event = field(default_factory=threading.Event)

    def advance(self, by: int) -> None:
        self.done += by
        if self.on_change is not None:
            self.on_change(self)


@dataclass(slots=True)
class Order:
    """What a run was asked for."""

    policy: Policy
    by: Actor = Actor.SWEEP
    dry_run: bool = False
    listed: Report | None = None
    past_the_brake: bool = False
    trust_clock: bool = False
    keep_entries: bool = True
    progress: Progress = field(default_factory=Progress)


def run(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    """One sweep, or one dry run. Raises SweepStopped, RootMismatch, LedgerUnavailable."""
    if order.dry_run:
        guards.check_root(place)
        return _Run(place, order, clock()).report()
    if order.listed is not None and order.listed.root_id != place.root_id:
        raise UsageError(
            f"The report is of the root {order.listed.root_id} ({order.listed.root}), not of "
            f"{place.root_id} ({place.root.path}). Make one here: coatcheck report --json"
        )
    try:
        return _swept(place, order, clock)
    except LedgerFull:
        if not place.reserve.give_up():
            raise
    # Removing frees the disk, but must first be written: with the reserve given up it can be.
    # What the first try left half done, the second finishes.
    try:
        return _swept(place, order, clock)
    finally:
        _take_reserve_again(place, clock())


def _take_reserve_again(place: Place, now: int) -> None:
    """Where the disk is still full, what waits in the trash goes, earliest due first."""
    waiting = [entry for entry in trash_entries(place.root) if entry.name]
    waiting.sort(key=lambda entry: entry.name.due if entry.name else 0)
    for entry in waiting:
        if place.reserve.take():
            return
        with suppress(OSError, CoatcheckError):
            upkeep.finish_trash(place, entry.entry, now, early=True)
    place.reserve.take()


def _swept(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    with guards.one_sweeper(place):
        now = clock()
        record = _Recorded(place, order, now)
        try:
            guards.check_root(place)
            guards.check_clock(place, now, order.policy.max_age, trust=order.trust_clock)
            report = _Run(place, order, now, record).sweep()
        except (SweepStopped, RootMismatch) as stop:
            by = stop.by if isinstance(stop, SweepStopped) else Guard.ROOT
            record.close(None, clock(), "stopped", by=by, why=str(stop))
            raise
        except BaseException as error:
            with suppress(CoatcheckError):
                record.close(None, clock(), "failed", why=str(error) or type(error).__name__)
            raise
        stopped = order.progress.cancel.is_set()
        record.close(
            report, clock(), "stopped" if stopped else "done", why="cancelled" if stopped else None
        )
        return report


class _Run:
    """One pass: `now` is read once, so every verdict is of the same moment."""

    def __init__(self, place: Place, order: Order, now: int, record: _Recorded | None = None):
        self.place = place
        self.order = order
        self.now = now
        self.record = record
        self.progress = order.progress
        self.mounts = mounts_in(place.root)
        policy = order.policy
        if order.listed is not None:
            # A report that is carried out goes by its own max age.
            policy = Policy(order.listed.max_age_us, policy.undo)
        self.policy = policy
        self.out = Report(
            now, place.root.path, place.root_id, policy.max_age, dry_run=order.dry_run
        )

    # The report

    def report(self) -> Report:
        """Every finding, and nothing done about it."""
        self._expect()
        listed = self._report_unfinished()
        self._report_trash(listed)
        for entry in leftovers(self.place.root, self.now):
            self._list(_LEFTOVER, None, self._house_path(INCOMING, entry))
        for suspect in self._suspects(keep=False):
            session_id = suspect.evidence.session_id
            if session_id not in listed and (verdict := self._judge(suspect)):
                self._list_suspect(suspect.evidence, verdict)
        return self.out

    def _report_unfinished(self) -> set[str]:
        listed: set[str] = set()
        for records in self._unfinished():
            names = [record.session_id for record in records]
            for suspect in gather(self.place, names, self.now, self.mounts):
                if verdict := self._judge(suspect):
                    listed.add(suspect.evidence.session_id)
                    self._list_suspect(suspect.evidence, verdict)
        return listed

    def _report_trash(self, listed: set[str]) -> None:
        for entry in trash_entries(self.place.root):
            if entry.name is not None and entry.name.session_id in listed:
                with self.place.database.read() as connection:
                    row = queries.record_of(connection, self.place.root_id, entry.name.session_id)
                if row is not None and row.trash == entry.entry:
                    continue  # its unfinished row stands in the report already
            if found := judge_trash(self.place.root, entry, self.now):
                verdict, facts = found
                session_id = entry.name.session_id if entry.name else None
                path = self._house_path(TRASH, entry.entry)
                self._list(verdict, session_id, path, facts)

    def _list_suspect(self, evidence: Evidence, verdict: Verdict) -> None:
        path = self.place.root.path_of(evidence.session_id)
        self._list(verdict, evidence.session_id, path, evidence.disk)

    def _list(
        self,
        verdict: Verdict,
        session_id: str | None,
        path: str,
        facts: Facts | None = None,
    ) -> None:
        files, size = (facts.files, facts.bytes) if facts else (0, 0)
        self.out.count(verdict.finding, size=size)
        if verdict.finding is not Finding.LIVE and self.order.keep_entries:
            entry = Entry.of(verdict, session_id, path, self.now, files=files, size=size)
            self.out.entries.append(entry)

    def _judge(self, suspect: Suspect) -> Verdict | None:
        return judge(suspect.evidence, self.now, self.policy)

    def _unfinished(self) -> Iterator[list[Record]]:
        after = 0
        while True:
            with self.place.database.read() as connection:
                records = queries.unfinished(connection, self.place.root_id, after, BATCH)
            if not records:
                return
            after = records[-1].pk
            yield records

    def _suspects(self, *, keep: bool) -> Iterator[Suspect]:
        for batch in self._batches(keep=keep):
            yield from batch

    def _batches(self, *, keep: bool) -> Iterator[list[Suspect]]:
        survey = Survey(self.place, self.now, self.policy, self.progress.advance)
        for names in survey.suspects():
            if self.progress.cancel.is_set():
                break
            suspects = gather(self.place, names, self.now, self.mounts, keep=keep)
            try:
                yield suspects
            finally:
                for suspect in suspects:
                    suspect.release()
        self.out.count(Finding.LIVE, size=survey.live_bytes, sessions=survey.live)

    def _expect(self) -> None:
        with self.place.database.read() as connection:
            sessions, _ = queries.totals(connection, self.place.root_id)
        self.progress.total = sessions

    def _house_path(self, folder: str, entry: str) -> str:
        return f"{self.place.root.path}/{HOUSE}/{folder}/{entry}"

    # The sweep

    def sweep(self) -> Report:
        """Finishes what is unfinished, then judges every suspect and acts."""
        self._check_brake()
        if self.order.listed is not None:
            self._carry_out(self.order.listed)
        else:
            self._finish_everything()
            self._expect()
            for batch in self._batches(keep=True):
                self._act(batch)
                self._save()
            upkeep.prune(self.place, self.now)
            upkeep.prune_reports(self.place, self.now)
        return self.out

    def _check_brake(self) -> None:
        accepted = guards.accepted_max_age(self.place)
        if self.policy.max_age >= accepted:
            return  # nothing need be counted ahead
        if self.order.past_the_brake:
            guards.accept_max_age(self.place, self.policy.max_age)
            return
        planned = self.order.listed
        if planned is None:
            dry = Order(self.policy, dry_run=True)
            planned = _Run(self.place, dry, self.now).report()
        guards.check_brake(planned, accepted, self.place.settings.brake)

    def _finish_everything(self) -> None:
        for records in self._unfinished():
            names = [record.session_id for record in records]
            for suspect in gather(self.place, names, self.now, self.mounts):
                verdict = self._judge(suspect)
                if verdict is not None and verdict.action is Action.FINISH:
                    self._finish(suspect, verdict)
        for entry in trash_entries(self.place.root):
            if self.progress.cancel.is_set():
                return
            if found := judge_trash(self.place.root, entry, self.now):
                verdict, facts = found
                session_id = entry.name.session_id if entry.name else None
                path = self._house_path(TRASH, entry.entry)
                self._list(verdict, session_id, path, facts)
                if verdict.action is Action.FINISH:
                    self._finish_trash(entry.entry)
        for leftover in leftovers(self.place.root, self.now):
            self._list(_LEFTOVER, None, self._house_path(INCOMING, leftover))
            with self._reporting(leftover):
                upkeep.remove_leftover(self.place, leftover)

    def _finish(self, suspect: Suspect, verdict: Verdict) -> None:
        evidence = suspect.evidence
        self._list_suspect(evidence, verdict)
        with self._reporting(evidence.session_id):
            assert evidence.row is not None
            suspect.release()
            outcome = upkeep.finish_session(self.place, evidence.row, self.now)
            self._count(outcome)

    def _finish_trash(self, entry: str) -> None:
        with self._reporting(entry):
            if upkeep.finish_trash(self.place, entry, self.now) is Outcome.CHANGED:
                self.out.changed += 1

    def _count(self, outcome: Outcome) -> None:
        if outcome is Outcome.REMOVED:
            self.out.removed += 1
            self.progress.removed += 1
        elif outcome is Outcome.CHANGED:
            self.out.changed += 1

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        """One bad entry stops nothing; a ledger or a root that cannot be used stops all."""
        try:
            yield
        except OSError as error:
            self.out.fail(f"{_shown(what)}: {error.strerror or error}")

    # Exactly what was listed

    def _carry_out(self, listed: Report) -> None:
        entries = [e for e in listed.entries if e.action not in (Action.KEEP, Action.REPORT)]
        self.progress.total = len(entries)
        in_root: list[Entry] = []
        for entry in entries:
            if entry.session_id and entry.path == self.place.root.path_of(entry.session_id):
                in_root.append(entry)
            else:
                self._carry_out_in_house(entry)
        for at in range(0, len(in_root), BATCH):
            if self.progress.cancel.is_set():
                return
            batch = in_root[at : at + BATCH]
            names = [entry.session_id for entry in batch if entry.session_id]
            suspects = gather(self.place, names, self.now, self.mounts, keep=True)
            try:
                agreed = []
                for entry, suspect in zip(batch, suspects, strict=True):
                    if entry.agrees(self._judge(suspect)):
                        agreed.append(suspect)
                    else:
                        self.out.changed += 1
                self._act(agreed)
            finally:
                for suspect in suspects:
                    suspect.release()
            self.progress.advance(len(batch))
            self._save()

    def _carry_out_in_house(self, entry: Entry) -> None:
        """A listed entry of the trash or of incoming, while it is still what was listed."""
        self.progress.advance(1)
        name = entry.path.rpartition("/")[2]
        if entry.path == self._house_path(TRASH, name):
            for standing in trash_entries(self.place.root):
                if standing.entry == name:
                    found = judge_trash(self.place.root, standing, self.now)
                    if found and entry.agrees(found[0]):
                        self._list(found[0], entry.session_id, entry.path, found[1])
                        self._finish_trash(name)
                        return
        elif entry.path == self._house_path(INCOMING, name) and entry.agrees(_LEFTOVER):
            if name in leftovers(self.place.root, self.now):
                self._list(_LEFTOVER, None, entry.path)
                with self._reporting(name):
                    upkeep.remove_leftover(self.place, name)
                return
        self.out.changed += 1

    # Acting on a batch

    def _act(self, suspects: Sequence[Suspect]) -> None:
        judged = [(s, v) for s in suspects if (v := self._judge(s)) is not None]
        aside: list[tuple[Suspect, Verdict]] = []
        for suspect, verdict in judged:
            if verdict.action is Action.SET_ASIDE:
                self._list_suspect(suspect.evidence, verdict)
                aside.append((suspect, verdict))
            elif verdict.action is Action.FINISH:
                self._finish(suspect, verdict)
            else:
                self._list_suspect(suspect.evidence, verdict)
                with self._reporting(suspect.evidence.session_id):
                    self._act_on_row(suspect.evidence, verdict)
        if aside:
            self.place.root.check()
            self._set_aside(aside)

    def _act_on_row(self, evidence: Evidence, verdict: Verdict) -> None:
        """Heal, end, adopt, revive: what changes the ledger alone."""
        row, disk = evidence.row, evidence.disk
        at = self.now if verdict.activity is None else verdict.activity
        done: object = True
        if verdict.action not in (Action.HEAL, Action.END, Action.ADOPT, Action.REVIVE):
            return
        with self.place.database.write() as connection:
            if row is None:
                new = _adopted(evidence.session_id, disk, at, verdict.why)
                done = states.insert(connection, self.place.root_id, [new], Actor.SWEEP, self.now)
            elif verdict.action is Action.HEAL:
                done = states.heal(connection, row, at, disk.bytes, disk.files)
            elif verdict.action is Action.END:
                end = Move(row, State.MISSING, Actor.SWEEP, verdict.why)
                done = states.move(connection, end, self.now)
            else:
                values = _as_on_disk(disk, at)
                back = Move(row, State.ACTIVE, Actor.SWEEP, verdict.why, values)
                done = states.move(connection, back, self.now)
        if not done:
            self.out.changed += 1

    # Setting aside: row, rename, second look, row; then the bytes

    def _set_aside(self, judged: Sequence[tuple[Suspect, Verdict]]) -> None:
        begun = self._begin(judged)
        moved = [aside for aside in begun if self._rename(aside)]
        unused = [aside for aside in moved if self._is_unused(aside)]
        for aside in self._end(unused):
            self.out.removed += 1
            self.progress.removed += 1
            if aside.name.due:
                self.out.waiting += 1
                continue
            with self._reporting(aside.record.session_id):
                # Looked at once more: until its burial, whoever writes into it wins.
                if newer_than(aside.fd, aside.name.seen, self.now):
                    self._bring_back(aside)
                else:
                    upkeep.bury_and_remove(self.place, str(aside.name), held=True)

    def _begin(self, judged: Sequence[tuple[Suspect, Verdict]]) -> list[_Aside]:
        """Step 1: the rows say who removes them, and under what name."""
        asides: dict[str, _Aside] = {}
        known: list[Move] = []
        unknown: list[New] = []
        for suspect, verdict in judged:
            evidence = suspect.evidence
            name = moves.trash_name(
                evidence.session_id, by_user=False, seen=_seen(evidence.disk), due=verdict.due
            )
            if suspect.fd is None:
                continue
            aside = _Aside(evidence, suspect.fd, name, verdict.why)
            asides[evidence.session_id] = aside
            if evidence.row is None:
                unknown.append(aside.as_new(self.now))
            else:
                values = aside.values() | _counted(evidence.row, evidence.disk)
                known.append(Move(evidence.row, State.REMOVING, Actor.SWEEP, verdict.why, values))
        with self.place.database.write() as connection:
            begun = list(states.move_all(connection, known, self.now).values())
            begun += states.insert(
                connection, self.place.root_id, unknown, Actor.SWEEP, self.now
            ).values()
        self.out.changed += len(asides) - len(begun)
        for record in begun:
            asides[record.session_id].record = record
        return [asides[record.session_id] for record in begun]

    def _rename(self, aside: _Aside) -> bool:
        """Step 2. A directory that was swapped for another goes back."""
        session_id = aside.record.session_id
        try:
            if not self.place.stands(session_id, aside.fd):
                raise FileNotFoundError(2, "it was moved or replaced meanwhile")
            moves.set_aside(self.place.root, session_id, str(aside.name))
            there = os.stat(str(aside.name), dir_fd=self.place.root.trash, follow_symlinks=False)
            if os.path.samestat(there, os.fstat(aside.fd)):
                return True
            moves.put_back(self.place.root, str(aside.name), session_id)
            raise FileNotFoundError(2, "it was replaced meanwhile")
        except FileNotFoundError:
            self._take_back(aside, "it was moved or replaced while a sweep judged it")
            self.out.changed += 1
        except OSError as error:
            why = f"it could not be set aside: {error.strerror}"
            self._take_back(aside, why)
            self.out.fail(f"{short(session_id)}: {why}")
        return False

    def _is_unused(self, aside: _Aside) -> bool:
        """The second look: anything newer in there than what was judged brings it back."""
        try:
            if not newer_than(aside.fd, aside.name.seen, self.now):
                return True
        except OSError as error:
            self.out.fail(f"{short(aside.record.session_id)}: {error.strerror}")
        self._bring_back(aside)
        return False

    def _end(self, asides: Sequence[_Aside]) -> list[_Aside]:
        """Step 3: the rows say that it has ended. A touch or a DELETE since step 1 has won."""
        wanted = [Move(aside.record, State.EXPIRED, Actor.SWEEP, aside.why) for aside in asides]
        if not wanted:
            return []
        with self.place.database.write() as connection:
            ended = states.move_all(connection, wanted, self.now)
        won: list[_Aside] = []
        for aside in asides:
            if aside.record.pk in ended:
                aside.record = ended[aside.record.pk]
                won.append(aside)
            else:
                self._lost(aside)
        return won

    def _lost(self, aside: _Aside) -> None:
        """A touch brings the directory back; a DELETE or a restore has it already."""
        self.out.changed += 1
        with self.place.database.read() as connection:
            row = queries.record_of(connection, self.place.root_id, aside.record.session_id)
        if row is not None and (row.state == State.DELETED or row.state == State.REMOVING):
            return
        self._put_back(aside)

    def _bring_back(self, aside: _Aside) -> None:
        self.out.changed += 1
        if self._put_back(aside):
            self._take_back(aside, "it was used after it was set aside")

    def _put_back(self, aside: _Aside) -> bool:
        try:
            moves.put_back(self.place.root, str(aside.name), aside.record.session_id)
            return True
        except FileNotFoundError:
            return False  # a DELETE or a restore has it
        except FileExistsError:
            due = self.now + self.policy.max_age
            later = moves.trash_name(aside.record.session_id, by_user=False, seen=self.now, due=due)
            with suppress(FileNotFoundError):
                moves.rename_in_trash(self.place.root, str(aside.name), str(later))
            self.out.fail(
                f"{short(aside.record.session_id)}: used after it was set aside, but its name is "
                "taken; it waits in the trash, restorable for the max age"
            )
            return False

    def _take_back(self, aside: _Aside, why: str) -> None:
        """The row is active again, or whatever somebody else has made of it since."""
        values: dict[str, Any] = {"trash": None, "remover": None}
        values |= {"last_touch_at": self.now} if aside.record.state in ENDED else {}
        with self.place.database.write() as connection:
            row = queries.record_of(connection, self.place.root_id, aside.record.session_id)
            if row is not None and row.trash == str(aside.name):
                back = Move(row, State.ACTIVE, Actor.SWEEP, why, values)
                if row.state in (State.REMOVING, State.EXPIRED):
                    states.move(connection, back, self.now)

    def _save(self) -> None:
        if self.record is not None:
            self.record.save(self.progress, self.out)


@dataclass(slots=True)
class _Aside:
    """One session on its way into the trash; `record` is its row after the last step."""

    evidence: Evidence
    fd: int
    name: Any
    why: str
    record: Record = field(init=False)

    def values(self) -> dict[str, Any]:
        return {
            "remover": str(Actor.SWEEP),
            "trash": str(self.name),
            "inode": self.evidence.disk.inode,
        }

    def as_new(self, now: int) -> New:
        disk = self.evidence.disk
        at = disk.mtime if disk.mtime is not None else now
        return New(
            self.evidence.session_id,
            Origin.ADOPTED,
            self.why,
            last_touch_at=at,
            created_at=at,
            state=State.REMOVING,
            bytes=disk.bytes,
            files=disk.files,
            inode=disk.inode,
            remover=Actor.SWEEP,
            trash=str(self.name),
        )


def _seen(disk: Facts) -> int:
    return disk.mtime or 0


def _counted(row: Record, disk: Facts) -> dict[str, Any]:
    values: dict[str, Any] = {"bytes": disk.bytes, "files": disk.files}
    return values if row.state == State.ACTIVE else values | _forgotten()


def _forgotten() -> dict[str, Any]:
    """A directory that stands again under an ended session's name is somebody else's work."""
    return {"touched": False, "destination": None}


def _as_on_disk(disk: Facts, at: int) -> dict[str, Any]:
    return {
        "last_touch_at": at,
        "bytes": disk.bytes,
        "files": disk.files,
        "trash": None,
        "remover": None,
        **_forgotten(),
    }


def _adopted(session_id: str, disk: Facts, at: int, why: str) -> New:
    return New(
        session_id,
        Origin.ADOPTED,
        why,
        last_touch_at=at,
        created_at=at,
        bytes=disk.bytes,
        files=disk.files,
    )


def _shown(what: str) -> str:
    """What a log may show of a session id, or of an entry of the trash."""
    name = TrashName.parse(what)
    return short(name.session_id if name else what)


_NOTHING_YET = {
    **dict.fromkeys(("done", "removed", "waiting", "changed", "failed"), 0),
    "counts": "{}",
    "bytes": "{}",
    "failures": "[]",
}


class _Recorded:
    """The row that tells of one run, kept up as it goes."""

    def __init__(self, place: Place, order: Order, now: int) -> None:
        self._place = place
        self._saved = time.monotonic()
        with place.database.write() as connection:
            self.sweep_id = connection.execute(
                SWEEPS.insert()
                .values(
                    root_id=place.root_id,
                    state="running",
                    dry_run=order.dry_run,
                    by=str(order.by),
                    max_age_us=order.policy.max_age,
                    started_at=now,
                    **_NOTHING_YET,
                )
                .returning(SWEEPS.c.sweep_id)
            ).scalar_one()

    def save(self, progress: Progress, report: Report) -> None:
        if time.monotonic() - self._saved < _SAVE_EVERY_S:
            return
        self._saved = time.monotonic()
        self._update(done=progress.done, total=progress.total, removed=report.removed)

    def close(
        self,
        report: Report | None,
        now: int,
        state: str,
        *,
        by: Guard | None = None,
        why: str | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "state": state,
            "finished_at": now,
            "stopped_by": by and str(by),
            "why": why,
        }
        if report is not None:
            report.sweep_id = self.sweep_id
            head = report.head()
            values |= {name: head[name] for name in ("removed", "waiting", "changed", "failed")}
            values["counts"] = json.dumps(head["counts"])
            values["bytes"] = json.dumps(head["bytes"])
            values["failures"] = json.dumps(report.failures[:100])
            with self._place.database.read() as connection:
                totals = queries.totals(connection, self._place.root_id)
            values["live_sessions"], values["live_bytes"] = totals
        self._update(**values)

    def _update(self, **values: Any) -> None:
        with self._place.database.write() as connection:
            connection.execute(
                update(SWEEPS).where(SWEEPS.c.sweep_id == self.sweep_id).values(values)
            )
