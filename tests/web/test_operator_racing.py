"""What operators read while others write: each session and event once, one sweep's progress."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ledger import Actor, SessionLedger, queries, states
from ledger.models import EVENTS, SESSIONS, Origin
from ledger.states import New
from tests.everyday import params
from tests.ledger.world import Clock, around
from tests.web.operators import (
    AUTH,
    OPERATOR,
    Operator,
    Stream,
    in_a_thread,
    operator_of,
    settings_in,
    within,
)
from web.app import create_app

pytest_plugins = ["tests.web.operator_fixtures"]

SORTS = ["created_at", "last_touch_at", "bytes", "files", "state"]


def of_size(operator: Operator, size: int) -> str:
    with operator.sessions.upload(None, by=Actor.API) as upload:
        for number in range(size % 3):
            upload.open_file(f"{number}")
            upload.write(b"x" * (size % 5))
        return upload.commit()[0].session_id


def pages(
    operator: Operator, between: Callable[[], object], **query: Any
) -> Iterator[dict[str, Any]]:
    """Every session that is listed; something is done between two pages."""
    cursor = None
    while True:
        page = operator.json("/sessions", **query, **({"cursor": cursor} if cursor else {}))
        yield from page["sessions"]
        cursor = page["next"]
        if cursor is None:
            return
        between()


@pytest.mark.parametrize("down", ["", "-"])
@pytest.mark.parametrize("sort", params({"created_at", "state"}, SORTS))
def test_who_stays_comes_once_whoever_comes_and_goes_between_two_pages(
    operator: Operator, sort: str, down: str
) -> None:
    chance = random.Random(f"{down}{sort}")
    staying = {of_size(operator, chance.randrange(30)) for _ in range(12)}
    passing = [of_size(operator, chance.randrange(30)) for _ in range(6)]

    def come_and_go() -> None:
        for _ in range(chance.randrange(3)):
            if passing and chance.random() < 0.5:
                gone = passing.pop(chance.randrange(len(passing)))
                if chance.random() < 0.5:
                    operator.sessions.delete_session(gone)
                else:
                    operator.sessions.touch(gone)  # which moves it in some orders
            else:
                passing.append(of_size(operator, chance.randrange(30)))

    limit = chance.randrange(1, 6)
    listed = [
        each["session_id"]
        for each in pages(operator, come_and_go, sort=f"{down}{sort}", limit=limit)
    ]
    assert sorted(name for name in listed if name in staying) == sorted(staying)
    filtered = pages(operator, come_and_go, sort=f"{down}{sort}", limit=limit, state="active")
    listed = [each["session_id"] for each in filtered]
    assert sorted(name for name in listed if name in staying) == sorted(staying)


@pytest.mark.slow
def test_who_stays_comes_once_while_others_come_and_go_at_the_same_time(either: Operator) -> None:
    staying = {either.sessions.create().id for _ in range(25)}
    with at_work(either.sessions):
        for sort in ("-created_at", "last_touch_at", "state", "-bytes"):
            listed = [each["session_id"] for each in pages(either, int, sort=sort, limit=4)]
            assert sorted(name for name in listed if name in staying) == sorted(staying)


@contextmanager
def at_work(sessions: SessionLedger, threads: int = 3) -> Iterator[list[int]]:
    """Sessions are created, touched and deleted meanwhile; what is yielded counts them."""
    stop = threading.Event()
    done: list[int] = []

    def work() -> None:
        while not stop.is_set():
            made = sessions.create(by=Actor.API)
            sessions.touch(made.id)
            sessions.delete_session(made.id)
            done.append(1)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in running:
            thread.join()


# Events


def test_a_stream_that_is_opened_again_and_again_tells_each_event_once(either: Operator) -> None:
    told: list[int] = []
    last = 0
    with in_a_thread(either.app) as port:
        with at_work(either.sessions) as done:
            for _ in range(6):
                with Stream(port, last=last) as stream:
                    told += [event["event_id"] for event in stream.take(7)]
                last = told[-1]
            within(20, lambda: len(done) > 20)
        with Stream(port, last=last) as stream:
            told += [event["event_id"] for event in stream.take(_written(either) - len(told))]
    with either.sessions.place.database.read() as connection:
        rows = connection.execute(EVENTS.select().order_by(EVENTS.c.event_id)).all()
    assert told == [row.event_id for row in rows]


def _written(operator: Operator) -> int:
    with operator.sessions.place.database.read() as connection:
        return len(connection.execute(EVENTS.select()).all())


def test_on_a_server_no_event_is_seen_before_one_of_a_lower_number(
    tmp_path: Path, clock: Clock, postgres_url: str
) -> None:
    """So who goes on behind the last one that he saw misses none: state changes of a root queue."""
    with operator_of(settings_in(tmp_path, postgres_url), clock) as operator:
        place = operator.sessions.place
        before = _newest(operator)
        new = New("held-up", Origin.ADOPTED, "a test", clock(), clock())
        other = threading.Thread(target=operator.sessions.create)
        with place.database.write() as connection:
            states.insert(connection, place.root_id, [new], Actor.API, clock())
            other.start()
            within(20, lambda: _waits(operator))
            assert _newest(operator) == before  # neither the one nor the other
        other.join()
        with place.database.read() as connection:
            events = queries.events_after(connection, place.root_id, before)
        assert len(events) == 2
        assert events[0].session == "held-up"[-8:]


def _newest(operator: Operator) -> int:
    with operator.sessions.place.database.read() as connection:
        return queries.last_event(connection)


def _waits(operator: Operator) -> bool:
    asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with operator.sessions.place.database.read() as connection:
        return int(connection.exec_driver_sql(asked).scalar_one()) > 0


# A sweep


@pytest.mark.slow
def test_every_worker_tells_how_far_the_one_sweep_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them sweeps; what the others tell comes from the ledger."""
    reached, go_on = threading.Event(), threading.Event()
    settings = settings_in(tmp_path, sweep_every_minutes=0)
    with SessionLedger.open(settings) as sessions:
        for _ in range(70):  # more than one batch
            sessions.create()
        with sessions.place.database.write() as connection:
            connection.execute(SESSIONS.update().values(last_touch_at=0))
    workers = [create_app(settings) for _ in range(2)]
    with (
        TestClient(workers[0], base_url="http://localhost") as one,
        TestClient(workers[1], base_url="http://localhost") as other,
    ):
        within(20, lambda: not _runs(one) and _sweeps(one))
        monkeypatch.setattr("ledger.runs._SAVE_EVERY_S", 0)

        def hold() -> None:
            reached.set()
            assert go_on.wait(20)

        with around("pruning.prune", before=hold):
            begun = one.post(f"{OPERATOR}/sweeps", json={}, headers=AUTH)
            path = f"{OPERATOR}/sweeps/{begun.json()['sweep_id']}"
            assert reached.wait(20)
            try:
                shown = [http.get(path, headers=AUTH).json() for http in (one, other)]
                ready = [http.get("/readyz").json()["running"] for http in (one, other)]
            finally:
                go_on.set()
        assert shown[0] == shown[1]
        assert [shown[0][name] for name in ("state", "done", "total")] == ["running", 70, 70]
        assert (
            ready[0]
            == ready[1]
            == {
                "sweep_id": shown[0]["sweep_id"],
                "done": 70,
                "total": 70,
                "removed": 0,
            }
        )
        within(20, lambda: not _runs(other))
        ended = other.get(path, headers=AUTH).json()
        assert (ended["state"], ended["done"], ended["total"]) == ("done", 70, 70)


def _runs(http: TestClient) -> bool:
    sweeps = http.get(f"{OPERATOR}/sweeps", headers=AUTH).json()["sweeps"]
    return any(sweep["state"] == "running" for sweep in sweeps)


def _sweeps(http: TestClient) -> int:
    return len(http.get(f"{OPERATOR}/sweeps", headers=AUTH).json()["sweeps"])
