"""Runs an application under uvicorn: signals end it with code 0, and nobody keeps it waiting."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ledger.errors import UsageError
from web.workers import Workers

log = logging.getLogger("coatcheck")

HEAD_S = 60.0
MOST_HEAD_BYTES = 1 << 16
SILENCE_MS = 60_000
GRACE_S = 10
_FILES = 1 << 16


class Protocol(HttpToolsProtocol):
    """Uvicorn's, and hangs up on who does not come to the end of a request's head."""

    _reading_head: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_begins()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_begins()

    def on_headers_complete(self) -> None:
        self._head_ends()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._reading_head is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_ends()
        super().connection_lost(exc)

    def _head_begins(self) -> None:
        self._head_ends()
        self._reading_head = self.loop.call_later(HEAD_S, self._hang_up)

    def _head_ends(self) -> None:
        self._head_bytes = 0
        if self._reading_head is not None:
            self._reading_head.cancel()
            self._reading_head = None

    def _hang_up(self) -> None:
        self._head_ends()
        self.transport.abort()


class Server(uvicorn.Server):
    """Uvicorn's, as coatcheck is served: it says where once it listens, unless it is to `stop`."""

    def __init__(self, app: FastAPI, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,  # ours cuts ids short
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.should_exit = self.should_exit or self._stop.is_set()
        for listener in sockets or []:
            log.info("serving on %s (Ctrl+C ends it)", url_of(listener))


def run(make: Callable[[], FastAPI], host: str, port: int, workers: int = 1) -> None:
    """Serves what `make` makes until SIGTERM or SIGINT; what goes on then has GRACE_S seconds.

    Several workers are processes of their own, on one socket. Raises UsageError where it cannot
    listen there, and what `make` raises.
    """
    with _told_to_stop() as stop, closing(listen(host, port)) as listener:
        _allow_many_files()

        def serve() -> None:
            Server(make(), stop).run([listener])

        if workers == 1:
            serve()
        else:
            Workers(workers, serve).run(stop)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Set by a signal that comes before uvicorn takes them, and when it raises them once more
    at its end: so the process ends with code 0."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket on which connections wait. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"{host}:{port} cannot be listened on: {said}.") from None
    # Every connection takes these over: who vanished, or reads nothing, is let go of.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
    return listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _allow_many_files() -> None:
    """An upload holds four descriptors; the usual 1,024 would be 200 uploads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
