"""Request bodies: waited for, but not for ever; and let go by when the answer is known before."""

from __future__ import annotations

import anyio
from fastapi import HTTPException, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

STALL_S = 60.0
MOST_JSON_BYTES = 1 << 16
DRAIN_S = 2.0
DRAIN_BYTES = 64 << 20


class Refused(HTTPException):
    """A request that is answered with this status; FastAPI lets it pass wherever it is raised."""


class Body:
    """A request's body on its way in. `most` bytes of it are taken; None: any number."""

    def __init__(self, request: Request, stall_s: float, most: int | None) -> None:
        self._receive = request.receive
        self._stall_s = stall_s
        self._most = most
        self._taken = 0
        self.ended = not _announces_one(request)
        self._over = False

    async def receive(self) -> Message:
        """The next message of the client. Raises Refused when the body stands still, or is too
        long."""
        if self._over:
            return await self._receive()
        try:
            with anyio.fail_after(self._stall_s):
                message = await self._next()
        except TimeoutError:
            raise Refused(
                408, f"The request's body stood still for {self._stall_s:g} seconds."
            ) from None
        self._over = self.ended = not message.get("more_body", False)
        self._taken += len(message.get("body", b""))
        if self._most is not None and self._taken > self._most:
            raise Refused(413, f"The request's body may have {self._most} bytes.")
        return message

    async def _next(self) -> Message:
        """The next that says anything: bytes, the end, or that the client is gone."""
        while True:
            message = await self._receive()
            if message.get("body") or not message.get("more_body", False):
                return message


def _announces_one(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in request.headers


class Drained(Response):
    """An answer to a request whose body is still coming in.

    It is sent at once; then the body is let go by for a while, and the connection closed. Closed
    earlier, the client would see a reset where the answer stands.
    """

    def __init__(self, answer: Response) -> None:
        self.status_code = answer.status_code
        self.body = bytes(answer.body)
        self.raw_headers = list(answer.raw_headers)
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["http_version"].startswith("1"):  # later ones have no such header
            self.raw_headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with anyio.move_on_after(DRAIN_S):
            await _let_go_by(receive)
        await send({"type": "http.response.body", "body": b""})


async def _let_go_by(receive: Receive) -> None:
    left = DRAIN_BYTES
    while left > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))
