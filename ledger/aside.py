"""Sets stale sessions aside: row, rename, second look, row; then their bytes are removed.

Until its burial whoever uses the directory wins, by a touch in the ledger or a write on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ledger import moves, queries, states, upkeep
from ledger.disk import TrashName, newer_than
from ledger.models import ENDED, Actor, Origin, Record, State, short
from ledger.place import Place
from ledger.plan import Evidence, Facts, Verdict
from ledger.report import Tally
from ledger.states import Move, New
from ledger.survey import Suspect

# A directory that stands again under an ended session's name is somebody else's work.
FORGOTTEN: dict[str, Any] = {"touched": False, "destination": None}


@dataclass(slots=True)
class _Aside:
    """One session on its way into the trash; `record` is its row after the last step."""

    evidence: Evidence
    fd: int
    name: TrashName
    why: str
    record: Record = field(init=False)

    @property
    def entry(self) -> str:
        return str(self.name)


class SettingAside:
    """Carries out the verdict `set_aside` for a batch of sessions whose locks the caller holds."""

    def __init__(
        self,
        place: Place,
        now: Callable[[], int],
        max_age: int,
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._place = place
        self._now = now
        self._max_age = max_age
        self._out = Tally()
        self._is_cancelled = is_cancelled

    def carry_out(self, judged: Sequence[tuple[Suspect, Verdict]]) -> Tally:
        """The sessions that were still as judged are out of the root."""
        begun = self._begin(judged)
        renamed = [aside for aside in begun if self._rename(aside)]
        unused = [aside for aside in renamed if self._is_unused(aside)]
        ended = self._end(unused)
        self._out.removed += len(ended)
        due = {aside.record.session_id: aside for aside in ended if not aside.name.due}
        self._out.waiting += len(ended) - len(due)
        for suspect, _ in judged:
            if suspect.evidence.session_id not in due:
                suspect.release()  # whoever uses it need not wait until the others' bytes are gone
        for aside in due.values():
            if self._is_cancelled():
                break  # their bytes lie in the trash, due: the next sweep's
            self._remove(aside)
        return self._out

    # Step 1: the rows say who removes them, and under what name

    def _begin(self, judged: Sequence[tuple[Suspect, Verdict]]) -> list[_Aside]:
        asides: dict[str, _Aside] = {}
        for suspect, verdict in judged:
            evidence = suspect.evidence
            name = moves.trash_name(
                evidence.session_id,
                by_user=False,
                seen=evidence.disk.mtime or 0,
                due=verdict.due,
            )
            if suspect.fd is not None:
                asides[evidence.session_id] = _Aside(evidence, suspect.fd, name, verdict.why)
        known = [self._move(aside) for aside in asides.values() if aside.evidence.row]
        unknown = [self._new(aside) for aside in asides.values() if not aside.evidence.row]
        place = self._place
        with place.database.write() as connection:
            moved = states.move_all(connection, known, self._now())
            begun = [after for _, after in moved.values()]
            begun += states.insert(
                connection, place.root_id, unknown, Actor.SWEEP, self._now()
            ).values()
        self._out.changed += len(asides) - len(begun)
        for record in begun:
            asides[record.session_id].record = record
        return [asides[record.session_id] for record in begun]

    def _move(self, aside: _Aside) -> Move:
        row, disk = aside.evidence.row, aside.evidence.disk
        if row is None:
            raise ValueError("a session without a row has none to move")
        values: dict[str, Any] = {
            "remover": str(Actor.SWEEP),
            "trash": aside.entry,
            "inode": disk.inode,
            "bytes": disk.bytes,
            "files": disk.files,
        }
        values |= FORGOTTEN if row.state in ENDED else {}
        return Move(row, State.REMOVING, Actor.SWEEP, aside.why, values)

    def _new(self, aside: _Aside) -> New:
        disk = aside.evidence.disk
        return New(
            aside.evidence.session_id,
            Origin.ADOPTED,
            aside.why,
            last_touch_at=disk.mtime or 0,
            created_at=disk.mtime or 0,
            state=State.REMOVING,
            bytes=disk.bytes,
            files=disk.files,
            inode=disk.inode,
            remover=Actor.SWEEP,
            trash=aside.entry,
        )

    # Step 2: the rename. A directory that was swapped for another goes back

    def _rename(self, aside: _Aside) -> bool:
        root, session_id = self._place.root, aside.record.session_id
        swapped = "it was moved or replaced while a sweep judged it"
        try:
            if self._place.stands(session_id, aside.fd):
                there = moves.set_aside(root, session_id, aside.entry)
                if os.path.samestat(there, os.fstat(aside.fd)):
                    return True
                moves.put_back(root, aside.entry, session_id)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            swapped = f"it could not be set aside: {error.strerror}"
            self._out.fail(f"{short(session_id)}: {swapped}")
            with suppress(OSError):  # else the next sweep finishes it, wherever it is
                if self._place.stands(session_id, aside.fd):
                    self._take_back(aside, swapped)
            return False
        self._out.changed += 1
        self._take_back(aside, swapped)
        return False

    # The second look: anything newer in there than what was judged brings it back

    def _is_unused(self, aside: _Aside) -> bool:
        trouble: OSError | None = None
        try:
            if not newer_than(aside.fd, aside.name.seen, self._now()):
                return True
        except OSError as error:
            trouble = error
        # A look that failed because a DELETE has it by now, and empties it, is no failure.
        if self._bring_back(aside) and trouble is not None:
            self._out.fail(f"{short(aside.record.session_id)}: {trouble.strerror}")
        return False

    # Step 3: the rows say that it has ended. A touch or a DELETE since step 1 has won

    def _end(self, asides: Sequence[_Aside]) -> list[_Aside]:
        if not asides:
            return []
        wanted = [Move(aside.record, State.EXPIRED, Actor.SWEEP, aside.why) for aside in asides]
        with self._place.database.write() as connection:
            ended = states.move_all(connection, wanted, self._now())
        won: list[_Aside] = []
        for aside in asides:
            if aside.record.pk in ended:
                _, aside.record = ended[aside.record.pk]
                won.append(aside)
            else:
                self._lost(aside)
        return won

    def _lost(self, aside: _Aside) -> None:
        self._out.changed += 1
        with self._place.database.read() as connection:
            row = queries.record_of(connection, self._place.root_id, aside.record.session_id)
        if row is None or row.state not in (State.DELETED, State.REMOVING):
            self._put_back(aside)

    # Step 4: the bytes. Looked at once more: the burial is what cannot be taken back

    def _remove(self, aside: _Aside) -> None:
        try:
            done = upkeep.bury_and_remove(self._place, aside.name, aside.fd, self._now())
        except OSError as error:
            said = error.strerror or error
            self._out.fail(f"{short(aside.record.session_id)}: its bytes stay for now: {said}")
            return
        if done is upkeep.Outcome.CHANGED:
            self._out.removed -= 1
            self._out.changed += 1

    # Back

    def _bring_back(self, aside: _Aside) -> bool:
        self._out.changed += 1
        is_back = self._put_back(aside)
        if is_back:
            self._take_back(aside, "it was used after it was set aside")
        return is_back

    def _put_back(self, aside: _Aside) -> bool:
        """The directory is in the root again; False where a DELETE or a restore has it, or where
        its name is taken, so that it waits in the trash."""
        root, session_id = self._place.root, aside.record.session_id
        try:
            moves.put_back(root, aside.entry, session_id)
            return True
        except FileNotFoundError:
            return False
        except FileExistsError:
            due = self._now() + self._max_age
            with suppress(FileNotFoundError):
                upkeep.postpone(self._place, aside.name, self._now(), due)
            self._out.fail(f"{short(session_id)}: {upkeep.NAME_TAKEN}")
            # The row is now that of the directory which stands there.
            self._take_back(aside, upkeep.NAME_TAKEN, **FORGOTTEN)
            return False
        except OSError as error:
            self._out.fail(
                f"{short(session_id)}: it was used after it was set aside, and waits in the trash "
                f"for the next sweep to put it back: {error.strerror}"
            )
            return False

    def _take_back(self, aside: _Aside, why: str, **values: Any) -> None:
        """The row is active again, unless somebody has made something else of it since."""
        values |= {"trash": None, "remover": None}
        if aside.record.state in ENDED:
            values["last_touch_at"] = self._now()
        with self._place.database.write() as connection:
            row = queries.record_of(connection, self._place.root_id, aside.record.session_id)
            mine = row is not None and row.trash == aside.entry
            if row is not None and mine and row.state in (State.REMOVING, State.EXPIRED):
                back = Move(row, State.ACTIVE, Actor.SWEEP, why, values)
                states.move(connection, back, self._now())


def as_on_disk(disk: Facts, at: int) -> dict[str, Any]:
    """The values of a row whose directory stands again."""
    return {
        "last_touch_at": at,
        "bytes": disk.bytes,
        "files": disk.files,
        "trash": None,
        "remover": None,
        **FORGOTTEN,
    }
