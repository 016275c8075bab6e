"""Cursors: where the next page of a list begins, opaque to the client."""

from __future__ import annotations

import base64
import json
from typing import Any

from ledger.errors import UsageError

_LARGEST = 2**63 - 1


def cursor_of(order: str, *place: int | str) -> str:
    """The place behind which the next page begins, in a list of this order."""
    text = json.dumps([order, *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(cursor: str, order: str, *kinds: type[int | str]) -> list[Any]:
    """What `cursor_of` was given. Raises UsageError for any other text."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong() from None
    if not isinstance(found, list) or found[:1] != [order] or len(found) != len(kinds) + 1:
        raise _wrong()
    place = found[1:]
    if not all(_is(value, kind) for value, kind in zip(place, kinds, strict=True)):
        raise _wrong()
    return place


def _is(value: object, kind: type[int | str]) -> bool:
    if type(value) is not kind:
        return False
    if isinstance(value, int):
        return -_LARGEST <= value <= _LARGEST
    return str(value).isprintable()  # neither ledger can be asked for half a character, nor for NUL


def _wrong() -> UsageError:
    return UsageError(
        "cursor: this is no cursor that this list, in this order, has given as `next`: begin anew."
    )
