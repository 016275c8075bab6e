"""A call is refused at each point of what is done: nothing is lost, and the failure is told."""

import errno
import itertools
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from ledger import SessionLedger, State, disk, moves, removal
from ledger.demo import SCENES
from tests.everyday import every_day
from tests.hostile import blows, tracing
from tests.hostile.blows import Fail, Points, Told, doing, walk
from tests.hostile.operations import (
    EVERY_DAY,
    OPERATIONS,
    Claim,
    Create,
    CreateWithFiles,
    Delete,
    Restore,
    Sweep,
    SweepInTwoThreads,
    SweepUsed,
    SweepUsedInTrash,
    Upload,
)
from tests.hostile.scenario import GONE, Operation, Stage
from tests.hostile.tracing import needs_strace, refused

SEED = 20
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.EROFS)
every_operation = pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
some_every_day = every_day(EVERY_DAY, OPERATIONS, ids=lambda kind: kind.__name__)


def refuse(operation: Operation, stage: Stage, hit: Callable[[], Told], what: str) -> Told:
    """Does the operation, refused once or for good; nothing is lost, and a sweep settles it."""
    operation.set_up(stage)
    told = hit()
    try:
        assert not told.died
        assert told.raised is None or told.documented, told.in_words
        judge = operation.judge(told.said)
        if isinstance(operation, Create) and told.raised:
            # Taken back, though it was written: the ledger could not be looked at just afterwards.
            for session_id in judge.expected.keys() - operation.may.keys():
                judge.expected[session_id].fates.add(GONE)
        judge.nothing_is_half_there()
        if told.raised is None and type(operation) in (Sweep, SweepUsedInTrash):
            assert told.said
            if told.said == ["swept"]:  # then it is
                judge.fates_are_kept()
        judge.a_sweep_settles_it()
    except AssertionError as error:
        error.add_note(
            f"{type(operation).__name__}: {what}, having said {told.said}, {told.raised}"
        )
        raise
    return told


def at_its_own_points(kind: type[Operation], stage: Stage, every: int, *, looks: bool) -> None:
    operation = kind()
    dice = random.Random(SEED)
    count = 0
    for at in walk(every, SEED):
        reached = 0
        for number in ERRORS if every == 1 and not looks else [dice.choice(ERRORS)]:
            for_good = dice.random() < 0.5
            points = Points(at, Fail(number), for_good=for_good, looks=looks)
            what = f"{errno.errorcode[number]} {'from' if for_good else 'at'} {at}"
            told = refuse(operation, stage, lambda: blows.hit(operation.run, points), what)  # noqa: B023
            reached = max(reached, told.points or 0)
            count += 1
        if reached < at:
            break
    print(f"{kind.__name__}: {count} refusals by its own points, 1 of {every} tried")


def at_system_calls(kind: type[Operation], stage: Stage, every: int) -> None:
    operation = kind()
    dice = random.Random(SEED)
    count = 0
    for calls in (tracing.CHANGES, tracing.OPENINGS):
        last = len(tracing.calls_of(told_of(operation, stage), stage.folder, calls))
        for at in itertools.takewhile(lambda at: at <= last, walk(every, SEED)):  # noqa: B023
            number, for_good = dice.choice(ERRORS), dice.random() < 0.5
            options = refused(errno.errorcode[number], f"{at}+" if for_good else f"{at}", calls)
            what = " ".join(options)
            refuse(operation, stage, lambda: tracing.hit(operation.run, *options), what)  # noqa: B023
            count += 1
    print(f"{kind.__name__}: {count} refused system calls, 1 of {every} tried")


def told_of(operation: Operation, stage: Stage) -> blows.Act:
    operation.set_up(stage)
    return operation.run


looking = pytest.mark.parametrize("looks", [False, True], ids=["changing", "looking"])


@some_every_day
def test_refused_at_its_own_points_it_loses_nothing_and_says_so(
    kind: type[Operation], stage: Stage
) -> None:
    at_its_own_points(kind, stage, every=90, looks=False)


@every_day({Claim, Sweep}, [Claim, Delete, Sweep, Upload])
def test_refused_a_look_it_loses_nothing_and_says_so(kind: type[Operation], stage: Stage) -> None:
    at_its_own_points(kind, stage, every=150, looks=True)


@needs_strace
@every_day({Sweep}, [Claim, CreateWithFiles, Delete, Restore, Sweep, Upload])
def test_refused_by_the_system_it_loses_nothing_and_says_so(
    kind: type[Operation], stage: Stage
) -> None:
    at_system_calls(kind, stage, every=300)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@every_operation
@looking
def test_refused_at_every_point_of_its_own_it_loses_nothing_and_says_so(
    kind: type[Operation], looks: bool, stage: Stage
) -> None:
    at_its_own_points(kind, stage, every=one_of(kind), looks=looks)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@needs_strace
@every_operation
def test_refused_at_every_system_call_it_loses_nothing_and_says_so(
    kind: type[Operation], stage: Stage
) -> None:
    at_system_calls(kind, stage, every=one_of(kind))


def one_of(kind: type[Operation]) -> int:
    """Each point; two threads make the calls of one, and take turns anew in every run."""
    return 7 if kind is SweepInTwoThreads else 1


# What the walks found


def refused_by_the_disk() -> Any:
    return pytest.raises(OSError, match=os.strerror(errno.EIO))


def failing(number: int = errno.EIO) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_sweep_that_cannot_put_a_used_session_back_goes_on_and_says_so(stage: Stage) -> None:
    operation = SweepUsed()
    operation.set_up(stage)
    with (
        stage.open() as sessions,
        doing((moves, "put_back"), before=failing()),
        doing(operation.hook, after=lambda: operation.use(sessions, lambda _: None)),
    ):
        [failure] = sessions.sweep().failures
    assert failure.endswith(
        "waits in the trash for the next sweep to put it back: " + os.strerror(5)
    )
    operation.judge(["used"]).a_sweep_settles_it()


def test_a_sweep_that_could_not_look_at_first_finishes_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage.open() as sessions:
        its = SCENES["sweep_begun"].build(sessions).session_id
        opened = disk.open_directory
        refused: list[str] = []

        def once(name: str, *args: Any, **values: Any) -> int:
            if name == its and not refused:
                refused.append(name)
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return opened(name, *args, **values)

        monkeypatch.setattr(disk, "open_directory", once)
        assert sessions.sweep().removed == 1
        assert refused == [its]
        assert sessions.report().settled


def test_an_upload_lets_go_of_its_session_where_its_draft_cannot_be_removed(stage: Stage) -> None:
    with stage.open() as sessions:
        session = sessions.create()
        refusal = doing((removal, "remove_empty_directory"), before=failing())
        with refusal, sessions.upload(session.id) as upload:
            upload.commit()
        assert sessions.claim(session.id, into="spring").state is State.CLAIMED


def test_what_the_disk_refuses_of_an_upload_is_not_counted(stage: Stage) -> None:
    with stage.open() as sessions:
        session = sessions.create()
        with sessions.upload(session.id) as upload:
            upload.open_file("first")
            upload.write(b"first")
            upload.open_file("second", replace=True)
            upload.write(b"the second")
            with doing((moves, "publish_new_file"), before=failing()), refused_by_the_disk():
                upload.commit()
        after = sessions.get(session.id)
        assert (after.files, after.bytes) == (0, 0)
        assert sessions.files(session.id) == []


def test_a_file_that_cannot_be_deleted_is_still_counted(stage: Stage) -> None:
    with stage.open() as sessions:
        session = session_with_a_file(sessions)
        with doing((removal, "unlink_file"), before=failing()), refused_by_the_disk():
            sessions.delete_file(session, "file")
        after = sessions.get(session)
        assert (after.files, after.bytes) == (1, 4)


def session_with_a_file(sessions: SessionLedger) -> str:
    with sessions.upload(None) as upload:
        upload.open_file("file")
        upload.write(b"text")
        return upload.commit()[0].session_id


def test_a_session_that_cannot_be_read_is_not_said_to_be_missing(stage: Stage) -> None:
    (stage.root / "another-programs").mkdir(parents=True)
    with stage.open(adopt=True) as sessions:
        for act in (sessions.touch, sessions.delete_session):
            with doing((os, "scandir"), before=failing()), refused_by_the_disk():
                act("another-programs")
        assert sessions.delete_session("another-programs")
