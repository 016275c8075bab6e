"""Servers of one worker each, as processes: coatcheck's, and that of the plain way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).parents[1]
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Served:
    """A server that answers on 127.0.0.1; `answered_s`: from its start to its first answer."""

    port: int
    answered_s: float
    process: subprocess.Popen[bytes]

    def peak_bytes(self) -> float:
        """The most memory that it ever had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def wait_until_swept(self) -> None:
        """The sweep at the start of coatcheck is over."""
        while json.loads(_get(self.port, "/readyz"))["running"]:
            time.sleep(0.05)


def cpu_seconds(pid: int) -> float:
    """What a process has computed, together with those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def coatcheck(root: Path, **settings: object) -> Iterator[Served]:
    """`coatcheck serve` on this root."""
    given = {f"COATCHECK_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "coatcheck_start", "serve", "--port"]
    with _served(command, {"COATCHECK_ROOT": str(root), **given}) as served:
        yield served


@contextmanager
def plain(root: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "uvicorn", "benchmarks.plain:app", "--no-access-log"]
    with _served([*command, "--port"], {"PLAIN_ROOT": str(root)}) as served:
        yield served


@contextmanager
def with_noop(root: Path) -> Iterator[Served]:
    """Coatcheck's own application with one more route, of the touch's kind, that does nothing."""
    command = [sys.executable, "-m", "benchmarks.noop"]
    with _served(command, {"COATCHECK_ROOT": str(root)}) as served:
        yield served


@contextmanager
def _served(command: Sequence[str], environment: dict[str, str]) -> Iterator[Served]:
    port = _free_port()
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, str(port)],
        env={**os.environ, **environment, "PYTHONPATH": str(HOUSE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_answer(port, process)
        yield Served(port, time.perf_counter() - begun, process)
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            _get(port, "/healthz")
            return
        time.sleep(0.002)
    raise RuntimeError(f"no server came to answer on port {port}")


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return bytes(answer.read()).decode()
