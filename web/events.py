"""What happened: in pages, newest first, and as a stream of server-sent events.

One poller a process reads the ledger for all who listen, and feeds each one's bounded queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from ledger import CoatcheckError, SessionLedger, queries
from web.bodies import Refused
from web.shapes import EventJson
from web.streams import Stream, in_thread

log = logging.getLogger("coatcheck")

MOST_LISTENERS = 200
MOST_WAITING = 2000  # events in one listener's queue
POLL_S = 0.5
KEEP_ALIVE_S = 15.0
# On a server, a number may become visible after a higher one; a transaction is done by then.
SETTLED_S = 5.0
_AT_ONCE = 500

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_STILL_HERE = ": still here\n\n"
_TOO_SLOW = "Too slow: events were left out from here on. Connect again with Last-Event-ID."
_STOPPING = "The server is stopping. Connect again with Last-Event-ID."


class Event(NamedTuple):
    """One event as it is sent; `late`: its number became visible after a higher one."""

    event_id: int
    text: str
    late: bool = False

    @classmethod
    def of(cls, row: Row[Any]) -> Event:
        body = EventJson.of(row).model_dump_json(by_alias=True)
        return cls(row.event_id, f"id: {row.event_id}\ndata: {body}\n\n")


class Listener:
    """One client of the stream: what waits for it, up to where it was sent, and why it ends."""

    def __init__(self) -> None:
        self.after = 0
        self.why_ended: str | None = None
        self._waiting: list[Event] = []
        self._news = asyncio.Event()

    def offer(self, events: Sequence[Event]) -> None:
        if self.why_ended is None and len(self._waiting) + len(events) > MOST_WAITING:
            self.end(_TOO_SLOW)
        if self.why_ended is None:
            self._waiting += events
            self._news.set()

    def end(self, why: str) -> None:
        self.why_ended = self.why_ended or why
        self._news.set()

    async def take(self) -> list[Event]:
        """What waits; after KEEP_ALIVE_S, nothing."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await self._news.wait()
        except TimeoutError:
            return []
        self._news.clear()
        taken, self._waiting = self._waiting, []
        return taken


class Tail:
    """The root's new events, each once, from the newest there is on."""

    def __init__(self, sessions: SessionLedger) -> None:
        self._sessions = sessions
        self._is_ordered = sessions.place.database.is_sqlite
        self._last = self._settled = newest(sessions)
        self._marks: deque[tuple[float, int]] = deque()
        self._seen: set[int] = set()

    def read(self) -> list[Event]:
        events: list[Event] = []
        after = self._settled
        while some := read_after(self._sessions, after):
            after = some[-1].event_id
            new = [event for event in some if event.event_id not in self._seen]
            events += [event._replace(late=event.event_id <= self._last) for event in new]
        self._seen.update(event.event_id for event in events)
        self._last = max(self._last, after)
        self._settle()
        return events

    def _settle(self) -> None:
        """What is old enough is not read again."""
        now = time.monotonic()
        self._marks.append((now, self._last))
        wait = 0.0 if self._is_ordered else SETTLED_S
        while self._marks and self._marks[0][0] <= now - wait:
            self._settled = self._marks.popleft()[1]
        self._seen = {seen for seen in self._seen if seen > self._settled}


def newest(sessions: SessionLedger) -> int:
    with sessions.place.database.read() as connection:
        return queries.last_event(connection)


def read_after(sessions: SessionLedger, after: int) -> list[Event]:
    place = sessions.place
    with place.database.read() as connection:
        rows = queries.events_after(connection, place.root_id, after, _AT_ONCE)
    return [Event.of(row) for row in rows]


class EventHub:
    """Everybody who listens in this process. Used from one event loop."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._poller: asyncio.Task[None] | None = None
        self._waits_for_ledger = False
        self._starting = asyncio.Lock()

    async def join(self, sessions: SessionLedger, after: int | None) -> Listener:
        """A listener that hears what comes after the event `after`; None: from now on.

        Raises Refused where too many listen, CoatcheckError. `leave` must follow.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise Refused(503, f"{MOST_LISTENERS} streams are open already; try again later.")
        listener = Listener()
        self._listeners.add(listener)
        try:
            await self._poll_from_now(sessions)
            now = await in_thread(newest, sessions)
            listener.after = now if after is None else min(after, now)
        except BaseException:
            self.leave(listener)
            raise
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def close(self) -> None:
        """Every stream ends."""
        for listener in self._listeners:
            listener.end(_STOPPING)

    async def messages(self, sessions: SessionLedger, listener: Listener) -> AsyncIterator[str]:
        """What one client is sent: what it missed, and then what happens; at last, why it ends."""
        yield "retry: 2000\n\n"
        # The poller is behind by a moment, and may offer what this client has had already.
        had = listener.after
        sent: set[int] = set()
        async for missed in self._missed(sessions, listener):
            sent.update(event.event_id for event in missed)
            yield "".join(event.text for event in missed) or _STILL_HERE
        while listener.why_ended is None:
            taken = await listener.take()
            new = [e for e in taken if e.event_id not in sent and (e.event_id > had or e.late)]
            yield "".join(event.text for event in new) or _STILL_HERE
        yield f"event: end\ndata: {json.dumps({'detail': listener.why_ended})}\n\n"

    async def _missed(
        self, sessions: SessionLedger, listener: Listener
    ) -> AsyncIterator[list[Event]]:
        """What the ledger has from behind the listener's place on; nothing while it is away."""
        while listener.why_ended is None:
            try:
                events = await in_thread(read_after, sessions, listener.after)
            except CoatcheckError:  # the poller tells the log
                yield []
                await asyncio.sleep(POLL_S)
                continue
            if not events:
                return
            listener.after = events[-1].event_id
            yield events

    async def _poll_from_now(self, sessions: SessionLedger) -> None:
        async with self._starting:
            if self._poller is None or self._poller.done():
                tail = await in_thread(Tail, sessions)
                self._poller = asyncio.create_task(self._poll(tail))

    async def _poll(self, tail: Tail) -> None:
        try:
            while self._listeners and not _server_is_stopping():
                await self._feed(await self._read(tail))
                await asyncio.sleep(POLL_S)
        finally:
            self.close()  # nobody feeds them any more

    async def _read(self, tail: Tail) -> list[Event]:
        try:
            events = await in_thread(tail.read)
        except CoatcheckError as error:
            if not self._waits_for_ledger:
                log.warning("the event stream waits for the ledger: %s", error)
            self._waits_for_ledger = True
            return []
        self._waits_for_ledger = False
        return events

    async def _feed(self, events: list[Event]) -> None:
        for at in range(0, len(events), _AT_ONCE):
            for listener in self._listeners:
                listener.offer(events[at : at + _AT_ONCE])
            await asyncio.sleep(0.01)  # they send it on meanwhile


def event_stream(hub: EventHub, sessions: SessionLedger, listener: Listener) -> Stream:
    """One listener's answer; its place is free again when it ends."""
    return Stream(
        hub.messages(sessions, listener),
        media_type="text/event-stream",
        headers=_HEADERS,
        on_end=lambda: hub.leave(listener),
    )


def _server_is_stopping() -> bool:
    """Uvicorn waits for open answers before it tells the application that it stops; the handler
    of its signals knows before."""
    handler = signal.getsignal(signal.SIGTERM)
    return getattr(getattr(handler, "__self__", None), "should_exit", False) is True
