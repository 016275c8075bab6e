"""The ledger's engine: connections, transactions, migrations, and its errors in plain words."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateTable

from ledger import postgresql, system
from ledger.errors import (
    CoatcheckError,
    CommitUnknown,
    LedgerDamaged,
    LedgerFull,
    LedgerGone,
    LedgerTooNew,
    LedgerUnavailable,
    UsageError,
)
from ledger.models import UnsoundRow, creation
from ledger.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0002"
VERSION_TABLE = "coatcheck_schema"
# As Alembic makes it.
_VERSION = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32)),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
TIMEOUT_S = 5.0

_LEAST_LOG_PAGES, _MOST_LOG_PAGES = 64, 1000  # of 4 KiB; SQLite's own is 1000
_OPENING_BYTES = 1 << 16
_SYNC = "NORMAL"  # a power cut may lose the last transactions, never the ledger
_NO_TEXT = "Could not decode"
# The last two: the schema is of this version, and yet it lacks what this version has.
_DAMAGED = (
    *("malformed", "not a database", "disk image", "database corruption"),
    *("unsupported file format", "no such table", "no such column", "has no column"),
)


class Database:
    """One ledger, open. Safe from many threads; every transaction is short."""

    def __init__(self, settings: Settings, *, timeout_s: float = TIMEOUT_S) -> None:
        self.file = settings.ledger_file
        server = None if self.file else _parsed(settings.ledger)
        self.name = postgresql.name_of(server) if server else str(self.file)
        self._timeout_s = timeout_s
        self._writing = threading.Lock()
        self._inode: tuple[int, int] | None = None
        if self.file:
            self._make_parent(self.file)
        self.engine = self._engine(server)
        self._reading = self.engine.execution_options(
            **({} if self.file else {"isolation_level": "REPEATABLE READ"})
        )
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise
        self._inode = self._inode_now()

    @property
    def is_sqlite(self) -> bool:
        return self.file is not None

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection in one read transaction: every query in it sees the same moment."""
        with self._speaking_plainly(), self._connected(self._reading) as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection
            connection.rollback()

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Connection]:
        """A connection in one write transaction, committed at the end of the block.

        `durable`: on stable storage before this returns; otherwise a power cut may lose the
        last transactions, never the ledger. Raises LedgerUnavailable, LedgerFull, LedgerGone or
        LedgerDamaged: nothing is written. CommitUnknown: nobody knows, so no disk may be touched
        on the strength of either.
        """
        with self._speaking_plainly(), self._turn(), self._connected(self.engine) as connection:
            if self.is_sqlite:
                _sync(connection, "FULL" if durable else _SYNC)
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                self._check_still_there()
                yield connection
                connection.commit()
                self._check_still_there()  # else it was committed into a file that is gone
            else:
                xid = postgresql.begin(connection, durable=durable)
                yield connection
                self._commit(connection, xid)

    def _commit(self, connection: Connection, xid: str) -> None:
        """A COMMIT whose answer is lost may have been carried out: the server is asked again."""
        try:
            connection.commit()
        except DBAPIError as error:
            committed = postgresql.was_committed(self.engine, xid, self._timeout_s)
            if committed is None:
                raise CommitUnknown(
                    f"The ledger {self.name} was lost in the middle of a change, and whether it "
                    "has it is not known. Try again once it is back."
                ) from error
            if not committed:
                raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Writers of this process queue here: SQLite's own waiting polls, and is unfair."""
        if not self.is_sqlite:
            yield
            return
        if not self._writing.acquire(timeout=self._timeout_s):
            raise LedgerUnavailable(f"The ledger {self.name} stayed locked; try again.")
        try:
            yield
        finally:
            self._writing.release()

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        self._check_still_there()
        with engine.connect() as connection:
            yield connection

    def _check_still_there(self) -> None:
        """Writes into an unlinked SQLite file succeed in silence, and are lost."""
        if self._inode and self._inode_now() != self._inode:
            raise LedgerGone(
                f"The ledger {self.name} was deleted or replaced while it was open. Stop "
                "coatcheck, put the ledger back, and start again; if it is lost, `coatcheck "
                "adopt` makes a new one from what stands on the disk."
            )

    def _inode_now(self) -> tuple[int, int] | None:
        if not self.file:
            return None
        try:
            facts = os.stat(self.file)
        except OSError:
            return (0, 0)
        return (facts.st_dev, facts.st_ino)

    def _make_parent(self, file: Path) -> None:
        try:
            if not file.parent.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                system.fsync_entry(file.parent)
        except OSError as error:
            raise LedgerUnavailable(
                f"The ledger's directory {file.parent} cannot be made: {error.strerror}."
            ) from error

    def _engine(self, server: URL | None) -> Engine:
        if server is not None:
            try:
                return postgresql.engine_for(server, self._timeout_s)
            except ModuleNotFoundError as error:
                raise UsageError(
                    "A PostgreSQL ledger needs psycopg: pip install 'coatcheck[postgresql]' "
                    f"({error})."
                ) from None
        engine = create_engine(
            URL.create("sqlite", database=str(self.file)),  # whatever is in its name
            pool_size=8,
            max_overflow=56,
            pool_timeout=self._timeout_s,
            hide_parameters=True,
            connect_args={"timeout": self._timeout_s, "check_same_thread": False},
        )
        event.listen(engine, "connect", partial(_configure_sqlite, _log_pages(self.file)))
        return engine

    @contextmanager
    def _speaking_plainly(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise LedgerUnavailable(f"The ledger {self.name} is overloaded; try again.") from error
        except (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError, UnsoundRow) as error:
            plain = self._plain(error)
            if plain is error:
                raise
            if isinstance(plain, LedgerFull):
                self.begin_log_anew()  # who tries again may find room
            raise plain from error

    def _plain(self, error: Exception) -> Exception:
        """The error as one of ours; one that is a mistake of ours stays what it is."""
        if isinstance(error, DBAPIError) and not self.is_sqlite:
            return postgresql.in_words(self.name, error) or error
        original = getattr(error, "orig", None) or error
        said = str(original).splitlines()[0] if str(original) else type(original).__name__
        if isinstance(original, UnicodeDecodeError) or said.startswith(_NO_TEXT):
            said = "database corruption: a text that is not UTF-8"  # and may hold an id
        low = said.lower()
        if "is full" in low or "no space left" in low or self._has_no_room(low):
            return LedgerFull(f"No room is left to write the ledger {self.name}: free some space.")
        if isinstance(original, UnsoundRow) or any(word in low for word in _DAMAGED):
            return LedgerDamaged(
                f"The ledger {self.name} is damaged ({said}). Stop coatcheck and put a copy back; "
                "without one, move the file away and run `coatcheck adopt`: the directories "
                "themselves carry their times."
            )
        if "locked" in low or "busy" in low:
            return LedgerUnavailable(f"The ledger {self.name} stayed locked; try again.")
        operational = isinstance(original, sqlite3.OperationalError)
        if operational and "syntax" not in low:
            return LedgerUnavailable(f"The ledger {self.name} cannot be used: {said}.")
        return error

    def _has_no_room(self, low: str) -> bool:
        """SQLite says no more than that where the index of its log finds no room."""
        if self.file is None or "disk i/o error" not in low:
            return False
        with suppress(OSError):
            disk = os.statvfs(self.file.parent)
            return disk.f_bavail * disk.f_frsize < _OPENING_BYTES
        return False

    def begin_log_anew(self) -> None:
        """What the log of a SQLite ledger holds is in the ledger itself, where there is room for
        it and nobody reads it: then the log is written over, and does not grow."""
        if not self.is_sqlite:
            return
        failing = suppress(SQLAlchemyError, CoatcheckError)
        with failing, self._connected(self.engine) as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    # Migrations

    def _migrate(self) -> None:
        """Brings the schema up to date, one process at a time."""
        with self._speaking_plainly():
            with self.engine.connect() as connection:
                if _revision(connection) == HEAD:
                    return
            with self._migrating() as connection:
                revision = _revision(connection)
                if revision is None:
                    self._make(connection)
                elif revision != HEAD:
                    self._upgrade(connection, revision)
                connection.commit()

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """A connection in one transaction: the whole upgrade or none of it."""
        patience_s = self._timeout_s * 12
        with ExitStack() as stack:
            if self.file:
                stack.enter_context(_locked_file(f"{self.file}.lock", patience_s))
            connection = stack.enter_context(self.engine.connect())
            if self.file:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                postgresql.migrate_alone(connection, patience_s)
            yield connection

    def _make(self, connection: Connection) -> None:
        """A new ledger: what the migrations would make of nothing, without loading them."""
        for statement in (*creation(connection.dialect.name), CreateTable(_VERSION)):
            connection.execute(statement)
        connection.execute(_VERSION.insert().values(version_num=HEAD))

    def _upgrade(self, connection: Connection, revision: str) -> None:
        # Imported here: only a ledger that must change pays for it.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if revision not in known:
            raise LedgerTooNew(
                f"The ledger {self.name} was written by a newer coatcheck (its schema is "
                f"{revision}, this one knows up to {HEAD}). Install that version."
            )
        config.attributes["connection"] = connection
        config.attributes["version_table"] = VERSION_TABLE
        command.upgrade(config, "head")


def _sync(connection: Connection, how: str) -> None:
    """Asked for only where the connection's last transaction was written otherwise."""
    if connection.info.get("synchronous", _SYNC) != how:
        connection.exec_driver_sql(f"PRAGMA synchronous={how}")
        connection.info["synchronous"] = how


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # their words repeat the URL, and so its password
        raise UsageError("COATCHECK_LEDGER is no database URL.") from None


def _revision(connection: Connection) -> str | None:
    """The schema's revision; None in a new database."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(select(_VERSION.c.version_num)).scalar()
    return None if found is None else str(found)


def _log_pages(file: Path | None) -> int:
    """At how many pages the log begins anew: at 1 % of a small disk, or it would fill that."""
    try:
        disk = os.statvfs(file.parent if file else ".")
    except OSError:
        return _MOST_LOG_PAGES
    return min(_MOST_LOG_PAGES, max(_LEAST_LOG_PAGES, disk.f_blocks * disk.f_frsize // 100 // 4096))


def _log_ahead(connection: sqlite3.Connection) -> None:
    """The file is in WAL mode. SQLite itself does not wait where another one just makes it so."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _configure_sqlite(log_pages: int, connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say, and as what we say
    _log_ahead(connection)
    connection.execute(f"PRAGMA synchronous={_SYNC}")
    connection.execute(f"PRAGMA wal_autocheckpoint={log_pages}")
    connection.execute("PRAGMA journal_size_limit=67108864")


@contextmanager
def _locked_file(path: str, timeout_s: float) -> Iterator[None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerUnavailable(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        deadline = time.monotonic() + timeout_s
        while not system.lock_exclusive(fd):
            if time.monotonic() > deadline:
                raise LedgerUnavailable(f"Another process keeps {path} locked; try again.")
            time.sleep(0.02)
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
