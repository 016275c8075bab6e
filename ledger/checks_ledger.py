"""The doctor's checks of the ledger: read only until it is known to be sound."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, inspect, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ledger.checks import Check, Checks, Patient, Status, holders, in_words
from ledger.database import HEAD, MIGRATIONS, VERSION_TABLE
from ledger.models import ROOTS
from ledger.settings import Settings

_PATIENCE_S = 2.0
_DAMAGED = (
    "Stop coatcheck and put a copy of the ledger back. Without one, move it away and run: "
    "coatcheck adopt. The directories themselves carry their times."
)


def ledger(patient: Patient) -> Checks:
    file = patient.settings.ledger_file
    if file is None:
        yield from _server(patient)
        return
    yield from _open_though_deleted(file)
    try:
        facts = file.stat()
    except FileNotFoundError:
        patient.roots, patient.ledger_is_new = [], True
        yield Check("ledger", Status.OK, f"{file} does not exist yet; the first opening makes it.")
        return
    if not stat.S_ISREG(facts.st_mode):
        todo = "Name a file in COATCHECK_LEDGER."
        yield Check("ledger", Status.BAD, f"{file} is no file.", todo)
    elif facts.st_size == 0:
        patient.roots, patient.ledger_is_new = [], True
        yield Check("ledger", Status.WARN, f"{file} is empty, so it counts as new.", _DAMAGED)
    else:
        yield from _sqlite(patient, file)


def _sqlite(patient: Patient, file: Path) -> Checks:
    """Read only until it is known to be sound; then once for writing, to see whether one can."""
    # Where nobody has it open, not even the files that SQLite puts beside it are made.
    alone = not os.path.exists(f"{file}-wal")
    try:
        with _connected(_sqlite_engine(file, "immutable=1" if alone else "mode=ro")) as connection:
            answers = connection.exec_driver_sql("PRAGMA integrity_check(3)").scalars().all()
            if answers != ["ok"]:
                raise sqlite3.DatabaseError(" ".join(" ".join(map(str, answers)).split()))
            found = list(_schema(patient, connection, str(file)))
    except (SQLAlchemyError, sqlite3.Error):
        if alone and os.path.exists(f"{file}-wal"):  # somebody opened it, and it changed meanwhile
            yield from _sqlite(patient, file)
            return
        raise
    yield from found
    with _connected(_sqlite_engine(file, "mode=rw")) as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.exec_driver_sql("ROLLBACK")
    yield Check("ledger", Status.OK, f"{file} is sound, and can be written.")


def _server(patient: Patient) -> Checks:
    try:
        engine = create_engine(
            patient.settings.ledger,
            poolclass=NullPool,
            connect_args={"connect_timeout": round(_PATIENCE_S)},
        )
    except ModuleNotFoundError as error:
        todo = "pip install 'coatcheck[postgresql]'"
        yield Check("ledger", Status.BAD, f"PostgreSQL needs psycopg ({error}).", todo)
        return
    except ArgumentError:
        yield Check("ledger", Status.BAD, "COATCHECK_LEDGER is no database URL.")
        return
    name = engine.url.render_as_string(hide_password=True)
    with _connected(engine) as connection:
        yield from _schema(patient, connection, name)
    yield Check("ledger", Status.OK, f"{name} answers.")


def _schema(patient: Patient, connection: Connection, name: str) -> Checks:
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        patient.roots, patient.ledger_is_new = [], True
        if tables:
            said = f"{name} has tables of another program; coatcheck would add its own."
            yield Check("schema", Status.WARN, said, "Is COATCHECK_LEDGER right?")
        return
    query = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant of ours
    revision = connection.exec_driver_sql(query).scalar()
    known = {path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*.py")}
    if revision not in known:
        said = f"{name} was written by a newer coatcheck: its schema is {revision}, not {HEAD}."
        yield Check("schema", Status.BAD, said, "Install that version.")
        return
    patient.roots = connection.execute(select(ROOTS)).all()
    later = "" if revision == HEAD else f"; the next opening brings it to {HEAD}"
    yield Check("schema", Status.OK, f"The schema is {revision}{later}.")


def _sqlite_engine(file: Path, how: str) -> Engine:
    uri = f"{file.as_uri()}?{how}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S, isolation_level=None)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


@contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def trouble(what: str, error: Exception, settings: Settings) -> Check:
    said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    file = settings.ledger_file
    if file is None:
        todo = "Is the server running, and may this machine and user connect?"
        return Check(what, Status.BAD, f"The server does not answer: {said}", todo)
    if "locked" in said or "busy" in said:
        who = in_words(holders(Path(f"{file}-shm"), "POSIX"))
        said = f"{file} stays locked{who}: nothing can be written."
        return Check(what, Status.BAD, said, "End the program that keeps it locked.")
    if "readonly" in said or "unable to open" in said:
        todo = f"Give this user the right to write it and its directory {file.parent}."
        return Check(what, Status.BAD, f"{file} cannot be opened for writing: {said}.", todo)
    return Check(what, Status.BAD, f"{file} is damaged: {said}.", _DAMAGED)


def _open_though_deleted(file: Path) -> Checks:
    """Writes into a file that was deleted or replaced succeed, and are lost."""
    gone = f"{os.path.realpath(file)} (deleted)"
    for process in sorted(_processes()):
        with suppress(OSError):
            held = [os.readlink(f"/proc/{process}/fd/{fd}") for fd in _fds(process)]
            if gone in held:
                said = f"Process {process} still uses a {file} that was deleted or replaced."
                todo = "Stop it; put the right ledger back, or run: coatcheck adopt. Start again."
                yield Check("ledger", Status.BAD, said, todo)


def _processes() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return []


def _fds(process: int) -> list[str]:
    return os.listdir(f"/proc/{process}/fd")


def reserve(patient: Patient) -> Checks:
    file = patient.settings.ledger_file
    if file is None or patient.ledger_is_new:
        return
    with suppress(FileNotFoundError):
        if os.stat(f"{file}.reserve").st_blocks:
            yield Check("reserve", Status.OK, "The ledger's reserve for a full disk is there.")
            return
    said = "The ledger's reserve for a full disk is given up, or was never had."
    todo = f"Free some space on the disk of {file.parent}; the next opening takes it again."
    yield Check("reserve", Status.WARN, said, todo)
