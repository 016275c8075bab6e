"""For the operators' tests: an application on a ledger whose clock moves, and real servers."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from ledger import Actor, SessionLedger, Settings
from tests.ledger.world import Clock
from web import upload_router
from web.operator import operator_router

TOKEN = "an operator's token"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
OPERATOR = "/api/v1/operator"
HOUSE = Path(__file__).parents[2]

T = TypeVar("T")


def settings_in(folder: Path, ledger: str = "", **options: Any) -> Settings:
    given = {"operator_token": SecretStr(TOKEN), **options}
    return Settings(root=folder / "temp", ledger=ledger, claims=folder / "claims", **given)


def within(seconds: float, look: Callable[[], T | None]) -> T:
    """What `look` finds, as soon as it finds anything."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.01)
    return found


@dataclass
class Operator:
    """An application with the operators' and the upload routes, and who has the token."""

    sessions: SessionLedger
    clock: Clock
    app: FastAPI
    http: TestClient

    def get(self, path: str, **params: Any) -> httpx2.Response:
        return self.http.get(OPERATOR + path, params=params, headers=AUTH)

    def json(self, path: str, **params: Any) -> Any:
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def order(self, **order: Any) -> httpx2.Response:
        return self.http.post(f"{OPERATOR}/sweeps", json=order, headers=AUTH)

    def ended(self, begun: httpx2.Response) -> Any:
        """The run that an order has begun, when it has ended."""
        assert begun.status_code == 202, begun.text
        return within(20, lambda: self._ended(begun.headers["Location"]))

    def _ended(self, location: str) -> Any:
        run = self.http.get(location, headers=AUTH).json()
        return run if run["state"] != "running" else None

    def stale(self, label: str | None = None, hours: float = 48) -> str:
        """A session, with a file, that nobody has touched for so long."""
        self.clock.ahead -= round(hours * 3_600_000_000)
        try:
            with self.sessions.upload(None, by=Actor.API) as upload:
                upload.open_file("a.txt")
                upload.write(b"forgotten")
                session_id = upload.commit(label)[0].session_id
        finally:
            self.clock.ahead += round(hours * 3_600_000_000)
        folder = self.root / session_id
        then = self.clock() / 1e6 - hours * 3600
        os.utime(folder / "a.txt", (then, then))
        os.utime(folder, (then, then))
        return session_id

    @property
    def root(self) -> Path:
        return Path(self.sessions.place.root.path)

    def standing(self) -> set[str]:
        return {path.name for path in self.root.iterdir()} - {".coatcheck"}


@contextmanager
def operator_of(settings: Settings, clock: Clock) -> Iterator[Operator]:
    """The application, begun; it has ended when this ends."""
    with SessionLedger.open(settings, clock=clock) as sessions:
        app = FastAPI()
        app.include_router(upload_router(sessions), prefix="/api/v1/upload")
        app.include_router(operator_router(sessions, settings.operator_token), prefix=OPERATOR)
        with TestClient(app) as client:
            yield Operator(sessions, clock, app, client)


@contextmanager
def in_a_thread(app: FastAPI) -> Iterator[int]:
    """The port on which the application is served, by a real server in this process."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            within(20, lambda: server.started)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


_SERVE = """
import logging
from ledger import load_settings
from web.app import serve
logging.basicConfig(level=logging.INFO)
serve(load_settings(), "127.0.0.1", 0)
"""


@dataclass
class Process:
    """The service in a process of its own."""

    port: int
    process: subprocess.Popen[str]

    def ends(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def in_a_process(settings: Settings) -> Iterator[Process]:
    """The service, run as `serve` runs it."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(HOUSE),
        "COATCHECK_ROOT": str(settings.root),
        "COATCHECK_LEDGER": settings.ledger,
        "COATCHECK_CLAIMS": str(settings.claims),
        "COATCHECK_OPERATOR_TOKEN": TOKEN,
    }
    command = [sys.executable, "-c", _SERVE]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        yield Process(_port_of(process), process)
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"serving on http://127\.0\.0\.1:(\d+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return int(found[1])
    raise AssertionError("".join(said))


class Stream:
    """A client of the event stream."""

    def __init__(self, port: int, last: int | None = None, *, buffer: int | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        if buffer is not None:
            self._connect_with(buffer, port)
        headers = {**AUTH, "Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        self.connection.request("GET", f"{OPERATOR}/events", headers=headers)
        self.answer: http.client.HTTPResponse | None = None

    def _connect_with(self, buffer: int, port: int) -> None:
        self.connection.sock = socket.socket()
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.connection.sock.settimeout(20)
        self.connection.sock.connect(("127.0.0.1", port))

    def opened(self) -> int:
        """The status of its answer."""
        self.answer = self.answer or self.connection.getresponse()
        return self.answer.status

    def messages(self) -> Iterator[tuple[str, str, str]]:
        """Id, name and data of each message; a comment has only data."""
        assert self.opened() == 200
        assert self.answer is not None
        fields = {"id": "", "event": "", "data": ""}
        while line := self.answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name or "data"] = value
            elif fields["data"] or line.startswith(":"):
                yield fields["id"], fields["event"], fields["data"] or value
                fields = {"id": "", "event": "", "data": ""}

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next so many events."""
        taken: list[dict[str, Any]] = []
        for number, _, data in self.messages():
            if number:
                event = json.loads(data)
                assert str(event["event_id"]) == number
                taken.append(event)
            if len(taken) == count:
                return taken
        raise AssertionError(f"the stream ended after {len(taken)} events")

    def close(self) -> None:
        if self.answer is not None:
            self.answer.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
