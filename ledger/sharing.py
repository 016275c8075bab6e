"""Work in batches, shared by two threads: while one waits for the disk, the other goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Generic, TypeVar

T = TypeVar("T")


def share(batches: Iterator[T], act: Callable[[T], None]) -> None:
    """Acts on each batch; where there are several, in two threads, each of which takes the next one
    when it is done with its last.

    What one of them raises ends both, each behind its batch, and is raised here.
    """
    ahead = list(islice(batches, 2))
    if len(ahead) < 2:
        for batch in ahead:
            act(batch)
        return
    both = _Both(chain(ahead, batches), act)
    helper = threading.Thread(target=both.help, name="coatcheck-helper", daemon=True)
    helper.start()
    try:
        both.work()
    finally:
        helper.join()
    if both.trouble is not None:
        raise both.trouble


class _Both(Generic[T]):
    def __init__(self, batches: Iterator[T], act: Callable[[T], None]) -> None:
        self.trouble: BaseException | None = None
        self._batches = batches
        self._act = act
        self._taking = threading.Lock()
        self._over = False

    def work(self) -> None:
        try:
            while (batch := self._next()) is not None:
                self._act(batch)
        finally:
            self._over = True

    def help(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            self.trouble = error

    def _next(self) -> T | None:
        with self._taking:
            return None if self._over else next(self._batches, None)
