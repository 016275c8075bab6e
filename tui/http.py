"""Asks a service over HTTP: one kept connection a thread, and every failure in plain words."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ledger import UsageError
from ledger.system import now_us
from tui.source import Cancel, Cancelled, Refused, Unreachable

TIMEOUT_S = 10.0
_REPORT_S = 900.0  # a report takes as long as the root is large
_BROKEN = (OSError, http.client.HTTPException)


class Client:
    """`url` is that of the service, perhaps with a path in front of its own.

    `ahead` is by how many microseconds its clock is ahead of ours.
    """

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UsageError(f"{url} is no address of a service, such as http://127.0.0.1:8000")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise UsageError("The operator token must be printable ASCII; this one is not.")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.ahead = 0
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._prefix = quote(parts.path.rstrip("/"))
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._own = threading.local()
        self._all: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def stop(self) -> None:
        """What is still asked for fails now, and what is asked from now on."""
        with self._lock:
            self._is_stopped = True
            for connection in self._all:
                _cut(connection)

    def close(self) -> None:
        self.stop()
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()

    def get(self, path: str, *, cancel: Cancel | None = None, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self.ask("GET", f"{path}?{urlencode(given)}" if given else path, cancel=cancel)

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        cancel: Cancel | None = None,
        accept: tuple[int, ...] = (),
    ) -> Any:
        """The answer's JSON. Raises Unreachable, Refused for a status that is none of success
        and not in `accept`, Cancelled."""
        status, text = self._asked(method, path, body, cancel)
        told = _json(text)
        if 200 <= status < 300 or status in accept:
            return told
        raise Refused(self._why(status, told))

    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None, cancel: Cancel | None
    ) -> tuple[int, bytes]:
        timeout = _REPORT_S if urlsplit(path).path.endswith("/operator/report") else TIMEOUT_S
        is_new = False
        while True:
            try:
                connection, is_new = self._connection(timeout)
                if cancel is None:
                    return self._exchange(connection, method, path, body)
                with cancel.stopping(partial(_cut, connection)):
                    return self._exchange(connection, method, path, body)
            except _BROKEN as error:
                self._forget()
                if cancel is not None and cancel.asked:
                    raise Cancelled from None
                # A kept connection may have been closed by the service meanwhile.
                if is_new or isinstance(error, TimeoutError):
                    raise Unreachable(self._silence(error)) from error
                is_new = True
            except BaseException:
                self._forget()
                raise

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
    ) -> tuple[int, bytes]:
        headers = dict(self._headers)
        text = None
        if body is not None:
            text = json.dumps(body)
            headers["Content-Type"] = "application/json"
        connection.request(method, self._prefix + path, text, headers)
        answer = connection.getresponse()
        text_back = answer.read()
        self._compare_clocks(answer.getheader("Date"))
        return answer.status, text_back

    def _connection(self, timeout: float) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's connection, and whether it is a new one. Raises OSError."""
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None and kept.sock is not None:
            kept.sock.settimeout(timeout)
            return kept, False
        made = self._new(timeout)
        with self._lock:
            if self._is_stopped:
                raise Unreachable(f"{self.url} is not asked any more.")
            self._all.add(made)
        self._own.connection = made
        made.connect()
        if self._is_stopped:  # while it was being opened: it had nothing yet to cut
            raise ConnectionAbortedError
        return made, True

    def _new(self, timeout: float) -> http.client.HTTPConnection:
        made: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            made = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=context
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        made.auto_open = 0  # one that is closed when one leaves stays closed
        return made

    def _forget(self) -> None:
        kept: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        self._own.connection = None
        if kept is not None:
            with self._lock:
                self._all.discard(kept)
            kept.close()

    def _compare_clocks(self, date: str | None) -> None:
        """Ages are told by the service's clock; its header is good to a second."""
        with suppress(TypeError, ValueError):
            theirs = round(parsedate_to_datetime(date or "").timestamp() * 1_000_000)
            ahead = theirs - now_us()
            self.ahead = ahead if abs(ahead) > 2_000_000 else 0

    def _silence(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            why = f"no answer within {TIMEOUT_S:g} s"
        elif isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted: {error.verify_message}"
        elif isinstance(error, OSError) and error.strerror:
            why = error.strerror.lower()
        else:
            why = "it broke off" if isinstance(error, OSError) else "it does not speak HTTP"
        return f"{self.url} cannot be reached ({why}); it is tried again."

    def _why(self, status: int, told: Any) -> str:
        detail = told.get("detail") if isinstance(told, dict) else None
        if isinstance(detail, list):  # FastAPI's own list of what is wrong
            detail = "; ".join(str(each.get("msg")) for each in detail if isinstance(each, dict))
        return str(detail) if detail else f"{self.url} answered {status}. Is it coatcheck?"


def _json(text: bytes) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def _cut(connection: http.client.HTTPConnection) -> None:
    """Whoever reads from it, in another thread, reads no more."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
