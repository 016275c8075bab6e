"""Inside somebody else's application: the lifespan and the router, around which all is theirs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from sqlalchemy import select

from ledger import Finding, SessionLedger, Settings, SweepUnderWay, guards, system
from ledger.models import ROOTS
from tests.ledger.world import around
from tests.web.services import UPLOAD, listening, wait_for
from web import lifespan, lifespan_for, upload_router

LEDGER = """
from ledger import SessionLedger, Settings
sessions = SessionLedger.open(Settings(root="data/temp", ledger="sqlite:///data/ledger.db"))
session = sessions.create(label="order 17")
"""
APPLICATION = """
from fastapi import FastAPI
from web import lifespan_for, upload_router
app = FastAPI(lifespan=lifespan_for(sessions))    # sweeps at start without delaying it, then on a schedule
app.include_router(upload_router(sessions), prefix="/api/v1/upload")
"""  # noqa: E501
HOUR_US = 3_600_000_000


def settings_in(folder: Path, **options: Any) -> Settings:
    return Settings(root=folder / "temp", ledger=f"sqlite:///{folder}/ledger.db", **options)


@pytest.fixture
def sessions(tmp_path: Path, ledger_url: str) -> Iterator[SessionLedger]:
    with SessionLedger.open(Settings(root=tmp_path / "temp", ledger=ledger_url)) as opened:
        yield opened


def make_stale(sessions: SessionLedger, number: int = 1) -> list[str]:
    """The ids of sessions that were last used two days ago."""
    then = system.now_us() - 48 * HOUR_US
    past = SessionLedger(sessions.place, lambda: then)
    stale = [past.create().id for _ in range(number)]
    for session_id in stale:
        path = sessions.place.root.path_of(session_id)
        os.utime(path, ns=(then * 1000, then * 1000))
    return stale


def standing(sessions: SessionLedger) -> set[str]:
    return set(os.listdir(sessions.place.root.path)) - {".coatcheck"}


def test_the_designs_example_runs_as_it_is_written() -> None:
    names: dict[str, Any] = {}
    exec(LEDGER, names)
    [stale] = make_stale(names["sessions"])
    exec(APPLICATION, names)
    with TestClient(names["app"]) as client:
        assert client.get(f"{UPLOAD}/{names['session'].id}").json()["label"] == "order 17"
        created = client.post(UPLOAD, files={"file": ("a.txt", b"hello")})
        assert created.status_code == 201
        got = client.get(f"{created.headers['Location']}/files/a.txt")
        assert got.content == b"hello"
        wait_for(lambda: stale not in standing(names["sessions"]))
    names["sessions"].close()


def test_another_application_keeps_its_own_routes_lifespan_and_dependencies(
    sessions: SessionLedger,
) -> None:
    [stale] = make_stale(sessions)
    lived: list[str] = []

    class Barred(Exception):
        pass

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        lived.append("begins")
        async with lifespan_for(sessions)(app):
            yield {"greeting": "hello"}
        lived.append("ends")

    async def user(x_user: Annotated[str, Header()] = "") -> None:
        if x_user == "banned":
            raise Barred
        if x_user != "ada":
            raise HTTPException(401, {"who": "are you?"})

    app = FastAPI(lifespan=own)

    @app.exception_handler(Barred)
    async def barred(_request: Request, _error: Barred) -> JSONResponse:
        return JSONResponse({"barred": True}, 403)

    @app.middleware("http")
    async def stamp(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["X-Stamp"] = request.state.greeting
        return response

    @app.get("/own/{number}")
    def own_route(number: int) -> dict[str, int]:
        return {"number": number}

    files = upload_router(sessions)
    app.include_router(files, prefix="/shop/files", dependencies=[Depends(user)])

    with listening(app) as url, httpx.Client(base_url=url) as client:
        ada = {"X-User": "ada"}
        assert client.get("/own/7").json() == {"number": 7}
        assert client.get("/own/seven").json()["detail"][0]["type"] == "int_parsing"
        stranger = client.post("/shop/files")
        assert (stranger.status_code, stranger.json()) == (401, {"detail": {"who": "are you?"}})
        banned = client.post("/shop/files", headers={"X-User": "banned"})
        assert (banned.status_code, banned.json()) == (403, {"barred": True})
        created = client.post("/shop/files", files={"f": ("a b", b"x")}, headers=ada)
        assert created.status_code == 201
        location = created.headers["Location"]
        assert location == f"/shop/files/{created.json()['session_id']}"
        assert created.headers["X-Stamp"] == "hello"
        assert created.headers["Referrer-Policy"] == "same-origin"
        added = client.post(f"{location}/files", files={"f": ("a b", b"y")}, headers=ada).json()
        assert added["url"] == f"{location}/files/a%20b%20%282%29"
        assert client.get(added["url"], headers=ada).content == b"y"
        assert client.delete(location, headers=ada).status_code == 204
        gone = client.delete(location, headers=ada)
        assert (gone.status_code, list(gone.json())) == (404, ["detail"])
        into = client.post(f"{location}/claim", json={"into": 7}, headers=ada)
        assert (into.status_code, type(into.json()["detail"])) == (422, str)
        wait_for(lambda: stale not in standing(sessions))
    assert lived == ["begins", "ends"]
    sessions.create()  # the ledger is the application's, and still open


def test_below_a_mounted_application_urls_lead_back(sessions: SessionLedger) -> None:
    inner = FastAPI()
    inner.include_router(upload_router(sessions), prefix="/uploads")
    outer = FastAPI()
    outer.mount("/inner", inner)
    with TestClient(outer) as client:
        created = client.post("/inner/uploads", files={"f": ("a", b"x")})
        assert created.headers["Location"].startswith("/inner/uploads/")
        assert client.get(f"{created.headers['Location']}/files/a").content == b"x"


def test_two_applications_may_share_one_ledger(sessions: SessionLedger) -> None:
    apps = [FastAPI(lifespan=lifespan_for(sessions)) for _ in range(2)]
    for app in apps:
        app.include_router(upload_router(sessions), prefix=UPLOAD)
    with TestClient(apps[0]) as one, TestClient(apps[1]) as two:
        location = one.post(UPLOAD).headers["Location"]
        assert two.delete(location).status_code == 204


# The sweep at the start


class Gate:
    """Holds who comes through, once it is reached, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(30)


def app_on(sessions: SessionLedger) -> FastAPI:
    app = FastAPI(lifespan=lifespan_for(sessions))
    app.include_router(upload_router(sessions), prefix=UPLOAD)
    return app


def test_the_first_request_is_answered_while_the_backlog_is_swept(
    sessions: SessionLedger,
) -> None:
    stale, live, gate = make_stale(sessions, 50), sessions.create(), Gate()
    with around("moves.set_aside", before=gate), TestClient(app_on(sessions)) as client:
        assert gate.reached.wait(30)
        assert client.get(f"{UPLOAD}/{live.id}").status_code == 200
        assert client.post(UPLOAD, files={"f": ("a", b"x")}).status_code == 201
        assert client.post(f"{UPLOAD}/{stale[0]}/touch").status_code == 200
        assert len(standing(sessions)) == 52
        gate.opened.set()
        wait_for(lambda: len(standing(sessions)) == 3)
    assert {live.id, stale[0]} <= standing(sessions)


def test_at_the_end_a_running_sweep_stops(sessions: SessionLedger) -> None:
    make_stale(sessions, 200)
    gate = Gate()
    with around("moves.set_aside", before=gate), TestClient(app_on(sessions)):
        assert gate.reached.wait(30)
        keepers = [thread for thread in threading.enumerate() if thread.name == "coatcheck-keeper"]
        threading.Timer(0.2, gate.opened.set).start()
    assert not any(keeper.is_alive() for keeper in keepers)
    assert 0 < len(standing(sessions)) < 200
    assert sessions.health().sweep is None
    sessions.sweep()
    assert standing(sessions) == set()


def test_it_sweeps_on_schedule(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, sweep_every_minutes=0.001)
    with SessionLedger.open(settings) as sessions, TestClient(app_on(sessions)):
        for _ in range(3):
            stale = set(make_stale(sessions))
            wait_for(lambda gone=stale: not gone & standing(sessions))  # type: ignore[misc]


def test_a_schedule_of_0_sweeps_at_the_start_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with SessionLedger.open(settings_in(tmp_path, sweep_every_minutes=0)) as sessions:
        with TestClient(app_on(sessions)):
            wait_for(lambda: "removed 0 stale sessions" in caplog.text)
            make_stale(sessions)
        assert caplog.text.count("stale sessions") == 1
        assert len(standing(sessions)) == 1


def test_a_scheduled_sweep_is_left_out_where_another_worker_has_just_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, looked = [0], [0]
    was_swept_lately = lifespan._was_swept_lately

    def look(sessions: SessionLedger) -> bool:
        looked[0] += 1
        return was_swept_lately(sessions)

    monkeypatch.setattr(lifespan, "_was_swept_lately", look)
    monkeypatch.setattr(lifespan, "_LATELY", 60 / 0.06)
    settings = settings_in(tmp_path, sweep_every_minutes=0.001)
    opened = SessionLedger.open(settings, clock=lambda: system.now_us() + ahead[0])
    with opened as sessions, TestClient(app_on(sessions)):
        wait_for(lambda: looked[0] > 0)
        [stale] = make_stale(sessions)
        seen = looked[0]
        wait_for(lambda: looked[0] > seen + 2)
        assert stale in standing(sessions)
        ahead[0] = 70_000_000
        wait_for(lambda: stale not in standing(sessions))


def test_a_sweep_that_fails_is_logged_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [SweepUnderWay(), OSError(5, "Input/output error"), KeyError("a mistake")]

    def fail() -> None:
        raise failures.pop(0)

    caplog.set_level(logging.INFO)
    with SessionLedger.open(settings_in(tmp_path, sweep_every_minutes=0.001)) as sessions:
        [stale] = make_stale(sessions)
        with around("guards.check_root", before=fail, times=3), TestClient(app_on(sessions)):
            wait_for(lambda: stale not in standing(sessions))
    for words in ("another process sweeps", "not swept: ", "a mistake"):
        assert words in caplog.text


def test_a_held_sweep_lock_is_no_trouble(
    sessions: SessionLedger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with guards.one_sweeper(sessions.place), TestClient(app_on(sessions)) as client:
        wait_for(lambda: "another process sweeps this root" in caplog.text)
        assert client.post(UPLOAD).status_code == 201


def test_the_heartbeat_is_kept(sessions: SessionLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    def beat_at() -> int:
        with sessions.place.database.read() as connection:
            return int(connection.execute(select(ROOTS.c.heartbeat_at)).scalar_one())

    assert lifespan.BEAT_S <= 60
    monkeypatch.setattr(lifespan, "BEAT_S", 0.01)
    with TestClient(app_on(sessions)):
        for _ in range(3):
            before = beat_at()
            wait_for(lambda past=before: beat_at() > past)  # type: ignore[misc]


def test_no_one_is_left_when_the_application_has_ended(sessions: SessionLedger) -> None:
    with TestClient(app_on(sessions)):
        pass
    names = [thread.name for thread in threading.enumerate()]
    assert not {"coatcheck-keeper", "coatcheck-heart"} & set(names)
    assert sessions.report().counts[Finding.LIVE] == 0
