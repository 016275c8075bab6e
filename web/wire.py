"""Asks a service over HTTP: one kept connection a thread, and every failure in plain words."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ledger.errors import UsageError
from ledger.system import now_us
from web.asking import Cancel, Cancelled, Unreachable

TIMEOUT_S = 10.0
# What is said of a connection that was closed; all else that is said is about what is no HTTP.
_BROKE_OFF = ("Server disconnected", "peer closed")


class Wire:
    """The way to one service, which may have a path in front of its own. Safe from many threads.

    `ahead` is by how many microseconds its clock is ahead of ours.
    """

    def __init__(self, url: str, token: str | None, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UsageError(f"{url} is no address of a service, such as http://127.0.0.1:8000")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise UsageError("The operator token must be printable ASCII; this one is not.")
        path = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc}{path}"
        self.ahead = 0
        self._base = f"{parts.scheme}://{parts.netloc}{quote(path)}"
        self._timeout_s = timeout_s
        # The machine's own certificates, as its other programs go by.
        self.trust = ssl.create_default_context() if parts.scheme == "https" else False
        self.headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self._own = threading.local()
        self._all: set[_Connection] = set()
        self._lock = threading.Lock()
        self.is_stopped = False

    def stop(self) -> None:
        """What is still asked for fails now, and what is asked from now on."""
        with self._lock:
            self.is_stopped = True
            for connection in self._all:
                connection.cut()

    def close(self) -> None:
        self.stop()
        with self._lock:
            for connection in self._all:
                connection.http.close()
            self._all.clear()

    def exchange(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float | None = None,
        cancel: Cancel | None = None,
        once: bool = False,
        **sent: Any,
    ) -> httpx.Response:
        """The whole answer. `once`: what is sent cannot be sent again. Raises Unreachable,
        Cancelled."""
        with self.stream(
            method, path, timeout_s=timeout_s, cancel=cancel, once=once, whole=True, **sent
        ) as answer:
            return answer

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float | None = None,
        cancel: Cancel | None = None,
        once: bool = False,
        whole: bool = False,
        headers: Mapping[str, str] | None = None,
        **sent: Any,
    ) -> Iterator[httpx.Response]:
        """The answer, whose body is still to be read, unless `whole`. Raises as `exchange`."""
        waits = self._timeout_s if timeout_s is None else timeout_s
        connection = self._connection()
        answer: httpx.Response | None = None
        while answer is None:
            connection.begin()
            request = connection.http.build_request(
                method,
                self._base + path,
                headers=headers,
                timeout=waits,
                extensions={"trace": connection.trace},
                **sent,
            )
            try:
                with self._cancelling(cancel, connection):
                    answer = connection.http.send(request, stream=not whole)
            except (httpx.HTTPError, OSError) as error:
                if cancel is not None and cancel.asked:
                    raise Cancelled from None
                # A kept connection may have been closed by the service meanwhile.
                timed_out = isinstance(error, httpx.TimeoutException)
                if connection.is_new or once or timed_out or self.is_stopped:
                    raise Unreachable(self._silence(error, waits)) from error
                once = True
        self._compare_clocks(answer.headers.get("Date"))
        try:
            yield answer
        except httpx.HTTPError as error:
            raise Unreachable(self._silence(error, waits)) from error
        finally:
            answer.close()

    @staticmethod
    def _cancelling(cancel: Cancel | None, connection: _Connection) -> AbstractContextManager[None]:
        return nullcontext() if cancel is None else cancel.stopping(connection.cut)

    def _connection(self) -> _Connection:
        """This thread's own."""
        kept: _Connection | None = getattr(self._own, "connection", None)
        with self._lock:
            if self.is_stopped:
                raise Unreachable(f"{self.url} is not asked any more.")
            if kept is None:
                kept = self._own.connection = _Connection(self)
                self._all.add(kept)
        return kept

    def _compare_clocks(self, date: str | None) -> None:
        """Ages are told by the service's clock; its header is good to a second."""
        with suppress(TypeError, ValueError):
            theirs = round(parsedate_to_datetime(date or "").timestamp() * 1_000_000)
            ahead = theirs - now_us()
            self.ahead = ahead if abs(ahead) > 2_000_000 else 0

    def _silence(self, error: Exception, waited_s: float) -> str:
        cause = _first_cause(error)
        if isinstance(error, httpx.TimeoutException):
            why = f"no answer within {waited_s:g} s"
        elif isinstance(cause, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted: {cause.verify_message}"
        elif isinstance(cause, OSError):
            why = cause.strerror.lower() if cause.strerror else "it broke off"
        elif isinstance(error, httpx.RemoteProtocolError) and not str(error).startswith(_BROKE_OFF):
            why = "it does not speak HTTP"
        else:
            why = "it broke off"
        return f"{self.url} cannot be reached ({why}); it is tried again."


class _Connection:
    """One thread's connection, kept from one question to the next, which others may cut."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        # No proxy and no other setting of the environment: the address is all that counts.
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60)
        self.http = httpx.Client(
            headers=wire.headers,
            verify=wire.trust,
            trust_env=False,
            limits=limits,
            follow_redirects=False,
        )
        self.is_new = False
        self._is_cut = False
        self._socket: socket.socket | None = None

    def begin(self) -> None:
        self.is_new = self._is_cut = False

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Called by httpx as it goes: the only way to learn what it has opened."""
        if name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.is_new = True
            self._socket = info["return_value"].get_extra_info("socket")
            is_over = self._is_cut or self._wire.is_stopped
            if is_over and self._socket is not None:  # while it was being opened
                self._socket.close()
                raise ConnectionAbortedError

    def cut(self) -> None:
        """Whoever reads from it, in another thread, reads no more."""
        self._is_cut = True
        with suppress(OSError, AttributeError):
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


def _first_cause(error: BaseException) -> BaseException:
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
