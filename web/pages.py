"""What operators read of the ledger, a page at a time. Everything here waits for the disk, so it
is called in a thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from sqlalchemy import Row

from ledger import Actor, CoatcheckError, SessionLedger, dry_runs, queries, runs
from ledger.cursors import cursor_of
from ledger.views import Page, Seen, files_of
from web.bodies import Refused
from web.shapes import (
    EventJson,
    EventPage,
    SeenJson,
    SessionJson,
    SessionPage,
    SweepJson,
    SweepPage,
)
from web.sweeps import SweepOrder, Sweeps

_PIECE = 1 << 16


def session_page(sessions: SessionLedger, limit: int, **query: Any) -> SessionPage:
    """One page of sessions, and what the next begins behind."""
    page = Page.of(sessions, most=limit, **query)
    return SessionPage(
        sessions=[SessionJson.of(session, files) for session, files in page.sessions],
        next=page.after,
    )


def one_session(sessions: SessionLedger, session_id: str) -> SeenJson:
    """One session from both sides. Raises SessionNotFound, SessionElsewhere."""
    return SeenJson.of(Seen.of(sessions, session_id))


def restored(sessions: SessionLedger, session_id: str) -> SessionJson:
    """The session, which is back from the trash. Raises SessionError."""
    session = sessions.restore(session_id, by=Actor.OPERATOR)
    return SessionJson.of(session, files_of(sessions, session))


def sweep_page(sessions: SessionLedger, limit: int, before: int | None) -> SweepPage:
    """Past and running sweeps, newest first."""
    place = sessions.place
    runs.close_abandoned(place, sessions.clock())
    found = _page(sessions, queries.sweeps, limit, before)
    return SweepPage(
        sweeps=[SweepJson.of(row, place) for row in found[:limit]],
        next=cursor_of("sweeps", found[limit - 1].sweep_id) if len(found) > limit else None,
    )


def event_page(sessions: SessionLedger, limit: int, before: int | None) -> EventPage:
    """What happened, newest first."""
    found = _page(sessions, queries.events, limit, before)
    return EventPage(
        events=[EventJson.of(row) for row in found[:limit]],
        next=cursor_of("events", found[limit - 1].event_id) if len(found) > limit else None,
    )


def _page(
    sessions: SessionLedger, read: Callable[..., Any], limit: int, before: int | None
) -> list[Row[Any]]:
    place = sessions.place
    with place.database.read() as connection:
        return list(read(connection, place.root_id, before=before, most=limit + 1))


def one_sweep(sessions: SessionLedger, sweep_id: int) -> tuple[SweepJson, int | None]:
    """One run, and where it is a dry run whose list is kept, a descriptor of that list.

    Raises Refused 404.
    """
    place = sessions.place
    runs.close_abandoned(place, sessions.clock())
    row = _sweep_row(sessions, sweep_id)
    kept = None
    if row.dry_run:
        with suppress(CoatcheckError):
            kept = dry_runs.open_list(place, row, sessions.clock())
    return SweepJson.of(row, place), kept


def with_list(sweep: SweepJson, kept: int) -> Iterator[bytes]:
    """The run's JSON with the kept list, which is JSON already, as its result."""
    whole = sweep.model_copy(update={"result": None}).model_dump_json()
    yield whole.removesuffix("null}").encode()
    while piece := os.read(kept, _PIECE):
        yield piece
    yield b"}"


def begin_sweep(begun: Sweeps, sessions: SessionLedger, order: SweepOrder) -> SweepJson:
    """The run that has just begun. Raises Refused 404, SweepUnderWay, DryRunGone."""
    if order.of is not None:
        runs.close_abandoned(sessions.place, sessions.clock())
        if not _sweep_row(sessions, order.of).dry_run:
            raise Refused(404, f"The sweep {order.of} was no dry run: it has no list.")
    sweep_id = begun.start(sessions, order)
    return SweepJson.of(_sweep_row(sessions, sweep_id), sessions.place)


def cancelled(begun: Sweeps, sessions: SessionLedger, sweep_id: int) -> SweepJson:
    """The run, which has been asked to end between two sessions. Raises Refused 404, 409."""
    was_running = sessions.cancel_sweep(sweep_id)
    begun.cancel(sweep_id)  # one of this process need not read that first
    sweep = SweepJson.of(_sweep_row(sessions, sweep_id), sessions.place)
    if not was_running:
        raise Refused(409, f"The sweep {sweep_id} does not run any more: it is {sweep.state}.")
    return sweep


def _sweep_row(sessions: SessionLedger, sweep_id: int) -> Row[Any]:
    place = sessions.place
    with place.database.read() as connection:
        row = queries.sweep(connection, place.root_id, sweep_id)
    if row is None:
        raise Refused(404, f"There is no sweep {sweep_id}.")
    return row
