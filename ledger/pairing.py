"""Root and ledger, proven to belong together, made so where both are new, or by consent."""

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
from ledger.errors import LedgerFull, RootMismatch, RootUnavailable, UsageError
from ledger.guards import usable
from ledger.models import COUNTS, EVENTS, ROOTS, SESSIONS, SWEEPS
from ledger.place import Place
from ledger.report import printable
from ledger.reserve import Reserve
from ledger.settings import Settings

_OPENING_S = 60.0


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
            for table in (SESSIONS, EVENTS, SWEEPS, COUNTS):
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
