"""Several processes that serve one socket; the place of one that ends is taken by another."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue

from ledger.errors import UsageError

log = logging.getLogger("coatcheck")

_LOOK_EVERY_S = 0.5
_SOON_S = 2.0  # a worker that ends sooner than this is not replaced at once

# What a child inherits, a socket and settings, needs no pickling. No thread runs yet.
_fork = multiprocessing.get_context("fork")


class Workers:
    """So many processes, each of which runs `serve` until it is told to end by SIGTERM."""

    def __init__(self, count: int, serve: Callable[[], None]) -> None:
        self._count = count
        self._serve = serve
        self._running: list[BaseProcess] = []
        self._refused: SimpleQueue[str] = _fork.SimpleQueue()

    def run(self, stop: threading.Event) -> None:
        """Returns when `stop` is set and all of them have ended.

        Raises UsageError as `serve` does, whose settings no other worker could serve either.
        """
        try:
            while not stop.is_set():
                began = time.monotonic()
                self._fill_up()
                while not stop.is_set() and not self._some_ended():
                    pass
                if time.monotonic() - began < _SOON_S:
                    stop.wait(_SOON_S)
        finally:
            for worker in self._running:
                worker.terminate()
            for worker in self._running:
                worker.join()

    def _fill_up(self) -> None:
        while len(self._running) < self._count:
            worker = _fork.Process(target=self._work, name="coatcheck-worker")
            worker.start()
            self._running.append(worker)

    def _work(self) -> None:
        try:
            self._serve()
        except UsageError as error:
            self._refused.put(str(error))

    def _some_ended(self) -> bool:
        """Whether any has, after a moment's waiting; those are told of, and let go of."""
        ended = connection.wait([each.sentinel for each in self._running], _LOOK_EVERY_S)
        for worker in [each for each in self._running if each.sentinel in ended]:
            worker.join()
            if not self._refused.empty():
                raise UsageError(self._refused.get())
            log.error(
                "worker %s ended with %s; another takes its place", worker.pid, worker.exitcode
            )
            self._running.remove(worker)
        return bool(ended)
