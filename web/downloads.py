"""A file of a session as an answer: whole, or the range that was asked for."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from io import FileIO
from typing import NamedTuple
from urllib.parse import quote

from anyio import to_thread
from fastapi import Request
from starlette.types import Receive, Scope, Send

from web.bodies import Refused
from web.streams import Stream

log = logging.getLogger("coatcheck")

_CHUNK_BYTES = 1 << 18
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)
_UNSAFE = re.compile(r'[^ -~]|["\\%]')


class Span(NamedTuple):
    """Bytes of a file, from `start` up to but not including `stop`."""

    start: int
    stop: int


class FileAnswer(Stream):
    """One open file, which it closes. Raises Refused 416 where the range lies outside.

    It is read by its descriptor: what is renamed or removed meanwhile is still sent whole.
    """

    def __init__(self, request: Request, fd: int, name: str) -> None:
        self._file = FileIO(fd)
        facts = os.fstat(fd)
        size = facts.st_size
        tag = f'"{facts.st_ino:x}-{facts.st_mtime_ns:x}-{size:x}"'
        modified = formatdate(facts.st_mtime, usegmt=True)
        span = None
        # A condition that fails, and a HEAD, ask for the whole file.
        if request.method == "GET" and request.headers.get("if-range", tag) in (tag, modified):
            try:
                span = asked_for(request.headers.get("range", ""), size)
            except Refused:
                self._file.close()
                raise
        start, stop = self._span = span or Span(0, size)
        super().__init__(
            self._pieces(),
            media_type="application/octet-stream",
            on_end=self._file.close,
            headers={
                "Accept-Ranges": "bytes",
                "Cache-Control": "private, no-cache",
                "Content-Disposition": disposition(name),
                "Content-Length": str(stop - start),
                # Were it shown after all, it could do nothing.
                "Content-Security-Policy": "default-src 'none'; sandbox",
                "ETag": tag,
                "Last-Modified": modified,
            },
        )
        if request.method == "HEAD":
            self._span = Span(0, 0)
        if span:
            self.status_code = 206
            self.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except OSError as error:
            # It has begun, so the client can only be told by hanging up, which the server does.
            log.warning("a file could not be sent to its end: %s", error)

    async def _pieces(self) -> AsyncIterator[bytes]:
        at, stop = self._span
        while at < stop:
            size = min(_CHUNK_BYTES, stop - at)
            piece = await to_thread.run_sync(os.pread, self._file.fileno(), size, at)
            if not piece:
                raise OSError(0, "the file became shorter while it was sent")
            at += len(piece)
            yield piece


def asked_for(header: str, size: int) -> Span | None:
    """What a Range header asks for of a file of `size` bytes; None for all of it.

    As RFC 9110 allows, what is malformed and what names several ranges gets the whole file.
    Raises Refused 416.
    """
    found = _RANGE.fullmatch(header)
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if first:
        span = Span(int(first), min(int(last) + 1, size) if last else size)
        if last and int(last) < int(first):
            return None
    else:
        span = Span(max(0, size - int(last)), size)
    if span.start >= span.stop:
        raise Refused(416, "The file has no such bytes.", {"Content-Range": f"bytes */{size}"})
    return span


def disposition(name: str) -> str:
    """A header that offers the file under its own name, and never shows it."""
    plain = _UNSAFE.sub("_", name)
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
