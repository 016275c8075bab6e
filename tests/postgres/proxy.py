"""A proxy between a ledger and its server, which loses connections at the worst moments."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from enum import StrEnum

from tests.ledgers import Server

_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Cut(StrEnum):
    """Where, about a COMMIT, the connection is lost."""

    BEFORE = "before it arrives"
    AT_ONCE = "as soon as it is sent on"
    ANSWERED = "when it is carried out, before its answer arrives"


class Proxy:
    """Listens on 127.0.0.1 until `close`; `was_cut` says whether the armed cut has happened."""

    def __init__(self, server: Server) -> None:
        self.was_cut = False
        self._server = server
        self._cut: Cut | None = None
        self._left = 0
        self._stays_away = False
        self._away = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@127.0.0.1:{self._port}/{database}"

    def arm(self, cut: Cut, at: int, *, stays_away: bool = False) -> None:
        """The `at`th COMMIT from now on loses its connection, and, where the server then
        `stays_away`, so does everybody else, until `mend`."""
        self.was_cut = False
        self._cut, self._left, self._stays_away = cut, at, stays_away

    def leave(self) -> None:
        """Every connection is lost, and so are new ones, until `mend`."""
        self._away = True
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._cut, self._away = None, False

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.leave()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as server, client, suppress(OSError):
            if self._away:
                return
            server.connect(self._server.socket)
            with self._lock:
                self._open |= {client, server}
            try:
                self._relay(client, server)
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for each in ready:
                said = each.recv(1 << 16)
                if not said:
                    return
                if each is client and said.endswith(_COMMIT) and self._is_the_one():
                    self._lose(server, said)
                    return
                (server if each is client else client).sendall(said)

    def _is_the_one(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._cut is not None and self._left == 0

    def _lose(self, server: socket.socket, commit: bytes) -> None:
        if self._cut is not Cut.BEFORE:
            server.sendall(commit)
        if self._cut is Cut.ANSWERED:
            server.recv(1 << 16)
        if self._stays_away:
            self.leave()
        self.was_cut = True
