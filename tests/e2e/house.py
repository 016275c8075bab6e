"""A real service, a front end of another origin, and what a real browser does with the two."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.web.services import UPLOAD, Process

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Playwright turns this cache off; people have it.
LIKE_PEOPLE = ("--disable-back-forward-cache",)
BIG = 200 << 20
MOST_BYTES = 256 << 20  # of a session
# Each holds as long as there is a file of this name in the service's folder.
SLOW_PREFLIGHT = "slow-preflight"
HOLD_COMMITS = "hold-commits"
_GATES = f"""
import os, anyio
from starlette.middleware.cors import CORSMiddleware
from web.receiving import Arrival
at_once, commit = CORSMiddleware.__call__, Arrival.commit
async def slowed(self, scope, receive, send):
    if scope.get("method") == "OPTIONS" and os.path.exists({SLOW_PREFLIGHT!r}):
        await anyio.sleep(0.4)
    await at_once(self, scope, receive, send)
async def held(self, *label):
    while os.path.exists({HOLD_COMMITS!r}):
        await anyio.sleep(0.01)
    return await commit(self, *label)
CORSMiddleware.__call__, Arrival.commit = slowed, held
"""


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Returns once `condition` holds, while the browser is listened to."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come to hold"
        await asyncio.sleep(0.01)


@dataclass
class House:
    """`coatcheck serve`, in a process of its own, and its root."""

    process: Process

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def base(self) -> str:
        return self.url + UPLOAD

    @property
    def root(self) -> Path:
        return self.process.folder / "data/temp"

    @property
    def claims(self) -> Path:
        return self.process.folder / "data/claims"

    def standing(self) -> set[str]:
        return {name for name in os.listdir(self.root) if name != ".coatcheck"}

    def files(self, session_id: str) -> dict[str, int]:
        """The session's files on the disk, with their sizes."""
        return {path.name: path.stat().st_size for path in (self.root / session_id).iterdir()}

    def connections(self) -> int:
        """How many clients are connected to it, as its kernel sees them."""
        port = int(self.url.rpartition(":")[2])
        lines = Path(f"/proc/{self.process.running.pid}/net/tcp").read_text().splitlines()[1:]
        return sum(
            line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines
        )

    @contextmanager
    def gate(self, name: str, wanted: bool = True) -> Iterator[None]:
        mark = self.process.folder / name
        if wanted:
            mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)


@contextmanager
def a_house(folder: Path, **settings: str) -> Iterator[House]:
    given = {f"COATCHECK_{name.upper()}": text for name, text in settings.items()}
    process = Process(folder, given, before=_GATES)
    process.start()
    try:
        yield House(process)
    finally:
        process.end()


@dataclass
class Front:
    """Somebody's front end, on an origin of its own; `pages` by their paths."""

    url: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def page(self, path: str, html: str) -> str:
        """The URL at which this page is from now on."""
        self.pages[path] = ("text/html; charset=utf-8", html.encode())
        return self.url + path


@contextmanager
def a_front() -> Iterator[Front]:
    front = Front()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = front.pages.get(self.path, ("text/plain", b"somewhere else"))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    # Not the service's host name: so it is another site, too.
    front.url = f"http://localhost:{server.server_port}"
    try:
        yield front
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@asynccontextmanager
async def slow_line(page: Page) -> AsyncIterator[None]:
    """The page sends 20 MB a second meanwhile: the big file takes ten seconds."""
    client = await page.context.new_cdp_session(page)
    line = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20 << 20}
    await client.send("Network.emulateNetworkConditions", line)
    yield
    if not page.is_closed():
        await client.detach()


async def put_a_chooser(page: Page, chosen: Path) -> None:
    """The page has an input, in which this file was chosen."""
    await page.evaluate("document.body.innerHTML = '<input type=file>'")
    await page.set_input_files("input", chosen)


async def with_module(page: Page, house: House) -> None:
    """The page has a session of the module, `session`, and hears of its end in `heard`."""
    await page.evaluate(
        """async (service) => {
            const module = await import(`${service}/static/coatcheck.js`);
            window.CoatcheckSession = module.CoatcheckSession;
            window.heard = [];
            window.fresh = (options) => {
                window.session = new CoatcheckSession(options);
                session.addEventListener("ended", (event) => heard.push(event.detail));
                session.addEventListener("retry", (event) => heard.push(event.detail));
                return session;
            };
            fresh();
        }""",
        house.url,
    )


def browsers_of(profile: Path) -> list[int]:
    """The process ids of the browsers, not of their helpers, that run on this profile."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = place.read_bytes().split(b"\0")
            ours = f"--user-data-dir={profile}".encode() in words
            if ours and not any(word.startswith(b"--type=") for word in words):
                found.append(int(place.parent.name))
    return found
