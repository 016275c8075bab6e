"""The operators' routes: every session, the orphan report, sweeps, and what happened."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Literal

from anyio import CapacityLimiter, WouldBlock
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, SecretStr
from starlette.requests import ClientDisconnect

from ledger import Progress, Report, SessionLedger, State
from ledger.cursors import place_of
from ledger.report import csv_pieces
from ledger.settings import CENTURY_HOURS
from web import examples, pages
from web.auth import needs_token
from web.bodies import Refused
from web.deps import SessionId, Sessions, Source, lending
from web.errors import documented, route_class
from web.events import EventHub, event_stream
from web.shapes import (
    EventPage,
    ReportJson,
    SeenJson,
    SessionJson,
    SessionPage,
    SweepJson,
    SweepPage,
)
from web.streams import Stream, in_thread
from web.sweeps import SweepOrder, Sweeps

MOST_REPORTS = 4  # being made or sent at once, each of them in memory

_JSON = "application/json"
_NUMBER = r"^[0-9]{0,18}$"

Limit = Annotated[int, Query(ge=1, le=1000, description="The most that a page has.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before.")]
InState = Annotated[State | None, Query(description="Only those in this state.")]
Words = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[^\x00]*$", description="Looked for in id and label."),
]
SweepId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The number of a sweep.")]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=_NUMBER,
        description="The last event that was seen: the stream goes on behind it.",
    ),
]
Hours = Annotated[
    float | None, Query(gt=0, le=CENTURY_HOURS, allow_inf_nan=False, description="Max age.")
]
Format = Annotated[Literal["json", "csv"], Query(alias="format", description="Of the answer.")]
_Order = Literal[
    "created_at",
    "last_touch_at",
    "bytes",
    "files",
    "state",
    "-created_at",
    "-last_touch_at",
    "-bytes",
    "-files",
    "-state",
]
Sort = Annotated[_Order, Query(description="The order; `-` for descending.")]


def operator_router(source: Source, token: SecretStr | None) -> APIRouter:
    """Everything below /api/v1/operator, for who has the token; it ends with the application
    what it has begun."""
    routes = _Routes()
    router = APIRouter(
        route_class=route_class(),
        dependencies=[Depends(needs_token(token)), Depends(lending(source))],
        responses=documented(401, 403, 422, 503, 507),
        tags=["operator"],
        lifespan=routes.lifespan,
    )
    for path, read, summary, answer, errors in (
        ("/sessions", routes.sessions, "List sessions", _SESSIONS, ()),
        (_SESSION, routes.session, "One session from both sides", _SEEN, (404, 421)),
        ("/report", routes.report, "The orphan report", _REPORT, ()),
        ("/sweeps", routes.list_sweeps, "List sweeps", _SWEEPS, ()),
        (_SWEEP, routes.sweep, "How one sweep goes, or went", _RUN, (404,)),
        ("/events", routes.events, "What happened, and what happens", _EVENTS, ()),
    ):
        found = {200: answer, **documented(*errors)}
        router.get(path, summary=summary, responses=found)(read)
        router.head(path, include_in_schema=False)(read)
    restored = documented(404, 410, 421, s409="None of it waits, or its name in the root is taken.")
    back = {200: _BACK, **restored}
    router.post(f"{_SESSION}/restore", summary="Bring a swept session back", responses=back)(
        routes.restore
    )
    gone = "The dry run's list was carried out, or is kept no more."
    begun = {202: _ACCEPTED, **documented(404, 413, s409="Another sweep is under way.", s410=gone)}
    router.post("/sweeps", summary="Start a sweep", status_code=202, responses=begun)(
        routes.start_sweep
    )
    asked = {202: _ASKED, **documented(404, s409="It is not under way.")}
    router.delete(_SWEEP, summary="Cancel a sweep", status_code=202, responses=asked)(
        routes.cancel_sweep
    )
    return router


_SESSION, _SWEEP = "/sessions/{session_id}", "/sweeps/{sweep_id}"


def _answer(model: type[BaseModel], what: str, **also: str) -> dict[str, Any]:
    """An answer as JSON; `also`: as text of other kinds, each by its example."""
    text = {"type": "string"}
    content = {kind: {"schema": text, "example": example} for kind, example in also.items()}
    return {"model": model, "description": what, **({"content": content} if content else {})}


_SESSIONS = _answer(SessionPage, "A page of sessions.")
_SEEN = _answer(SeenJson, "What is known of it.")
_REPORT = _answer(ReportJson, "The report.", **{"text/csv": examples.REPORT_CSV})
_SWEEPS = _answer(SweepPage, "A page of sweeps.")
_RUN = _answer(SweepJson, "The sweep.")
_EVENTS = _answer(
    EventPage, "A page of events, or the stream.", **{"text/event-stream": examples.EVENT_STREAM}
)
_BACK = _answer(SessionJson, "The session, which is active again.")
_ASKED = _answer(SweepJson, "It has been asked to end.")
_ACCEPTED = {
    **_answer(SweepJson, "It has begun."),
    "headers": {"Location": {"schema": {"type": "string"}, "description": "The run."}},
}


class _Routes:
    """The routes, and what they share: who listens, what runs, and how many reports are made."""

    def __init__(self) -> None:
        self._hub = EventHub()
        self._sweeps = Sweeps()
        self._reports = CapacityLimiter(MOST_REPORTS)

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._hub.close()
            await in_thread(self._sweeps.close)

    async def sessions(
        self,
        sessions: Sessions,
        state: InState = None,
        sort: Sort = "-created_at",
        limit: Limit = 100,
        cursor: Cursor = None,
        q: Words = None,
    ) -> Response:
        """Sessions in the order of `sort`; `q` is looked for in id and label."""
        query: dict[str, Any] = {"sort": sort, "cursor": cursor, "state": state, "q": q}
        return await _json(pages.session_page, sessions, limit, **query)

    async def session(self, sessions: Sessions, session_id: SessionId) -> Response:
        """One session: what ledger and disk know of it, what a sweep would do with it now and
        why, its files, what of it lies in the trash, and its life."""
        return await _json(pages.one_session, sessions, session_id)

    async def restore(self, sessions: Sessions, session_id: SessionId) -> Response:
        """Brings a swept session back from the trash, whole, as a touch."""
        return await _json(pages.restored, sessions, session_id)

    async def report(
        self,
        request: Request,
        sessions: Sessions,
        form: Format = "json",
        max_age_hours: Hours = None,
    ) -> Response:
        """The orphan report: each finding, what a sweep would do with it, and why."""
        free = self._take_a_place()
        try:
            report = await _report_for(request, sessions, max_age_hours)
        except BaseException:
            free()
            raise
        if form == "json":
            return Stream(report.json_pieces(), media_type=_JSON, on_end=free)
        headers = {"Content-Disposition": 'attachment; filename="coatcheck-report.csv"'}
        pieces = csv_pieces(report.entries)
        return Stream(pieces, media_type="text/csv", headers=headers, on_end=free)

    def _take_a_place(self) -> Callable[[], None]:
        """One of the places that reports have; what is returned gives it back."""
        taker = object()
        try:
            self._reports.acquire_on_behalf_of_nowait(taker)
        except WouldBlock:
            raise Refused(503, "Enough reports are being made; try again in a moment.") from None
        return partial(self._reports.release_on_behalf_of, taker)

    async def start_sweep(
        self, request: Request, sessions: Sessions, order: SweepOrder
    ) -> Response:
        """Begins a sweep or a dry run, which goes on after the answer."""
        sweep = await in_thread(pages.begin_sweep, self._sweeps, sessions, order)
        location = {"Location": f"{request.url.path}/{sweep.sweep_id}"}
        return Response(sweep.model_dump_json(), 202, location, _JSON)

    async def list_sweeps(
        self, sessions: Sessions, limit: Limit = 100, cursor: Cursor = None
    ) -> Response:
        """Past and running sweeps, newest first."""
        return await _json(pages.sweep_page, sessions, limit, _before(cursor, "sweeps"))

    async def sweep(self, sessions: Sessions, sweep_id: SweepId) -> Response:
        """One sweep. A dry run has its list in `result`, as long as it is kept."""
        sweep, kept = await in_thread(pages.one_sweep, sessions, sweep_id)
        if kept is None:
            return Response(sweep.model_dump_json(), media_type=_JSON)
        pieces = pages.with_list(sweep, kept)
        return Stream(pieces, media_type=_JSON, on_end=partial(os.close, kept))

    async def cancel_sweep(self, sessions: Sessions, sweep_id: SweepId) -> Response:
        """Asks a sweep or dry run that is under way, in whatever process, to end between two
        sessions. What it has done stays done."""
        answer = await _json(pages.cancelled, self._sweeps, sessions, sweep_id)
        answer.status_code = 202
        return answer

    async def events(
        self,
        request: Request,
        sessions: Sessions,
        limit: Limit = 100,
        cursor: Cursor = None,
        last_event_id: LastEventId = None,
    ) -> Response:
        """What happened, newest first; with `Accept: text/event-stream`, what happens from now
        on, or from behind `Last-Event-ID` on."""
        if request.method == "GET" and _wants_stream(request):
            after = int(last_event_id) if last_event_id else None
            listener = await self._hub.join(sessions, after)
            return event_stream(self._hub, sessions, listener)
        return await _json(pages.event_page, sessions, limit, _before(cursor, "events"))


async def _json(page: Callable[..., BaseModel], *args: Any, **kwargs: Any) -> Response:
    """A page, made and written in a thread: a long one takes its time."""

    def make() -> Response:
        return Response(page(*args, **kwargs).model_dump_json(by_alias=True), media_type=_JSON)

    return await in_thread(make)


def _before(cursor: str | None, order: str) -> int | None:
    return None if cursor is None else int(place_of(cursor, order, int)[0])


def _wants_stream(request: Request) -> bool:
    accepted = request.headers.get("accept", "").split(",")
    return any(kind.partition(";")[0].strip() == "text/event-stream" for kind in accepted)


async def _report_for(
    request: Request, sessions: SessionLedger, max_age_hours: float | None
) -> Report:
    """The report, given up when its client goes."""
    progress = Progress()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        progress.cancel.set()

    watching = asyncio.create_task(watch())
    try:
        report = await in_thread(sessions.report, max_age_hours, progress=progress)
    finally:
        watching.cancel()
    if progress.cancel.is_set():
        raise ClientDisconnect
    return report
