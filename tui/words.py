"""Sizes, ages and instants as words that fit a column. Times are microseconds."""

from __future__ import annotations

from ledger.report import moment, printable

SECOND = 1_000_000
NOTHING = "—"
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int) -> str:
    """At most eight characters: `999 B`, `1.2 GiB`, `1023 MiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in _UNITS:
        amount /= 1024
        if amount < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"


def span(us: int) -> str:
    """At most six characters, the two largest units: `45s`, `4m10s`, `23h59m`, `30d05h`, `400d`."""
    seconds = max(0, us) // SECOND
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    if seconds < 100 * 86_400:
        return f"{seconds // 86_400}d{seconds % 86_400 // 3600:02}h"
    return f"{seconds // 86_400}d"


def rough(us: int) -> str:
    """The largest unit alone: `45s`, `4m`, `23h`, `30d`."""
    seconds = max(0, us) // SECOND
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def hours(us: int) -> str:
    return f"{us / 3600 / SECOND:g} h"


def instant(at: int | None) -> str:
    """To the second, UTC."""
    return NOTHING if at is None else f"{moment(at):%Y-%m-%d %H:%M:%S}"


def ago(at: int | None, now: int) -> str:
    if at is None:
        return "never"
    return f"{span(now - at)} ago" if at <= now + SECOND else f"{span(at - now)} ahead"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 session`, `1,234 sessions`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def total(number: int, *, exact: bool) -> str:
    """A count; with a plus as long as it may be more."""
    return f"{number:,}{'' if exact else '+'}"


def shown(text: str | None) -> str:
    """A label, path or name as one line that cannot upset the screen."""
    return printable(text or "")


def failure(error: BaseException) -> str:
    """What went wrong, as a sentence."""
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    return str(error) or type(error).__name__
