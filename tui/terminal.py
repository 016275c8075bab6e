"""The terminal that the dashboard needs, and an end that is clean when it goes away."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ledger import UsageError

if TYPE_CHECKING:
    from tui.app import Dashboard

_LOOK_S = 0.5


def check_terminal() -> None:
    """Raises UsageError where there is none to draw on, or to read keys from."""
    served = os.environ.get("TEXTUAL_DRIVER")  # textual-serve runs it by pipes
    # Textual draws on standard error, so that standard output can be piped.
    if not served and not (sys.__stdin__ and sys.__stdin__.isatty() and os.isatty(2)):
        raise UsageError(
            "The dashboard needs a terminal. In a script use: coatcheck report, coatcheck sessions."
        )


@contextmanager
def end_with_the_terminal(app: Dashboard) -> Iterator[None]:
    """While the block runs, a closed terminal or pipe, or SIGTERM, ends the application as if
    one had left it."""
    over, asked = threading.Event(), threading.Event()
    former = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGHUP, signal.SIGTERM)
    }
    watch = threading.Thread(target=_watch, args=(app, over, asked), name="coatcheck-terminal")
    watch.start()
    try:
        yield
    finally:
        over.set()
        asked.set()
        watch.join()
        for number, handler in former.items():
            signal.signal(number, handler)
        if is_gone():
            _write_nowhere()


def is_gone() -> bool:
    """Whether nobody is at the other end of standard input any more."""
    poll = select.poll()
    poll.register(0, 0)  # tells of nothing but its end
    ends = select.POLLHUP | select.POLLERR | select.POLLNVAL
    return any(told & ends for _, told in poll.poll(0))


def _write_nowhere() -> None:
    """What is still to be written has no reader, and must not fail at the very end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _watch(app: Dashboard, over: threading.Event, asked: threading.Event) -> None:
    """A terminal that is gone sends no key any more, and Textual goes on waiting for one."""
    while not asked.wait(_LOOK_S):
        if is_gone():
            _write_nowhere()
            break
    if not over.is_set():
        app.call_later(app.action_leave)
