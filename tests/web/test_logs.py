"""The log: one line each, with short ids and no secret, whatever a client sends."""

from __future__ import annotations

import contextvars
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import Settings
from ledger.moves import new_id, trash_name
from tests.web.services import UPLOAD, Process, wait_for
from web.logs import Line, concerns

TOKEN = "a token of operators"


def line_of(
    message: str, *args: object, form: Any = "text", exc_info: Any = None, **fields: object
) -> str:
    record = logging.LogRecord("coatcheck", logging.INFO, __file__, 1, message, args, exc_info)
    record.fields = fields
    return Line(form, TOKEN, "/srv/temp").format(record)


@pytest.mark.parametrize("form", ["text", "json"])
@settings(max_examples=30)
@given(text=st.text())
def test_nothing_that_is_logged_begins_another_line(form: str, text: str) -> None:
    line = line_of("%s", text, form=form)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    if form == "json":
        assert json.loads(line)["message"] is not None


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_part_of_its_line(form: str) -> None:
    try:
        raise RuntimeError("first\n2026-01-01 INFO coatcheck: a forged line")
    except RuntimeError as error:
        caught = (type(error), error, error.__traceback__)
    line = line_of("it broke", form=form, exc_info=caught)
    assert len(line.splitlines()) == 1
    assert "RuntimeError: first" in line
    assert "test_logs.py" in line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{ours} went", "{short}… went"),
        (f"GET {UPLOAD}/{{ours}}/files/a", f"GET {UPLOAD}/{{short}}…/files/a"),
        (f"GET {UPLOAD}/customer-4711-passport", f"GET {UPLOAD}/passport…"),
        ("/api/v1/operator/sessions/customer-4711-passport", "/api/v1/operator/sessions/passport…"),
        (f"GET {UPLOAD}/passport…/files", f"GET {UPLOAD}/passport…/files"),  # as it is already
        ("[Errno 5] '/srv/temp/customer-4711-passport/a'", "[Errno 5] '/srv/temp/passport…/a'"),
        ("/srv/temp/.coatcheck/trash/{trash}", "/srv/temp/.coatcheck/trash/passport…"),
        (f"Bearer {TOKEN}", "Bearer …"),
        ("removed 3 stale sessions", "removed 3 stale sessions"),
    ],
)
def test_no_whole_id_and_no_token_is_shown(text: str, shown: str) -> None:
    ours = new_id()
    trash = str(trash_name("customer-4711-passport", by_user=False, seen=5))
    given = text.format(ours=ours, trash=trash)
    line = line_of("%s", given)
    assert line.endswith(f" INFO coatcheck: {shown.format(short=ours[:8])}")
    told = json.loads(line_of("%s", given, form="json"))
    assert told["message"] == shown.format(short=ours[:8])


@pytest.fixture
def logged(process: Process, request: pytest.FixtureRequest) -> Process:
    process.environment = {
        "COATCHECK_LOG_FORMAT": request.param,
        "COATCHECK_OPERATOR_TOKEN": TOKEN,
        "COATCHECK_SWEEP_EVERY_MINUTES": "0",
    }
    return process


@pytest.mark.slow
@pytest.mark.parametrize("logged", ["text", "json"], indirect=True)
def test_every_line_of_a_service_tells_of_the_session_that_it_concerns(
    logged: Process, tmp_path: Path
) -> None:
    logged.start()
    (tmp_path / "data/temp/customer-4711-passport").mkdir()
    with httpx.Client(base_url=logged.url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        label = "x\n2026-01-01 INFO coatcheck.access: forged"
        made = http.post(UPLOAD, data={"label": label}, files={"f": ("a", b"12345")}).json()
        its = made["session_id"]
        http.put(f"{UPLOAD}/{its}/files/b%0Aforged", content=b"678")
        http.post(f"{UPLOAD}/{its}/claim", json={"into": "../up"})
        http.delete(f"{UPLOAD}/{its}")
        http.delete(f"{UPLOAD}/{its}")
        http.post(f"{UPLOAD}/customer-4711-passport/touch")
        http.get("/api/v1/operator/sessions/customer-4711-passport", params={"token": TOKEN})
    assert logged.end() == 0
    text = logged.log
    lines = [line for line in text.splitlines() if "coatcheck.access" in line]
    assert [its[:8] in line for line in lines] == [True] * 5 + [False] * 2
    assert ["passport" in line for line in lines] == [False] * 5 + [True] * 2
    for secret in (its, TOKEN, "customer-4711", "\nforged"):
        assert secret not in text
    assert len(lines) == 7
    if "{" in text:
        told = [json.loads(line) for line in text.splitlines()]
        asked = [each for each in told if each["logger"] == "coatcheck.access"]
        assert [each["session"] for each in asked] == [its[:8]] * 5 + ["passport"] * 2
        assert [each["status"] for each in asked] == [201, 422, 422, 204, 404, 200, 200]
        assert asked[0]["received"] > 5
        assert asked[0]["sent"] > 0
        assert {each["method"] for each in asked} == {"POST", "PUT", "DELETE", "GET"}
    else:
        assert all(f"session={its[:8]}" in line for line in lines[:5])


@pytest.mark.slow
def test_what_one_request_concerns_no_other_one_does(process: Process) -> None:
    """Each request has a context of its own, on a connection that is kept, too."""
    process.environment = {"COATCHECK_SWEEP_EVERY_MINUTES": "0"}
    process.start()
    with httpx.Client(base_url=process.url) as http:
        its = http.post(UPLOAD).json()["session_id"]
        http.get("/healthz")
    wait_for(lambda: "/healthz" in process.log)
    [line] = [line for line in process.log.splitlines() if "/healthz" in line]
    assert its[:8] not in line
    assert "session=" not in line


def test_a_name_that_is_a_word_is_not_cut_out_of_the_others() -> None:
    def line() -> str:
        concerns("aaaaaaaaaaaaaaaa")
        return line_of("%s", "aaaaaaaaaaaaaaaa is not aaaaaaaaaaaaaaaab")

    assert (
        contextvars.copy_context()
        .run(line)
        .endswith("aaaaaaaa… is not aaaaaaaaaaaaaaaab session=aaaaaaaa")
    )


def test_the_format_is_a_setting() -> None:
    assert Settings().log_format == "text"
