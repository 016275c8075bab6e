"""The command line for tests: in this process, where speed matters, and as the real program."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coatcheck

HOUSE = Path(coatcheck.__file__).parent


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


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "coatcheck", *(str(each) for each in arguments)]


def env(**environment: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HOUSE), **environment}


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
