"""Alive, and fit to serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from ledger.errors import CoatcheckError, LedgerUnavailable
from ledger.health import Health
from ledger.runs import Progress
from ledger.sessions import SessionLedger
from web.errors import RETRY_AFTER_S, documented
from web.shapes import AliveJson, ReadyJson

_ALIVE: dict[int | str, dict[str, Any]] = {200: {"model": AliveJson, "description": "Alive."}}


def ready_router(
    sessions: Callable[[], SessionLedger], progress: Callable[[], Progress | None]
) -> APIRouter:
    """/healthz and /readyz of a service; `progress` is that of its own sweep."""
    router = APIRouter(tags=["health"])

    async def healthz() -> dict[str, str]:
        """Alive. Asks nothing of disk or ledger."""
        return {"status": "alive"}

    async def readyz() -> Response:
        """Whether requests can be served, and everything that is wrong, in words."""
        health = await to_thread.run_sync(_health, sessions)
        return _told(health, progress())

    router.get("/healthz", summary="Is it alive?", responses=documented(403) | _ALIVE)(healthz)
    router.head("/healthz", include_in_schema=False)(healthz)
    fit: dict[int | str, dict[str, Any]] = {
        200: {"model": ReadyJson, "description": "Fit to serve, though something may be wrong."},
        503: {"model": ReadyJson, "description": "Not fit to serve: what is wrong, says why."},
    }
    router.get("/readyz", summary="Can it serve?", responses=documented(403) | fit)(readyz)
    router.head("/readyz", include_in_schema=False)(readyz)
    return router


def _health(sessions: Callable[[], SessionLedger]) -> Health:
    try:
        return sessions().health()
    except LedgerUnavailable as error:
        return Health(ledger=str(error))
    except CoatcheckError as error:
        return Health(root=str(error))


def _told(health: Health, progress: Progress | None) -> Response:
    body: dict[str, Any] = health.as_json()
    if progress is not None:  # fresher than what the ledger knows of it
        own = {"done": progress.done, "total": progress.total, "removed": progress.removed}
        body["running"] = {**(body["running"] or {}), **own}
    if health.ready:
        return JSONResponse(body)
    return JSONResponse(body, 503, {"Retry-After": RETRY_AFTER_S})
