"""Acts: carries a report out, entry by entry, each looked at again first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import takewhile

from ledger import counts, guards, pruning, states, upkeep
from ledger.aside import SettingAside, as_on_disk
from ledger.disk import INCOMING, TRASH, TrashName
from ledger.errors import CoatcheckError, Guard, LedgerFull, RootMismatch, SweepStopped, UsageError
from ledger.listing import LEFTOVER, Listing
from ledger.models import Actor, State, short
from ledger.place import Place
from ledger.plan import Action, Evidence, Kind, Verdict
from ledger.report import Entry, Report
from ledger.runs import Order, Progress, RecordedRun
from ledger.sharing import share
from ledger.states import Move, New
from ledger.survey import (
    BATCH,
    Suspect,
    find_in_trash,
    gather,
    leftovers,
    survey_trash,
    trash_entries,
)
from ledger.upkeep import Outcome

_ON_ROWS = frozenset({Action.HEAL, Action.END, Action.ADOPT, Action.REVIVE})
_NOTHING_TO_DO = frozenset({Action.KEEP, Action.REPORT})


def run(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    """One sweep.

    Raises SweepStopped, RootMismatch, RootUnavailable, LedgerUnavailable.
    """
    with guards.usable(place.root.path):
        return _run(place, order, clock)


def _run(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    if order.listed is not None and order.listed.root_id != place.root_id:
        raise UsageError(
            f"The report is of the root {order.listed.root_id} ({order.listed.root}), not of "
            f"{place.root_id} ({place.root.path}). Make one here: coatcheck report --json"
        )
    with suppress(LedgerFull):
        return _swept(place, order, clock)
    order.on_full_disk = True
    with suppress(LedgerFull):
        return _swept_in_reserve(place, order, clock)
    return _swept_in_reserve(place, order, clock)  # now with the room of what waited


def _swept_in_reserve(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    """Removing frees the disk, but must first be written: with the reserve given up it can be.
    What a try before this left half done, this one finishes."""
    place.reserve.give_up()
    place.database.begin_log_anew()
    return _swept(place, order, clock)


def _make_room(place: Place, now: int, order: Order) -> None:
    """The reserve is taken again. While the ledger finds no room for it, what waits in the trash
    goes, earliest due first, if that makes room where the ledger is, and if the guards let it."""
    if place.reserve.take() or not order.on_full_disk or not place.reserve.is_on(place.root.device):
        return
    guards.check_root(place)
    if not guards.clock_is_trusted(place, now):
        return
    waiting = [entry for entry in trash_entries(place.root) if entry.name]
    waiting.sort(key=lambda entry: entry.name.due if entry.name else 0)
    for entry in waiting:
        with suppress(OSError, CoatcheckError):
            upkeep.finish_trash(place, entry.entry, now, early=True)
        if place.reserve.take():
            return


def _swept(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    with guards.one_sweeper(place):
        now = clock()
        try:
            report = _recorded(place, order, now, clock)
        except LedgerFull:
            _make_room(place, now, order)
            raise
        except (SweepStopped, RootMismatch):
            place.reserve.take()  # and no more: a guard said no
            raise
        _make_room(place, now, order)
        return report


def _recorded(place: Place, order: Order, now: int, clock: Callable[[], int]) -> Report:
    recorded = RecordedRun(place, order, now)
    try:
        guards.check_root(place)
        guards.check_clock(place, now, order.policy.max_age, trust=order.trust_clock)
        with recorded.kept_up():
            report = Sweep(place, order, now, clock, recorded).run()
    except (SweepStopped, RootMismatch) as stop:
        by = stop.by if isinstance(stop, SweepStopped) else Guard.ROOT
        recorded.stopped(by, str(stop), clock())
        raise
    except BaseException as error:
        with suppress(CoatcheckError):
            recorded.failed(error, clock())
        raise
    recorded.done(report, order.progress, clock())
    return report


class Sweep:
    """Finishes what is unfinished, then judges every suspect and acts."""

    def __init__(
        self,
        place: Place,
        order: Order,
        now: int,
        clock: Callable[[], int],
        recorded: RecordedRun,
    ) -> None:
        self._place = place
        self._clock = clock
        self._order = order
        self._recorded = recorded
        self._progress = order.progress
        self._listing = Listing(place, order, now, clock)
        self._out = self._listing.out
        self._out.removed = order.progress.removed  # by a try that the full disk broke off
        # Finished only among the others, as it could not be read at first: now it can be judged.
        self._finished_late: list[str] = []

    @property
    def _now(self) -> int:
        """What a sweep that takes hours does last is not dated as if it were its first."""
        return self._listing.now

    def run(self) -> Report:
        self._check_brake()
        if self._order.listed is not None:
            self._carry_out(self._order.listed)
            return self._out
        if self._order.on_full_disk:
            self._empty_trash()  # which needs no room in the ledger
            self._finish_rows()
        else:
            self._finish_rows()
            self._empty_trash()
        self._finish_leftovers()
        self._listing.expect()
        with closing(self._listing.names()) as batches:
            self._share(batches, self._act_on)
        if self._finished_late and not self._recorded.is_cancelled():
            self._act_on(list(self._finished_late))
        if not self._order.on_full_disk:
            pruning.prune(self._place, self._now)
            with suppress(CoatcheckError):  # a sweep that is done has not failed for a metric
                counts.mend(self._place.database, self._place.root_id)
        pruning.prune_reports(self._place, self._now)
        return self._out

    def _check_brake(self) -> None:
        accepted = guards.accepted_max_age(self._place)
        max_age = self._listing.policy.max_age
        if max_age >= accepted:
            return  # nothing need be counted ahead
        if self._order.past_the_brake:
            guards.accept_max_age(self._place, max_age)
            return
        planned = self._order.listed
        if planned is None:
            ahead = Progress(
                cancel=self._progress.cancel, on_change=lambda _: self._recorded.save()
            )
            dry = Order(self._listing.policy, dry_run=True, progress=ahead)
            planned = Listing(self._place, dry, self._now, self._clock).report()
        guards.check_brake(planned, accepted, self._place.settings.brake, self._now)

    # What is unfinished

    def _finish_rows(self) -> None:
        for batch in self._listing.unfinished():
            for suspect in batch:
                verdict = self._listing.judge(suspect)
                if verdict is not None and verdict.action is Action.FINISH:
                    self._finish(suspect, verdict)
                elif verdict is not None and suspect.evidence.disk.kind is Kind.ABSENT:
                    self._listing.list(suspect.evidence, verdict)

    def _empty_trash(self) -> None:
        for found in survey_trash(self._place, self._now):
            if self._recorded.is_cancelled():
                return
            self._listing.list_trash(found)
            if found.verdict.action is Action.FINISH:
                self._finish_trash(found.entry.entry)

    def _finish(self, suspect: Suspect, verdict: Verdict) -> None:
        row = suspect.evidence.row
        self._listing.list(suspect.evidence, verdict)
        suspect.release()
        with self._reporting(suspect.evidence.session_id):
            if row is not None:
                self._count(upkeep.finish_session(self._place, row, self._now))

    def _finish_trash(self, entry: str) -> None:
        with self._reporting(entry):
            self._count(upkeep.finish_trash(self._place, entry, self._now))

    def _finish_leftovers(self, entries: Sequence[str] | None = None) -> bool:
        """Every leftover, or those of `entries`, is gone, locked until then; were there any?"""
        found = False
        with closing(leftovers(self._place.root, self._now, entries)) as locked:
            for entry in locked:
                found = True
                self._listing.list_leftover(entry)
                with self._reporting(entry):
                    upkeep.remove_leftover(self._place, entry)
        return found

    def _count(self, outcome: Outcome) -> None:
        if outcome is Outcome.REMOVED:
            self._out.removed += 1
            self._progress.removed += 1
        elif outcome is Outcome.CHANGED:
            self._out.changed += 1

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        """One bad entry stops nothing; a ledger or a root that cannot be used stops all."""
        try:
            yield
        except OSError as error:
            name = TrashName.parse(what)
            shown = short(name.session_id if name else what)
            self._out.fail(f"{shown}: {error.strerror or error}")

    # Exactly what was listed

    def _carry_out(self, listed: Report) -> None:
        entries = [entry for entry in listed.entries if entry.action not in _NOTHING_TO_DO]
        self._progress.total = len(entries)
        in_root: dict[str, Entry] = {}
        for entry in entries:
            name = entry.session_id
            if name and name not in in_root and entry.is_at(self._place.root.path_of(name)):
                in_root[name] = entry
            elif self._recorded.is_cancelled():
                return
            else:
                self._progress.advance(1)
                if not self._carry_out_in_house(entry):
                    self._out.changed += 1
        names = list(in_root)
        batches = (names[at : at + BATCH] for at in range(0, len(names), BATCH))
        self._share(
            takewhile(lambda _: not self._recorded.is_cancelled(), batches),
            lambda batch: self._act_on(batch, in_root),
        )

    def _carry_out_in_house(self, listed: Entry) -> bool:
        """An entry of the trash or of incoming; False where it is no longer what was listed."""
        name = listed.path.rpartition("/")[2]
        if listed.is_at(self._listing.house_path(INCOMING, name)) and listed.agrees(LEFTOVER):
            return self._finish_leftovers([name])
        if listed.is_at(self._listing.house_path(TRASH, name)):
            found = find_in_trash(self._place, name, self._now)
            if found is not None and listed.agrees(found.verdict):
                self._listing.list_trash(found)
                self._finish_trash(name)
                return True
        return False

    # Acting on a batch

    def _share(self, batches: Iterator[list[str]], act: Callable[[list[str]], None]) -> None:
        if self._order.on_full_disk:  # in small steps, one after the other
            for batch in batches:
                act(batch)
        else:
            share(batches, act)

    def _act_on(self, names: Sequence[str], listed: Mapping[str, Entry] | None = None) -> None:
        """Those of `listed`, where there is such a list, only as far as it agrees with them."""
        suspects = gather(self._place, names, self._now, self._listing.mounts, keep=True)
        try:
            aside = self._judged(suspects, listed)
            if aside:
                self._place.root.check()
                self._set_aside(aside)
        finally:
            for suspect in suspects:
                suspect.release()
        if listed is not None:
            self._progress.advance(len(suspects))
        self._recorded.save()

    def _judged(
        self, suspects: Sequence[Suspect], listed: Mapping[str, Entry] | None
    ) -> list[tuple[Suspect, Verdict]]:
        """Those that are to be set aside; what else is to be done, is done."""
        aside: list[tuple[Suspect, Verdict]] = []
        for suspect in suspects:
            verdict = self._listing.judge(suspect)
            with self._listing.telling:
                if listed and not listed[suspect.evidence.session_id].agrees(verdict):
                    self._out.changed += 1
                elif verdict is not None and verdict.action is Action.SET_ASIDE:
                    self._listing.list(suspect.evidence, verdict)
                    aside.append((suspect, verdict))
                    continue
                else:
                    self._act_at_once(suspect, verdict)
            suspect.release()  # an upload need not wait until the others' bytes are gone
        return aside

    def _set_aside(self, aside: Sequence[tuple[Suspect, Verdict]]) -> None:
        step = 1 if self._order.on_full_disk else len(aside)
        for at in range(0, len(aside), step):
            if self._order.on_full_disk:
                self._place.database.begin_log_anew()
            setting = SettingAside(
                self._place,
                lambda: self._now,
                self._listing.policy.max_age,
                self._recorded.is_cancelled,
            )
            came_of_it = setting.carry_out(aside[at : at + step])
            with self._listing.telling:
                self._out.add(came_of_it)
                self._progress.removed += came_of_it.removed

    def _act_at_once(self, suspect: Suspect, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if verdict.action is Action.FINISH:
            self._finish(suspect, verdict)
            self._finished_late.append(suspect.evidence.session_id)
            return
        self._listing.list(suspect.evidence, verdict)
        if verdict.action in _ON_ROWS and not self._act_on_row(suspect.evidence, verdict):
            self._out.changed += 1

    def _act_on_row(self, evidence: Evidence, verdict: Verdict) -> bool:
        """Heal, end, adopt, revive: what changes the ledger alone. False: the race was lost."""
        row, disk, why = evidence.row, evidence.disk, verdict.why
        at = self._now if verdict.activity is None else verdict.activity
        with self._place.database.write() as connection:
            if row is None:
                new = New.adopted(evidence.session_id, why, disk, at)
                root_id = self._place.root_id
                return bool(states.insert(connection, root_id, [new], Actor.SWEEP, self._now))
            if verdict.action is Action.HEAL:
                return states.heal(connection, row, at, disk.bytes, disk.files)
            if verdict.action is Action.END:
                move = Move(row, State.MISSING, Actor.SWEEP, why)
            else:
                move = Move(row, State.ACTIVE, Actor.SWEEP, why, as_on_disk(disk, at))
            return states.move(connection, move, self._now) is not None
