"""Sweeps and dry runs over HTTP: who runs, what is kept, and what is carried out once."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from ledger import Progress, SessionLedger, Settings, guards, parse_report, queries
from ledger.models import SWEEPS
from tests.ledger.world import Clock
from tests.web.operators import (
    AUTH,
    HOUSE,
    OPERATOR,
    Operator,
    in_a_process,
    operator_of,
    settings_in,
    within,
)

pytest_plugins = ["tests.web.operator_fixtures"]

SWEEP = {
    *("sweep_id", "state", "done", "total", "dry_run", "started_at", "finished_at"),
    *("stopped_by", "result"),
}


# -- Exactly what a dry run has listed


def test_a_dry_run_lists_and_its_sweep_removes_exactly_that(either: Operator) -> None:
    listed = {either.stale() for _ in range(3)}
    begun = either.order(dry_run=True, max_age_hours=24)
    assert begun.status_code == 202
    assert begun.json().keys() == SWEEP
    assert begun.headers["Location"] == f"{OPERATOR}/sweeps/{begun.json()['sweep_id']}"
    dry = either.ended(begun)
    assert (dry["state"], dry["dry_run"], dry["done"]) == ("done", True, 3)
    assert {finding["session_id"] for finding in dry["result"]["findings"]} == listed
    assert either.standing() == listed

    later = either.stale()
    real = either.ended(either.order(of=dry["sweep_id"]))
    assert (real["state"], real["dry_run"], real["stopped_by"]) == ("done", False, None)
    assert (real["result"]["removed"], real["result"]["changed"]) == (3, 0)
    assert either.standing() == {later}


def test_what_was_touched_since_the_dry_run_stays(operator: Operator) -> None:
    kept, gone = operator.stale(), operator.stale()
    dry = operator.ended(operator.order(dry_run=True))
    operator.sessions.touch(kept)
    real = operator.ended(operator.order(of=dry["sweep_id"]))
    assert (real["result"]["removed"], real["result"]["changed"]) == (1, 1)
    assert operator.standing() == {kept}
    assert operator.sessions.get(gone).state == "expired"


def test_a_list_is_carried_out_once(operator: Operator) -> None:
    dry = operator.ended(operator.order(dry_run=True))
    assert operator.ended(operator.order(of=dry["sweep_id"]))["state"] == "done"
    again = operator.order(of=dry["sweep_id"])
    assert again.status_code == 410
    assert "already" in again.json()["detail"]
    assert [sweep["dry_run"] for sweep in operator.json("/sweeps")["sweeps"]] == [False, True]


def test_of_many_who_want_to_carry_a_list_out_one_does(operator: Operator) -> None:
    for _ in range(20):
        operator.stale()
    dry = operator.ended(operator.order(dry_run=True))
    statuses: list[int] = []

    def carry_out() -> None:
        answer = operator.order(of=dry["sweep_id"])
        statuses.append(answer.status_code)
        if answer.status_code == 202:
            operator.ended(answer)

    threads = [threading.Thread(target=carry_out) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(statuses) - {409, 410}) == [202]
    assert statuses.count(202) == 1
    assert operator.standing() == set()


def test_a_list_is_kept_for_an_hour(operator: Operator) -> None:
    dry = operator.ended(operator.order(dry_run=True))
    path = f"/sweeps/{dry['sweep_id']}"
    operator.clock.passes(0.99)
    assert "findings" in operator.json(path)["result"]
    operator.clock.passes(0.02)
    gone = operator.order(of=dry["sweep_id"])
    assert gone.status_code == 410
    assert "make a new one" in gone.json()["detail"]
    shown = operator.json(path)
    assert "findings" not in shown["result"]
    assert shown["result"].keys() >= dry["result"].keys() - {"findings"}


def test_a_list_that_is_not_there_any_more_is_gone(operator: Operator) -> None:
    dry = operator.ended(operator.order(dry_run=True))
    (operator.root / ".coatcheck" / "reports" / f"{dry['sweep_id']}.json").unlink()
    assert operator.order(of=dry["sweep_id"]).status_code == 410


@pytest.mark.slow
def test_a_list_outlives_the_service_and_is_found_by_another_process(
    operator: Operator, tmp_path: Path
) -> None:
    operator.stale()
    dry = operator.ended(operator.order(dry_run=True))
    with in_a_process(settings_in(tmp_path, sweep_every_minutes=0)) as served:
        url = f"http://127.0.0.1:{served.port}{OPERATOR}/sweeps"
        with httpx2.Client(headers=AUTH, timeout=20) as other:
            shown = other.get(f"{url}/{dry['sweep_id']}").json()
            assert shown["result"] == dry["result"]
            with guards.one_sweeper(operator.sessions.place):
                assert other.post(url, json={"of": dry["sweep_id"]}).status_code == 409
            begun = within(20, lambda: _accepted(other.post(url, json={"of": dry["sweep_id"]})))
            assert operator.ended(begun)["dry_run"] is False
            assert other.post(url, json={"of": dry["sweep_id"]}).status_code == 410
    assert operator.order(of=dry["sweep_id"]).status_code == 410


def _accepted(answer: httpx2.Response) -> httpx2.Response | None:
    """None while the sweep that every start begins with is under way."""
    return None if answer.status_code == 409 else answer


def test_what_is_unknown_or_has_no_list_is_404(operator: Operator) -> None:
    real = operator.ended(operator.order())
    assert operator.order(of=real["sweep_id"]).status_code == 404
    for number in (real["sweep_id"] + 1, 2**63 - 1):
        assert operator.order(of=number).status_code == 404
        assert operator.get(f"/sweeps/{number}").status_code == 404
    for wrong in ("0", "-1", "x", str(2**63)):
        assert operator.get(f"/sweeps/{wrong}").status_code == 422


def test_orders_that_make_no_sense_are_422(operator: Operator) -> None:
    for wrong in (
        {"of": 1, "dry_run": True},
        {"of": 1, "max_age_hours": 5},
        {"of": 0},
        {"of": "1"},
        {"of": 2**63},
        {"max_age_hours": 0},
        {"max_age_hours": -1},
        {"max_age_hours": 1e9},
        {"max_age_hours": "24"},
        {"dry_run": "yes"},
        {"dryrun": True},
    ):
        answer = operator.order(**wrong)
        assert (answer.status_code, list(answer.json())) == (422, ["detail"])
    endless = b'{"of": ' + b"1" * 5000 + b"}"
    for body in (b"", b"{", b"[]", b"null", b"\xff", endless, b'{"max_age_hours": NaN}'):
        sent = {**AUTH, "Content-Type": "application/json"}
        answer = operator.http.post(f"{OPERATOR}/sweeps", content=body, headers=sent)
        assert answer.status_code == 422
    long = b'{"of": 1' + b" " * 100_000 + b"}"
    answer = operator.http.post(f"{OPERATOR}/sweeps", content=long, headers=sent)
    assert answer.status_code == 413
    assert operator.json("/sweeps")["sweeps"] == []


# -- One at a time


def test_while_one_runs_another_is_refused(operator: Operator) -> None:
    with guards.one_sweeper(operator.sessions.place):  # as another process has it
        for order in ({}, {"dry_run": True}):
            refused = operator.order(**order)
            assert refused.status_code == 409
            assert "under way" in refused.json()["detail"]
    assert operator.json("/sweeps")["sweeps"] == []
    assert operator.ended(operator.order())["state"] == "done"


class Held:
    """Holds a run up between two sessions, until it is let go."""

    progress: Progress

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        sweep, records_of = SessionLedger.sweep, queries.records_of

        def sweep_seen(*args: Any, **kwargs: Any) -> Any:
            self.progress = kwargs["progress"]
            return sweep(*args, **kwargs)

        def records_of_held(*args: Any) -> Any:
            if threading.current_thread().name == "coatcheck-sweep":
                self.reached.set()
                assert self.go_on.wait(20)
            return records_of(*args)

        monkeypatch.setattr(SessionLedger, "sweep", sweep_seen)
        monkeypatch.setattr(queries, "records_of", records_of_held)

    def go_on_when_cancelled(self) -> None:
        assert self.progress.cancel.wait(20)
        self.go_on.set()


def test_a_run_is_shown_while_it_runs(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.stale()
    held = Held(monkeypatch)
    begun = operator.order()
    assert held.reached.wait(20)
    [shown] = operator.json("/sweeps")["sweeps"]
    assert shown["state"] == "running"
    assert (shown["finished_at"], shown["stopped_by"], shown["result"]) == (None, None, None)
    assert operator.order(dry_run=True).status_code == 409
    held.go_on.set()
    assert operator.ended(begun)["result"]["removed"] == 1


def test_a_run_of_this_service_hears_at_once_that_it_is_cancelled(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.stale()
    held = Held(monkeypatch)
    begun = operator.order()
    assert held.reached.wait(20)
    asked = operator.http.delete(begun.headers["Location"], headers=AUTH)
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    held.go_on_when_cancelled()
    ended = operator.ended(begun)
    assert (ended["state"], ended["result"]["why"]) == ("stopped", "cancelled")


def test_the_end_of_the_service_ends_a_run_between_two_sessions(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with operator_of(settings_in(tmp_path), clock) as operator:
        for _ in range(3):
            operator.stale()
        held = Held(monkeypatch)
        assert operator.order().status_code == 202
        assert held.reached.wait(20)
        letting_go = threading.Thread(target=held.go_on_when_cancelled)
        letting_go.start()
    letting_go.join()
    with SessionLedger.open(settings_in(tmp_path)) as sessions:
        place = sessions.place
        with place.database.read() as connection:
            [row] = queries.sweeps(connection, place.root_id)
    assert (row.state, row.why) == ("stopped", "cancelled")


_BEGIN_AND_WAIT = """
import sys
from ledger import Progress, SessionLedger, load_settings
def begun(progress):
    print(progress.sweep_id, flush=True)
    sys.stdin.read()
SessionLedger.open(load_settings()).dry_run(progress=Progress(on_change=begun))
"""


def test_a_run_whose_process_was_killed_has_failed(operator: Operator) -> None:
    settings = operator.sessions.settings
    environ = {
        **os.environ,
        "PYTHONPATH": str(HOUSE),
        "COATCHECK_ROOT": str(settings.root),
        "COATCHECK_LEDGER": settings.ledger,
        "COATCHECK_CLAIMS": str(settings.claims),
    }
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _BEGIN_AND_WAIT]
    with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        number = int(child.stdout.readline())
        assert operator.json(f"/sweeps/{number}")["state"] == "running"
        assert operator.json("/sweeps")["sweeps"][0]["state"] == "running"
        assert operator.order(of=number).status_code == 409
        child.send_signal(signal.SIGKILL)
    [shown] = operator.json("/sweeps")["sweeps"]
    assert (shown["sweep_id"], shown["state"]) == (number, "failed")
    assert "process ended" in shown["result"]["why"]
    assert shown["finished_at"] is not None
    assert operator.order(of=number).status_code == 410
    assert operator.ended(operator.order())["state"] == "done"


def test_the_next_run_says_that_an_abandoned_one_has_failed(operator: Operator) -> None:
    first = operator.ended(operator.order())["sweep_id"]
    place = operator.sessions.place
    with place.database.write() as connection:
        connection.execute(update(SWEEPS).where(SWEEPS.c.sweep_id == first).values(state="running"))
    operator.sessions.sweep()
    with place.database.read() as connection:
        states = [row.state for row in queries.sweeps(connection, place.root_id)]
    assert states == ["done", "failed"]


# -- Guards


def test_a_guard_that_stops_a_sweep_is_told_and_may_be_overridden(
    tmp_path: Path, clock: Clock
) -> None:
    with operator_of(settings_in(tmp_path, brake=1), clock) as operator:
        stale = {operator.stale(hours=3) for _ in range(3)}
        dry = operator.ended(operator.order(dry_run=True, max_age_hours=1))
        assert dry["state"] == "done"
        for order in ({"max_age_hours": 1}, {"of": dry["sweep_id"]}):
            stopped = operator.ended(operator.order(**order))
            assert (stopped["state"], stopped["stopped_by"]) == ("stopped", "brake")
            assert "--past-the-brake" in stopped["result"]["why"]
            assert operator.standing() == stale
        # The list was given back: nothing of it was carried out.
        done = operator.ended(operator.order(of=dry["sweep_id"], past_the_brake=True))
        assert (done["state"], done["result"]["removed"]) == ("done", 3)


def test_a_clock_that_jumped_stops_a_sweep_until_it_is_trusted(operator: Operator) -> None:
    operator.clock.jumps(24 * 40)
    stopped = operator.ended(operator.order())
    assert (stopped["state"], stopped["stopped_by"]) == ("stopped", "clock")
    assert operator.ended(operator.order(dry_run=True))["state"] == "done"
    assert operator.ended(operator.order(trust_clock=True))["state"] == "done"


def test_a_root_that_is_not_the_ledgers_runs_nothing(operator: Operator) -> None:
    identity = operator.root / ".coatcheck" / "root-id"
    before = identity.read_text()
    identity.write_text("b" * 26)
    refused = operator.order(dry_run=True)
    assert refused.status_code == 503
    stopped = operator.ended(operator.order())
    assert (stopped["state"], stopped["stopped_by"]) == ("stopped", "root")
    identity.write_text(before)
    assert operator.ended(operator.order())["state"] == "done"


def test_a_list_that_cannot_be_kept_fails_the_dry_run(operator: Operator) -> None:
    reports = operator.root / ".coatcheck" / "reports"
    (reports / "1.json").mkdir()
    failed = operator.ended(operator.order(dry_run=True))
    assert failed["state"] == "failed"
    assert "directory" in failed["result"]["why"]


# -- The history


def test_sweeps_come_in_pages_newest_first(either: Operator) -> None:
    ids = [either.ended(either.order(dry_run=True))["sweep_id"] for _ in range(5)]
    found: list[int] = []
    page = either.json("/sweeps", limit=2)
    while page["next"] is not None:
        found += [sweep["sweep_id"] for sweep in page["sweeps"]]
        assert all(sweep.keys() == SWEEP for sweep in page["sweeps"])
        page = either.json("/sweeps", limit=2, cursor=page["next"])
    assert [*found, page["sweeps"][0]["sweep_id"]] == ids[::-1]


def test_the_kept_list_is_what_the_command_line_carries_out(operator: Operator) -> None:
    gone = operator.stale()
    dry = operator.ended(operator.order(dry_run=True))
    result = operator.sessions.sweep(parse_report(json.dumps(dry["result"])))
    assert result.removed == 1
    assert gone not in operator.standing()


def test_settings_are_not_what_a_dry_run_goes_by(tmp_path: Path, clock: Clock) -> None:
    settings: Settings = settings_in(tmp_path, max_age_hours=1000)
    with operator_of(settings, clock) as operator:
        operator.stale(hours=48)
        dry = operator.ended(operator.order(dry_run=True))
        assert dry["result"]["counts"]["stale"] == 0
        dry = operator.ended(operator.order(dry_run=True, max_age_hours=24.5))
        assert (dry["result"]["counts"]["stale"], dry["result"]["max_age_hours"]) == (1, 24.5)
