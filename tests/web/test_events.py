"""What happened, in pages and as a stream: nothing left out, nobody kept waiting."""

import http.client
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ledger import Actor
from ledger.models import EVENTS, is_ours, short
from tests.ledger.world import Clock
from tests.web.operators import (
    AUTH,
    OPERATOR,
    TOKEN,
    Operator,
    Stream,
    in_a_process,
    in_a_thread,
    operator_of,
    settings_in,
    within,
)
from web import events, streams
from web.app import create_app

pytest_plugins = ["tests.web.operator_fixtures"]

EVENT = ["event_id", "at", "session", "from", "to", "by", "why"]


def write_events(operator: Operator, count: int, why: str = "a test", **more: Any) -> None:
    place = operator.sessions.place
    row = {"root_id": place.root_id, "at": operator.clock(), "by": "library", "why": why, **more}
    with place.database.write() as connection:
        connection.execute(EVENTS.insert(), [row] * count)


# -- Pages


def test_events_come_in_pages_newest_first_with_short_ids(either: Operator) -> None:
    session = either.sessions.create(by=Actor.API)
    either.sessions.delete_session(session.id, by=Actor.API)
    either.sessions.create()
    page = either.json("/events", limit=2)
    assert [list(event) for event in page["events"]] == [EVENT, EVENT]
    assert page["events"][1] == {
        **page["events"][1],
        "session": session.id[:8],
        "from": "removing",
        "to": "deleted",
        "by": "api",
    }
    rest = either.json("/events", limit=1000, cursor=page["next"])
    assert rest["next"] is None
    assert [event["from"] for event in rest["events"]] == ["active", None]
    ids = [event["event_id"] for event in page["events"] + rest["events"]]
    assert ids == sorted(ids, reverse=True)
    assert either.get("/events", limit=1001).status_code == 422
    assert session.id not in either.get("/events").text


def test_an_adopted_name_shows_its_last_characters_only(operator: Operator) -> None:
    (operator.root / "customer-4711-passport").mkdir()
    operator.sessions.touch("customer-4711-passport")
    [event, *_] = operator.json("/events")["events"]
    assert not is_ours("customer-4711-passport")
    assert event["session"] == short("customer-4711-passport") == "passport"


# -- The stream


def test_a_stream_tells_what_happens_from_now_on(either: Operator) -> None:
    either.sessions.create()
    with in_a_thread(either.app) as port, Stream(port) as stream:
        assert stream.opened() == 200
        assert stream.answer is not None
        assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
        assert stream.answer.headers["Cache-Control"] == "no-store"
        session = either.sessions.create(by=Actor.API)
        either.sessions.delete_session(session.id)
        told = stream.take(3)
    assert [list(event) for event in told] == [EVENT] * 3
    assert {event["session"] for event in told} == {session.id[:8]}
    assert [event["to"] for event in told] == ["active", "removing", "deleted"]
    assert told[::-1] == either.json("/events", limit=3)["events"]


def test_a_stream_resumes_where_the_one_before_ended(either: Operator) -> None:
    with in_a_thread(either.app) as port:
        with Stream(port) as stream:
            stream.opened()
            write_events(either, 3)
            first = stream.take(2)
        write_events(either, 1200)
        with Stream(port, last=first[-1]["event_id"]) as stream:
            missed = stream.take(1201)
            write_events(either, 1)
            more = stream.take(1)
    ids = [event["event_id"] for event in first + missed + more]
    assert ids == list(range(ids[0], ids[0] + 1204))


def test_what_happens_while_a_stream_catches_up_is_told_once(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(operator, 700)
    read = events.read_after
    written = 0

    def read_and_write(*args: Any) -> Any:
        nonlocal written
        found = read(*args)
        if not written and args[1] == 0:
            written = 5
            write_events(operator, written)
        return found

    monkeypatch.setattr(events, "read_after", read_and_write)
    with in_a_thread(operator.app) as port, Stream(port) as first:
        first.opened()  # so that there is a poller, which hears of them as well
        with Stream(port, last=0) as stream:
            told = stream.take(705)
            first.take(5)
            write_events(operator, 1)
            told += stream.take(1)
    assert [event["event_id"] for event in told] == list(range(1, 707))


def test_an_id_beyond_the_newest_means_from_now_on(operator: Operator) -> None:
    write_events(operator, 1)
    with in_a_thread(operator.app) as port, Stream(port, last=10**17) as stream:
        stream.opened()
        write_events(operator, 1)
        assert stream.take(1)[0]["event_id"] == 2


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 19, "1 2"])
def test_an_id_that_is_none_is_422(operator: Operator, last: str) -> None:
    sent = {**AUTH, "Accept": "text/event-stream", "Last-Event-ID": last}
    answer = operator.http.get(f"{OPERATOR}/events", headers=sent)
    assert answer.status_code == 422
    assert "Last-Event-ID" in answer.json()["detail"]


def test_on_a_server_a_number_that_comes_late_is_told_all_the_same(
    tmp_path: Path, clock: Clock, postgres_url: str
) -> None:
    with operator_of(settings_in(tmp_path, postgres_url), clock) as operator:
        newest = operator.sessions.place.database
        with in_a_thread(operator.app) as port, Stream(port) as stream:
            stream.opened()
            with newest.read() as connection:
                at = int(connection.exec_driver_sql(_NEWEST).scalar_one()) + 10
            write_events(operator, 1, event_id=at + 1)
            assert stream.take(1)[0]["event_id"] == at + 1
            write_events(operator, 1, event_id=at)
            assert stream.take(1)[0]["event_id"] == at
            write_events(operator, 1, event_id=at + 2)
            assert stream.take(1)[0]["event_id"] == at + 2


_NEWEST = "SELECT coalesce(max(event_id), 0) FROM coatcheck_event"


def test_a_stream_needs_the_token(operator: Operator) -> None:
    for sent, status in (({}, 401), ({"Authorization": f"Bearer {TOKEN}x"}, 403)):
        headers = {**sent, "Accept": "text/event-stream"}
        assert operator.http.get(f"{OPERATOR}/events", headers=headers).status_code == status


def test_a_silent_stream_says_that_it_is_still_there(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.05)
    with in_a_thread(operator.app) as port, Stream(port) as stream:
        said = stream.messages()
        assert [next(said)[2] for _ in range(2)] == ["still here"] * 2


# -- Many, slow and gone


@pytest.fixture
def service(tmp_path: Path) -> Iterator[int]:
    """The port of a whole service."""
    with in_a_thread(create_app(settings_in(tmp_path))) as port:
        yield port


def ask(port: int, path: str, method: str = "GET") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, headers=AUTH)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.slow
def test_200_streams_at_once_leave_the_service_prompt_and_one_more_is_refused(
    service: int,
) -> None:
    with ExitStack() as open_ones:
        all_of_them = [open_ones.enter_context(Stream(service)) for _ in range(200)]
        assert {stream.opened() for stream in all_of_them} == {200}
        assert ask(service, "/healthz") == ask(service, "/readyz") == 200
        with Stream(service) as one_more:
            assert one_more.opened() == 503
            assert one_more.answer is not None
            assert one_more.answer.headers["Retry-After"]
        assert ask(service, "/api/v1/upload", "POST") == 201
        assert {stream.take(1)[0]["to"] for stream in all_of_them} == {"active"}
        all_of_them[0].close()
        within(20, lambda: _opens(service))
    within(20, lambda: _opens(service))


def _opens(port: int) -> bool:
    with Stream(port) as stream:
        return stream.opened() == 200


@pytest.mark.slow
def test_a_listener_that_is_too_slow_is_told_so_and_loses_nothing(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_WAITING", 600)
    with in_a_thread(operator.app) as port:
        with Stream(port, buffer=4096) as stream:
            stream.opened()
            write_events(operator, 3000, "x" * 5000)
            with Stream(port) as prompt:
                prompt.opened()
                write_events(operator, 1)
                prompt.take(1)  # so the poller has come past all of them
            got = []
            for number, name, data in stream.messages():
                if name == "end":
                    assert "Last-Event-ID" in data
                    break
                got.append(int(number))
            assert stream.answer is not None
            assert stream.answer.read() == b""
        assert got == list(range(1, len(got) + 1))
        assert len(got) < 3000
        with Stream(port, last=got[-1]) as stream:
            rest = stream.take(3001 - len(got))
    assert [event["event_id"] for event in rest] == list(range(len(got) + 1, 3002))


@pytest.mark.slow
def test_a_client_that_takes_nothing_is_given_up(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "MOST_LISTENERS", 1)
    monkeypatch.setattr(streams, "PATIENCE_S", 0.2)
    write_events(operator, 3000, "x" * 5000)
    with in_a_thread(operator.app) as port, Stream(port, last=0, buffer=4096) as stalled:
        assert stalled.opened() == 200
        within(20, lambda: _opens(port))
    assert "gave up on a client" in caplog.text


def test_a_client_that_hangs_up_frees_its_place(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "MOST_LISTENERS", 1)
    with in_a_thread(operator.app) as port:
        for _ in range(3):
            within(20, lambda: _opens(port))
    assert caplog.records == []


def test_a_ledger_that_is_away_is_waited_for_with_one_word_in_the_log(
    operator: Operator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(events, "POLL_S", 0.01)
    tries = Tries(monkeypatch)
    with in_a_thread(operator.app) as port, Stream(port) as stream:
        stream.opened()
        write_events(operator, 1)
        stream.take(1)
        (tmp_path / "ledger.db").rename(tmp_path / "elsewhere.db")
        with Stream(port) as other:
            assert other.opened() == 503
        since = tries.count
        within(20, lambda: tries.count > since + 3)
        (tmp_path / "elsewhere.db").rename(tmp_path / "ledger.db")
        write_events(operator, 1, "after it was back")
        assert stream.take(1)[0]["why"] == "after it was back"
    assert [record.message.count("waits for the ledger") for record in caplog.records] == [1]


class Tries:
    """Counts how often the poller has begun to read."""

    count = 0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read = events.Tail.read

        def counted(tail: events.Tail) -> list[events.Event]:
            self.count += 1
            return read(tail)

        monkeypatch.setattr(events.Tail, "read", counted)


@pytest.mark.slow
def test_the_end_of_the_service_ends_every_stream_at_once(tmp_path: Path) -> None:
    with in_a_process(settings_in(tmp_path)) as served, ExitStack() as open_ones:
        listening = [open_ones.enter_context(Stream(served.port)) for _ in range(20)]
        silent = open_ones.enter_context(Stream(served.port, buffer=4096))
        assert {stream.opened() for stream in [*listening, silent]} == {200}
        assert served.ends() == 0
        for stream in listening:
            *_, last = stream.messages()
            assert last[1] == "end"
            assert "stopping" in last[2]
