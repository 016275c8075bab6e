"""Watches every request to its end: it is logged and counted, and what every answer bears is put on
it here."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger.counts import Tally
from ledger.report import printable
from web.errors import ON_EVERY_ANSWER, problem
from web.logs import shortened
from web.measuring import counted

log = logging.getLogger("coatcheck.access")

_GONE = 499  # no answer: the client went before


@dataclass(slots=True)
class Watched:
    """What is seen of one request. Times are those of a monotonic clock, in seconds."""

    began: float
    answered: float | None = None  # when its answer began: a stream of events may last for hours
    status: int = 0
    received: int = 0
    sent: int = 0


class Outermost:
    """Counts into `tally`, which somebody else writes into the ledger, every second or so; logs,
    with ids cut short; and who is cut off by the server's end is told so."""

    def __init__(self, app: ASGIApp, tally: Tally) -> None:
        self._app = app
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watched = Watched(time.monotonic())

        async def receiving() -> Message:
            message = await receive()
            watched.received += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                watched.status = message["status"]
                watched.answered = time.monotonic()
                headers = MutableHeaders(scope=message)
                for name, value in ON_EVERY_ANSWER.items():
                    headers.setdefault(name, value)
            watched.sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except asyncio.CancelledError:
            if watched.status == 0:
                stopping = problem(503, "The server is stopping; try again in a moment.")
                await stopping(scope, receive, sending)
        except Exception:
            watched.status = watched.status or 500
            raise
        finally:
            watched.status = watched.status or _GONE
            self._end(scope, watched, time.monotonic())

    def _end(self, scope: Scope, watched: Watched, now: float) -> None:
        answered = now if watched.answered is None else watched.answered
        seconds = answered - watched.began
        self._tally.add(counted(scope, watched.status, seconds, watched.received))
        fields = {
            "client": (scope.get("client") or ["-"])[0],
            "method": scope["method"],
            "path": printable(shortened(scope["path"])),
            "status": watched.status,
            "ms": round((now - watched.began) * 1000),
            "received": watched.received,
            "sent": watched.sent,
        }
        log.info(_WORDS, fields, extra={"fields": fields})


_WORDS = "%(client)s %(method)s %(path)s %(status)d %(ms)d ms, %(received)d B in, %(sent)d B out"
