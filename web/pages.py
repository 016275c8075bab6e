"""What operators read of the ledger, a page at a time. Everything here waits for the disk, so it
is called in a thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from sqlalchemy import Row

from ledger import CoatcheckError, SessionLedger, dry_runs, queries, runs
from ledger.cursors import cursor_of
from ledger.views import Page
from web.bodies import Refused
from web.shapes import EventJson, EventPage, SessionJson, SessionPage, SweepJson, SweepPage
from web.sweeps import SweepOrder, Sweeps

_PIECE = 1 << 16


def session_page(sessions: SessionLedger, limit: int, **query: Any) -> SessionPage:
    """One page of sessions, and what the next begins behind."""
    page = Page.of(sessions, most=limit, **query)
    return SessionPage(
        sessions=[SessionJson.of(session, files) for session, files in page.sessions],
        next=page.after,
    )


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


def _sweep_row(sessions: SessionLedger, sweep_id: int) -> Row[Any]:
    place = sessions.place
    with place.database.read() as connection:
        row = queries.sweep(connection, place.root_id, sweep_id)
    if row is None:
        raise Refused(404, f"There is no sweep {sweep_id}.")
    return row
