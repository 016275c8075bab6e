"""The service: who is let in, when it is fit to serve, how it starts, fails, recovers and ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from ledger import CoatcheckError, SessionLedger, Settings, UsageError, errors
from ledger.models import ROOTS
from tests.ledger.world import around
from tests.web.services import (
    FORM,
    UPLOAD,
    Process,
    Serve,
    Service,
    answer_on,
    curl,
    is_open,
    listening,
    multipart,
    serving,
    wait_for,
)
from web import opening
from web.app import create_app
from web.errors import status_of
from web.server import listen

# Who is let in


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:80@evil.example", 403),
        ("", 403),
    ],
)
def test_on_a_loopback_address_only_loopback_names_are_answered_to(
    service: Service, host: str, status: int
) -> None:
    answer = service.ask("GET", "/healthz", {"Host": host})
    assert answer.status == status
    if status != 200:
        assert "COATCHECK_HOSTS" in answer.detail


def test_the_hosts_of_the_setting_are_answered_to_and_no_other(serve: Serve) -> None:
    service = serve(hosts="files.example, other.example:8443")
    asked = {
        "files.example": 200,
        "FILES.example:99": 200,
        "other.example:8443": 200,
        "other.example": 403,
        "localhost": 403,
    }
    for host, status in asked.items():
        assert service.ask("GET", "/healthz", {"Host": host}).status == status


def test_where_everybody_may_connect_every_name_is_answered_to(tmp_path: Path) -> None:
    app = create_app(Settings(root=tmp_path / "temp"), host="0.0.0.0")
    with listening(app) as url:
        answer = httpx.get(f"{url}/healthz", headers={"Host": "any.example"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        (None, None, 201),
        (None, "http://127.0.0.1:8000", 201),
        (None, "http://127.0.0.1", 403),
        (None, "https://127.0.0.1:8000", 201),
        (None, "http://evil.example", 403),
        (None, "null", 403),
        (None, "http://[bad", 403),
        (None, "https://front.example", 201),
        ("same-origin", "http://behind.a.proxy", 201),
        ("none", None, 201),
        ("same-site", "http://evil.example", 403),
        ("cross-site", "http://evil.example", 403),
        ("cross-site", "https://front.example", 201),
        ("cross-site", None, 201),
    ],
)
def test_strangers_pages_are_not_let_in(
    fronted: Service, site: str | None, origin: str | None, status: int
) -> None:
    headers = {"Host": "127.0.0.1:8000", "Sec-Fetch-Site": site, "Origin": origin}
    given = {name: value for name, value in headers.items() if value is not None}
    before = fronted.standing()
    answer = fronted.ask("POST", UPLOAD, given)
    assert answer.status == status
    assert (fronted.standing() == before) is (status == 403)


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that a page of another origin may use."""
    folder = tmp_path_factory.mktemp("fronted")
    origins = "https://front.example"
    with serving(folder, f"sqlite:///{folder}/ledger.db", cors_origins=origins) as service:
        yield service


def test_a_page_of_a_listed_origin_may_do_what_the_design_says(fronted: Service) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        preflight = fronted.http.options(
            f"{UPLOAD}/some",
            headers={
                "Origin": "https://front.example",
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "content-type, range",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://front.example"
    answer = fronted.http.post(UPLOAD, headers={"Origin": "https://front.example"})
    exposed = {"Location", "Content-Disposition", "Retry-After"}
    assert set(answer.headers["Access-Control-Expose-Headers"].split(", ")) == exposed
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "header"), [("PATCH", "content-type"), ("POST", "authorization")]
)
def test_a_page_of_a_listed_origin_may_do_no_more(
    fronted: Service, method: str, header: str
) -> None:
    preflight = fronted.http.options(
        f"{UPLOAD}/some",
        headers={
            "Origin": "https://front.example",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": header,
        },
    )
    assert preflight.status_code == 400


def test_a_preflight_of_a_stranger_is_refused(fronted: Service, service: Service) -> None:
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    for asked in (fronted, service):
        answer = asked.http.options(f"{UPLOAD}/some", headers=asks)
        assert answer.status_code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


# What every answer bears


def every_error(kind: type[CoatcheckError] = CoatcheckError) -> Iterator[type[CoatcheckError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every_error(child)


STATUSES: dict[type[Exception], int] = {
    errors.UsageError: 422,
    errors.SessionNotFound: 404,
    errors.SessionEnded: 410,
    errors.SessionBusy: 409,
    errors.SessionElsewhere: 421,
    errors.NameTaken: 409,
    errors.LimitExceeded: 413,
    errors.NoSpace: 507,
    errors.SweepStopped: 409,
    errors.SweepUnderWay: 409,
    errors.RootMismatch: 503,
    errors.RootUnavailable: 503,
    errors.ClaimsUnavailable: 503,
    errors.LedgerUnavailable: 503,
    errors.LedgerDamaged: 503,
    errors.LedgerGone: 503,
    errors.LedgerTooNew: 503,
    errors.LedgerFull: 507,
}


@pytest.mark.parametrize("kind", STATUSES)
def test_each_error_has_its_status(kind: type[CoatcheckError]) -> None:
    assert status_of(kind.__new__(kind), "GET") == STATUSES[kind]


def test_every_error_there_is_has_some_status() -> None:
    statuses = {status_of(kind.__new__(kind), "GET") for kind in every_error()}
    assert statuses <= {*STATUSES.values(), 500}
    assert status_of(errors.SessionEnded(""), "DELETE") == 404


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, 507),
        (errno.EDQUOT, 507),
        (errno.EMFILE, 503),
        (errno.ENFILE, 503),
        (errno.EIO, 500),
        (errno.EACCES, 500),
    ],
)
def test_each_error_of_the_system_has_its_status(number: int, status: int) -> None:
    assert status_of(OSError(number, os.strerror(number)), "PUT") == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/nowhere", 404),
        ("PATCH", "/healthz", 405),
        ("GET", f"{UPLOAD}/unknown", 404),
        ("PATCH", f"{UPLOAD}/unknown", 405),
        ("POST", f"{UPLOAD}/unknown/claim", 422),
        ("GET", "/api/v1/operator/sessions", 403),
        ("GET", "/metrics", 403),
        ("GET", "/openapi.json", 200),
    ],
)
def test_every_answer_has_its_headers_and_every_error_its_detail(
    service: Service, method: str, path: str, status: int
) -> None:
    answer = service.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if status >= 400:
        assert list(answer.json()) == ["detail"]
        assert isinstance(answer.json()["detail"], str)


def test_an_error_of_ours_tells_the_client_nothing_of_the_server(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a secret of the server")

    with around("life.known", before=fail):
        answer = service.http.get(f"{UPLOAD}/{service.create()}")
    assert answer.status_code == 500
    assert list(answer.json()) == ["detail"]
    assert "secret" not in answer.text
    wait_for(lambda: "a secret of the server" in caplog.text)


def test_the_schema_is_made_without_a_warning_and_knows_every_route(service: Service) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = service.http.get("/openapi.json").json()["paths"]
    one = f"{UPLOAD}/{{session_id}}"
    assert {path: set(paths[path]) for path in paths if path.startswith(UPLOAD)} == {
        UPLOAD: {"post"},
        one: {"get", "delete"},
        f"{one}/discard": {"post"},
        f"{one}/touch": {"post"},
        f"{one}/claim": {"post"},
        f"{one}/files": {"post"},
        f"{one}/files/{{name}}": {"put", "get", "delete"},
    }


def test_the_log_has_a_line_for_each_request_with_8_characters_of_an_id(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session_id = service.create(("a", b"x"))
    service.http.get(f"{UPLOAD}/{session_id}/files/a", params={"q": session_id})
    service.http.get(f"{UPLOAD}/{'x' * 120}")
    service.http.get("/healthz", params={"id": session_id})
    service.http.get(f"{UPLOAD}/a%0Ab")

    def told() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == "coatcheck.access"]

    wait_for(lambda: len(told()) == 5)
    lines = told()
    ended = r"201 \d+ ms, \d+ B in, \d+ B out"
    assert re.fullmatch(rf"127.0.0.1 POST {UPLOAD} {ended}", lines[0])
    assert f"GET {UPLOAD}/{session_id[:8]}…/files/a 200" in lines[1]
    assert f"GET {UPLOAD}/xxxxxxxx… 404" in lines[2]
    assert f"GET {UPLOAD}/a…\\nb 404" in lines[4]
    assert session_id not in "".join(lines)


# Fit to serve


def test_readyz_says_how_it_stands(service: Service) -> None:
    answer = service.http.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["ready"], body["ledger"], body["root"]) == (True, None, None)


def test_readyz_tells_how_far_the_sweep_is(serve: Serve) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert go_on.wait(30)

    with around("pruning.prune", before=hold):
        service = serve()
        assert reached.wait(30)
        try:
            answer = service.http.get("/readyz")
        finally:
            go_on.set()
    assert answer.status_code == 200
    running = answer.json()["running"]
    assert {"sweep_id", "done", "total", "removed"} == set(running)
    wait_for(lambda: service.http.get("/readyz").json()["running"] is None)
    assert service.http.get("/readyz").json()["last_sweep_at"]


def test_a_pile_that_needs_consent_is_served_once_it_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "AGAIN_S", 0.05)
    pile = tmp_path / "temp/of-another-program"
    pile.mkdir(parents=True)
    settings = Settings(root=tmp_path / "temp")
    with listening(create_app(settings)) as url, httpx.Client(base_url=url) as client:
        assert client.get("/healthz").status_code == 200
        for answer in (
            client.get("/readyz"),
            client.post(UPLOAD),
            client.delete(f"{UPLOAD}/of-another-program"),
            client.get(f"{UPLOAD}/of-another-program/files/a"),
        ):
            assert answer.status_code == 503
            assert "coatcheck adopt" in answer.text
            assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/readyz").json()["ready"] is False
        assert "coatcheck adopt" in caplog.text
        assert os.listdir(tmp_path / "temp") == ["of-another-program"]
        SessionLedger.open(settings, adopt=True).close()
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.post(f"{UPLOAD}/of-another-program/touch").status_code == 200
    assert pile.is_dir()


def test_a_ledger_that_cannot_be_opened_is_opened_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "AGAIN_S", 0.05)
    (tmp_path / "ledger.db").write_bytes(b"this is no database" * 1000)
    with listening(create_app(Settings(root=tmp_path / "temp"))) as url:
        answer = httpx.get(f"{url}/readyz")
        assert answer.status_code == 503
        assert "damaged" in answer.json()["ledger"]
        (tmp_path / "ledger.db").unlink()
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        assert httpx.post(f"{url}{UPLOAD}").status_code == 201


def test_wrong_settings_are_told_before_it_serves(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="COATCHECK_CLAIMS"):
        create_app(Settings(root=tmp_path / "temp", claims=tmp_path / "temp/claims"))


def test_a_port_that_is_taken_is_told(service: Service) -> None:
    with pytest.raises(UsageError, match=r"cannot be listened on: .*in use"):
        listen(*service.address)
    with pytest.raises(UsageError, match="cannot be listened on"):
        listen("no.such.host.invalid", 0)


# In trouble


def every_route(service: Service, session_id: str) -> Iterator[httpx.Response]:
    one = f"{UPLOAD}/{session_id}"
    http = service.http
    yield http.post(UPLOAD, content=multipart(('name="f"; filename="a"', b"x")), headers=FORM)
    yield http.post(f"{one}/files", files=[("f", ("b", b"x"))])
    yield http.put(f"{one}/files/c", content=b"x")
    yield http.get(one)
    yield http.post(f"{one}/touch")
    yield http.post(f"{one}/claim", json={"into": "x"})
    yield http.delete(one)
    yield http.get("/readyz")


@pytest.mark.sqlite
def test_without_its_ledger_every_route_answers_503_and_recovers_by_itself(serve: Serve) -> None:
    service = serve()
    session_id = service.create(("a", b"x"))
    file = service.settings.ledger_file
    assert file is not None
    with sqlite3.connect(file) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    file.rename(f"{file}.away")
    for answer in every_route(service, session_id):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert service.http.get("/healthz").status_code == 200
    Path(f"{file}.away").rename(file)
    assert service.http.get("/readyz").status_code == 200
    assert service.http.get(f"{UPLOAD}/{session_id}").json()["files"] == [{"name": "a", "bytes": 1}]


def test_without_its_root_every_route_answers_503_and_recovers_by_itself(serve: Serve) -> None:
    service = serve()
    session_id = service.create(("a", b"x"))
    away = service.root.with_name("away")
    service.root.rename(away)
    service.root.mkdir()
    for answer in every_route(service, session_id):
        if answer.request.method != "GET" or answer.url.path == "/readyz":
            assert answer.status_code == 503
    assert os.listdir(service.root) == []
    service.root.rmdir()
    away.rename(service.root)
    assert service.http.get("/readyz").status_code == 200
    assert service.http.get(f"{UPLOAD}/{session_id}").json()["files"] == [{"name": "a", "bytes": 1}]


def test_a_sweep_that_a_guard_stops_is_logged_and_the_service_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    with SessionLedger.open(Settings(root=tmp_path / "temp", ledger=ledger)) as sessions:
        sessions.create()
        with sessions.place.database.write() as connection:
            connection.execute(update(ROOTS).values(heartbeat_at=ROOTS.c.heartbeat_at + 10**12))
    with serving(tmp_path, ledger) as service:
        wait_for(lambda: "not swept: The clock is not trusted" in caplog.text)
        ready = service.http.get("/readyz")
        assert ready.status_code == 200
        assert "not trusted" in ready.json()["clock"]
        assert service.http.post(UPLOAD).status_code == 201


# Processes


def test_a_restart_sweeps_what_is_stale_and_leaves_the_rest_byte_for_byte(
    process: Process, tmp_path: Path
) -> None:
    files = {f"{size} bytes": os.urandom(size) for size in (0, 1, 100_000, 3_000_000)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    forms = [part for name in files for part in ("-F", f"file=@{tmp_path / name}")]

    def create() -> str:
        session_id: str = json.loads(curl(*forms, f"{process.url}{UPLOAD}"))["session_id"]
        return session_id

    process.start()
    stale, live = create(), create()
    assert process.end() == 0
    for path in (tmp_path / "data/temp" / stale, *(tmp_path / "data/temp" / stale).iterdir()):
        os.utime(path, (1, 1))
    ledger = sqlite3.connect(tmp_path / "data/ledger.db")
    with ledger:
        changed = "UPDATE coatcheck_session SET last_touch_at = 1 WHERE session_id = ?"
        ledger.execute(changed, (stale,))
    ledger.close()

    process.start()
    wait_for(lambda: "removed 1 stale sessions" in process.log)
    assert os.listdir(tmp_path / "data/temp" / live).sort() == [*files].sort()
    for name, content in files.items():
        url = f"{process.url}{UPLOAD}/{live}/files/{name.replace(' ', '%20')}"
        curl("-o", tmp_path / "got", url)
        assert (tmp_path / "got").read_bytes() == content
    assert not (tmp_path / "data/temp" / stale).exists()
    said = json.loads(curl(f"{process.url}{UPLOAD}/{stale}"))["detail"]
    assert re.match(r"The session has ended: expired at 20", said)
    assert process.end(signal.SIGINT) == 0
    assert stale not in process.log
    assert live not in process.log


def test_a_signal_ends_it_with_code_0_whatever_is_under_way(process: Process) -> None:
    process.before = "import web.server; web.server.GRACE_S = 0.5"
    process.start()
    host, port = process.url.removeprefix("http://").split(":")
    head = f"POST {UPLOAD} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9999\r\n"
    with ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            body = multipart(('name="f"; filename="a"', b"x"), end=False)
            connection.sendall(
                f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + body
            )
        incoming = process.folder / "data/temp/.coatcheck/incoming"
        wait_for(lambda: len(os.listdir(incoming)) == 3)
        assert process.end() == 0
        assert answer_on(connection).status == 503
    assert os.listdir(incoming) == []
    assert "Traceback" not in process.log


@pytest.mark.slow
def test_an_upload_that_ends_soon_after_the_signal_is_taken(process: Process) -> None:
    process.start()
    host, port = process.url.removeprefix("http://").split(":")
    its = json.loads(curl("-X", "POST", f"{process.url}{UPLOAD}"))["session_id"]
    head = f"PUT {UPLOAD}/{its}/files/a.txt HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"first")
        incoming = process.folder / "data/temp/.coatcheck/incoming"
        wait_for(lambda: os.listdir(incoming))
        process.running.send_signal(signal.SIGTERM)
        wait_for(lambda: not is_open(int(port)))
        connection.sendall(b" last")
        assert answer_on(connection).status == 201
    assert process.running.wait(60) == 0
    assert (process.folder / "data/temp" / its / "a.txt").read_bytes() == b"first last"


_HELD = """
import os, time, web.app
opened = web.app.Opening
def held(settings):
    print("opening", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
    return opened(settings)
web.app.Opening = held
"""


@pytest.mark.slow
def test_a_signal_before_it_serves_ends_it_with_code_0(process: Process) -> None:
    process.before = _HELD
    process.begin()
    wait_for(lambda: "opening" in process.log)
    process.running.send_signal(signal.SIGTERM)
    (process.folder / "go").touch()
    assert process.running.wait(60) == 0
    assert "Traceback" not in process.log
