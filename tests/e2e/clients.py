"""What other people publish, as npm has it: installed once, unmodified, and bundled as they say."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALLED = HERE / "node_modules"
LOCK = HERE / "package-lock.json"


def install() -> None:
    """The packages of the lock are there. Skips where npm is missing."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no npm; on Debian or Ubuntu: apt install nodejs npm")
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = INSTALLED / ".installed"
        if mark.exists() and mark.read_bytes() == LOCK.read_bytes():
            return
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run("npm", "ci", *quiet)
        mark.write_bytes(LOCK.read_bytes())


def bundled(source: str) -> bytes:
    """A module with all that it imports by a package's name, as one script for a browser."""
    program = str(INSTALLED / ".bin/esbuild")
    return _run(program, "--bundle", "--format=esm", "--loader=js", text=source)


def axe() -> str:
    """The script of the accessibility checker."""
    return (INSTALLED / "axe-core/axe.min.js").read_text()


def checked(source: str, folder: Path) -> str:
    """What TypeScript has to say of this module; "" where all is well."""
    (folder / "example.ts").write_text(source)
    strict = ["--noEmit", "--skipLibCheck", "--strict", "--target", "es2022", "--module", "esnext"]
    strict += ["--moduleResolution", "bundler", str(folder / "example.ts")]
    program = str(INSTALLED / ".bin/tsc")
    return subprocess.run([program, *strict], capture_output=True, text=True, check=False).stdout


def _run(*command: str, text: str = "") -> bytes:
    done = subprocess.run(
        command, cwd=HERE, input=text.encode(), capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
