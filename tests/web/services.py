"""Services that really listen, each on a port of its own, and clients that behave and misbehave."""

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from ledger import SessionLedger, Settings
from ledger.models import SESSIONS
from web.app import create_app
from web.server import Server, listen, url_of

UPLOAD = "/api/v1/upload"
FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
HOUSE = Path(__file__).parents[2]

Serve = Callable[..., "Service"]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Returns once `condition` holds; fails when it does not come to."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come to hold"
        time.sleep(0.01)


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The URL at which the application is served meanwhile, by coatcheck's own server."""
    listener = listen("127.0.0.1", 0)
    server = Server(app)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert server.started
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@dataclass
class Service:
    """A service in this process, and the ledger that it serves, opened once more to look at."""

    settings: Settings
    url: str
    sessions: SessionLedger

    def __post_init__(self) -> None:
        # Given up before the server gives it up, which a request may then just be too late for.
        kept = httpx.Limits(keepalive_expiry=2)
        self.http = httpx.Client(base_url=self.url, timeout=30, limits=kept)

    @property
    def root(self) -> Path:
        return Path(self.settings.root)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rsplit(":", 1)[1])

    def create(self, *files: tuple[str, bytes], label: str | None = None) -> str:
        """The id of a new session with these files."""
        form = {} if label is None else {"label": label}
        answer = self.http.post(UPLOAD, files=[("file", file) for file in files], data=form)
        assert answer.status_code == 201, answer.text
        session_id: str = answer.json()["session_id"]
        return session_id

    def ask(self, method: str, target: str, headers: dict[str, str] | None = None) -> Answer:
        """The answer to a request without a body whose target is sent as it stands."""
        lines = {"Host": "127.0.0.1", "Content-Length": "0", **(headers or {})}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with socket.create_connection(self.address, timeout=30) as connection:
            connection.sendall(f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode())
            return answer_on(connection, method)

    @contextmanager
    def begun(self, head: str, *more: bytes) -> Iterator[socket.socket]:
        """A connection on which a request has begun: its head, and so much of its body."""
        with socket.create_connection(self.address, timeout=30) as connection:
            text = "\r\n".join([*head.splitlines(), "Host: 127.0.0.1", "", ""])
            connection.sendall(text.encode() + b"".join(more))
            yield connection

    def alter(self, session_id: str, **values: Any) -> None:
        """The session's row is changed behind the service's back."""
        with self.sessions.place.database.write() as connection:
            row = SESSIONS.c.session_id == session_id
            connection.execute(update(SESSIONS).where(row).values(values))

    def incoming(self) -> list[str]:
        """What uploads have left, or have under way."""
        return os.listdir(self.root / ".coatcheck/incoming")

    def standing(self) -> set[str]:
        return set(os.listdir(self.root)) - {".coatcheck"}


@contextmanager
def serving(folder: Path, ledger: str, *, stall_s: float = 60, **options: Any) -> Iterator[Service]:
    """A service on a root below `folder`, with these settings."""
    given = {"root": folder / "temp", "ledger": ledger, "claims": folder / "claims"}
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("COATCHECK_")]:
                patch.delenv(name)
            settings = Settings(**{**given, **options})
        url = stack.enter_context(listening(create_app(settings, stall_s=stall_s)))
        sessions = stack.enter_context(SessionLedger.open(settings))
        service = Service(settings, url, sessions)
        stack.enter_context(service.http)
        yield service


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> Answer:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, headers, response.read())

    @property
    def detail(self) -> str:
        return str(json.loads(self.body)["detail"])


def answer_on(connection: socket.socket, method: str = "POST") -> Answer:
    """What the server has to say on a connection."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return Answer.of(response)


def multipart(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """A body of parts, each with its Content-Disposition parameters as they stand."""
    pieces = [
        f"--xyz\r\nContent-Disposition: form-data; {parameters}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for parameters, content in parts
    ]
    return b"".join(pieces) + (b"--xyz--\r\n" if end else b"")


def chunk(piece: bytes) -> bytes:
    """A piece of a body that comes in chunks."""
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


def is_open(port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


# A process of its own


@dataclass
class Process:
    """`coatcheck serve` in a process of its own; its log is kept in a file."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    before: str = ""  # Python that it runs before it serves
    watched_by: list[str] = field(default_factory=list)  # a command that runs it
    url: str = ""

    def start(self, *arguments: str) -> None:
        """Returns when it serves."""
        self.begin(*arguments)
        wait_for(lambda: self._find_url() or self.running.poll() is not None)
        assert self.url, self.log

    def begin(self, *arguments: str) -> None:
        given = {name: text for name, text in os.environ.items() if "COATCHECK" not in name}
        program = f"{self.before}\nimport coatcheck; coatcheck.main()"
        command = [*self.watched_by, sys.executable, "-c", program, "serve", "--port=0"]
        with (self.folder / "serve.log").open("w") as output:
            self.running = subprocess.Popen(
                [*command, *arguments],
                cwd=self.folder,
                env={**given, "PYTHONPATH": str(HOUSE), **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _find_url(self) -> str:
        found = re.search(r"serving on (http://\S+)", self.log)
        self.url = found[1] if found else ""
        return self.url

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    @property
    def rss(self) -> int:
        """Bytes of memory that it holds now."""
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, once it has ended."""
        self.running.send_signal(number)
        return self.running.wait(60)


def curl(*arguments: str | Path) -> str:
    """What curl prints; it fails where it gets no answer."""
    command = ["curl", "--silent", "--show-error", "--max-time", "60", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
