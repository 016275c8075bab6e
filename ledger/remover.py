"""The background thread that removes the bytes of what users deleted."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

from ledger import upkeep
from ledger.disk import TrashName
from ledger.errors import CoatcheckError
from ledger.place import Place

log = logging.getLogger("coatcheck")


class _Stopped(Exception):
    """The remover is to leave the rest to the next sweep."""


class Remover:
    """Removes in the background what users deleted; what it leaves, the next sweep finishes."""

    def __init__(self, place: Place, clock: Callable[[], int]) -> None:
        self._place = place
        self._clock = clock
        self._entries: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stop = threading.Event()

    def add(self, entry: str) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="coatcheck-remover", daemon=True
                )
                self._thread.start()
        self._entries.put(entry)

    def close(self, *, finish: bool = True) -> None:
        """Returns when everything that was added is removed; else between two entries of it."""
        if not finish:
            self._stop.set()
        with self._starting:  # until it has ended: a second one could take the word for itself
            if self._thread is not None:
                self._entries.put(None)
                self._thread.join()
                self._thread = None

    def _run(self) -> None:
        while (entry := self._entries.get()) is not None:
            # Nothing is lost here: the entry stays in the trash, and a sweep reports why.
            try:
                with suppress(OSError, CoatcheckError, _Stopped):
                    self._go_on()
                    if name := TrashName.parse(entry):
                        upkeep.remove_deleted(
                            self._place, name, self._clock(), on_entry=self._go_on
                        )
            except Exception:
                log.exception("this should not happen; the next sweep removes what was deleted")

    def _go_on(self, _: int = 0) -> None:
        if self._stop.is_set():
            raise _Stopped
