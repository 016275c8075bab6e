"""May this run go on? Root identity, the clock, the brake, and the one sweeper's lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, select, update

from ledger import system
from ledger.disk import HOUSE, SWEEP_LOCK
from ledger.errors import (
    Guard,
    RootMismatch,
    RootUnavailable,
    SweepStopped,
    SweepUnderWay,
)
from ledger.models import ROOTS, UnsoundRow
from ledger.place import Place
from ledger.plan import Action
from ledger.report import Objection, Report
from ledger.settings import DAY_US

JUMP_US = 5 * 60_000_000
LONG_GAP_US = 30 * DAY_US


# The root


@contextmanager
def usable(root: str | os.PathLike[str]) -> Iterator[None]:
    """Raises RootUnavailable where the root, or what is coatcheck's own in it, cannot be used."""
    try:
        yield
    except OSError as error:
        what = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise RootUnavailable(
            f"The root {os.path.abspath(root)} cannot be used{what}: {error.strerror or error}."
        ) from error


def check_root(place: Place) -> None:
    """Raises RootMismatch or RootUnavailable unless root and ledger still belong together."""
    place.root.check_path()
    on_disk = place.root.read_id()
    with place.database.read() as connection:
        in_ledger = connection.execute(
            select(ROOTS.c.root_id).where(ROOTS.c.root_id == place.root_id)
        ).scalar()
    if on_disk != place.root_id or in_ledger != place.root_id:
        raise RootMismatch(
            f"The root {place.root.path} bears the id {on_disk or 'none'}, and the ledger "
            f"{place.database.name} {'has' if in_ledger else 'no longer has'} the root "
            f"{place.root_id}. Nothing is touched. Is the right disk mounted? Put the right one "
            "back, or take the root over anew: coatcheck adopt"
        )
    place.root.check()


# The clock


def beat(place: Place, now: int) -> None:
    """Keeps the heartbeat; distrusts the clock, and stores it, where it has jumped since."""
    with place.database.write() as connection:
        row = _root(connection, place)
        values: dict[str, Any] = {
            "heartbeat_at": now,
            "heartbeat_boot_id": system.boot_id(),
            "heartbeat_boottime_us": system.boottime_us(),
        }
        if why := jump(row, now):
            values |= {"distrusted_why": why} | _steady_from_now()
        elif row.distrusted_why and row.steady_boot_id != system.boot_id():
            values |= _steady_from_now()
        connection.execute(update(ROOTS).where(ROOTS.c.root_id == place.root_id).values(values))


def _steady_from_now() -> dict[str, Any]:
    return {"steady_boot_id": system.boot_id(), "steady_since_us": system.boottime_us()}


def jump(row: Row[Any], now: int) -> str | None:
    """How the clock has jumped since the heartbeat that the root's row tells of; None if not."""
    passed = now - row.heartbeat_at
    if row.heartbeat_boot_id == system.boot_id():
        ran = system.boottime_us() - row.heartbeat_boottime_us
        if abs(passed - ran) > JUMP_US:
            return f"it moved by {(passed - ran) / 1_000_000:+.0f} s against the machine's uptime"
    elif passed < 0:
        return f"it is {-passed / 1_000_000:.0f} s behind where it was before the restart"
    elif passed > LONG_GAP_US:
        return f"{passed / DAY_US:.0f} days have passed since coatcheck last ran"
    return None


def clock_problem(place: Place) -> str | None:
    """Why the clock is distrusted, as stored; None when it is trusted."""
    with place.database.read() as connection:
        why = _root(connection, place).distrusted_why
    return None if why is None else str(why)


def clock_is_trusted(place: Place, now: int) -> bool:
    """Whether nothing stored, and nothing since the last heartbeat, speaks against the clock."""
    with place.database.read() as connection:
        row = _root(connection, place)
    return row.distrusted_why is None and jump(row, now) is None


def check_clock(place: Place, now: int, max_age: int, *, trust: bool = False) -> None:
    """Raises SweepStopped while the clock is distrusted: until max age of steady running, or
    until an operator says that it is right (`trust`)."""
    beat(place, now)
    with place.database.read() as connection:
        row = _root(connection, place)
    if not row.distrusted_why:
        return
    steady = system.boottime_us() - row.steady_since_us
    # A sweep by a short max age must not vouch for a later one by a long one.
    longest = max(max_age, row.accepted_max_age_us, place.settings.max_age_us)
    if trust or steady >= longest:
        with place.database.write() as connection:
            connection.execute(
                update(ROOTS)
                .where(
                    ROOTS.c.root_id == place.root_id,
                    # Unless another process has just seen another jump.
                    ROOTS.c.steady_since_us == row.steady_since_us,
                )
                .values(distrusted_why=None, steady_boot_id=None, steady_since_us=None)
            )
    if trust or steady >= max_age:
        return
    raise SweepStopped(
        Guard.CLOCK,
        f"The clock is not trusted: {row.distrusted_why}. Nothing is swept until it has run "
        "steadily for the max age. If it is right now, run: coatcheck sweep --trust-clock",
    )


def _root(connection: Connection, place: Place) -> Row[Any]:
    row = connection.execute(select(ROOTS).where(ROOTS.c.root_id == place.root_id)).first()
    if row is None:
        raise RootMismatch(
            f"The ledger {place.database.name} no longer has the root {place.root_id}. Nothing "
            "is touched. Put the right ledger back, or take the root over: coatcheck adopt"
        )
    numbers = (row.accepted_max_age_us, row.heartbeat_at, row.heartbeat_boottime_us)
    if {type(n) for n in (*numbers, row.steady_since_us or 0)} != {int}:
        raise UnsoundRow("the row of the root holds what coatcheck never writes")
    return row


# The brake


def accepted_max_age(place: Place) -> int:
    """The max age, in microseconds, that this root was once told to keep."""
    with place.database.read() as connection:
        return int(_root(connection, place).accepted_max_age_us)


def accept_max_age(place: Place, max_age: int) -> None:
    """The root's accepted max age is at most this."""
    with place.database.write() as connection:
        connection.execute(
            update(ROOTS)
            .where(ROOTS.c.root_id == place.root_id, ROOTS.c.accepted_max_age_us > max_age)
            .values(accepted_max_age_us=max_age)
        )


def check_brake(report: Report, accepted: int, brake: int, now: int) -> None:
    """Raises SweepStopped where a lowered max age would take more than `brake` sessions.

    Ages are told by the last activity, which a sweep holds against the world; what else an edited
    report says of itself counts for nothing.
    """
    taken = sum(
        entry.action is Action.SET_ASIDE
        and (entry.last_activity is None or now - entry.last_activity <= accepted)
        for entry in report.entries
    )
    if taken > brake:
        raise SweepStopped(
            Guard.BRAKE,
            f"{taken} sessions are stale by the max age of {report.max_age_us / 3.6e9:g} h that "
            f"would not be by the {accepted / 3.6e9:g} h this root has accepted, and the brake "
            f"allows {brake}. Nothing was removed. Is COATCHECK_MAX_AGE_HOURS right? If so, run "
            "once: coatcheck sweep --past-the-brake",
        )


# All of them, asked ahead


def objections(place: Place, report: Report, now: int) -> Iterator[Objection]:
    """The guards that would stop a sweep of this report now."""
    if why := clock_problem(place):
        yield Objection(
            Guard.CLOCK, f"The clock is not trusted: {why}. Until it is, sweeps only report."
        )
    accepted = accepted_max_age(place)
    if report.max_age_us < accepted:
        try:
            check_brake(report, accepted, place.settings.brake, now)
        except SweepStopped as stop:
            yield Objection(Guard.BRAKE, str(stop))


# One sweeper


@contextmanager
def one_sweeper(place: Place) -> Iterator[None]:
    """Holds the root's sweep lock. Raises SweepUnderWay, or SweepStopped where it cannot be had."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(SWEEP_LOCK, flags, 0o600, dir_fd=place.root.house)
    except OSError as error:
        raise _no_lock(place, error) from error
    try:
        try:
            free = system.lock_exclusive(fd)
        except OSError as error:
            raise _no_lock(place, error) from error
        if not free:
            raise SweepUnderWay
        yield
    finally:
        os.close(fd)


def _no_lock(place: Place, error: OSError) -> SweepStopped:
    return SweepStopped(
        Guard.LOCK,
        f"The lock {place.root.path}/{HOUSE}/{SWEEP_LOCK} cannot be had ({error.strerror}), so "
        "nothing is removed.",
    )
