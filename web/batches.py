"""What many ask for at once is done at once: for all of them in one thread and few transactions."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, to_thread

from ledger.sessions import SessionLedger

MOST = 64  # for so many the ledger stays locked no longer than others bear

Told = TypeVar("Told")
ActOnAll = Callable[[SessionLedger, Sequence[str]], Mapping[str, Told]]


@dataclass(frozen=True, slots=True, eq=False)
class _Ask(Generic[Told]):
    sessions: SessionLedger
    session_id: str
    answer: asyncio.Future[Told | None]


class Batches(Generic[Told]):
    """Who asks while a batch is under way waits for the next one; nobody is answered before his is
    done. Threads for each of them would take the interpreter from each other at every system call,
    which costs more than the work.

    `act_on_all` tells what came of each session, but for those that are not for a batch.
    """

    def __init__(self, act_on_all: ActOnAll[Told]) -> None:
        self._act_on_all = act_on_all
        # By event loop and ledger, which a queue at rest keeps neither of alive.
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queues[Told]]
        self._queues = WeakKeyDictionary()

    async def act(self, sessions: SessionLedger, session_id: str) -> Told | None:
        """What came of it; None where the session is to be acted on by itself. Raises what stood in
        the way of the whole batch."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop, whose threads anyio knows
            return None
        queues = self._queues.setdefault(loop, WeakKeyDictionary())
        queue = queues.get(sessions)
        if queue is None:
            queue = queues[sessions] = _Queue(self._act_on_all)
        answer: asyncio.Future[Told | None] = loop.create_future()
        queue.add(loop, _Ask(sessions, session_id, answer))
        return await answer


class _Queue(Generic[Told]):
    """Those of one event loop and ledger, and who works them off."""

    def __init__(self, act_on_all: ActOnAll[Told]) -> None:
        self._act_on_all = act_on_all
        self._waiting: list[_Ask[Told]] = []
        self._worker: asyncio.Task[None] | None = None
        self._limiter = CapacityLimiter(1)  # no batch waits for a thread that uploads have taken

    def add(self, loop: asyncio.AbstractEventLoop, ask: _Ask[Told]) -> None:
        self._waiting.append(ask)
        if self._worker is None:
            # In a context of its own: what is logged of many is not of the first one's session.
            self._worker = loop.create_task(self._work(), context=Context())

    async def _work(self) -> None:
        try:
            while batch := self._next():
                await self._act(batch)
        finally:
            self._worker = None
            for ask in self._waiting:  # the loop is at its end
                ask.answer.cancel()
            self._waiting = []

    def _next(self) -> list[_Ask[Told]]:
        """A batch: of each session one, so that who asks twice is told twice."""
        batch: dict[str, _Ask[Told]] = {}
        later: list[_Ask[Told]] = []
        for ask in self._waiting:
            if len(batch) < MOST and ask.session_id not in batch:
                batch[ask.session_id] = ask
            else:
                later.append(ask)
        self._waiting = later
        return list(batch.values())

    async def _act(self, batch: list[_Ask[Told]]) -> None:
        ids = [ask.session_id for ask in batch]
        try:
            told = await to_thread.run_sync(
                self._act_on_all, batch[0].sessions, ids, limiter=self._limiter
            )
        except Exception as error:  # noqa: BLE001 - each of them raises it
            for ask in batch:
                if not ask.answer.done():
                    ask.answer.set_exception(_of_its_own(error))
        except BaseException:
            for ask in batch:
                ask.answer.cancel()
            raise
        else:
            for ask in batch:
                if not ask.answer.done():  # its request may have been cancelled
                    ask.answer.set_result(told.get(ask.session_id))


def _of_its_own(error: Exception) -> Exception:
    """What is raised grows on its way, so each has one of its own, where it can be had."""
    with suppress(Exception):
        own = copy.copy(error)
        if str(own) == str(error):  # else its class words its arguments, once more
            return own.with_traceback(error.__traceback__)
    return error


_Queues = WeakKeyDictionary[SessionLedger, _Queue[Told]]
