"""What can come of asking a service, and how a question is taken back; without httpx."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ledger.errors import CoatcheckError


class Unreachable(CoatcheckError):
    """The service does not answer; it may be asked again."""


class Refused(CoatcheckError):
    """The service, or the ledger behind it, said no, and why; `status` is its answer's."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


class Cancelled(Exception):
    """A question was taken back because nobody waits for its answer any more."""


class Cancel:
    """Makes one question in another thread end, soon, with Cancelled."""

    def __init__(self) -> None:
        self.asked = False
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def __call__(self) -> None:
        with self._lock:
            self.asked = True
            if self._stop is not None:
                self._stop()

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """While the block runs, cancelling calls `stop`, and what then fails was cancelled."""
        with self._lock:
            if self.asked:
                raise Cancelled
            self._stop = stop
        try:
            yield
        except (CoatcheckError, OSError):
            if self.asked:
                raise Cancelled from None
            raise
        finally:
            with self._lock:
                self._stop = None
