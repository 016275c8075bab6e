"""Metrics for Prometheus, with a registry of their own; no id and no token comes near them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr
from sqlalchemy import Row
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ledger import CoatcheckError, SessionLedger, guards, queries, system
from web.auth import needs_token
from web.deps import Source
from web.errors import documented, route_class
from web.streams import in_thread

_SWEEP_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
_NO_ROUTE = "none"
_UPLOADS = re.compile(r"/upload(/\{[^/]+\}/files(/\{[^/]+\})?)?$")
_GONE = 499  # no answer: the client went before


class Metrics:
    """The counters of one application. What the ledger knows is read when it is asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._since = system.now_us()
        self._last_sweep = 0
        self._asking = threading.Lock()
        own = self._registry
        ProcessCollector(registry=own)
        self._requests = Counter(
            "coatcheck_http_requests", "Requests", ["method", "route", "status"], registry=own
        )
        self._uploads = Counter(
            "coatcheck_upload_requests", "Requests that bring files", ["status"], registry=own
        )
        self._upload_bytes = Counter(
            "coatcheck_upload_bytes", "Bytes of their bodies", registry=own
        )
        self._sweeps = Counter(
            "coatcheck_sweeps", "Sweeps and dry runs that ended", ["state", "dry_run"], registry=own
        )
        self._removed = Counter(
            "coatcheck_sweep_removed_sessions", "Sessions that sweeps removed", registry=own
        )
        self._failed = Counter(
            "coatcheck_sweep_failures", "What sweeps could not remove or finish", registry=own
        )
        self._seconds = Histogram(
            "coatcheck_sweep_duration_seconds",
            "How long sweeps took",
            buckets=_SWEEP_SECONDS,
            registry=own,
        )

    def count(self, scope: Scope, status: int, received: int) -> None:
        """One request has ended; `received` bytes of its body had come."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = template_of(scope)
        self._requests.labels(method, route, str(status)).inc()
        if method in ("POST", "PUT") and _UPLOADS.search(route):
            self._uploads.labels(str(status)).inc()
            self._upload_bytes.inc(received)

    def told(self, sessions: SessionLedger | None) -> bytes:
        """The text for Prometheus; without a ledger, or one that cannot be read, not all of it."""
        with self._asking:
            families: list[Metric] = []
            ready = 0
            if sessions is not None:
                try:
                    families = self._ask(sessions)
                    ready = 1
                except (CoatcheckError, OSError):
                    pass  # coatcheck_ready tells, and /readyz why
            families.append(_gauge("ready", "Whether ledger and root can be used", ready))
            return generate_latest(_Together(self._registry, families))

    def _ask(self, sessions: SessionLedger) -> list[Metric]:
        place = sessions.place
        guards.check_root(place)
        with place.database.read() as connection:
            by_state = queries.counts_by_state(connection, place.root_id)
            _, held = queries.totals(connection, place.root_id)
            done = queries.last_sweep_done(connection, place.root_id)
            ended = queries.sweeps_ended(connection, place.root_id, self._last_sweep, self._since)
        for row in ended:
            self._count_sweep(row)
        free = place.root.free_bytes()
        return [
            _by_state(by_state),
            _gauge("session_bytes", "Bytes in sessions that have not ended", held),
            _gauge(
                "sweep_last_success_timestamp_seconds",
                "When a sweep last ended with nothing in its way; 0: never",
                (done or 0) / 1_000_000,
            ),
            _gauge("disk_free_bytes", "Free bytes of the root's disk", free),
            _gauge("disk_free_ratio", "Their part of it", place.root.free_percent() / 100),
        ]

    def _count_sweep(self, row: Row[Any]) -> None:
        self._last_sweep = row.sweep_id
        self._sweeps.labels(row.state, str(row.dry_run).lower()).inc()
        if not row.dry_run:
            self._removed.inc(row.removed)
            self._failed.inc(row.failed)
            self._seconds.observe(max(0, row.finished_at - row.started_at) / 1_000_000)


class _Together:
    """A registry and some families more, as `generate_latest` wants them."""

    def __init__(self, registry: CollectorRegistry, families: Iterable[Metric]) -> None:
        self._registry = registry
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            # When each counter was begun is of no use here, and doubles the text.
            kept = [sample for sample in family.samples if not sample.name.endswith("_created")]
            family.samples = kept
            yield family
        yield from self._families


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"coatcheck_{name}", what, value=value)


def _by_state(counts: dict[str, int]) -> GaugeMetricFamily:
    sessions = GaugeMetricFamily("coatcheck_sessions", "Sessions", labels=["state"])
    for state, count in counts.items():
        sessions.add_metric([state], count)
    return sessions


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
    """Counts every request with its route, its status and the bytes that it brought."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        received = 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception:
            status = status or 500
            raise
        finally:
            self._metrics.count(scope, status or _GONE, received)


def metrics_router(source: Source, token: SecretStr | None, metrics: Metrics) -> APIRouter:
    """GET /metrics, for who has the token."""
    router = APIRouter(
        route_class=route_class(),
        dependencies=[Depends(needs_token(token))],
        responses=documented(401, 403),
        tags=["operator"],
    )

    async def tell() -> Response:
        """Prometheus text."""
        text = await in_thread(lambda: metrics.told(_found(source)))
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    text: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    router.get("/metrics", response_class=Response, responses={200: text})(tell)
    router.head("/metrics", include_in_schema=False)(tell)
    return router


def _found(source: Source) -> SessionLedger | None:
    if isinstance(source, SessionLedger):
        return source
    try:
        return source()
    except CoatcheckError:
        return None
