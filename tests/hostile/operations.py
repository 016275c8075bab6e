"""What the children do that are hit: each operation, set up, done, and what may come of it."""

import itertools
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ledger import SessionError, SessionLedger, listing, moves, sharing, survey, upkeep
from ledger import sweep as swept
from ledger.aside import SettingAside
from ledger.demo import SCENES
from ledger.disk import HOUSE
from ledger.plan import Finding
from tests.hostile.blows import doing, removing_at_once
from tests.hostile.scenario import (
    CLAIMED,
    GONE,
    LIVE,
    UNKNOWN,
    WAITING,
    Expected,
    Operation,
    Said,
    Stage,
    Tree,
    tree,
    tree_of,
)

NEW = {"first.txt": b"first" * 100, "second.txt": b"second" * 100}
OTHER_PROGRAM = {"late.txt": b"written by another program"}


class OnOne(Operation):
    """Acts on the session that `scene` sets up; `before` and `after` it is acknowledged."""

    scene = "live"
    before = {LIVE}
    after = {LIVE}

    def prepare(self, sessions: SessionLedger) -> None:
        self.its = self.promise(SCENES[self.scene].build(sessions), *self.before)

    def expected(self, said: list[str]) -> dict[str, Expected]:
        fates = self.after if said else self.before
        return super().expected(said) | {self.its: Expected(fates, self.its_trees(bool(said)))}

    def its_trees(self, said: bool) -> list[Tree]:
        return [self.trees[self.its]]


# Created


class Create(Operation):
    files: dict[str, bytes] = {}

    def act(self, sessions: SessionLedger, said: Said) -> None:
        said(sessions.create("order 17").id)

    def expected(self, said: list[str]) -> dict[str, Expected]:
        standing = set(os.listdir(self.stage.root)) - {HOUSE}
        new = (standing | set(self.stage.rows())) - set(self.may)
        assert len(new) <= 1
        assert set(said) <= new
        fates = {LIVE} if said else {LIVE, UNKNOWN}
        return super().expected(said) | {
            name: Expected(fates, [tree_of(self.files)]) for name in new
        }


class CreateWithFiles(Create):
    files = NEW

    def act(self, sessions: SessionLedger, said: Said) -> None:
        with sessions.upload(None) as upload:
            for name, content in self.files.items():
                upload.open_file(name)
                upload.write(content)
            record, _ = upload.commit("order 17")
        said(record.session_id)


# Its files


class Upload(OnOne):
    """One file of a new name, and one that replaces: each is there whole, or as it was."""

    files = {"new.txt": b"new" * 100, "notes.txt": b"replaced" * 100}

    def act(self, sessions: SessionLedger, said: Said) -> None:
        with sessions.upload(self.its) as upload:
            for name, content in self.files.items():
                upload.open_file(name, replace=name == "notes.txt")
                upload.write(content)
            upload.commit()
        said("uploaded")

    def its_trees(self, said: bool) -> list[Tree]:
        before, files = self.trees[self.its], tree_of(self.files)
        if said:
            return [before | files]
        some = itertools.chain.from_iterable(
            itertools.combinations(files.items(), n) for n in range(len(files) + 1)
        )
        return [before | dict(these) for these in some]


class DeleteFile(OnOne):
    def act(self, sessions: SessionLedger, said: Said) -> None:
        assert sessions.delete_file(self.its, "notes.txt")
        said("deleted")

    def its_trees(self, said: bool) -> list[Tree]:
        before = self.trees[self.its]
        without = {name: text for name, text in before.items() if name != "notes.txt"}
        return [without] if said else [before, without]


# Its life


class Touch(OnOne):
    """Stale before, and so the sweep afterwards may take it, unless the touch was acknowledged."""

    scene = "stale"
    before = {LIVE, GONE}

    def act(self, sessions: SessionLedger, said: Said) -> None:
        sessions.touch(self.its)
        said("touched")


class Claim(OnOne):
    """Into directories that are to be made on the way."""

    before = {LIVE, CLAIMED}
    after = {CLAIMED}

    def prepare(self, sessions: SessionLedger) -> None:
        super().prepare(sessions)
        self.destinations[self.its] = "spring/orders/17"

    def act(self, sessions: SessionLedger, said: Said) -> None:
        sessions.claim(self.its, self.stage.claims / self.destinations[self.its])
        said("claimed")


class Delete(OnOne):
    before = {LIVE, GONE}
    after = {GONE}

    def prepare(self, sessions: SessionLedger) -> None:
        super().prepare(sessions)
        self.deepen()

    def deepen(self) -> None:
        """Its removal takes several steps, and there is a link to the outside in it."""
        for place in self.stage.places(self.its).values():
            deep = place / "deep" / "deeper"
            deep.mkdir(parents=True)
            (deep / "file").write_bytes(b"deep")
            (deep / "link").symlink_to(self.stage.outside)

    def act(self, sessions: SessionLedger, said: Said) -> None:
        with removing_at_once(sessions):
            assert sessions.delete_session(self.its)
            said("deleted")


class DeleteStray(Delete):
    scene = "unrecorded"


class DeleteWaiting(Delete):
    scene = "waiting"
    before = {WAITING, GONE}

    def deepen(self) -> None:
        """What waits stays as it was, else it were used."""


class DeleteSeveral(Operation):
    """At once, as those are that many clients ask for; one of them is no longer active."""

    def prepare(self, sessions: SessionLedger) -> None:
        names = ("live", "live", "live", "waiting")
        self.its = [self.promise(SCENES[name].build(sessions), LIVE, GONE) for name in names]
        self.may[self.its[-1]] = {WAITING}

    def act(self, sessions: SessionLedger, said: Said) -> None:
        with removing_at_once(sessions):
            for name in sessions.delete_all(self.its):
                said(name)

    def expected(self, said: list[str]) -> dict[str, Expected]:
        found = super().expected(said)
        for name in said:
            found[name].fates = {GONE}
        return found


class Restore(OnOne):
    scene = "waiting"
    before = {WAITING, LIVE}

    def act(self, sessions: SessionLedger, said: Said) -> None:
        sessions.restore(self.its)
        said("restored")


class RestoreAsItIsRemoved(OnOne):
    """The remover comes to a due entry, and just before it buries it, somebody restores it."""

    scene = "due"
    before = {LIVE, GONE}
    hook: tuple[Any, str] = (moves, "bury")

    def act(self, sessions: SessionLedger, said: Said) -> None:
        [entry] = self.stage.places(self.its)
        with doing(self.hook, before=lambda: self.restore(sessions, said)):
            upkeep.finish_trash(sessions.place, entry, sessions.clock())

    def restore(self, sessions: SessionLedger, said: Said) -> None:
        with suppress(SessionError):
            sessions.restore(self.its)
            said("restored")


class RemoveAsItIsRestored(RestoreAsItIsRemoved):
    """A restore has touched a due entry, and before it renames it, the remover comes."""

    hook = (moves, "put_back")

    def act(self, sessions: SessionLedger, said: Said) -> None:
        [entry] = self.stage.places(self.its)

        def remove() -> None:
            upkeep.finish_trash(sessions.place, entry, sessions.clock())

        with doing(self.hook, before=remove):
            self.restore(sessions, said)


# Swept


FATES = {
    **dict.fromkeys(("live", "drifted", "ahead", "unrecorded", "revived", "claim_begun"), LIVE),
    **dict.fromkeys(("moved_in", "forgotten", "revived_old", "waiting"), WAITING),
    **dict.fromkeys(("stale", "missing", "due", "deleted_bytes_left"), GONE),
    **dict.fromkeys(("delete_begun", "delete_half_done", "delete_lost"), GONE),
    **dict.fromkeys(("sweep_begun", "sweep_half_done", "sweep_lost"), GONE),
    "claim_half_done": CLAIMED,
}


class Sweep(Operation):
    """Every scene there is; what its fate is, killed or not."""

    def prepare(self, sessions: SessionLedger) -> None:
        for name, scene in SCENES.items():
            if name in ("in_use", "unreadable"):  # held by who sets them up
                continue
            stands = scene.build(sessions)
            if scene.finding is Finding.FOREIGN:
                self.foreign[Path(stands.path)] = tree(Path(stands.path))
            elif stands.session_id is not None:
                self.promise(stands, FATES[name])

    def act(self, sessions: SessionLedger, said: Said) -> None:
        sweep(sessions, said)


class SweepInTwoThreads(Sweep):
    """The same in batches of two, as if there were hundreds: two threads carry it out."""

    def act(self, sessions: SessionLedger, said: Said) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for module in (survey, listing, swept):
                patch.setattr(module, "BATCH", 2)
            patch.setattr(sharing, "WAITS", -1.0)
            sweep(sessions, said)


def sweep(sessions: SessionLedger, said: Said) -> None:
    """Says whether it was told of anything that it could not do, or not read."""
    report = sessions.sweep()
    failed = report.failed or report.counts[Finding.UNREADABLE]
    said("failed" if failed else "swept")


class SweepUsed(OnOne):
    """A sweep takes a stale session, and just then it is used: it is brought back, and stays."""

    scene = "stale"
    before = {LIVE, GONE}
    hook: tuple[Any, str] = (moves, "set_aside")

    def act(self, sessions: SessionLedger, said: Said) -> None:
        with doing(self.hook, after=lambda: self.use(sessions, said)):
            sessions.sweep()

    def use(self, sessions: SessionLedger, said: Said) -> None:
        [place] = self.stage.places(self.its).values()
        for name, content in OTHER_PROGRAM.items():
            (place / name).write_bytes(content)
        said("used")

    def its_trees(self, said: bool) -> list[Tree]:
        before = self.trees[self.its]
        after = before | tree_of(OTHER_PROGRAM)
        return [after] if said else [before, after]


class SweepUsedLate(SweepUsed):
    """Its row has ended already; its bytes are still there."""

    hook = (SettingAside, "_end")


class SweepTouched(SweepUsed):
    """A touch, where the row says that a sweep is removing it."""

    def use(self, sessions: SessionLedger, said: Said) -> None:
        sessions.touch(self.its)
        said("touched")

    def its_trees(self, said: bool) -> list[Tree]:
        return [self.trees[self.its]]


class SweepDeleted(SweepTouched):
    """A DELETE, where the row says that a sweep is removing it."""

    after = {GONE}

    def use(self, sessions: SessionLedger, said: Said) -> None:
        with removing_at_once(sessions):
            assert sessions.delete_session(self.its)
            said("deleted")


class SweepUsedInTrash(SweepUsed):
    """A due entry of the trash was written into: it is not removed, but brought back."""

    scene = "due"
    before = {LIVE}

    def prepare(self, sessions: SessionLedger) -> None:
        super().prepare(sessions)
        self.use(sessions, lambda _: None)

    def act(self, sessions: SessionLedger, said: Said) -> None:
        sweep(sessions, said)

    def its_trees(self, said: bool) -> list[Tree]:
        return super().its_trees(True)


# Opened


class Open(Operation):
    """For the first time: root and ledger are made, and belong together."""

    def set_up(self, stage: Stage) -> None:
        super().set_up(stage)
        shutil.rmtree(stage.here)
        stage.here.mkdir()
        self.may.clear()

    def run(self, said: Said) -> None:
        with self.stage.open():
            said("opened")


class Adopt(Operation):
    """A pile that another program made, and a ledger that is new."""

    adopt = True

    def prepare(self, sessions: SessionLedger) -> None:
        self.may.clear()
        for name, fate in (("unrecorded", LIVE), ("forgotten", WAITING)) * 2:
            self.promise(SCENES[name].build(sessions), fate)

    def set_up(self, stage: Stage) -> None:
        super().set_up(stage)
        for name in os.listdir(stage.root):
            if name not in self.may:
                shutil.rmtree(stage.root / name)
        shutil.rmtree(stage.ledger.parent)

    def run(self, said: Said) -> None:
        with self.stage.open(adopt=True) as sessions:
            said("opened")
            sessions.adopt_all()


class AdoptAnew(Adopt):
    """A root that has lost its id, and the ledger that knew it: its rows are kept."""

    def set_up(self, stage: Stage) -> None:
        Operation.set_up(self, stage)
        shutil.rmtree(stage.root / HOUSE)


OPERATIONS: list[type[Operation]] = [
    *(Create, CreateWithFiles, Upload, DeleteFile, Touch, Claim),
    *(Delete, DeleteStray, DeleteWaiting, DeleteSeveral),
    *(Restore, RestoreAsItIsRemoved, RemoveAsItIsRestored),
    *(
        Sweep,
        SweepInTwoThreads,
        SweepUsed,
        SweepUsedLate,
        SweepTouched,
        SweepDeleted,
        SweepUsedInTrash,
    ),
    *(Open, Adopt, AdoptAnew),
]
# Of each kind of step one; the others are hit before a change lands.
EVERY_DAY = {
    CreateWithFiles,
    Claim,
    Delete,
    Restore,
    Sweep,
}
