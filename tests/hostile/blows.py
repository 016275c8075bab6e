"""Children that are hit at one point of what they do: killed there, or a call of theirs fails."""

import errno
import fcntl
import itertools
import json
import os
import random
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, event

from ledger import CoatcheckError, SessionLedger, system
from tests.hostile.worlds import fork

CHANGES = {
    os: "chmod fchmod fdatasync fsync ftruncate mkdir posix_fallocate pwrite rename rmdir symlink "
    "truncate unlink utime write",
    system: "rename_noreplace",
}
LOOKS = {os: "fstat fstatvfs listdir lstat open scandir stat", fcntl: "flock"}

# What SQLite says when the system refuses it.
IN_SQLITE = {
    errno.EIO: "disk I/O error",
    errno.ENOSPC: "database or disk is full",
    errno.EACCES: "unable to open database file",
    errno.EMFILE: "unable to open database file",
    errno.EROFS: "attempt to write a readonly database",
}

Act = Callable[[Callable[[str], None]], object]


@dataclass
class Told:
    """What a child told before it ended; `points` is how many it reached, if it lived."""

    said: list[str] = field(default_factory=list)
    points: int | None = None
    raised: str | None = None
    in_words: str = ""
    documented: bool = True
    where: list[str] = field(default_factory=list)

    @property
    def died(self) -> bool:
        return self.points is None


class Kill:
    """The child is gone before the call is made."""

    def __call__(self, name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Fail:
    """The call is not made, but raises what the system would."""

    errno: int

    def __call__(self, name: str) -> None:
        if name.startswith("sql"):
            raise sqlite3.OperationalError(IN_SQLITE[self.errno])
        raise OSError(self.errno, os.strerror(self.errno))


@dataclass
class Points:
    """Counts the calls that change disk or ledger; at the one, or from it on, there is a blow."""

    at: int
    blow: Callable[[str], None]
    for_good: bool = False
    looks: bool = False
    reached: int = 0
    names: list[str] = field(default_factory=list)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, name: str) -> None:
        with self._counting:
            self.reached += 1
            self.names.append(name)
            number = self.reached
        if number == self.at or (self.for_good and number > self.at > 0):
            self.blow(name)

    def install(self) -> None:
        """Only in a child: there is no way back."""
        for owner, names in (CHANGES | LOOKS if self.looks else CHANGES).items():
            for name in names.split():
                self._wrap(owner, name)
        event.listen(Engine, "commit", lambda connection: self.reach("sql commit"))
        if not isinstance(self.blow, Kill):
            event.listen(Engine, "before_cursor_execute", self._statement)

    def _wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **values: Any) -> Any:
            self.reach(name)
            return real(*args, **values)

        setattr(owner, name, call)

    def _statement(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        if self.looks or not statement.startswith(("SELECT", "PRAGMA", "BEGIN DEFERRED")):
            self.reach(f"sql {statement.split(maxsplit=1)[0]}")


def hit(act: Act, points: Points) -> Told:
    """Does `act` in a child, with a blow at one of its points."""
    reader, writer = socket.socketpair()

    def child() -> None:
        reader.close()
        tell = telling(act, writer, points)
        tell("points", points.reached)
        tell("where", points.names[max(0, points.at - 3) : points.at])

    pid = fork(child)
    writer.close()
    told = listen(reader)
    os.waitpid(pid, 0)
    return told


def telling(
    act: Act, writer: socket.socket, points: Points | None = None
) -> Callable[[str, Any], None]:
    """Does `act`, and tells what it said, and what it raised; by no call that is ever hit."""

    def tell(what: str, value: Any) -> None:
        writer.sendall(json.dumps([what, value]).encode() + b"\n")

    if points is not None:
        points.install()
    try:
        act(lambda word: tell("said", word))
    except BaseException as error:
        tell("raised", f"{type(error).__name__}: {error}")
        tell("documented", isinstance(error, CoatcheckError | OSError))
        tell("in_words", describe(error))
    return tell


def describe(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def listen(reader: socket.socket) -> Told:
    told = Told()
    with reader, reader.makefile(encoding="utf-8") as lines:
        for line in lines:
            what, value = json.loads(line)
            if what == "said":
                told.said.append(value)
            else:
                setattr(told, what, value)
    return told


def walk(every: int, seed: int) -> Iterator[int]:
    """The points to hit: one of `every`, from a seeded beginning, without end."""
    return itertools.count(random.Random(seed).randrange(every) + 1, every)


# How one gets in between


@contextmanager
def doing(
    hook: tuple[Any, str],
    *,
    before: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> Iterator[None]:
    """The first time that the function is called, something else is done before or after it."""
    owner, name = hook
    real = getattr(owner, name)

    def wrapped(*args: Any, **values: Any) -> Any:
        setattr(owner, name, real)
        if before:
            before()
        result = real(*args, **values)
        if after:
            after()
        return result

    setattr(owner, name, wrapped)
    try:
        yield
    finally:
        setattr(owner, name, real)


@contextmanager
def removing_at_once(sessions: SessionLedger) -> Iterator[None]:
    """What is deleted is removed when the block ends, by this thread: so points can be counted."""
    remover = sessions._remover
    add, remover.add = remover.add, remover._entries.put  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        remover.add = add  # type: ignore[method-assign]
        remover._entries.put(None)
        remover._run()
