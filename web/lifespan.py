"""What goes on beside the requests: a sweep at every start and on schedule, the heartbeat, and the
writing of what was counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
from fastapi import FastAPI

from ledger import guards, queries
from ledger.counts import WRITE_EVERY_S, Tally
from ledger.errors import CoatcheckError, SweepUnderWay
from ledger.models import Actor
from ledger.runs import Progress
from ledger.sessions import SessionLedger

log = logging.getLogger("coatcheck")

BEAT_S = 30.0
_LATELY = 0.9  # of the time between two sweeps


class Keeper:
    """Keeps a ledger, in threads of its own, from `start` until `stop`.

    `find` gives the ledger once it is open, and None when it is told to stop before. What `tally`
    counts, from before there was a ledger on, goes into it.
    """

    def __init__(
        self,
        find: Callable[[threading.Event], SessionLedger | None],
        tally: Tally | None = None,
    ) -> None:
        self._find = find
        self._tally = tally or Tally()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._progress: Progress | None = None
        self._has_begun = False

    @property
    def progress(self) -> Progress | None:
        """How far the sweep is that runs now; None while none does."""
        return self._progress

    def start(self) -> None:
        """Returns at once, whatever there is to sweep."""
        self._stop.clear()
        self._has_begun = False
        self._thread = threading.Thread(target=self._run, name="coatcheck-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when nothing goes on any more; a sweep ends between two sessions."""
        self._stop.set()
        if progress := self._progress:
            progress.cancel.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        sessions = self._find(self._stop)
        if sessions is None:
            return
        others = [
            threading.Thread(
                target=self._repeat, args=(act, sessions, every_s), name=name, daemon=True
            )
            for act, every_s, name in (
                (_beat, BEAT_S, "coatcheck-heart"),
                (self._write_counts, WRITE_EVERY_S, "coatcheck-counts"),
            )
        ]
        for thread in others:
            thread.start()
        self._repeat(self._sweep, sessions, sessions.settings.sweep_every_minutes * 60)
        for thread in others:
            thread.join()
        self._write_counts(sessions)

    def _repeat(
        self, act: Callable[[SessionLedger], None], sessions: SessionLedger, every_s: float
    ) -> None:
        """Acts now and then every so many seconds; for 0, only now."""
        stopped = self._stop.is_set()
        while not stopped:
            try:
                act(sessions)
            except Exception:
                log.exception("this should not happen; it is tried again")
            stopped = self._stop.wait(every_s or None)

    def _sweep(self, sessions: SessionLedger) -> None:
        """At the start in any case; on schedule, unless another worker has just done it."""
        self._progress = progress = Progress()
        if self._stop.is_set():
            progress.cancel.set()
        try:
            if self._has_begun and _was_swept_lately(sessions):
                return
            self._has_begun = True
            sessions.sweep(by=Actor.SWEEP, keep_entries=False, progress=progress)
        except SweepUnderWay:
            log.info("another process sweeps this root just now")
        except (CoatcheckError, OSError) as error:
            log.warning("not swept: %s", error)
        finally:
            self._progress = None

    def _write_counts(self, sessions: SessionLedger) -> None:
        """While the ledger is away they wait; /readyz says why."""
        sessions.place.tally.add(self._tally.take())
        with suppress(CoatcheckError):
            sessions.place.write_counts()


def _was_swept_lately(sessions: SessionLedger) -> bool:
    place = sessions.place
    with place.database.read() as connection:
        done = queries.last_sweep_done(connection, place.root_id, by=Actor.SWEEP)
    every_us = sessions.settings.sweep_every_minutes * 60_000_000
    return done is not None and 0 <= sessions.clock() - done.finished_at < every_us * _LATELY


def _beat(sessions: SessionLedger) -> None:
    try:
        guards.beat(sessions.place, sessions.clock())
    except (CoatcheckError, OSError) as error:
        log.warning("the clock's heartbeat was not kept: %s", error)


def lifespan_for(
    sessions: SessionLedger,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan that sweeps at every start, in the background, and then on schedule.

    To be given to FastAPI, or entered within a lifespan of one's own. The ledger stays open.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with kept(Keeper(lambda _stop: sessions)):
            yield

    return lifespan


@asynccontextmanager
async def kept(keeper: Keeper) -> AsyncIterator[None]:
    """The keeper is at work meanwhile."""
    keeper.start()
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(keeper.stop, limiter=anyio.CapacityLimiter(1))
