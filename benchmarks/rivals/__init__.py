"""Whom coatcheck is measured against: what is there, what is missing, and how each is run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).parent
PYTHON_RIVALS = ("tuspyserver==4.4.3", "diskcache==5.6.3")
NODE_RIVALS = ("@tus/server@2.4.5", "@tus/file-store@2.1.1")


@dataclass(frozen=True)
class Rivals:
    """Rivals that are kept in `kept`, from run to run; with `install` those are fetched that are
    missing. Whoever is missing is None."""

    kept: Path
    install: bool = False

    def program(self, name: str) -> str | None:
        return shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")

    @cached_property
    def python(self) -> Path | None:
        """A Python that has tuspyserver and diskcache."""
        found = self.kept / "python/bin/python"
        if not found.exists() and self.install:
            _try([sys.executable, "-m", "venv", self.kept / "python"])
            _try([found, "-m", "pip", "install", "--quiet", *PYTHON_RIVALS])
        return found if _works([found, "-c", "import tuspyserver, diskcache"]) else None

    @cached_property
    def node(self) -> Path | None:
        """A folder in which Node finds @tus/server and @tus/file-store."""
        found = self.kept / "node"
        if not (found / "node_modules").exists() and self.install:
            found.mkdir(parents=True, exist_ok=True)
            _try(["npm", "install", "--silent", "--prefix", found, *NODE_RIVALS])
        shutil.copy(HERE / "tus.mjs", found) if found.exists() else None
        return found if _works(["node", found / "tus.mjs"]) else None

    @cached_property
    def floor(self) -> Path | None:
        """The floor: a small C program."""
        built = self.kept / "floor"
        self.kept.mkdir(parents=True, exist_ok=True)
        compile_it = ["cc", "-O2", "-pthread", "-o", str(built), str(HERE / "floor.c")]
        return built if _works(compile_it) else None


def _works(command: Sequence[str | Path]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _try(command: Sequence[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
