"""Two threads share a sweep's batches, and tell of it as if there were one."""

import threading
from collections.abc import Iterator

import pytest

from ledger import Finding
from ledger.sharing import share
from ledger.survey import BATCH
from tests.ledger.world import World, around, findings


def test_every_batch_is_acted_on_once_and_by_two() -> None:
    both_are_here = threading.Barrier(2)
    acted: list[tuple[int, str]] = []

    def act(number: int) -> None:
        if number < 2:
            both_are_here.wait(20)
        acted.append((number, threading.current_thread().name))

    share(iter(range(100)), act)
    assert sorted(number for number, _ in acted) == list(range(100))
    assert len({name for _, name in acted}) == 2


@pytest.mark.parametrize("count", [0, 1])
def test_one_batch_needs_no_second_thread(count: int) -> None:
    threads: list[threading.Thread] = []
    share(iter(range(count)), lambda _: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()] * count


@pytest.mark.parametrize("fails", [0, 1])
def test_what_one_of_them_raises_ends_both(fails: int) -> None:
    both_are_here = threading.Barrier(2)
    taken: list[int] = []
    failed = threading.Event()

    def batches() -> Iterator[int]:
        yield from (0, 1)
        assert failed.wait(20)
        yield from range(2, 1000)

    def act(number: int) -> None:
        taken.append(number)
        if number < 2:
            both_are_here.wait(20)
        if number == fails:
            failed.set()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        share(batches(), act)
    assert len(taken) < 1000


def test_a_sweep_of_many_counts_each_of_them_once(any_world: World) -> None:
    world = any_world
    for number in range(3 * BATCH):
        world.stray(f"old-{number}", age=60)
    ids = [world.create(age=60, files={"f": b"12345"}) for _ in range(BATCH)]
    live = [world.create() for _ in range(3)]
    world.alter(ids[0], last_touch_at=world.hours_ago(1))
    done = world.sessions.sweep()
    assert findings(done) == {"unrecorded": 3 * BATCH, "stale": BATCH - 1, "live": 4}
    assert (done.removed, done.waiting) == (4 * BATCH - 1, 3 * BATCH)
    assert (done.changed, done.failed, done.failures) == (0, 0, [])
    assert len(done.entries) == 4 * BATCH - 1
    assert done.bytes[Finding.STALE] == 5 * (BATCH - 1)
    assert world.standing() == {ids[0], *live}


def test_a_sweep_that_breaks_off_in_one_thread_breaks_off(world: World) -> None:
    for number in range(3 * BATCH):
        world.stray(f"old-{number}", age=60)

    def breaks() -> None:
        raise ZeroDivisionError

    with around("sweep.Sweep._judged", before=breaks), pytest.raises(ZeroDivisionError):
        world.sessions.sweep()
    assert world.sessions.sweep().failures == []
    assert world.standing() == set()
