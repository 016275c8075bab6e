"""A service's ledger: open, or why it is not yet. It is tried again until it is."""

from __future__ import annotations

import logging
import threading

from ledger.errors import CoatcheckError, RootUnavailable, UsageError
from ledger.sessions import SessionLedger
from ledger.settings import Settings

log = logging.getLogger("coatcheck")

AGAIN_S = 2.0


class Opening:
    """The ledger of these settings. Raises UsageError where they are wrong; what else is in the
    way (a missing consent, an unmounted disk, a server that is down) may go away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: SessionLedger | None = None
        self._trouble: CoatcheckError | None = None
        self._opening = threading.Lock()
        self.attempt()

    def sessions(self) -> SessionLedger:
        """The open ledger. Raises CoatcheckError, saying why it is not open and what to do."""
        opened, trouble = self._opened, self._trouble
        if opened is not None:
            return opened
        if trouble is None:
            raise RootUnavailable("The service is stopping; try again in a moment.")
        # One of its own for each: a raised error grows with every way it goes.
        raise type(trouble)(str(trouble))

    def attempt(self) -> SessionLedger | None:
        """The ledger, opened now where it was not; None where it cannot be."""
        with self._opening:
            if self._opened is None:
                try:
                    self._opened = SessionLedger.open(self._settings)
                except UsageError as error:
                    if self._trouble is None:
                        raise
                    self._remember(RootUnavailable(str(error)))
                except CoatcheckError as error:
                    self._remember(error)
                except OSError as error:
                    self._remember(RootUnavailable(f"The root cannot be opened: {error}."))
            return self._opened

    def wait(self, stop: threading.Event) -> SessionLedger | None:
        """The ledger once it is open; None when `stop` is set before."""
        waited = False
        while (opened := self.attempt()) is None:
            waited = True
            if stop.wait(AGAIN_S):
                return None
        if waited:
            log.info("the root and its ledger are open now")
        return opened

    def close(self) -> None:
        with self._opening:
            opened, self._opened, self._trouble = self._opened, None, None
        if opened is not None:
            opened.close(finish=False)  # who stops a service waits for no bytes

    def _remember(self, error: CoatcheckError) -> None:
        if str(error) != str(self._trouble):
            log.error("nothing can be served yet: %s", error)
        self._trouble = error
