"""One session whole, and bringing it back from the trash, for who has the token."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from ledger import SessionLedger
from ledger.models import SESSIONS
from tests.cli import program
from tests.web.operators import AUTH, OPERATOR, Operator, in_a_process, settings_in
from web.app import create_app

pytest_plugins = ["tests.web.operator_fixtures"]


def shown(operator: Operator, session_id: str) -> Any:
    return operator.json(f"/sessions/{session_id}")


def restore(operator: Operator, session_id: str) -> httpx2.Response:
    return operator.http.post(f"{OPERATOR}/sessions/{session_id}/restore", headers=AUTH)


def stray(operator: Operator, name: str) -> Path:
    """An old directory that somebody else made: a sweep keeps its bytes for a while."""
    place = operator.root / name
    place.mkdir()
    (place / "part").write_bytes(b"theirs")
    then = operator.clock() / 1e6 - 48 * 3600
    os.utime(place / "part", (then, then))
    os.utime(place, (then, then))
    return place


# -- One session


def test_a_session_is_told_of_from_both_sides_with_the_verdict_and_its_life(
    either: Operator,
) -> None:
    session_id = either.stale("order 17")
    told = shown(either, session_id)
    assert told["session"]["label"] == "order 17"
    assert told["session"]["files"] == [{"name": "a.txt", "bytes": 9}]
    assert (told["disk"]["kind"], told["disk"]["bytes"]) == ("directory", 9)
    verdict = told["verdict"]
    assert (verdict["finding"], verdict["action"]) == ("stale", "set_aside")
    assert "unused for 48.0 h" in verdict["why"]
    assert [(event["to"], event["by"]) for event in told["events"]] == [("active", "api")]
    assert (told["path"], told["max_age_hours"]) == (str(either.root / session_id), 24)
    assert either.standing() == {session_id}


@pytest.mark.slow
def test_it_is_what_the_command_line_prints(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, sweep_every_minutes=0)
    with SessionLedger.open(settings) as sessions:
        session_id = sessions.create("order 17").id
        sessions.delete_session(session_id)  # so that no age of it changes meanwhile
    with in_a_process(settings) as served:
        url = f"http://127.0.0.1:{served.port}{OPERATOR}/sessions/{session_id}"
        told = httpx2.get(url, headers=AUTH).json()
    places = {"COATCHECK_ROOT": settings.root, "COATCHECK_LEDGER": settings.ledger}
    environment = {name: str(value) for name, value in places.items()}
    assert told == program("show", session_id, "--json", **environment).json
    assert [event["to"] for event in told["events"]] == ["active", "removing", "deleted"]


def test_what_only_the_disk_or_only_the_trash_knows_is_told_of(either: Operator) -> None:
    place = stray(either, "legacy_7")
    told = shown(either, "legacy_7")
    assert (told["session"], told["verdict"]["finding"]) == (None, "unrecorded")
    assert (told["path"], told["disk"]["bytes"]) == (str(place), 6)
    either.sessions.sweep()
    told = shown(either, "legacy_7")
    assert (told["session"]["state"], told["disk"]["kind"]) == ("expired", "absent")
    [waiting] = told["trash"]
    assert (waiting["finding"], waiting["bytes"]) == ("waiting", 6)
    with either.sessions.place.database.write() as connection:
        connection.execute(SESSIONS.delete())
    told = shown(either, "legacy_7")
    assert (told["session"], [entry["finding"] for entry in told["trash"]]) == (None, ["waiting"])


def test_names_that_are_no_text_are_escaped(operator: Operator) -> None:
    session = operator.sessions.create()
    (operator.root / session.id / os.fsdecode(b"\xff\n")).write_bytes(b"x")
    assert shown(operator, session.id)["session"]["files"] == [{"name": r"\xff\n", "bytes": 1}]


def test_what_is_nowhere_is_404(operator: Operator) -> None:
    for name in ("nothing", "..", "%2e%2e", ".coatcheck", "x" * 300, "a%0Ab"):
        for method, path in (("GET", ""), ("POST", "/restore")):
            url = f"{OPERATOR}/sessions/{name}{path}"
            answer = operator.http.request(method, url, headers=AUTH)
            assert answer.status_code == 404, url
            assert answer.json().keys() == {"detail"}


def test_a_session_of_another_root_is_elsewhere(either: Operator) -> None:
    session = either.sessions.create()
    with either.sessions.place.database.write() as connection:
        connection.execute(update(SESSIONS).values(root_id="another"))
    (either.root / session.id).rmdir()
    for answer in (either.get(f"/sessions/{session.id}"), restore(either, session.id)):
        assert answer.status_code == 421
        assert session.id not in answer.json()["detail"]


def test_of_a_root_that_is_not_there_nothing_is_told(operator: Operator) -> None:
    session = operator.sessions.create()
    away = operator.root.with_name("away")
    operator.root.rename(away)
    for answer in (operator.get(f"/sessions/{session.id}"), restore(operator, session.id)):
        assert answer.status_code == 503
        assert "does not exist" in answer.json()["detail"]
    away.rename(operator.root)
    assert shown(operator, session.id)["verdict"]["finding"] == "live"


# -- Bringing it back


def test_a_restored_session_is_back_whole_and_counts_as_used(either: Operator) -> None:
    place = stray(either, "legacy_7")
    assert either.sessions.sweep().waiting == 1
    assert not place.exists()
    answer = restore(either, "legacy_7")
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["path"]) == ("active", str(place))
    assert answer.json()["files"] == [{"name": "part", "bytes": 6}]
    assert (place / "part").read_bytes() == b"theirs"
    told = shown(either, "legacy_7")
    assert (told["verdict"]["finding"], told["trash"]) == ("live", [])
    assert (told["events"][-1]["to"], told["events"][-1]["by"]) == ("active", "operator")


def test_restored_twice_it_is_there_and_nothing_waits(operator: Operator) -> None:
    stray(operator, "legacy_7")
    operator.sessions.sweep()
    assert restore(operator, "legacy_7").status_code == 200
    again = restore(operator, "legacy_7")
    assert again.status_code == 409
    assert "it stands in the root" in again.json()["detail"]


def test_a_name_that_is_taken_meanwhile_stays_its_takers(operator: Operator) -> None:
    place = stray(operator, "legacy_7")
    operator.sessions.sweep()
    place.mkdir()
    taken = restore(operator, "legacy_7")
    assert taken.status_code == 409
    assert "Move it away first" in taken.json()["detail"]
    assert os.listdir(place) == []
    place.rmdir()
    assert restore(operator, "legacy_7").status_code == 200


def test_what_its_user_deleted_is_not_brought_back(operator: Operator) -> None:
    session = operator.sessions.create()
    operator.sessions.delete_session(session.id)
    answer = restore(operator, session.id)
    assert answer.status_code == 409
    assert "deleted by its user" in answer.json()["detail"]


# -- What is kept of it


def test_an_id_is_cut_short_in_the_log_wherever_it_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(settings_in(tmp_path, sweep_every_minutes=0))
    with TestClient(app, base_url="http://localhost") as client:
        path = f"{OPERATOR}/sessions/an_adopted_name"
        assert client.get(path, headers=AUTH).status_code == 404
        assert client.post(f"{path}/restore", headers=AUTH).status_code == 404
        metrics = client.get("/metrics", headers=AUTH).text
    lines = [r.getMessage() for r in caplog.records if r.name == "coatcheck.access"]
    assert f"GET {OPERATOR}/sessions/ted_name… 404" in lines[0]
    assert f"POST {OPERATOR}/sessions/ted_name…/restore 404" in lines[1]
    assert f'route="{OPERATOR}/sessions/{{session_id}}/restore"' in metrics
    assert "an_adopted_name" not in metrics + "".join(lines)
