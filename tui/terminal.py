"""The terminal that the dashboard needs, and an end that is clean when it goes away."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ledger import UsageError

if TYPE_CHECKING:
    pass

_LOOK_S = 0.5


def is_served() -> bool:
    """Whether textual-serve runs it, for a browser: by pipes, without a terminal."""
    return bool(os.environ.get("TEXTUAL_DRIVER"))


def check_terminal() -> None:
    """Raises UsageError where there is none to draw on, or to read keys from."""
    # Textual draws on standard error, so that standard output can be piped.
    if not is_served() and not (sys.__stdin__ and sys.__stdin__.isatty() and os.isatty(2)):
        raise UsageError(
            "The dashboard needs a terminal. In a script use: coatcheck report, coatcheck sessions."
        )
