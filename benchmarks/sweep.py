"""The start of a server with a pile behind it, against the usual cure: rmtree at start-up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.measured import Measured, Stopwatch
from ledger import SessionLedger, Settings

DIRECTORIES = 10_000
FILES = 3
OLD = 1_700_000_000
PORT = 8765


def measure(place: Path) -> Iterator[Measured]:
    cure, sweep, steady, looks = (Stopwatch() for _ in range(4))
    pile(place / "usual")
    with cure.running():
        usual_cure(place / "usual")
    pile(place / "ours")
    settings = Settings(root=place / "ours", brake=DIRECTORIES)
    with SessionLedger.open(settings, adopt=True):
        pass
    answered = start_of_a_server(place / "ours")
    rival = "`if mtime > 24 h: rmtree` at start-up"
    yield Measured(
        f"until a server answers, {DIRECTORIES:,} stale", answered, cure.total, f"{rival}, alone"
    )
    settings = Settings(root=place / "again")
    pile(place / "again")
    with SessionLedger.open(settings, adopt=True) as sessions:
        with sweep.running():
            removed = sessions.sweep().removed
        assert removed == DIRECTORIES
        yield Measured(f"the sweep of {DIRECTORIES:,} stale", sweep.total, cure.total, rival)
        for _ in range(1000):
            sessions.create()
        with steady.running():
            assert sessions.sweep().removed == 0
        with looks.running():
            usual_cure(place / "again")
    yield Measured("a sweep that finds 1,000 live", steady.total, looks.total, rival)


def pile(root: Path) -> None:
    for number in range(DIRECTORIES):
        directory = root / f"upload-{number}"
        directory.mkdir(parents=True)
        for name in range(FILES):
            path = directory / f"file-{name}"
            path.write_bytes(b"x" * 1000)
            os.utime(path, (OLD, OLD))
        os.utime(directory, (OLD, OLD))


def usual_cure(root: Path) -> None:
    for path in root.iterdir():
        if path.is_dir() and time.time() - path.stat().st_mtime > 24 * 3600:
            shutil.rmtree(path)


def start_of_a_server(root: Path) -> float:
    """Seconds until /healthz answers."""
    command = [sys.executable, "-m", "coatcheck", "serve", "--port", str(PORT)]
    environment = os.environ | {"COATCHECK_ROOT": str(root)}
    begun = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            while True:
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz"):
                    return time.perf_counter() - begun
                time.sleep(0.005)
        finally:
            server.terminate()
