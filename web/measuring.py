"""Counts every request by its route, its status and how long its answer took; and tells of all."""

from __future__ import annotations

import re
import time
from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger import CoatcheckError, SessionLedger, counts
from ledger.counts import Tally
from web import metrics
from web.auth import needs_token
from web.deps import Source
from web.errors import documented, route_class
from web.examples import METRICS
from web.metrics import BYTES, LATENCIES_S, REQUESTS, SECONDS
from web.streams import in_thread

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
_NO_ROUTE = "none"
_UPLOADS = re.compile(r"/upload(/\{[^/]+\}/files(/\{[^/]+\})?)?$")
_GONE = 499  # no answer: the client went before


def template_of(scope: Scope) -> str:
    """The path as its route has it, with no word of a client's in it."""
    route = scope.get("route")
    own = getattr(route, "path_format", None)
    if own is None:
        return _NO_ROUTE
    try:
        rendered = own.format(**scope.get("path_params", {}))
    except (KeyError, IndexError, ValueError):
        return str(own)
    # A router's prefix is not part of its route's own path in every FastAPI.
    path = scope["path"]
    prefix = path.removesuffix(rendered) if path.endswith(rendered) else ""
    return f"{prefix}{own}"


class CountRequests:
    """Counts into `tally`, which somebody else writes into the ledger, every second or so."""

    def __init__(self, app: ASGIApp, tally: Tally) -> None:
        self._app = app
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        seconds: float | None = None
        status = received = 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = time.monotonic() - began  # a stream of events may last for hours
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception:
            status = status or 500
            raise
        finally:
            if seconds is None:
                seconds = time.monotonic() - began
            self._count(scope, status or _GONE, seconds, received)

    def _count(self, scope: Scope, status: int, seconds: float, received: int) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = template_of(scope)
        us = round(seconds * 1_000_000)
        counted = counts.observed(SECONDS, (method, route), us, LATENCIES_S)
        counted[counts.of(REQUESTS, method, route, str(status))] = 1
        if method in ("POST", "PUT") and _UPLOADS.search(route):
            counted[counts.of(BYTES)] = received
        self._tally.add(counted)


def metrics_router(source: Source, token: SecretStr | None, tally: Tally) -> APIRouter:
    """GET /metrics, for who has the token; what `tally` has by then is told with it."""
    router = APIRouter(
        route_class=route_class(),
        dependencies=[Depends(needs_token(token))],
        responses=documented(401, 403),
        tags=["operator"],
    )

    def text() -> bytes:
        sessions = _found(source)
        if sessions is not None:
            sessions.place.tally.add(tally.take())
        return metrics.told(sessions)

    async def tell() -> Response:
        """Prometheus text about one root, the same from whichever worker tells it."""
        return Response(await in_thread(text), media_type=CONTENT_TYPE_LATEST)

    shown = {"schema": {"type": "string"}, "example": METRICS}
    answer: dict[str, Any] = {"description": "The metrics.", "content": {"text/plain": shown}}
    answered = router.get(
        "/metrics", summary="The metrics", response_class=Response, responses={200: answer}
    )
    answered(tell)
    router.head("/metrics", include_in_schema=False)(tell)
    return router


def _found(source: Source) -> SessionLedger | None:
    if isinstance(source, SessionLedger):
        return source
    try:
        return source()
    except CoatcheckError:
        return None
