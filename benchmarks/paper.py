"""What was measured as Markdown, with the machine and the versions that it was measured on."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.measured import HEADS, Row
from benchmarks.rivals import NODE_RIVALS, PYTHON_RIVALS, Rivals

MARK = "<!-- From here on `make bench` writes. -->"
OURS = ("fastapi", "uvicorn", "sqlalchemy", "textual")


def write(file: Path, told: Sequence[tuple[str, Sequence[Row]]], rivals: Rivals, by: str) -> None:
    """Puts it behind the mark; what stands before it in the file stays."""
    before = file.read_text().partition(MARK)[0] if file.exists() else ""
    tables = "\n".join(f"### On {kind}\n\n{_table(rows)}" for kind, rows in told)
    file.write_text(f"{before}{MARK}\n\n{_circumstances(rivals, by)}\n{tables}")


def _table(rows: Sequence[Row]) -> str:
    lines: list[tuple[str, ...]] = [HEADS, ("---", "---:", "---", "---:", "---:", "---:", "---")]
    lines += [row.cells() for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _circumstances(rivals: Rivals, by: str) -> str:
    today = dt.datetime.now(dt.UTC).date()
    lines = {
        "when, by": f"{today}, `{by}`",
        "machine": _machine(),
        "Python, SQLite": f"{platform.python_version()}, {sqlite3.sqlite_version}",
        "with": ", ".join(f"{name} {version(name)}" for name in OURS),
        "rivals": ", ".join([*_programs(rivals), *PYTHON_RIVALS, *NODE_RIVALS]),
    }
    return "".join(f"- {what}: {said}\n" for what, said in lines.items())


def _machine() -> str:
    names = re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


def _programs(rivals: Rivals) -> list[str]:
    asked = {"systemd-tmpfiles": "systemd", "tmpreaper": "tmpreaper", "find": "findutils"}
    return [_version(package) for name, package in asked.items() if rivals.program(name)]


def _version(package: str) -> str:
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}", package]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        said = ""
    return said or package
