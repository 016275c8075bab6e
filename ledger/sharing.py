"""Work in batches, by a second thread too where the first one waits for the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# The part of its time that one thread must wait before a second one helps. Two that compute take
# the interpreter's lock from each other at every system call, and need half as long again as one.
WAITS = 0.25


def share(batches: Iterator[T], act: Callable[[T], None]) -> None:
    """Acts on each batch; in two threads, each of which takes the next one when it is done with its
    last, once it shows that one of them waits.

    What one of them raises ends both, each behind its batch, and is raised here.
    """
    both = _Both(batches, act)
    helper: threading.Thread | None = None
    begun, computing = time.perf_counter(), time.thread_time()
    try:
        while both.take_next():
            took = time.perf_counter() - begun
            if helper is None and took - (time.thread_time() - computing) > WAITS * took:
                helper = threading.Thread(target=both.help, name="coatcheck-helper", daemon=True)
                helper.start()
    finally:
        both.is_over = True
        if helper is not None:
            helper.join()
    if both.trouble is not None:
        raise both.trouble


class _Both(Generic[T]):
    def __init__(self, batches: Iterator[T], act: Callable[[T], None]) -> None:
        self.trouble: BaseException | None = None
        self.is_over = False
        self._batches = batches
        self._act = act
        self._taking = threading.Lock()

    def take_next(self) -> bool:
        """Acts on the next batch; False where there is none for this thread."""
        with self._taking:
            batch = None if self.is_over else next(self._batches, None)
        if batch is None:
            return False
        self._act(batch)
        return True

    def help(self) -> None:
        try:
            while self.take_next():
                pass
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            self.trouble = error
            self.is_over = True
