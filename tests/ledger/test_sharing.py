"""Two threads share a sweep's batches, and tell of it as if there were one."""

import threading
import time
from collections.abc import Iterator

import pytest

from ledger import Finding, sharing
from ledger.sharing import share
from ledger.survey import BATCH
from tests.ledger.world import World, around, findings


@pytest.fixture
def always_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread comes behind the first batch, whether the disk was waited for or not."""
    monkeypatch.setattr(sharing, "WAITS", -1.0)


@pytest.mark.usefixtures("always_two")
def test_every_batch_is_acted_on_once_and_by_two() -> None:
    both_are_here = threading.Barrier(2)
    acted: list[tuple[int, str]] = []

    def act(number: int) -> None:
        if number in (1, 2):
            both_are_here.wait(20)
        acted.append((number, threading.current_thread().name))

    share(iter(range(100)), act)
    assert sorted(number for number, _ in acted) == list(range(100))
    assert len({name for _, name in acted}) == 2


def test_a_second_thread_comes_where_the_first_one_waits() -> None:
    both_are_here = threading.Barrier(2)

    def act(number: int) -> None:
        if number == 0:
            time.sleep(0.05)  # as if for the disk
        elif number < 3:
            both_are_here.wait(20)

    share(iter(range(3)), act)


def test_one_that_computes_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its own time counts alone: the machine may give it to others.
    monkeypatch.setattr(time, "perf_counter", time.thread_time)
    threads: set[threading.Thread] = set()

    def compute(number: int) -> None:
        threads.add(threading.current_thread())
        sum(range(20_000 + number))

    share(iter(range(100)), compute)
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("count", [0, 1])
def test_one_batch_needs_no_second_thread(count: int) -> None:
    threads: list[threading.Thread] = []
    share(iter(range(count)), lambda _: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()] * count


@pytest.mark.usefixtures("always_two")
@pytest.mark.parametrize("fails", [1, 2])
def test_what_one_of_them_raises_ends_both(fails: int) -> None:
    both_are_here = threading.Barrier(2)
    taken: list[int] = []
    failed = threading.Event()

    def batches() -> Iterator[int]:
        yield from (0, 1, 2)
        assert failed.wait(20)
        yield from range(3, 1000)

    def act(number: int) -> None:
        taken.append(number)
        if number in (1, 2):
            both_are_here.wait(20)
        if number == fails:
            failed.set()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        share(batches(), act)
    assert len(taken) < 1000


@pytest.mark.usefixtures("always_two")
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


@pytest.mark.usefixtures("always_two")
def test_a_sweep_that_breaks_off_in_one_thread_breaks_off(world: World) -> None:
    for number in range(3 * BATCH):
        world.stray(f"old-{number}", age=60)

    def breaks() -> None:
        raise ZeroDivisionError

    with around("sweep.Sweep._judged", before=breaks), pytest.raises(ZeroDivisionError):
        world.sessions.sweep()
    assert world.sessions.sweep().failures == []
    assert world.standing() == set()
