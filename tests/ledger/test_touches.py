"""Touches that come at once share a commit, and none is answered before it."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ledger import LedgerUnavailable, SessionEnded
from ledger.database import Database
from ledger.touches import Touches
from tests.ledger.world import World
from tests.web.services import wait_for

MANY = 16


@contextmanager
def counted_writes(world: World, before: Callable[[int], None]) -> Iterator[list[int]]:
    """Every write transaction of this ledger, told by its number before it begins."""
    write, writes = Database.write, list[int]()

    @contextmanager
    def counting(self: Database, **values: Any) -> Iterator[Any]:
        writes.append(len(writes))
        before(writes[-1])
        with write(self, **values) as connection:
            yield connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "write", counting)
        yield writes


class Crowd:
    """Touches at once, of which the first holds the others up until all of them wait."""

    def __init__(self, world: World, ids: list[str]) -> None:
        self.world, self.ids = world, ids
        self.outcomes: list[object] = []

    def hold_up(self, write: int) -> None:
        touches = self.world.sessions.place.touches
        if write == 0:
            wait_for(lambda: len(touches._waiting) == len(self.ids))

    def touch(self, session_id: str) -> None:
        try:
            self.outcomes.append(self.world.sessions.touch(session_id).id)
        except Exception as error:
            self.outcomes.append(error)

    def run(self) -> None:
        threads = [threading.Thread(target=self.touch, args=(name,)) for name in self.ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)


def test_those_that_wait_together_share_one_transaction(world: World) -> None:
    ids = [world.create(age=2) for _ in range(MANY)]
    before = {name: world.known(name) for name in ids}
    crowd = Crowd(world, ids)
    with counted_writes(world, crowd.hold_up) as writes:
        crowd.run()
    assert sorted(map(str, crowd.outcomes)) == sorted(ids)
    assert len(writes) <= 2  # the other is that of the counts, once a second
    for name in ids:
        row = world.known(name)
        assert row.version == before[name].version + 1
        assert abs(row.last_touch_at - world.clock()) < 60_000_000
        assert (world.root / name).stat().st_mtime_ns // 1000 == row.last_touch_at


def test_each_gets_its_own_answer(world: World) -> None:
    live, ended = world.create(), world.create()
    world.sessions.delete_session(ended)
    crowd = Crowd(world, [live, ended, live, ended])
    with counted_writes(world, crowd.hold_up):
        crowd.run()
    assert sorted(type(each).__name__ for each in crowd.outcomes) == [
        *("SessionEnded", "SessionEnded", "str", "str")
    ]
    assert all(
        str(each).startswith("The session has ended")
        for each in crowd.outcomes
        if isinstance(each, SessionEnded)
    )


def test_none_is_answered_before_its_commit(world: World) -> None:
    ids = [world.create(age=2) for _ in range(MANY)]
    file = world.folder / "ledger.db"

    def check(name: str) -> None:
        touched = world.sessions.touch(name)
        with sqlite3.connect(file) as other:
            query = "SELECT last_touch_at FROM coatcheck_session WHERE session_id = ?"
            [(at,)] = other.execute(query, (name,)).fetchall()
        other.close()
        outcomes.append(at >= round(touched.last_touch_at.timestamp() * 1_000_000) - 1)

    outcomes: list[bool] = []
    threads = [threading.Thread(target=check, args=(name,)) for name in ids * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert outcomes == [True] * len(ids) * 4


def test_what_the_ledger_refuses_all_of_them_are_told_and_the_next_one_goes_on(
    world: World,
) -> None:
    ids = [world.create() for _ in range(MANY)]
    crowd = Crowd(world, ids)

    def refuse(write: int) -> None:
        crowd.hold_up(write)
        raise LedgerUnavailable("The ledger stayed locked; try again.")

    with counted_writes(world, refuse):
        crowd.run()
    assert [type(each) for each in crowd.outcomes] == [LedgerUnavailable] * MANY
    assert len({id(each) for each in crowd.outcomes}) == MANY
    assert world.sessions.touch(ids[0]).id == ids[0]


class _Interrupted(BaseException):
    pass


def test_who_is_interrupted_while_it_waits_holds_nobody_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name = world.sessions.place, world.create()
    touches = Touches()
    held, go_on = threading.Event(), threading.Event()

    def hold(write: int) -> None:
        if write == 0:
            held.set()
            assert go_on.wait(20)

    def touch() -> object:
        return touches.touch(place.database, place.root_id, name, world.clock())

    def interrupted(self: threading.Event, timeout: float | None = None) -> bool:
        raise _Interrupted

    def touch_interrupted() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Event, "wait", interrupted)
            touch()

    with counted_writes(world, hold):
        first = threading.Thread(target=touch)
        first.start()
        assert held.wait(20)
        with pytest.raises(_Interrupted):
            touch_interrupted()
        go_on.set()
        first.join(20)
    assert touches._waiting == []
    assert touch() is not None


def test_a_touch_reads_one_row_however_many_are_active(world: World) -> None:
    """By the index of the state, SQLite would read every active session."""
    database = world.sessions.place.database
    name = world.create()
    raw = database.engine.raw_connection()
    text: list[str] = []
    raw.driver_connection.set_trace_callback(text.append)  # type: ignore[union-attr]
    raw.close()
    world.sessions.touch(name)
    [statement] = {each for each in text if each.startswith("UPDATE coatcheck_session")}
    with database.read() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
    [plan] = rows
    assert "coatcheck_session_by_id (root_id=? AND session_id=?)" in str(plan)
