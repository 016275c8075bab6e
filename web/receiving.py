"""Uploads on their way in: a body is waited for without a thread, and written in one.

The threads come out of two limiters of their own, so that neither a slow disk nor a locked
directory takes them from anybody else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from itertools import groupby
from typing import TypeVar

import anyio
from anyio.lowlevel import RunVar
from fastapi import Request

from ledger.incoming import Upload
from ledger.models import Actor, Record
from ledger.publishing import Received
from ledger.sessions import SessionLedger
from web.multipart import Begin, Parts

HAND_OVER_BYTES = 1 << 18
HAND_OVER_PIECES = 256
HAND_OVER_S = 0.25

T = TypeVar("T")


class _Lane:
    """So many threads at once, in each event loop."""

    def __init__(self, name: str, threads: int) -> None:
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar(f"coatcheck_{name}")
        self._threads = threads

    async def run(self, act: Callable[[], T]) -> T:
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(self._threads)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(act, limiter=limiter)


_BEGINNING = _Lane("beginning", 32)  # each may wait seconds for its session's lock
_WRITING = _Lane("writing", 16)


class Arrival:
    """An upload, fed from an event loop. Raises what an Upload does."""

    _upload: Upload

    def __init__(self) -> None:
        # A task that is cancelled leaves its thread at work: what comes next waits for it.
        self._turn = threading.Lock()
        self._stack = ExitStack()
        self._held: list[Begin | bytes] = []
        self._held_bytes = self._taken_bytes = 0
        self.has_files = False
        self._is_committed = self._is_over = False
        self._handed_over_at = time.monotonic()

    async def begin(self, make: Callable[[], Upload], file: str | None, size: int | None) -> None:
        """The upload is there; its body is one `file`, or multipart. What its own `size` says
        cannot fit is refused at once."""

        def begin() -> None:
            with self._turn:
                self._check_not_over()
                self._upload = self._stack.enter_context(make())
                if file is not None:
                    self._upload.open_file(file, replace=True)
                if size is not None:
                    self._upload.expect(size, multipart=file is None)

        await _BEGINNING.run(begin)

    async def take(self, piece: Begin | bytes) -> None:
        """The beginning of a file, or its next bytes; handed over in larger pieces."""
        self._held.append(piece)
        if isinstance(piece, bytes):
            self._held_bytes += len(piece)
            self._taken_bytes += len(piece)
        else:
            self.has_files = True
        if self._is_due():
            await self._hand_over()

    def _is_due(self) -> bool:
        """At once past a limit, so that it is refused; and often, since writing is a touch."""
        return (
            self._held_bytes >= HAND_OVER_BYTES
            or len(self._held) >= HAND_OVER_PIECES
            or self._taken_bytes > self._upload.room
            or time.monotonic() - self._handed_over_at >= HAND_OVER_S
        )

    async def commit(self, label: str | None = None) -> tuple[Record, list[Received]]:
        held = self._let_go()

        def commit() -> tuple[Record, list[Received]]:
            _write(self._upload, held)
            return self._upload.commit(label)

        done = await self._act(commit)
        self._is_committed = True
        return done

    async def discard(self) -> None:
        """Leaves nothing of what was not committed."""
        if not self._is_committed:
            await self._act(self._end)

    def _end(self) -> None:
        self._is_over = True
        self._stack.close()

    def _check_not_over(self) -> None:
        """A task may be cancelled, and its upload given up, before its thread comes to its turn."""
        if self._is_over:
            raise RuntimeError("this upload was given up")

    async def _hand_over(self) -> None:
        held = self._let_go()
        await self._act(lambda: _write(self._upload, held))
        self._handed_over_at = time.monotonic()

    def _let_go(self) -> list[Begin | bytes]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    async def _act(self, act: Callable[[], T]) -> T:
        def acting() -> T:
            with self._turn:
                self._check_not_over()
                return act()

        return await _WRITING.run(acting)


def _write(upload: Upload, pieces: Sequence[Begin | bytes]) -> None:
    """Neighbouring bytes are written as one."""
    for kind, run in groupby(pieces, type):
        some = list(run)
        if kind is bytes:
            upload.write(b"".join(piece for piece in some if isinstance(piece, bytes)))
        for piece in some:
            if isinstance(piece, Begin):
                upload.open_file(piece.name)


@asynccontextmanager
async def arriving(
    request: Request, sessions: SessionLedger, session_id: str | None, *, file: str | None = None
) -> AsyncIterator[Arrival]:
    """An upload for the body of this request; nothing of it is left without a commit."""
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else None
    arrival = Arrival()
    try:
        await arrival.begin(lambda: sessions.upload(session_id, by=Actor.API), file, size)
        yield arrival
    finally:
        with anyio.CancelScope(shield=True):
            await arrival.discard()


async def take_parts(request: Request, arrival: Arrival) -> str | None:
    """Every file of a multipart body is taken; its label. A request without a body has none."""
    kind = request.headers.get("content-type", "")
    parts = Parts(kind) if kind.lower().startswith("multipart/") else None
    async for piece in request.stream():
        if piece:
            parts = parts or Parts(kind)
            for found in parts.feed(piece):
                await arrival.take(found)
    if parts is None:
        return None
    parts.finish()
    return parts.label


async def take_body(request: Request, arrival: Arrival) -> None:
    """The whole body is taken, as the file that was begun."""
    async for piece in request.stream():
        if piece:
            await arrival.take(piece)
