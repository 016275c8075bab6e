"""May this run go on? Root identity, the clock, the brake, and the one sweeper's lock."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select, update

from ledger import moves, system
from ledger.claims import Claims
from ledger.database import Database
from ledger.disk import HOUSE, INCOMING, REPORTS, SWEEP_LOCK, TRASH, Root, open_directory
from ledger.errors import (
    Guard,
    LedgerFull,
    RootMismatch,
    RootUnavailable,
    SweepStopped,
    SweepUnderWay,
    UsageError,
)
from ledger.models import EVENTS, ROOTS, SESSIONS, SWEEPS, UnsoundRow
from ledger.place import Place
from ledger.plan import Action
from ledger.report import Report, printable
from ledger.reserve import Reserve
from ledger.settings import DAY_US, Settings

JUMP_US = 5 * 60_000_000
LONG_GAP_US = 30 * DAY_US
_OPENING_S = 60.0


# Root identity


def open_place(settings: Settings, now: int, *, adopt: bool = False) -> Place:
    """The root and its ledger, proven to belong together, or made so where both are new.

    Raises UsageError, RootUnavailable, LedgerUnavailable; RootMismatch where the pairing needs
    consent (`adopt`) that was not given: then nothing was written into the root.
    """
    check_paths(settings)
    database = _open_database(settings)
    try:
        with usable(settings.root):
            return _open_root_with(settings, database, now, adopt=adopt)
    except BaseException:
        database.close()
        raise


def _open_database(settings: Settings) -> Database:
    try:
        return Database(settings)
    except LedgerFull:  # only opening it takes some room
        if not Reserve(settings.ledger_file).give_up():
            raise
        return Database(settings)


def _open_root_with(settings: Settings, database: Database, now: int, *, adopt: bool) -> Place:
    root = _open_root(settings, database, adopt)
    try:
        with _pairing(root):
            root_id = _pair(settings, database, root, now, adopt=adopt)
        claims = Claims(settings.claims, root)
        reserve = Reserve(settings.ledger_file)
        reserve.take()
        return Place(settings, root, claims, database, reserve, root_id)
    except BaseException:
        root.close()
        raise


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


def check_paths(settings: Settings) -> None:
    """Raises UsageError where root, ledger and claims cannot be where the settings say."""
    root = Path(os.path.realpath(settings.root))
    home = _home()
    if root in (home, *home.parents):
        raise UsageError(f"COATCHECK_ROOT: {root} is no place for temp sessions.")
    if any("\ud800" <= character <= "\udfff" for character in str(root)):
        raise UsageError(f"COATCHECK_ROOT: {printable(str(root))} is not valid UTF-8.")
    others = {"COATCHECK_CLAIMS": Path(os.path.realpath(settings.claims))}
    if settings.ledger_file:
        others["COATCHECK_LEDGER"] = Path(os.path.realpath(settings.ledger_file))
    for name, other in others.items():
        if root in (other, *other.parents) or other in root.parents:
            raise UsageError(f"{name}: {other} and the root {root} must not lie in one another.")
    claims, file = others["COATCHECK_CLAIMS"], others.get("COATCHECK_LEDGER")
    if file and claims in (file, *file.parents):
        raise UsageError(f"COATCHECK_LEDGER: {file} must not lie in the claims directory.")


def _open_root(settings: Settings, database: Database, adopt: bool) -> Root:
    path = Path(os.path.abspath(settings.root))
    if not os.path.lexists(path):
        with database.read() as connection:
            known = _former(connection, database, str(path), None)
        # Looked for once more: another process may be just making it.
        if known and not adopt and not os.path.lexists(path):
            raise RootUnavailable(
                f"The root {path} does not exist, though the ledger {database.name} knows it "
                f"(id {known.root_id}): is its disk mounted?"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            system.fsync_entry(path)
        except OSError as error:
            raise RootUnavailable(f"The root {path} cannot be made: {error.strerror}.") from error
    return Root(path)


def _home() -> Path:
    try:
        return Path.home().resolve()
    except RuntimeError:  # a container's user may have none
        return Path("/")


@contextmanager
def _pairing(root: Root) -> Iterator[None]:
    """One process at a time pairs a root; the lock is the root's own, so nothing is written."""
    deadline = time.monotonic() + _OPENING_S
    while not system.lock_exclusive(root.fd):
        if time.monotonic() > deadline:
            raise RootUnavailable(f"Another process keeps the root {root.path} locked.")
        time.sleep(0.01)
    try:
        yield
    finally:
        system.unlock(root.fd)


def _pair(settings: Settings, database: Database, root: Root, now: int, *, adopt: bool) -> str:
    on_disk = root.read_id()
    with database.read() as connection:
        known = {row.root_id: row for row in connection.execute(select(ROOTS))}
        former = _former(connection, database, root.path, on_disk)
    if on_disk is not None and on_disk in known:
        _furnish(root)
        _remember_path(database, root, known[on_disk])
        return on_disk
    empty = not root.has_sessions() and not _has_trash(root)
    if former is None and empty:
        return _initialise(settings, database, root, now, on_disk)
    if not adopt:
        raise RootMismatch(_mismatch(database, root, on_disk, former))
    return _adopt(settings, database, root, now, former)


def _former(
    connection: Connection, database: Database, path: str, on_disk: str | None
) -> Row[Any] | None:
    """The root that this ledger had in this place: a SQLite ledger has one, a server many."""
    rows = connection.execute(select(ROOTS).order_by(ROOTS.c.created_at.desc())).all()
    if not database.is_sqlite:
        host = socket.gethostname()
        rows = [
            row for row in rows if row.root_id == on_disk or (row.path, row.host) == (path, host)
        ]
    return next(iter(sorted(rows, key=lambda row: row.root_id != on_disk)), None)


def _has_trash(root: Root) -> bool:
    try:
        return bool(os.listdir(root.trash))
    except FileNotFoundError:
        return False


def _mismatch(database: Database, root: Root, on_disk: str | None, former: Row[Any] | None) -> str:
    disk = f"bears the id {on_disk}" if on_disk else "bears no id of coatcheck"
    if former is None:
        ledger = f"the ledger {database.name} is new"
    else:
        ledger = f"the ledger {database.name} belongs to the root {former.root_id} ({former.path})"
    return (
        f"The root {root.path} {disk}, and {ledger}. They do not belong together, so nothing is "
        "touched. Is the right disk mounted, are COATCHECK_ROOT and COATCHECK_LEDGER right? To "
        "take the directories in this root over, run: coatcheck adopt (or set COATCHECK_ADOPT=1)"
    )


def _initialise(
    settings: Settings, database: Database, root: Root, now: int, on_disk: str | None
) -> str:
    """The id goes to the disk first: a crash in between leaves a new ledger and an empty root."""
    root_id = on_disk or moves.new_id()
    _furnish(root)
    if on_disk is None:
        moves.write_root_id(root, root_id)
    with database.write(durable=True) as connection:
        connection.execute(ROOTS.insert().values(_root_row(settings, root, root_id, now)))
    return root_id


def _adopt(
    settings: Settings, database: Database, root: Root, now: int, former: Row[Any] | None
) -> str:
    """Both sides get a new id, so that no former ledger sweeps here; rows of before stay."""
    root_id = moves.new_id()
    _furnish(root)
    moves.write_root_id(root, root_id)
    with database.write(durable=True) as connection:
        if former is not None:
            for table in (SESSIONS, EVENTS, SWEEPS):
                connection.execute(
                    update(table).where(table.c.root_id == former.root_id).values(root_id=root_id)
                )
            connection.execute(ROOTS.delete().where(ROOTS.c.root_id == former.root_id))
        connection.execute(ROOTS.insert().values(_root_row(settings, root, root_id, now)))
    return root_id


def _root_row(settings: Settings, root: Root, root_id: str, now: int) -> dict[str, Any]:
    return {
        "root_id": root_id,
        "path": root.path,
        "host": socket.gethostname(),
        "created_at": now,
        "accepted_max_age_us": settings.max_age_us,
        "heartbeat_at": now,
        "heartbeat_boot_id": system.boot_id(),
        "heartbeat_boottime_us": system.boottime_us(),
    }


def _furnish(root: Root) -> None:
    """What is coatcheck's own in the root is there; never reached through a link."""
    _make(HOUSE, root.fd)
    for name in (TRASH, INCOMING, REPORTS):
        _make(name, root.house)
    with suppress(OSError):  # a disk without room for one more name must still be swept
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(SWEEP_LOCK, flags, 0o600, dir_fd=root.house))


def _make(name: str, dir_fd: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    os.close(open_directory(name, dir_fd=dir_fd))


def _remember_path(database: Database, root: Root, known: Row[Any]) -> None:
    here = {"path": root.path, "host": socket.gethostname()}
    if (known.path, known.host) != (here["path"], here["host"]):
        with database.write() as connection:
            connection.execute(update(ROOTS).where(ROOTS.c.root_id == known.root_id).values(here))


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
