"""The client, against a service that really listens: every route, and its errors."""

from __future__ import annotations

import io
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

import web
from ledger import SessionNotFound
from tests.tui.test_unreachable import stranger
from tests.web.operators import TOKEN
from tests.web.services import HOUSE, Serve, Service, listening, serving, wait_for
from web.client import Client, Refused, Unreachable


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("client")
    url = f"sqlite:///{folder}/ledger.db"
    with serving(folder, url, operator_token=TOKEN, sweep_every_minutes=0, undo_hours=1) as service:
        wait_for(lambda: service.sessions.health().last_sweep_at)
        yield service


@pytest.fixture
def client(served: Service) -> Iterator[Client]:
    with Client(served.url, TOKEN) as client:
        yield client


def test_the_package_has_it() -> None:
    assert web.Client is Client
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        web.Server  # noqa: B018


def test_a_session_from_its_first_byte_to_its_claim(client: Client, served: Service) -> None:
    made = client.create([("a.txt", b"first"), ("ä b?.txt", io.BytesIO(b"second"))], label="n° 17")
    its = made.session_id
    assert (made.state, made.label, made.bytes) == ("active", "n° 17", 11)
    assert {(file.name, file.bytes) for file in made.files} == {("a.txt", 5), ("ä b?.txt", 6)}
    assert client.put_file(its, "c/d".replace("/", "_"), b"x" * 300_000)
    assert not client.put_file(its, "c_d", (b"y" * 10 for _ in range(30)))
    with client.file(its, "c_d") as pieces:
        assert b"".join(pieces) == b"y" * 300
    added = client.add_files(its, [("a.txt", b"another")])
    assert [file.name for file in added.files] == ["a (2).txt"]
    assert client.delete_file(its, "a.txt")
    assert not client.delete_file(its, "a.txt")
    before = client.session(its)
    assert client.touch(its).last_touch_at >= before.last_touch_at
    claimed = client.claim(its, "spring")
    assert claimed.state == "claimed"
    assert (Path(served.settings.claims) / "spring/ä b?.txt").read_bytes() == b"second"


def test_a_session_may_be_empty_and_have_no_name(client: Client) -> None:
    assert client.create().files == []
    assert client.create(label="order 17").label == "order 17"


def test_a_session_that_is_deleted_is_deleted_once(client: Client) -> None:
    its = client.create().session_id
    assert client.delete(its)
    assert not client.delete(its)
    with pytest.raises(Refused, match="has ended") as refused:
        client.touch(its)
    assert refused.value.status == 410


def test_every_session_comes_once(client: Client) -> None:
    made = [client.create(label=f"page {number}").session_id for number in range(7)]
    found = [each.session_id for each in client.every_session(q="page", limit=3)]
    assert found == made[::-1]
    page = client.sessions(q="page", limit=3, sort="created_at", state="active")
    assert [each.session_id for each in page.sessions] == made[:3]


def test_an_operators_day(client: Client, served: Service) -> None:
    its = client.create([("a.txt", b"first")], label="stale").session_id
    dry = client.start_sweep(dry_run=True, max_age_hours=1e-7)
    wait_for(lambda: client.sweep(dry.sweep_id).state == "done")
    seen = client.seen(its)
    assert seen.session is not None
    assert (seen.session.session_id, seen.disk.files) == (its, 1)
    real = client.start_sweep(of=dry.sweep_id, past_the_brake=True)
    wait_for(lambda: client.sweep(real.sweep_id).state == "done")
    assert client.sweeps(limit=1).sweeps[0].sweep_id == real.sweep_id
    assert its not in os.listdir(served.root)
    assert client.report().counts["waiting"] >= 1
    assert "waiting" in client.report_csv()
    assert client.restore(its).state == "active"
    with pytest.raises(Refused, match="not run any more") as refused:
        client.cancel_sweep(real.sweep_id)
    assert refused.value.status == 409
    with pytest.raises(SessionNotFound):
        client.seen("unknown")
    assert client.ready()["ready"]
    assert "coatcheck_ready 1" in client.metrics()


def test_events_are_followed_and_gone_on_with_from_the_last_one(client: Client) -> None:
    start = client.events(limit=1).events
    after = start[0].event_id if start else 0
    its = client.create().session_id
    first = next(follow := client.follow(after))
    follow.close()  # type: ignore[attr-defined]
    assert (first.to, first.session) == ("active", its[:8])
    client.delete(its)
    going_on = client.follow(first.event_id)
    assert [next(going_on).to for _ in range(2)] == ["removing", "deleted"]
    going_on.close()  # type: ignore[attr-defined]
    assert client.events(limit=2).events[0].to == "deleted"


def test_what_needs_the_token_is_refused_without_it_in_words(served: Service) -> None:
    with Client(served.url) as client:
        for act in (
            client.sessions,
            client.metrics,
            client.report_csv,
            lambda: next(client.follow()),
        ):
            with pytest.raises(Refused, match="needs the operator token") as refused:
                act()
            assert refused.value.status == 401
        assert client.ready()["ready"]


def test_wrong_words_are_refused_with_what_is_wrong(client: Client) -> None:
    its = client.create().session_id
    for act in (
        lambda: client.claim(its, "../up"),
        lambda: client.put_file(its, "..", b""),
        lambda: client.sessions(limit=0),
        lambda: client.add_files(its, []),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.status == 422
    with pytest.raises(Refused, match="not found"), client.file(its, "not there"):
        pass


def test_a_service_may_have_a_path_in_front(serve: Serve) -> None:
    service = serve()
    app = FastAPI()
    app.include_router(web.upload_router(service.sessions), prefix="/in front/api/v1/upload")
    with listening(app) as url, Client(f"{url}/in front/") as client:
        made = client.create([("a", b"x")])
        assert client.session(made.session_id).bytes == 1


def test_many_threads_may_use_one(client: Client) -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(client.create([("a", b"x")]).session_id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8


def test_a_stream_that_breaks_off_is_said_to(served: Service) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 999\r\n\r\n"
    with (
        stranger(head + b"retry: 2000\n\n") as url,
        Client(url, TOKEN) as client,
        pytest.raises(Unreachable, match="broke off"),
    ):
        list(client.follow())


def test_silence_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, timeout_s=0.2) as client, pytest.raises(Unreachable) as error:
            client.ready()
    assert "no answer within 0.2 s" in str(error.value)


def test_the_guides_example_runs_as_it_is_written(
    served: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (HOUSE / "docs/guide.md").read_text()
    [example] = re.findall(r"```python\n(from web\.client.*?)```", guide, re.DOTALL)
    (tmp_path / "plan.pdf").write_bytes(b"a plan")
    here = example.replace("http://127.0.0.1:8000", served.url).replace('"…"', repr(TOKEN))
    exec(here.replace('"spring"', '"of the guide"'))
    assert (Path(served.settings.claims) / "of the guide/plan.pdf").read_bytes() == b"a plan"


def test_the_guide_has_every_call_of_the_client() -> None:
    guide = (HOUSE / "docs/guide.md").read_text().partition("### A client of the service")[2]
    told = set(re.findall(r"`(\w+)\(", guide.partition("\n## ")[0]))
    own = {name for name, value in vars(Client).items() if callable(value) and name[0] != "_"}
    assert told == own - {"stop", "close"}


def test_a_proxy_in_the_environment_is_not_asked(
    served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Client(served.url) as client:
        assert client.ready()["ready"]
