"""Every session in pages, and the orphan report, for who has the token."""

import csv
import io
import os
import re
import socket
import threading
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from ledger import Actor, Progress, Report, SessionLedger, views
from ledger.cursors import cursor_of
from ledger.report import COLUMNS
from tests.web.operators import AUTH, OPERATOR, TOKEN, Operator, in_a_thread
from web.operator import MOST_REPORTS, operator_router

pytest_plugins = ["tests.web.operator_fixtures"]

SESSION = {
    *("session_id", "state", "label", "created_at", "last_touch_at", "expires_at", "bytes"),
    *("files", "file_count", "origin", "path", "ended_at", "ended_by", "ended_why"),
}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
SORTS = ["created_at", "last_touch_at", "bytes", "files", "state"]
ROUTES = [
    *[("GET", path) for path in ("/sessions", "/report", "/sweeps", "/sweeps/1", "/events")],
    ("GET", "/sessions/known"),
    *[("POST", path) for path in ("/sweeps", "/sessions/known/restore")],
    ("DELETE", "/sweeps/1"),
]


# -- The token


def test_without_the_token_401_and_with_a_wrong_one_403(operator: Operator) -> None:
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 403),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 403),
        ({"Authorization": "Bearer \xe9"}, 403),
    ):
        sent = [(b"Authorization", value.encode("latin-1")) for value in headers.values()]
        for method, path in ROUTES:
            answer = operator.http.request(method, OPERATOR + path, headers=sent)
            assert answer.status_code == status
            assert "token" in answer.json()["detail"]
            assert TOKEN not in answer.text
            assert answer.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


def test_without_a_token_set_403_says_why(operator: Operator) -> None:
    app = FastAPI()
    app.include_router(operator_router(operator.sessions, None), prefix=OPERATOR)
    with TestClient(app) as client:
        for method, path in ROUTES:
            for headers in ({}, AUTH, {"Authorization": "Bearer None"}):
                answer = client.request(method, OPERATOR + path, headers=headers)
                assert answer.status_code == 403
                assert "COATCHECK_OPERATOR_TOKEN" in answer.json()["detail"]


def test_a_token_in_any_script_lets_in(operator: Operator) -> None:
    app = FastAPI()
    app.include_router(operator_router(operator.sessions, SecretStr("жетон")), prefix=OPERATOR)
    with TestClient(app) as client:
        sent = [(b"Authorization", "Bearer жетон".encode())]
        assert client.get(f"{OPERATOR}/sessions", headers=sent).status_code == 200


def test_head_is_answered_wherever_get_is(operator: Operator) -> None:
    operator.ended(operator.order(dry_run=True))
    (operator.root / "known").mkdir()
    for method, path in ROUTES:
        if method == "GET":
            sent = {**AUTH, "Accept": "text/event-stream"}
            answer = operator.http.head(OPERATOR + path, headers=sent)
            assert (answer.status_code, answer.content) == (200, b"")


# -- Sessions


def test_a_session_is_shown_as_its_user_sees_it_and_with_what_operators_also_see(
    operator: Operator,
) -> None:
    files = [("f", ("b.txt", b"22")), ("f", ("a.txt", b"1"))]
    made = operator.http.post("/api/v1/upload", files=files, data={"label": "order 17"}).json()
    [shown] = operator.json("/sessions")["sessions"]
    assert shown.keys() == SESSION
    assert {name: shown[name] for name in made} == made
    assert shown["files"] == [{"name": "a.txt", "bytes": 1}, {"name": "b.txt", "bytes": 2}]
    assert (shown["origin"], shown["file_count"]) == ("created", 2)
    assert shown["path"] == str(operator.root / made["session_id"])
    assert (shown["ended_at"], shown["ended_by"], shown["ended_why"]) == (None, None, None)
    assert RFC3339.fullmatch(shown["created_at"])


def test_an_ended_session_tells_how_it_ended(operator: Operator) -> None:
    session = operator.sessions.create()
    operator.sessions.delete_session(session.id, by=Actor.API)
    [shown] = operator.json("/sessions", state="deleted")["sessions"]
    assert RFC3339.fullmatch(shown["ended_at"])
    assert (shown["session_id"], shown["ended_by"], shown["files"]) == (session.id, "api", [])
    assert shown["ended_why"]


def test_pages_show_each_session_once_in_the_order_asked_for(either: Operator) -> None:
    for number in range(11):
        with either.sessions.upload(None) as upload:
            for file in range(number % 3):
                upload.open_file(f"{file}")
                upload.write(b"x" * (number % 4))
            session_id = upload.commit()[0].session_id
        if number % 5 == 4:
            either.sessions.delete_session(session_id)
    for sort in [*SORTS, *(f"-{sort}" for sort in SORTS)]:
        found = every_page(either, sort)
        assert len({session["session_id"] for session in found}) == len(found) == 11
        field = sort.removeprefix("-").replace("files", "file_count")
        values = [session[field] for session in found]
        assert values == sorted(values, reverse=sort.startswith("-"))


def every_page(operator: Operator, sort: str) -> list[dict[str, Any]]:
    page = operator.json("/sessions", sort=sort, limit=3)
    found: list[dict[str, Any]] = page["sessions"]
    while page["next"] is not None:
        page = operator.json("/sessions", sort=sort, limit=3, cursor=page["next"])
        assert 1 <= len(page["sessions"]) <= 3
        found += page["sessions"]
    return found


def test_what_comes_and_goes_between_two_pages_moves_nobody(operator: Operator) -> None:
    first = [operator.sessions.create().id for _ in range(6)]
    page = operator.json("/sessions", limit=3)
    assert [session["session_id"] for session in page["sessions"]] == first[:2:-1]
    operator.sessions.create()
    operator.sessions.delete_session(first[4])
    rest = operator.json("/sessions", limit=3, cursor=page["next"])
    assert [session["session_id"] for session in rest["sessions"]] == first[2::-1]
    assert rest["next"] is None


def test_words_are_looked_for_in_id_and_label_as_they_are(either: Operator) -> None:
    labels = ["Order 17", "100%", "a_b", "axb", None]
    ids = {label: either.sessions.create(label=label).id for label in labels}

    def found(q: str) -> set[str]:
        return {session["session_id"] for session in either.json("/sessions", q=q)["sessions"]}

    assert found("order") == {ids["Order 17"]}
    assert found("%") == {ids["100%"]}
    assert found("a_b") == {ids["a_b"]}
    assert found(ids[None][3:12].upper()) == {ids[None]}
    assert found("nowhere") == set()


def test_the_list_has_its_limits(operator: Operator) -> None:
    assert len(operator.json("/sessions", limit=1000)["sessions"]) == 0
    for wrong in (
        {"limit": 1001},
        {"limit": 0},
        {"limit": "many"},
        {"state": "asleep"},
        {"sort": "label"},
        {"sort": "--bytes"},
        {"q": "a\0b"},
        {"q": "x" * 201},
    ):
        answer = operator.get("/sessions", **wrong)
        assert (answer.status_code, list(answer.json())) == (422, ["detail"])
        assert next(iter(wrong)) in answer.json()["detail"]


def test_a_cursor_that_the_list_has_not_given_is_422(operator: Operator) -> None:
    for cursor in (
        *("", "x", "🙂", "e30", "W10", "bnVsbA", "A" * 600),
        cursor_of("sessions -created_at", 5),
        cursor_of("sessions -created_at", "5", 5),
        cursor_of("sessions -created_at", 5, 2**63),
        cursor_of("sessions -created_at", True, 5),
        cursor_of("sessions bytes", 5, 5),
        cursor_of("sweeps", 2**63),
        cursor_of("events", "5"),
        cursor_of("elsewhere", 5),
    ):
        for path in ("/sessions", "/sweeps", "/events"):
            answer = operator.get(path, cursor=cursor)
            assert answer.status_code == 422
            assert "cursor" in answer.json()["detail"]


def test_the_names_of_very_many_files_are_left_out_and_counted(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "NAMES_IN_A_PAGE", 3)
    for count in (2, 3, 1):
        with operator.sessions.upload(None) as upload:
            for number in range(count):
                upload.open_file(f"{number}")
            upload.commit()
    shown = operator.json("/sessions")["sessions"]
    assert [session["file_count"] for session in shown] == [1, 3, 2]
    names = [session["files"] and len(session["files"]) for session in shown]
    assert names == [1, None, 2]


def test_a_session_whose_directory_cannot_be_read_is_listed_all_the_same(
    operator: Operator,
) -> None:
    session_id = operator.stale()
    os.rename(operator.root / session_id, operator.root.parent / "elsewhere")
    [shown] = operator.json("/sessions")["sessions"]
    assert (shown["session_id"], shown["files"], shown["file_count"]) == (session_id, [], 1)


def test_names_that_are_no_text_are_shown_escaped(operator: Operator) -> None:
    session_id = operator.stale()
    (operator.root / session_id / os.fsdecode(b"\xff\n")).touch()
    [shown] = operator.json("/sessions")["sessions"]
    assert {file["name"] for file in shown["files"]} == {"a.txt", "\\xff\\n"}


# -- The report


def test_the_report_is_the_ledgers_own_in_both_forms(operator: Operator) -> None:
    stale = operator.stale("=1+1")
    (operator.root / "no session id").touch()
    (operator.root / os.fsdecode(b"b\xffd")).mkdir()
    own = operator.sessions.report().as_json()
    shown = operator.json("/report")
    assert shown.keys() == own.keys()
    for head in ("at", "findings"):
        own.pop(head)
    assert {name: shown[name] for name in own} == own
    assert {finding["session_id"] for finding in shown["findings"]} >= {stale}

    answer = operator.get("/report", format="csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.text.startswith(",".join(COLUMNS) + "\r\n")
    assert [row["path"] for row in rows] == [finding["path"] for finding in shown["findings"]]
    assert operator.get("/report", format="xml").status_code == 422


def test_a_report_goes_by_the_max_age_that_is_asked_for(operator: Operator) -> None:
    operator.stale(hours=2)
    for hours, stale in ((1.5, 1), (2.5, 0)):
        report = operator.json("/report", max_age_hours=hours)
        assert (report["counts"]["stale"], report["max_age_hours"]) == (stale, hours)
    for wrong in ("0", "-1", "nan", "inf", "1e9", "x", "1e-300"):
        assert operator.get("/report", max_age_hours=wrong).status_code == 422


def test_a_long_report_comes_whole(operator: Operator) -> None:
    for number in range(1201):
        (operator.root / f"no session {number}").touch()
    assert len(operator.json("/report")["findings"]) == 1201
    rows = list(csv.DictReader(io.StringIO(operator.get("/report", format="csv").text)))
    assert len({row["path"] for row in rows}) == len(rows) == 1201


class Slow:
    """Lets reports begin, and end when it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.progress: list[Progress] = []
        real = SessionLedger.report

        def report(
            sessions: SessionLedger, max_age_hours: float | None, *, progress: Progress
        ) -> Report:
            self.progress.append(progress)
            self.begun.release()
            assert self.go_on.wait(20)
            return real(sessions, max_age_hours, progress=progress)

        monkeypatch.setattr(SessionLedger, "report", report)


def test_of_too_many_reports_at_once_the_last_is_asked_to_come_again(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(operator.get("/report").status_code))
        for _ in range(MOST_REPORTS)
    ]
    for thread in threads:
        thread.start()
        assert slow.begun.acquire(timeout=20)
    refused = operator.get("/report")
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert operator.json("/sessions") == {"sessions": [], "next": None}
    slow.go_on.set()
    for thread in threads:
        thread.join()
    assert got == [200] * MOST_REPORTS
    assert operator.get("/report").status_code == 200


def test_a_report_whose_client_has_gone_is_given_up(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    head = f"GET {OPERATOR}/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with in_a_thread(operator.app) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head.encode())
            assert slow.begun.acquire(timeout=20)
        assert slow.progress[0].cancel.wait(20)
        slow.go_on.set()
