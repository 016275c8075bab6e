"""The page and the browser client as they are sent: whole, from here alone, and never stale."""

from __future__ import annotations

import re

import pytest

from tests.web.services import HOUSE, Serve, Service
from web.assets import KINDS

STATIC = HOUSE / "web/static"
NAMES = sorted(path.name for path in STATIC.iterdir())
FRONT = "https://front.example"


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_sent_as_it_is(service: Service, name: str) -> None:
    answer = service.http.get(f"/static/{name}")
    assert answer.status_code == 200
    assert answer.content == (STATIC / name).read_bytes()
    assert answer.headers["Content-Type"] in KINDS.values()
    assert answer.headers["Cache-Control"] == "no-cache"
    again = service.http.get(f"/static/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    by_proxy = {"If-None-Match": f'"x", W/{answer.headers["ETag"]}'}
    assert service.http.get(f"/static/{name}", headers=by_proxy).status_code == 304
    head = service.http.head(f"/static/{name}")
    assert head.headers["Content-Length"] == str(len(answer.content))


def test_the_page_lets_nothing_in_from_elsewhere(service: Service) -> None:
    answer = service.http.get("/")
    assert answer.content == (STATIC / "index.html").read_bytes()
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert service.http.head("/").headers["ETag"] == answer.headers["ETag"]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith(".svg")])
def test_no_file_names_another_place(name: str) -> None:
    assert re.findall(r"(?:https?:)?//[a-z]+\.", (STATIC / name).read_text()) == []


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e/app.py", "", "."])
def test_nothing_else_is_sent(service: Service, name: str) -> None:
    answer = service.ask("GET", f"/static/{name}")
    assert answer.status == 404
    assert answer.detail


def test_a_listed_front_end_may_import_it_and_no_other(serve: Serve) -> None:
    service = serve(cors_origins=FRONT)
    script = "/static/coatcheck.js"
    ours = service.http.get(script)
    assert "Access-Control-Allow-Origin" not in ours.headers
    theirs = service.http.get(script, headers={"Origin": FRONT, "Sec-Fetch-Site": "cross-site"})
    assert theirs.headers["Access-Control-Allow-Origin"] == FRONT
    for answer in (ours, theirs):
        assert "Origin" in answer.headers["Vary"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    strange = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert service.http.get(script, headers=strange).status_code == 403
    same = {"Origin": FRONT, "If-None-Match": theirs.headers["ETag"]}
    assert service.http.get(script, headers=same).headers["Access-Control-Allow-Origin"] == FRONT


def test_they_are_no_part_of_the_api(service: Service) -> None:
    assert not [
        path for path in service.http.get("/openapi.json").json()["paths"] if "static" in path
    ]
