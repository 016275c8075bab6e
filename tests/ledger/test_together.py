"""Touches, and DELETEs, that come at once share a commit, and none is answered before it."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ledger import LedgerUnavailable, SessionEnded, State, counts, states
from ledger.database import Database
from ledger.models import Actor, Record
from ledger.states import Move
from ledger.together import Together
from tests.ledger.world import World
from tests.web.services import wait_for

# On a server nothing is shared: each writes by itself.
pytestmark = pytest.mark.sqlite

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
    """Touches or DELETEs at once, of which the first holds the others up until all wait."""

    def __init__(self, world: World, ids: list[str], *, delete: bool = False) -> None:
        self.world, self.ids, self.deletes = world, ids, delete
        self.outcomes: list[object] = []

    def hold_up(self, write: int) -> None:
        place = self.world.sessions.place
        waiting: Together[Any, Any] = place.deletions if self.deletes else place.touches
        if write == 0:
            wait_for(lambda: len(waiting._waiting) == len(self.ids))

    def act(self, session_id: str) -> None:
        sessions = self.world.sessions
        try:
            done = sessions.delete_session if self.deletes else lambda its: sessions.touch(its).id
            self.outcomes.append(done(session_id))
        except Exception as error:
            self.outcomes.append(error)

    def run(self) -> None:
        threads = [threading.Thread(target=self.act, args=(name,)) for name in self.ids]
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
    touches = Together(states.touch_all)
    held, go_on = threading.Event(), threading.Event()

    def hold(write: int) -> None:
        if write == 0:
            held.set()
            assert go_on.wait(20)

    def touch() -> object:
        return touches.write(place.database, (place.root_id, name, world.clock()))

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


# DELETEs


def test_deletes_that_wait_together_share_their_transactions(world: World) -> None:
    ids = [world.create(files={"a.txt": b"a"}) for _ in range(MANY)]
    crowd = Crowd(world, ids, delete=True)
    with counted_writes(world, crowd.hold_up) as writes:
        crowd.run()
    assert crowd.outcomes == [True] * MANY
    assert len(writes) <= 1 + MANY  # all began in one, and ended as they were set aside
    assert world.standing() == set()
    for name in ids:
        life = [(event.from_state, event.to_state) for event in world.events(name)]
        assert life == [(None, "active"), ("active", "removing"), ("removing", "deleted")]
    assert world.sessions.sweep().failures == []
    assert world.sessions.report().settled


def test_of_several_that_delete_one_session_together_one_has_done_it(world: World) -> None:
    name, other = world.create(), world.create()
    crowd = Crowd(world, [name, name, other, name], delete=True)
    with counted_writes(world, crowd.hold_up):
        crowd.run()
    assert sorted(map(str, crowd.outcomes)) == ["False", "False", "True", "True"]
    assert (world.state(name), world.state(other)) == ("deleted", "deleted")
    world.reopen()
    assert world.in_trash() == []
    with world.sessions.place.database.read() as connection:
        kept = counts.kept(connection, world.sessions.place.root_id)
    assert kept["deletions", ()] == 2


def test_moves_of_one_session_are_carried_out_one_after_the_other(world: World) -> None:
    first, second = world.known(world.create()), world.known(world.create())
    by, at = Actor.API, world.clock()

    def begin(record: Record, trash: str) -> Move:
        values = {"remover": str(by), "trash": trash}
        return Move(record, State.REMOVING, by, "deleted", values, any_version=True, at=at)

    with world.sessions.place.database.write() as connection:
        wanted = [begin(first, "a"), begin(second, "b"), begin(first, "c")]
        told = states.carry_out(connection, wanted)
    assert told[0] is not None
    assert told[1] is not None
    assert told[2] is None  # it was not active any more
    removing = told[0][1]
    with world.sessions.place.database.write() as connection:
        taken, ended, again = states.carry_out(
            connection,
            [
                begin(removing, "d"),  # another DELETE takes it over
                Move(removing, State.DELETED, by, "deleted", at=at),
                Move(told[1][1], State.DELETED, by, "deleted", at=at + 1),
            ],
        )
    assert taken is not None
    assert (taken[0].trash, taken[1].trash) == ("a", "d")
    assert ended is None
    assert again is not None
    assert again[1].ended_at == at + 1
