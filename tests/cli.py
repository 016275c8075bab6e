"""The command line for tests: in this process, where speed matters, and as the real program."""

import contextlib
import io
import json
import logging
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coatcheck
from ledger import SessionLedger, Settings, system

HOUSE = Path(coatcheck.__file__).parent
ROOT = Path("data/temp")
HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Ran:
    """What came of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def cc(*arguments: object) -> Ran:
    """Runs a command in this process, which stands in the test's own folder."""
    out, err = io.StringIO(), io.StringIO()
    with _logging_as_it_was(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = coatcheck.run([str(each) for each in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def program(*arguments: object, stdin: str | None = None, **environment: str) -> Ran:
    """Runs the real program, without a terminal."""
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=env(**environment),
        timeout=100,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def on_terminal(answer: str, *words: str) -> tuple[int, str]:
    """Runs the program on a terminal, and answers its question if it has one; its code and all it
    said."""
    ours, its = pty.openpty()
    running = subprocess.Popen(
        command(*words), stdin=its, stdout=its, stderr=its, env=env(), close_fds=True
    )
    os.close(its)
    said = b""
    deadline = time.monotonic() + 60
    answered = False
    with contextlib.suppress(OSError):  # EIO: it has ended
        while time.monotonic() < deadline and (some := os.read(ours, 65536)):
            said += some
            if not answered and b"[y/N]" in said:
                os.write(ours, f"{answer}\n".encode())
                answered = True
    code = running.wait(60)
    os.close(ours)
    return code, said.decode().replace("\r\n", "\n")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "coatcheck", *(str(each) for each in arguments)]


def env(**environment: str) -> dict[str, str]:
    path = os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **environment}


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level


# What there is for the commands to find: below the default root of a test's own folder


def a_root() -> None:
    """One without a session, and its ledger."""
    SessionLedger.open(Settings()).close()


def session(age: float = 0, label: str = "order 17") -> str:
    """A session with one file, last used `age` hours ago."""
    at = system.now_us() - round(age * HOUR_US)
    with SessionLedger.open(Settings()) as opened:
        then = SessionLedger(opened.place, lambda: at)
        with then.upload(None) as upload:
            upload.open_file("photo.jpg")
            upload.write(b"a photo")
            record, _ = upload.commit(label)
    path = ROOT / record.session_id
    for each in (path / "photo.jpg", path):
        os.utime(each, ns=(at * 1000, at * 1000))
    return record.session_id


def stray(name: str, age: float = 0) -> str:
    at = system.now_us() - round(age * HOUR_US)
    (ROOT / name).mkdir(parents=True)
    (ROOT / name / "file").write_bytes(b"another program's")
    for path in (ROOT / name / "file", ROOT / name):
        os.utime(path, ns=(at * 1000, at * 1000))
    return name
