"""A process is killed at each point of what it does; what it leaves is whole, and is finished."""

from collections.abc import Callable

import pytest

from tests.everyday import every_day
from tests.hostile import blows, tracing
from tests.hostile.blows import Kill, Points, Told, walk
from tests.hostile.operations import EVERY_DAY, OPERATIONS
from tests.hostile.scenario import Operation, Stage
from tests.hostile.tracing import killed, needs_strace

SEED = 20

every_operation = pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
some_every_day = every_day(EVERY_DAY, OPERATIONS, ids=lambda kind: kind.__name__)


def kill_at_each_point(
    operation: Operation, stage: Stage, hit: Callable[[int], Told], every: int
) -> int:
    """The last of the points that there were to be killed at."""
    for at in walk(every, SEED):
        operation.set_up(stage)
        told = hit(at)
        assert told.raised is None, told.in_words
        judge = operation.judge(told.said)
        try:
            judge.nothing_is_half_there()
            judge.a_sweep_settles_it()
        except AssertionError as error:
            error.add_note(f"{type(operation).__name__}, killed at {at}, having said {told.said}")
            raise
        if not told.died:
            return at - 1
    raise AssertionError("never done")


def at_its_own_points(kind: type[Operation], stage: Stage, every: int) -> None:
    operation = kind()

    def hit(at: int) -> Told:
        return blows.hit(operation.run, Points(at, Kill()))

    count = kill_at_each_point(operation, stage, hit, every)
    print(f"{kind.__name__}: {count} kill points of its own, 1 of {every} tried")


def at_system_calls(kind: type[Operation], stage: Stage, every: int) -> None:
    operation = kind()

    def hit(at: int) -> Told:
        return tracing.hit(operation.run, *killed(at))

    count = kill_at_each_point(operation, stage, hit, every)
    print(f"{kind.__name__}: {count} system calls to be killed at, 1 of {every} tried")


@some_every_day
def test_killed_at_its_own_points_it_leaves_nothing_lost(
    kind: type[Operation], stage: Stage
) -> None:
    at_its_own_points(kind, stage, every=20)


@needs_strace
@some_every_day
def test_killed_at_system_calls_it_leaves_nothing_lost(kind: type[Operation], stage: Stage) -> None:
    at_system_calls(kind, stage, every=120)


@pytest.mark.torture
@every_operation
def test_killed_at_every_point_of_its_own_it_leaves_nothing_lost(
    kind: type[Operation], stage: Stage
) -> None:
    at_its_own_points(kind, stage, every=1)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@needs_strace
@every_operation
def test_killed_at_every_system_call_it_leaves_nothing_lost(
    kind: type[Operation], stage: Stage
) -> None:
    at_system_calls(kind, stage, every=1)
