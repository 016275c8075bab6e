"""A root and its ledger in a test's own folder, and a clock that the test moves."""

import os
import pkgutil
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, update

from ledger import Entry, Finding, Report, SessionLedger, Settings, queries, system
from ledger.database import Database
from ledger.disk import HOUSE, INCOMING, TRASH
from ledger.models import EVENTS, SESSIONS, Record
from tests.hostile.worlds import fork

HOUR_US = 3_600_000_000
KILLED = 77
FILES = {"photo.jpg": b"a photo", "list.txt": b"a list"}

_uptime = system.boottime_us


@dataclass
class Clock:
    """The machine's clock, ahead by what the test says; in microseconds."""

    ahead: int = 0
    slept: int = 0

    def __call__(self) -> int:
        return system.now_us() + self.ahead

    def uptime(self) -> int:
        return _uptime() + self.slept

    def passes(self, hours: float) -> None:
        """Time passes, for the wall clock and for the machine's uptime alike."""
        self.ahead += round(hours * HOUR_US)
        self.slept += round(hours * HOUR_US)

    def jumps(self, hours: float) -> None:
        """The wall clock alone is set to another time."""
        self.ahead += round(hours * HOUR_US)


@dataclass
class World:
    """One root and its ledger. `sessions` is open; `reopen` makes it anew."""

    folder: Path
    clock: Clock
    ledger: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    sessions: SessionLedger = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = self.open()

    @property
    def settings(self) -> Settings:
        return Settings(
            root=self.folder / "temp",
            ledger=self.ledger or f"sqlite:///{self.folder / 'ledger.db'}",
            claims=self.folder / "claims",
            **self.options,
        )

    def open(self, *, adopt: bool = False) -> SessionLedger:
        return SessionLedger.open(self.settings, adopt=adopt, clock=self.clock)

    def reopen(self, *, adopt: bool = False, **options: Any) -> SessionLedger:
        self.sessions.close()
        self.options |= options
        self.sessions = self.open(adopt=adopt)
        return self.sessions

    # Where things are

    @property
    def root(self) -> Path:
        return self.folder / "temp"

    @property
    def claims(self) -> Path:
        return self.folder / "claims"

    @property
    def trash(self) -> Path:
        return self.root / HOUSE / TRASH

    @property
    def incoming(self) -> Path:
        return self.root / HOUSE / INCOMING

    def standing(self) -> set[str]:
        return {name for name in os.listdir(self.root) if name != HOUSE}

    def in_trash(self) -> list[str]:
        return sorted(os.listdir(self.trash))

    # What the ledger says

    def row(self, session_id: str) -> Record | None:
        place = self.sessions.place
        with place.database.read() as connection:
            return queries.record_of(connection, place.root_id, session_id)

    def known(self, session_id: str) -> Record:
        row = self.row(session_id)
        assert row is not None
        return row

    def state(self, session_id: str) -> str | None:
        row = self.row(session_id)
        return None if row is None else str(row.state)

    def events(self, session_id: str) -> list[Row[Any]]:
        with self.sessions.place.database.read() as connection:
            return list(queries.session_events(connection, self.known(session_id).pk))

    def path_of_life(self, session_id: str) -> list[str]:
        return [str(event.to_state) for event in self.events(session_id)]

    def all_events(self) -> list[Row[Any]]:
        with self.sessions.place.database.read() as connection:
            return list(connection.execute(EVENTS.select()))

    def alter(self, session_id: str, **values: Any) -> None:
        """What another program, or an older copy, made of the row."""
        with self.sessions.place.database.write() as connection:
            row = SESSIONS.c.session_id == session_id
            connection.execute(update(SESSIONS).where(row).values(values))

    # What the test does

    def create(self, *, age: float = 0, files: dict[str, bytes] | None = None) -> str:
        """A session that was created, filled and last used `age` hours ago."""
        then = SessionLedger(self.sessions.place, lambda: self.hours_ago(age))
        with then.upload(None) as upload:
            for name, its_bytes in (files or FILES).items():
                upload.open_file(name)
                upload.write(its_bytes)
            record, _ = upload.commit("order 17")
        self.date(self.root / record.session_id, age)
        return record.session_id

    def stray(self, name: str = "stray", *, age: float = 0) -> str:
        """A directory that another program made, and last used, `age` hours ago."""
        path = self.root / name
        (path / "deeper").mkdir(parents=True)
        (path / "deeper/file").write_bytes(b"another program's")
        self.date(path, age)
        return name

    def hours_ago(self, hours: float) -> int:
        return self.clock() - round(hours * HOUR_US)

    def date(self, top: Path, age: float) -> None:
        """Everything below, and it itself, bears an mtime of `age` hours ago."""
        at = self.hours_ago(age) * 1000
        for parent, _, names in os.walk(top, topdown=False):
            for name in names:
                os.utime(Path(parent, name), ns=(at, at), follow_symlinks=False)
            os.utime(parent, ns=(at, at))

    def dies(self, act: Callable[[SessionLedger], object], at: int) -> bool:
        """In a process of its own, `act` is killed behind its `at`th step; False: it had fewer.

        A step is what others can see: a transaction, a rename, an unlinking, a touch.
        """
        child = fork(lambda: _dying(at, act, self.open))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, KILLED), f"the child failed at step {at}"
        return code == KILLED


STEPS = (
    *("moves.publish_directory", "moves.publish_file", "moves.publish_new_file", "moves.set_aside"),
    *("moves.put_back", "moves.rename_in_trash", "moves.bury", "moves.claim"),
    *("removal.os.unlink", "removal.os.rmdir", "removal.os.utime"),
)


def _dying(at: int, act: Callable[[SessionLedger], object], opens: Callable[[], Any]) -> None:
    sessions = opens()
    left = iter(range(1, at))

    def step() -> None:
        if next(left, None) is None:
            os._exit(KILLED)

    with ExitStack() as hooks:
        for name in STEPS:
            hooks.enter_context(around(name, after=step, times=1000))
        hooks.enter_context(after_transactions(step))
        try:
            act(sessions)
            sessions.close()
        except BaseException:
            traceback.print_exc()
            os._exit(1)


@contextmanager
def after_transactions(step: Callable[[], None]) -> Iterator[None]:
    """Something is done behind each write transaction."""
    write = Database.write

    @contextmanager
    def stepping(self: Database, **values: Any) -> Iterator[Any]:
        with write(self, **values) as connection:
            yield connection
        step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "write", stepping)
        yield


@contextmanager
def around(
    hook: str,
    *,
    before: Callable[[], object] | None = None,
    after: Callable[[], object] | None = None,
    times: int = 1,
) -> Iterator[list[str]]:
    """The function named `hook` (`module.function`, in `ledger`) is called as ever, and something
    else is done before or after it, the first `times` it is; what is yielded tells how often."""
    path, _, name = hook.rpartition(".")
    owner = pkgutil.resolve_name(f"ledger.{path}")
    real = getattr(owner, name)
    done: list[str] = []

    def wrapped(*args: Any, **values: Any) -> Any:
        due = len(done) < times
        if due:
            done.append(name)
            if before is not None:
                before()
        result = real(*args, **values)
        if due and after is not None:
            after()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, wrapped)
        yield done


def entry_of(report: Report, session_id: str | None) -> Entry:
    """The one finding of the report on this session."""
    [found] = [entry for entry in report.entries if entry.session_id == session_id]
    return found


def findings(report: Report) -> dict[str, int]:
    """The findings that there are, with their numbers."""
    return {str(finding): n for finding, n in report.counts.items() if n}


def found(sessions: SessionLedger, session_id: str) -> Finding | None:
    _, verdict = sessions.judge(session_id)
    return None if verdict is None else verdict.finding


def content(top: Path) -> dict[str, tuple[Any, ...]]:
    """Every byte below a directory, with kinds, rights, links and, but for its own, mtimes."""
    seen: dict[str, tuple[Any, ...]] = {}
    for path in sorted(top.rglob("*")):
        facts = path.lstat()
        target = os.readlink(path) if path.is_symlink() else ""
        read = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        key = str(path.relative_to(top))
        seen[key] = (facts.st_mode, facts.st_mtime_ns, target, read)
    return seen
