"""The OpenAPI document leaves nothing out, and /docs is a manual made of it, of nothing else."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from ledger import Settings, queries
from tests.web.operators import TOKEN
from tests.web.services import Service, serving, wait_for
from web.app import create_app
from web.examples import ERRORS
from web.manual import page

Operation = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("manual")
    url = f"sqlite:///{folder}/ledger.db"
    with serving(folder, url, operator_token=TOKEN, sweep_every_minutes=0, undo_hours=1) as service:
        wait_for(lambda: service.sessions.health().last_sweep_at)
        yield service


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("document")
    settings = Settings(root=folder / "temp")
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> list[Operation]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


# The document


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    assert all(tag["description"] for tag in document["tags"])
    ids = []
    for name, operation in operations(document):
        assert len(operation["tags"]) == 1, name
        assert operation["tags"][0] in tags, name
        assert 4 < len(operation["summary"]) < 50, name
        assert operation["description"].rstrip().endswith((".", "?")), name
        ids.append(operation["operationId"])
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", ids[-1]), name
    assert len(set(ids)) == len(ids)
    assert len({operation["summary"] for _, operation in operations(document)}) == len(ids)


def test_every_parameter_says_what_it_is(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{name}: {parameter['name']}"
        asked = re.findall(r"{(\w+)}", name)
        told = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
        assert sorted(asked) == sorted(told), name


def test_every_body_has_its_model_and_an_example(document: dict[str, Any]) -> None:
    kinds = {}
    for name, operation in operations(document):
        if body := operation.get("requestBody"):
            [(kind, media)] = body["content"].items()
            kinds[name] = kind
            assert example_of(document, media) is not None, name
            schema = resolved(document, media["schema"])
            fields = schema.get("properties", {"": schema})
            assert kind == "application/json" or all(
                field["description"] for field in fields.values()
            )
    assert kinds == {
        "POST /api/v1/upload": "multipart/form-data",
        "POST /api/v1/upload/{session_id}/files": "multipart/form-data",
        "PUT /api/v1/upload/{session_id}/files/{name}": "application/octet-stream",
        "POST /api/v1/upload/{session_id}/claim": "application/json",
        "POST /api/v1/operator/sweeps": "application/json",
    }


def test_every_answer_has_its_meaning_its_model_and_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        good = [status for status in operation["responses"] if status < "400"]
        assert good, name
        for status, answer in operation["responses"].items():
            case = f"{name}: {status}"
            assert answer["description"].endswith("."), case
            assert answer["description"] != "Successful Response", case
            if status == "204":
                assert "content" not in answer, case
                continue
            assert answer["content"], case
            for kind, media in answer["content"].items():
                assert media["schema"], case
                if kind == "application/json":
                    assert "$ref" in media["schema"], case
                assert example_of(document, media) is not None, case


def test_every_operation_names_its_errors(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        bad = {int(status) for status in operation["responses"] if status >= "400"}
        assert 403 in bad, name  # a strange Host
        assert bad <= ERRORS.keys(), name
        if "{session_id}" in name:
            assert {404, 421} <= bad, name
        if operation["tags"] == ["operator"]:
            assert 401 in bad, name
            assert operation["security"], name


def test_every_model_says_what_it_is_and_its_example_is_one(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        if "enum" not in schema and name != "ProgressJson":
            assert schema["examples"], name
        whole = {**schema, "components": document["components"]}
        for example in schema.get("examples", []):
            validator_for(whole).validate(example)
            if "properties" in schema and name not in ("SweepOrder", "ReadyJson", "ReportJson"):
                assert example.keys() == schema["properties"].keys(), name


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    named: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return named


def example_of(document: dict[str, Any], media: dict[str, Any]) -> Any:
    if "example" in media:
        return media["example"]
    return next(iter(resolved(document, media["schema"]).get("examples", [])), None)


# The manual


class Links(HTMLParser):
    """What a page links to, what it loads, and what can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        assert "style" not in given
        assert not any(name.startswith("on") for name in given)
        if "id" in given:
            self.ids.append(str(given["id"]))
        if "href" in given:
            (self.loaded if tag == "link" else self.links).add(str(given["href"]))
        if "src" in given:
            self.loaded.add(str(given["src"]))
        if tag not in ("meta", "link", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> Links:
    links = Links()
    links.feed(text)
    links.close()
    assert links.open == []
    return links


def test_the_manual_is_one_sound_page_that_loads_nothing_from_elsewhere(served: Service) -> None:
    answer = served.http.get("/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    links = read(answer.text)
    assert "script" not in links.tags
    assert links.loaded == {"static/icon.svg", "static/colours.css", "static/manual.css"}
    for each in links.loaded | {"openapi.json"}:
        assert served.http.get(f"/{each}").status_code == 200
    assert "url(" not in served.http.get("/static/manual.css").text
    assert len(set(links.ids)) == len(links.ids)
    for link in links.links - {"openapi.json"}:
        assert link.removeprefix("#") in links.ids
    assert served.http.head("/docs").status_code == 200
    again = served.http.get("/docs", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_the_manual_has_every_operation_parameter_and_value(
    served: Service, document: dict[str, Any]
) -> None:
    text = served.http.get("/docs").text
    ids = set(read(text).ids)
    assert {operation["operationId"] for _, operation in operations(document)} <= ids
    assert set(document["components"]["schemas"]) <= ids
    for _, operation in operations(document):
        article = text.partition(f'<article id="{operation["operationId"]}">')[2]
        article = article.partition("</article>")[0]
        for parameter in operation.get("parameters", []):
            assert f"<code>{parameter['name']}</code>" in article
        for status in operation["responses"]:
            assert f">{status}</b>" in article
        assert "curl " in article


def test_what_stands_in_the_document_cannot_write_html(document: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(document).replace("order 17", '<script>\\"&'))
    hostile["info"]["title"] = "<script>alert(1)</script>"
    assert "<script" not in page(hostile)


@pytest.mark.slow
def test_every_command_line_of_the_manual_can_be_typed(served: Service, tmp_path: Path) -> None:
    text = served.http.get("/docs").text
    found = re.findall(r"<h4>On the command line</h4><pre[^>]*>(.*?)</pre>", text, re.DOTALL)
    lines = [line for each in found for line in html.unescape(each).splitlines()]
    assert len(lines) == len(found) + 2
    (tmp_path / "order.txt").write_text("two seats, row 7\n")
    for line in lines:
        wait_for(lambda: nothing_runs(served))
        swept = served.create(("order.txt", b"x"))
        dry = served.http.post(
            "/api/v1/operator/sweeps",
            json={"dry_run": True},
            headers={"Authorization": f"Bearer {TOKEN}"},
        ).json()["sweep_id"]
        wait_for(lambda: nothing_runs(served))
        if "/restore" in line:
            served.sessions.sweep(max_age_hours=1e-7, past_the_brake=True)
        names = {"url": served.url, "token": TOKEN, "id": swept, "sweep": str(dry)}
        quick = line.replace("curl", "curl -s -o answer -w '%{http_code}' --max-time 2", 1)
        ran = subprocess.run(
            ["sh", "-c", quick],
            env={**os.environ, **names},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        expected = (
            {"409"} if "-X DELETE" in line and "$sweep" in line else {"200", "201", "202", "204"}
        )
        assert ran.stdout in expected, f"{line}: {ran.stdout} {(tmp_path / 'answer').read_text()}"


def nothing_runs(served: Service) -> bool:
    place = served.sessions.place
    with place.database.read() as connection:
        return not queries.running_sweeps(connection, place.root_id)
