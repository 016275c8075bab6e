"""Every route, asked with whatever its schema allows and with what it does not: no answer that is
not documented as it is, and none that is a 500."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy, sampled_from
from schemathesis import BaseSchema, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.web.operators import AUTH, in_a_thread, settings_in
from web.app import create_app

AnyCase: TypeAlias = Case[Any]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
UPLOAD = "/api/v1/upload"
SESSION = f"{UPLOAD}/{{session_id}}"
FILE = f"{SESSION}/files/{{name}}"
OPERATOR = "/api/v1/operator"
SEEN = f"{OPERATOR}/sessions/{{session_id}}"
SWEEP = f"{OPERATOR}/sweeps/{{sweep_id}}"
CAN_BE_ASKED_WRONGLY_WITH_TOKEN = [
    *(f"GET {OPERATOR}/{what}" for what in ("sessions", "report", "sweeps", "events")),
    f"POST {OPERATOR}/sweeps",
    *(f"{method} {SWEEP}" for method in ("GET", "DELETE")),
]
OF_A_SESSION_WITH_TOKEN = [f"GET {SEEN}", f"POST {SEEN}/restore"]
WITH_TOKEN = ["GET /metrics", *CAN_BE_ASKED_WRONGLY_WITH_TOKEN, *OF_A_SESSION_WITH_TOKEN]
OF_A_SESSION = [
    *(f"{method} {FILE}" for method in ("GET", "PUT", "DELETE")),
    *(f"POST {SESSION}/{what}" for what in ("files", "touch", "claim", "discard")),
    *(f"{method} {SESSION}" for method in ("GET", "DELETE")),
]
OTHERS = ["GET /healthz", "GET /readyz", f"POST {UPLOAD}"]
# Of the others, nothing that is sent is against the schema.
CAN_BE_ASKED_WRONGLY = [
    *CAN_BE_ASKED_WRONGLY_WITH_TOKEN,
    *(f"POST {SESSION}/{what}" for what in ("files", "claim")),
    f"POST {UPLOAD}",
]


@dataclass
class Served:
    """A service, its schema, and sessions of it."""

    url: str
    schema: BaseSchema

    def cases(
        self, operation: str, mode: GenerationMode = GenerationMode.POSITIVE
    ) -> SearchStrategy[AnyCase]:
        method, path = operation.split()
        return self.schema[path][method].as_strategy(generation_mode=mode)

    def session(self) -> str:
        """A new session with one file, a.txt."""
        made = httpx2.post(self.url + UPLOAD, files=[("f", ("a.txt", b"text"))])
        return str(made.json()["session_id"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    app = create_app(settings_in(tmp_path_factory.mktemp("schema")))
    with in_a_thread(app) as port:
        url = f"http://127.0.0.1:{port}"
        yield Served(url, schemathesis.openapi.from_url(f"{url}/openapi.json"))


def ask(check: Callable[..., None], **strategies: SearchStrategy[object]) -> None:
    """Asks with the same few examples each time."""
    bounded = settings(
        max_examples=8,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    bounded(given(**strategies)(check))()


def test_every_operation_is_asked(served: Served) -> None:
    paths = served.schema.raw_schema["paths"]
    named = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert named == {*WITH_TOKEN, *OF_A_SESSION, *OTHERS}


@pytest.mark.parametrize("operation", [*WITH_TOKEN, *OF_A_SESSION, *OTHERS])
def test_what_the_schema_allows_is_answered_as_documented(served: Served, operation: str) -> None:
    def check(case: AnyCase) -> None:
        case.call_and_validate(headers=AUTH, checks=CHECKS, timeout=20)

    ask(check, case=served.cases(operation))


@pytest.mark.slow
@pytest.mark.parametrize("operation", CAN_BE_ASKED_WRONGLY)
def test_what_the_schema_forbids_is_answered_as_documented(served: Served, operation: str) -> None:
    def check(case: AnyCase) -> None:
        case.call_and_validate(headers=AUTH, checks=CHECKS, timeout=20)

    ask(check, case=served.cases(operation, GenerationMode.NEGATIVE))


@pytest.mark.slow
@pytest.mark.parametrize("operation", [*OF_A_SESSION, *OF_A_SESSION_WITH_TOKEN])
def test_a_session_that_is_there_answers_as_documented(served: Served, operation: str) -> None:
    def check(case: AnyCase, name: str) -> None:
        case.path_parameters["session_id"] = served.session()
        if "{name}" in operation:
            case.path_parameters["name"] = name
        case.call_and_validate(headers=AUTH, checks=CHECKS, timeout=20)

    ask(check, case=served.cases(operation), name=sampled_from(["a.txt", "new.txt"]))


@pytest.mark.parametrize("operation", WITH_TOKEN)
def test_the_schema_says_which_routes_need_the_token(served: Served, operation: str) -> None:
    def check(case: AnyCase) -> None:
        case.call_and_validate(headers=AUTH, checks=[ignored_auth], timeout=20)

    ask(check, case=served.cases(operation))
