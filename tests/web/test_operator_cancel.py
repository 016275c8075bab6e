"""A sweep that an operator asks to end, whoever runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from ledger import Progress, Settings
from ledger.survey import BATCH
from tests.web.operators import AUTH, HOUSE, OPERATOR, Operator

pytest_plugins = ["tests.web.operator_fixtures"]

_ON_POSTGRESQL = [pytest.mark.postgresql, pytest.mark.slow]


def cancel(operator: Operator, sweep_id: int) -> httpx2.Response:
    return operator.http.delete(f"{OPERATOR}/sweeps/{sweep_id}", headers=AUTH)


# Tells the number of its run, which waits then until it is told to go on; at the end, how many it
# has removed, and whether it was cancelled. It writes its row, and hears, whenever it can; a sweep
# does so from its first batch on.
_RUN = """
import sys
from ledger import Progress, SessionLedger, aside, load_settings, runs
runs._SAVE_EVERY_S = 3600.0 if sys.argv[1] == "a sweep" else 0.0
carry_out = aside.SettingAside.carry_out
def hearing(*args):
    runs._SAVE_EVERY_S = 0.0
    return carry_out(*args)
aside.SettingAside.carry_out = hearing
def begun(progress):
    progress.on_change = None
    print(progress.sweep_id, flush=True)
    sys.stdin.readline()
with SessionLedger.open(load_settings()) as sessions:
    progress = Progress(on_change=begun)
    report = {
        "a sweep": lambda: sessions.sweep(progress=progress),
        "a list": lambda: sessions.sweep(sessions.report(), progress=progress),
        "counting": lambda: sessions.sweep(max_age_hours=1, progress=progress),
        "a dry run": lambda: sessions.dry_run(progress=progress),
    }[sys.argv[1]]()
    print(report.removed, progress.cancel.is_set())
"""


class Elsewhere:
    """A run in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.sweep_id = int(process.stdout.readline())

    def goes_on(self) -> tuple[int, bool]:
        """To its end: how many it has removed, and whether it was cancelled."""
        removed, cancelled = self.process.communicate("\n", timeout=60)[0].split()
        return int(removed), cancelled == "True"


@contextmanager
def elsewhere(settings: Settings, what: str) -> Iterator[Elsewhere]:
    environ = {
        **os.environ,
        "PYTHONPATH": str(HOUSE),
        "COATCHECK_ROOT": str(settings.root),
        "COATCHECK_LEDGER": settings.ledger,
        "COATCHECK_CLAIMS": str(settings.claims),
    }
    command = [sys.executable, "-c", _RUN, what]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Elsewhere(process)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("ledger_url", "what", "of", "removed"),
    [
        ("sqlite", "a sweep", BATCH + 20, BATCH),
        ("sqlite", "a list", 3, 0),
        pytest.param("sqlite", "counting", 3, 0, marks=pytest.mark.slow),
        pytest.param("sqlite", "a dry run", 3, 0, marks=pytest.mark.slow),
        pytest.param("postgresql", "a sweep", BATCH + 20, BATCH, marks=_ON_POSTGRESQL),
    ],
    indirect=["ledger_url"],
)
def test_a_run_in_another_process_ends_between_two_sessions(
    either: Operator, what: str, of: int, removed: int
) -> None:
    for _ in range(of):
        either.stale()
    with elsewhere(either.sessions.settings, what) as run:
        asked = cancel(either, run.sweep_id)
        assert (asked.status_code, asked.json()["state"]) == (202, "running")
        assert cancel(either, run.sweep_id).status_code == 202
        assert run.goes_on() == (removed, True)
    ended = either.json(f"/sweeps/{run.sweep_id}")
    assert (ended["state"], ended["stopped_by"]) == ("stopped", None)
    assert (ended["result"]["why"], ended["result"]["removed"]) == ("cancelled", removed)
    assert len(either.standing()) == of - removed
    assert either.sessions.health().problems == []
    assert either.ended(either.order())["state"] == "done"
    assert either.standing() == set()


def test_a_list_that_was_not_finished_is_not_carried_out(operator: Operator) -> None:
    with elsewhere(operator.sessions.settings, "a dry run") as run:
        cancel(operator, run.sweep_id)
        run.goes_on()
    assert operator.order(of=run.sweep_id).status_code == 410


def test_a_run_that_was_at_its_end_already_is_done(operator: Operator) -> None:
    with elsewhere(operator.sessions.settings, "a sweep") as run:
        assert cancel(operator, run.sweep_id).status_code == 202
        assert run.goes_on() == (0, False)
    ended = operator.json(f"/sweeps/{run.sweep_id}")
    assert (ended["state"], ended["result"]["why"]) == ("done", None)


def test_a_run_whose_process_was_killed_cannot_be_cancelled(operator: Operator) -> None:
    with elsewhere(operator.sessions.settings, "a sweep") as run:
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
    refused = cancel(operator, run.sweep_id)
    assert refused.status_code == 409
    assert "does not run any more: it is failed" in refused.json()["detail"]


def test_what_does_not_run_any_more_or_never_did_is_not_cancelled(operator: Operator) -> None:
    done = operator.ended(operator.order())
    refused = cancel(operator, done["sweep_id"])
    assert refused.status_code == 409
    assert "does not run any more: it is done" in refused.json()["detail"]
    assert operator.json(f"/sweeps/{done['sweep_id']}") == done
    unknown = cancel(operator, done["sweep_id"] + 1)
    assert (unknown.status_code, unknown.json().keys()) == (404, {"detail"})
    assert operator.http.delete(f"{OPERATOR}/sweeps/0", headers=AUTH).status_code == 422


def test_a_sweep_that_finds_nothing_to_do_hears_it_too(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a million live sessions it looks at names for long, and acts on none."""
    monkeypatch.setattr("ledger.runs._SAVE_EVERY_S", 0.0)
    for _ in range(3):
        operator.sessions.create()

    def ask(progress: Progress) -> None:
        operator.sessions.cancel_sweep(progress.sweep_id or 0)

    operator.sessions.sweep(progress=Progress(on_change=ask))
    [sweep] = operator.json("/sweeps")["sweeps"]
    assert (sweep["state"], sweep["result"]["why"]) == ("stopped", "cancelled")
