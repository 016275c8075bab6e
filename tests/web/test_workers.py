"""Several workers on one port: all answer, one sweeps at a time, who is killed is replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Row

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


@pytest.mark.slow
def test_all_answer_one_sweeps_at_a_time_and_who_is_killed_is_replaced(
    workers: Process, tmp_path: Path
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
    wait_for(lambda: len(sweeps_in(tmp_path)) > 10)
    left = pids(workers)
    assert workers.end(signal.SIGTERM) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)
    assert "Traceback" not in workers.log
    sweeps = sweeps_in(tmp_path)
    assert {sweep.state for sweep in sweeps} <= {"done", "stopped", "failed"}
    for earlier, later in pairwise(reversed(sweeps)):
        assert earlier.finished_at <= later.started_at


def sweeps_in(folder: Path) -> list[Row[Any]]:
    """The newest first, of those that have ended."""
    settings = Settings(root=folder / "data/temp", ledger=f"sqlite:///{folder}/data/ledger.db")
    with SessionLedger.open(settings) as sessions:
        place = sessions.place
        with place.database.read() as connection:
            found = queries.sweeps(connection, place.root_id, most=1000)
    return [sweep for sweep in found if sweep.finished_at is not None]


@pytest.mark.slow
def test_settings_that_no_worker_can_serve_are_told_once(tmp_path: Path) -> None:
    process = Process(tmp_path, {"COATCHECK_CLAIMS": str(tmp_path / "data/temp/claims")})
    process.begin("--workers=2")
    assert process.running.wait(60) == 2
    assert "Traceback" not in process.log
    assert process.log.count("coatcheck: ") == 1
