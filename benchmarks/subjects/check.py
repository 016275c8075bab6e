"""The cross-check of ledger and disk, against that of diskcache; and who has to wait for it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measured import Row, Target, timed
from benchmarks.rivals import HERE
from benchmarks.trees import sessions_in
from ledger import SessionLedger, Settings

FILES = 100_000


def measure(bench: Bench) -> Iterator[Row]:
    """One file a session: what diskcache has as a value in a file."""
    count = bench.sized(FILES)
    settings = sessions_in(bench.place / "ours", count, files=1)
    work, rival = f"cross-check of {count:,} files, nothing changed", "diskcache's check()"
    waits = "the longest that a writer waited meanwhile"
    python = bench.rivals.python
    if python is None:
        yield Row(work, rival, note="is missing")
        return
    cache = bench.place / "cache"
    _disk(python, "make", cache, count)
    ours, theirs = [], []
    for _ in range(bench.rounds):
        ours.append(_checked(settings))
        took, waited, _ = _disk(python, "check", cache)
        theirs.append((float(took), float(waited)))
    yield Row(work, rival, [o[0] for o in ours], [t[0] for t in theirs], Target(0.25))
    yield Row(waits, rival, [o[1] for o in ours], [t[1] for t in theirs], Target(0.25))


def _disk(python: Path, *words: object) -> list[str]:
    command = [str(word) for word in (python, HERE / "disk.py", *words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def _checked(settings: Settings) -> tuple[float, float]:
    """Seconds of the report, and the longest that one of the touches took which went on."""
    stop = threading.Event()
    waits = [0.0]
    with SessionLedger.open(settings) as sessions:
        session = sessions.create()

        def write_on() -> None:
            while not stop.is_set():
                waits.append(timed(lambda: sessions.touch(session.id)))
                time.sleep(0.01)

        writer = threading.Thread(target=write_on)
        writer.start()
        took = timed(sessions.report)
        stop.set()
        writer.join()
        sessions.delete_session(session.id)
    return took, max(waits)
