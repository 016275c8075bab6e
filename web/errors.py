"""Which error gets which status, in one place; and the route class that answers with it.

The routes bear their own answers, so that they are the same inside somebody else's application.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ledger.errors import (
    CoatcheckError,
    DryRunGone,
    LedgerFull,
    LedgerUnavailable,
    LimitExceeded,
    NameTaken,
    NoSpace,
    RootMismatch,
    RootUnavailable,
    SessionBusy,
    SessionElsewhere,
    SessionEnded,
    SessionError,
    SessionNotFound,
    SweepStopped,
    UsageError,
)
from ledger.report import printable
from web.bodies import MOST_JSON_BYTES, STALL_S, Body, Drained, Refused
from web.examples import ERRORS

log = logging.getLogger("coatcheck")

RETRY_AFTER_S = "5"
ON_EVERY_ANSWER = {"referrer-policy": "same-origin", "x-content-type-options": "nosniff"}

# The nearest in a class's line of ancestors counts.
STATUS: dict[type[BaseException], int] = {
    SessionNotFound: 404,
    SessionEnded: 410,  # to a DELETE: 404
    SessionBusy: 409,
    SessionElsewhere: 421,
    NameTaken: 409,
    SessionError: 409,
    LimitExceeded: 413,
    NoSpace: 507,
    DryRunGone: 410,
    SweepStopped: 409,
    RootMismatch: 503,
    RootUnavailable: 503,
    LedgerUnavailable: 503,
    LedgerFull: 507,
    UsageError: 422,
    CoatcheckError: 500,
}
_ERRNO = {errno.ENOSPC: 507, errno.EDQUOT: 507, errno.EMFILE: 503, errno.ENFILE: 503}
_GONE = 499  # nobody reads it; the access log shows it


OURS = (CoatcheckError, OSError, RequestValidationError, Refused, ClientDisconnect)


class Problem(BaseModel):
    """Every answer that is an error."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"detail": detail} for _, detail in ERRORS.values()]}
    )

    detail: str


def documented(*statuses: int, **meanings: str) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its schema; `meanings` (`s409`) where they are its own."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in (*statuses, *(int(each[1:]) for each in meanings)):
        meaning, detail = ERRORS[status]
        found[status] = {
            "model": Problem,
            "description": meanings.get(f"s{status}", meaning),
            "content": {"application/json": {"example": {"detail": detail}}},
        }
    return found


def status_of(error: Exception, method: str) -> int:
    if isinstance(error, OSError):
        return _ERRNO.get(error.errno or 0, 500)
    if isinstance(error, SessionEnded) and method == "DELETE":
        return 404
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    answer = JSONResponse({"detail": printable(detail)}, status, headers)
    if status == 503:
        answer.headers.setdefault("Retry-After", RETRY_AFTER_S)
    return answer


def answer_to(request: Request, error: Exception) -> Response:
    """The answer to a request that failed with one of OURS."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=_GONE)
    if isinstance(error, RequestValidationError):
        return problem(422, explain(error))
    if isinstance(error, Refused):
        return problem(error.status_code, str(error.detail), error.headers)
    if isinstance(error, CoatcheckError):
        return problem(status_of(error, request.method), str(error))
    # The log has the whole of it; the client learns what, but no path of the server's.
    route = getattr(request.scope.get("route"), "path", "")
    log.error("%s %s: %r", request.method, route, error)
    said = getattr(error, "strerror", None) or "an I/O error"
    return problem(status_of(error, request.method), f"The server could not do that: {said}.")


def explain(error: RequestValidationError) -> str:
    """One sentence for each thing that is wrong with a request, by its place in it."""
    return "; ".join(_sentence(found) for found in error.errors())


def _sentence(found: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in found["loc"])
    if found["type"] == "json_invalid":
        return f"The body is no JSON: {found['ctx']['error']}"
    if place == "body":
        return "The body must be a JSON object, sent as Content-Type: application/json"
    return f"{place}: {found['msg']}"


def route_class(stall_s: float = STALL_S) -> type[APIRoute]:
    """Routes that end a body which stands still for `stall_s`, and answer every error of ours."""

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            most = MOST_JSON_BYTES if self.body_field else None

            async def answer(request: Request) -> Response:
                body = Body(request, stall_s, most)
                try:
                    response = await handle(Request(request.scope, body.receive))
                except OURS as error:
                    response = answer_to(request, error)
                except HTTPException as error:
                    if not isinstance(error.__cause__, (RecursionError, ValueError)):
                        raise
                    response = problem(422, "The body is no JSON.")  # FastAPI says 400
                if response.status_code == 204:
                    del response.headers["content-type"]  # FastAPI names that of the body it drops
                for name, value in ON_EVERY_ANSWER.items():
                    response.headers.setdefault(name, value)
                unread = not body.ended and bool(getattr(response, "body", b""))
                return Drained(response) if unread else response

            return answer

    return Route
