"""Answers that are sent in pieces, and the threads that make them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, fail_after, to_thread
from anyio.lowlevel import RunVar
from starlette.requests import ClientDisconnect
from starlette.responses import ContentStream, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger("coatcheck")

PATIENCE_S = 60.0

_P = ParamSpec("_P")
_T = TypeVar("_T")
# Threads of the operators' own: neither uploads nor /healthz wait for them.
_THREADS: RunVar[CapacityLimiter] = RunVar("coatcheck_operators")
_MOST_THREADS = 8


async def in_thread(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What `work` returns or raises, done in a thread."""
    limiter = _THREADS.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_MOST_THREADS)
        _THREADS.set(limiter)
    return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=limiter)


class Stream(StreamingResponse):
    """An answer in pieces; a client that takes none of them for a minute is given up.

    `on_end` is called when it has ended, however.
    """

    def __init__(
        self,
        content: ContentStream,
        status_code: int = 200,
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(content, status_code, headers, media_type)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            with fail_after(PATIENCE_S):
                await send(message)

        try:
            with suppress(ClientDisconnect):
                await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.warning("gave up on a client that took nothing of its answer for a minute")
        finally:
            if self._on_end is not None:
                self._on_end()
