"""Several workers on one port: all answer, one sweeps at a time, who is killed is replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from ledger import SessionLedger, Settings, queries
from tests.web.services import UPLOAD, Process, wait_for


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, {"COATCHECK_SWEEP_EVERY_MINUTES": "0.002"})
    process.start("--workers=2")
    yield process
    if process.running.poll() is None:
        process.end()


def pids(process: Process) -> set[int]:
    """The workers that run."""
    parent = process.running.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(pid) for pid in children}


def serves(pid: int) -> bool:
    """Whether the worker waits for connections by now: it has an event loop of its own."""
    opened = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    return any("eventpoll" in link for link in opened)


def test_what_one_worker_makes_all_know_and_one_that_is_killed_is_replaced(
    workers: Process,
) -> None:
    wait_for(lambda: len(pids(workers)) == 2)
    [victim, other] = pids(workers)
    made = []
    for _ in range(20):  # a connection each, so that both answer
        answer = httpx.post(f"{workers.url}{UPLOAD}", files={"file": ("a.txt", b"bytes")})
        assert answer.status_code == 201
        made.append(answer.json()["session_id"])
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(pids(workers)) == 2 and victim not in pids(workers))
    assert other in pids(workers)
    for its in made:
        assert httpx.delete(f"{workers.url}{UPLOAD}/{its}", timeout=30).status_code == 204
    assert "another takes its place" in workers.log
    assert workers.end(signal.SIGTERM) == 0
    assert "Traceback" not in workers.log


def test_of_several_workers_one_sweeps_at_a_time(workers: Process, tmp_path: Path) -> None:
    settings = Settings(root=tmp_path / "data/temp", ledger=f"sqlite:///{tmp_path}/data/ledger.db")
    with SessionLedger.open(settings) as sessions:
        place = sessions.place

        def swept() -> int:
            with place.database.read() as connection:
                return len(queries.sweeps(connection, place.root_id, most=1000))

        wait_for(lambda: swept() > 20)
        assert workers.end(signal.SIGINT) == 0
        with place.database.read() as connection:
            sweeps = queries.sweeps(connection, place.root_id, most=1000)
    assert {sweep.state for sweep in sweeps} <= {"done", "stopped"}
    for earlier, later in pairwise(reversed(sweeps)):
        assert earlier.finished_at <= later.started_at


def test_no_worker_is_left_when_it_ends(workers: Process) -> None:
    wait_for(lambda: len(pids(workers)) == 2 and all(serves(pid) for pid in pids(workers)))
    left = pids(workers)
    assert workers.end(signal.SIGTERM) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_settings_that_no_worker_can_serve_are_told_once(tmp_path: Path) -> None:
    process = Process(tmp_path, {"COATCHECK_CLAIMS": str(tmp_path / "data/temp/claims")})
    process.begin("--workers=2")
    assert process.running.wait(60) == 2
    assert "Traceback" not in process.log
    assert process.log.count("coatcheck: ") == 1
