"""How a request is counted, and the route that tells of all that was."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import SecretStr
from starlette.types import Scope

from ledger import CoatcheckError, SessionLedger, counts
from ledger.counts import Key, Tally
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


def counted(scope: Scope, status: int, seconds: float, received: int) -> Counter[Key]:
    """What one request adds: by its route, its status and how long its answer took to begin."""
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = template_of(scope)
    found = counts.observed(SECONDS, (method, route), round(seconds * 1_000_000), LATENCIES_S)
    found[counts.of(REQUESTS, method, route, str(status))] = 1
    if method in ("POST", "PUT") and _UPLOADS.search(route):
        found[counts.of(BYTES)] = received
    return found


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
