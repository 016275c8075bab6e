"""Sweeps that operators ask for: each in a thread of its own, one at a time in a root."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ledger import Actor, CoatcheckError, Progress, SessionLedger
from ledger.settings import CENTURY_HOURS
from web import examples
from web.shapes import shown

log = logging.getLogger("coatcheck")

SweepId = Annotated[int, Field(ge=1, le=2**63 - 1)]


class SweepOrder(BaseModel):
    """What to run: a sweep, a dry run, or with `of` exactly what that dry run has listed.

    Brake and clock are overridden only by who says so.
    """

    model_config = ConfigDict(extra="forbid", strict=True, **shown(examples.ORDER))

    dry_run: bool = False
    max_age_hours: Annotated[float | None, Field(gt=0, le=CENTURY_HOURS, allow_inf_nan=False)] = (
        None
    )
    of: SweepId | None = None
    past_the_brake: bool = False
    trust_clock: bool = False

    @model_validator(mode="after")
    def _of_stands_alone(self) -> SweepOrder:
        if self.of is not None and (self.dry_run or self.max_age_hours is not None):
            raise ValueError("`of` goes by its dry run's own max age, and is carried out")
        return self


class Sweeps:
    """The runs of this process that operators have started."""

    def __init__(self) -> None:
        self._running: dict[threading.Thread, Progress] = {}

    def start(self, sessions: SessionLedger, order: SweepOrder) -> int:
        """The number of a run that holds the root by now, and goes on in a thread.

        Raises SweepUnderWay, DryRunGone, CoatcheckError where it could not begin.
        """
        progress = Progress()
        begun: Future[int] = Future()
        progress.on_change = lambda run: _answer(begun, run)
        work = _work(sessions, order, progress)
        thread = threading.Thread(target=self._run, args=(work, begun), name="coatcheck-sweep")
        self._running[thread] = progress
        thread.start()
        return begun.result()

    def cancel(self, sweep_id: int) -> None:
        """That run, if it is one of these, ends between two sessions."""
        for progress in list(self._running.values()):
            if progress.sweep_id == sweep_id:
                progress.cancel.set()

    def close(self) -> None:
        """Returns when every run has ended, between two sessions."""
        for thread, progress in list(self._running.items()):
            progress.cancel.set()
            thread.join()

    def _run(self, work: Callable[[], object], begun: Future[int]) -> None:
        try:
            work()
        except BaseException as error:  # told to who waits, or else to the log
            if not begun.done():
                begun.set_exception(error)
            elif isinstance(error, CoatcheckError | OSError):
                log.warning("sweep %d: %s", begun.result(), error)
            else:
                log.exception("sweep %d broke off", begun.result())
        finally:
            self._running.pop(threading.current_thread(), None)


def _answer(begun: Future[int], progress: Progress) -> None:
    if progress.sweep_id is not None and not begun.done():
        begun.set_result(progress.sweep_id)


def _work(sessions: SessionLedger, order: SweepOrder, progress: Progress) -> Callable[[], object]:
    if order.dry_run:
        return lambda: sessions.dry_run(order.max_age_hours, by=Actor.OPERATOR, progress=progress)
    listed = None if order.of is None else sessions.kept(order.of)
    return lambda: sessions.sweep(
        listed,
        max_age_hours=order.max_age_hours,
        past_the_brake=order.past_the_brake,
        trust_clock=order.trust_clock,
        by=Actor.OPERATOR,
        keep_entries=False,
        progress=progress,
    )
