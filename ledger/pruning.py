"""Forgets what is older than it is kept: history in the ledger, lists of dry runs in the root."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress

from sqlalchemy import Select, delete, select

from ledger import counts, removal, states
from ledger.counts import STATES
from ledger.models import ENDED, EVENTS, SESSIONS, SWEEPS
from ledger.place import Place
from ledger.settings import DAY_US, HOUR_US

_PRUNED_AT_ONCE = 500


def prune(place: Place, now: int) -> int:
    """Ended sessions, events and sweeps older than the history's days are gone; how many rows.

    In small steps: each is a short transaction, so nobody waits.
    """
    before = now - round(place.settings.keep_history_days * DAY_US)
    session, event, sweep = SESSIONS.c, EVENTS.c, SWEEPS.c
    ended = (
        select(session.pk)
        .where(
            session.root_id == place.root_id,
            session.ended_at < before,
            session.state.in_([str(state) for state in ENDED]),
        )
        .limit(_PRUNED_AT_ONCE)
    )
    # Events come in the order of their time, so the oldest are found from one end.
    oldest = (
        select(event.event_id, event.at)
        .where(event.root_id == place.root_id)
        .order_by(event.event_id)
        .limit(_PRUNED_AT_ONCE)
        .subquery()
    )
    old_events = select(oldest.c.event_id).where(oldest.c.at < before)
    old_sweeps = (
        select(sweep.sweep_id)
        .where(sweep.root_id == place.root_id, sweep.finished_at < before)
        .limit(_PRUNED_AT_ONCE)
    )
    gone = _prune_sessions(place, ended)
    for table, key, query in (
        (EVENTS, event.event_id, old_events),
        (SWEEPS, sweep.sweep_id, old_sweeps),
    ):
        step = _PRUNED_AT_ONCE
        while step == _PRUNED_AT_ONCE:
            with place.database.write() as connection:
                step = connection.execute(delete(table).where(key.in_(query))).rowcount
            gone += step
    return gone


def _prune_sessions(place: Place, ended: Select[tuple[int]]) -> int:
    """Their rows are gone, and counted no more; none of one that is just being brought back."""
    old = delete(SESSIONS).where(SESSIONS.c.pk.in_(ended)).returning(SESSIONS.c.state)
    gone, step = 0, _PRUNED_AT_ONCE
    while step == _PRUNED_AT_ONCE:
        with place.database.write() as connection:
            states.take_turn(connection, place.root_id)
            by_state = Counter(connection.execute(old).scalars())
            fewer = {counts.of(STATES, state): -count for state, count in by_state.items()}
            counts.add(connection, place.root_id, fewer)
        step = by_state.total()
        gone += step
    return gone


def prune_reports(place: Place, now: int) -> None:
    """Lists of dry runs are kept an hour."""
    for name in os.listdir(place.root.reports):
        with suppress(OSError):
            facts = os.stat(name, dir_fd=place.root.reports, follow_symlinks=False)
            if facts.st_mtime_ns // 1000 < now - HOUR_US:
                removal.unlink_file(name, dir_fd=place.root.reports)
