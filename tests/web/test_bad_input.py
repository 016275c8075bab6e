"""What no one should send: a clear error with the right status, and nothing is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.ledger.world import content
from tests.web.services import FORM, UPLOAD, Answer, Service, answer_on, multipart

BAD_IDS = {
    "..": "..",
    ".": ".",
    "%2e%2e": "..",
    "%2E": ".",
    ".coatcheck": ".coatcheck",
    "-rf": "-rf",
    "a%00b": "a\\x00b",
    "a%0Ab": "a\\nb",
    "%E6%97%A5%E6%9C%AC": "日本",
    "%D7%A7%D7%95": "קו",
    "a%20b": "a b",
    "a*b": "a*b",
    "%ff": "\ufffd",
    "a" * 300: "a" * 40 + "…",
    "%F0%9F%98%80" * 50: "😀" * 40 + "…",
    "..%5C..%5Cetc": "..\\..\\etc",
}
ROUTES = [
    ("GET", ""),
    ("HEAD", ""),
    ("DELETE", ""),
    ("POST", "/discard"),
    ("POST", "/touch"),
    ("POST", "/claim"),
    ("POST", "/files"),
    ("PUT", "/files/a"),
    ("GET", "/files/a"),
    ("DELETE", "/files/a"),
]
BAD_NAMES = {
    "..": 422,
    ".": 422,
    "%2e%2e": 422,
    "a%2Fb": 422,
    "../a": 422,
    "..%2F..%2Fetc%2Fpasswd": 422,
    "%2Fetc%2Fpasswd": 422,
    "a/b": 422,
    "a%00": 422,
    "a%0D%0Ab": 422,
    "a%7F": 422,
    "%C2%85": 422,
    "%ff": 422,
    "%ED%A0%80": 422,
    "a" * 256: 422,
    "%C3%A9" * 128: 422,
    "": 422,
}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def untouched(service: Service) -> Iterator[str]:
    """A session that stands; after the test all that there was is as it was, and nothing else."""
    session_id = service.create(("a", b"kept"))
    (service.root / "a file").write_bytes(b"no session")
    (service.root.parent / "outside").write_bytes(b"not ours")
    before = everything(service)
    yield session_id
    assert everything(service) == before


def everything(service: Service) -> dict[str, object]:
    """All but the ledger's own file, and times: who asks for a session may keep it alive."""
    seen = content(service.root.parent)
    return {
        path: (mode, target, read)
        for path, (mode, _, target, read) in seen.items()
        if not path.startswith("ledger.db")
    }


@pytest.mark.parametrize("sent", BAD_IDS, ids=lambda sent: sent[:20])
def test_an_id_that_cannot_be_is_not_found_by_any_route(
    service: Service, untouched: str, sent: str
) -> None:
    for method, more in ROUTES:
        answer = ask(service, method, f"{UPLOAD}/{sent}{more}")
        assert answer.status == 404
        if method != "HEAD":
            assert answer.detail == f"Session '{BAD_IDS[sent]}' not found"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_no_id_is_not_found(service: Service, untouched: str, method: str) -> None:
    answer = service.ask(method, f"{UPLOAD}/")
    assert answer.status == 404
    if method != "HEAD":
        assert answer.detail == "Session '' not found"


def test_the_name_of_a_file_or_a_link_is_no_session(service: Service) -> None:
    (service.root / "file").write_bytes(b"x")
    (service.root / "link").symlink_to("/")
    for name in ("file", "link", "unknown"):
        for method, more in ROUTES:
            answer = ask(service, method, f"{UPLOAD}/{name}{more}")
            assert answer.status == 404
            if method != "HEAD":
                assert answer.detail == f"Session '{name}' not found"


def ask(service: Service, method: str, target: str) -> Answer:
    """Asks with a body that the route could take."""
    body, headers = b"", {}
    if target.endswith("/claim"):
        body, headers = b'{"into": "x"}', JSON
    elif target.endswith("/files"):
        body, headers = multipart(('name="f"; filename="a"', b"x")), FORM
    lines = "\n".join(f"{name}: {value}" for name, value in headers.items())
    head = f"{method} {target} HTTP/1.1\nContent-Length: {len(body)}\n{lines}".strip()
    with service.begun(head, body) as connection:
        return answer_on(connection, method)


# File names


@pytest.mark.parametrize("sent", BAD_NAMES, ids=lambda sent: sent[:20])
def test_a_name_that_no_file_can_have_is_refused(
    service: Service, untouched: str, sent: str
) -> None:
    for method in ("PUT", "GET", "DELETE"):
        answer = service.ask(method, f"{UPLOAD}/{untouched}/files/{sent}")
        assert answer.status == BAD_NAMES[sent]
        assert answer.detail


@pytest.mark.parametrize(
    "parameters",
    [
        'name="f"; filename=".."',
        'name="f"; filename="a/b"',
        'name="f"; filename="../../etc/passwd"',
        'name="f"; filename="/etc/passwd"',
        'name="f"; filename="a%0D%0Ab"',
        'name="f"; filename="a\0b"',
        'name="f"; filename="a\x7fb"',
        f'name="f"; filename="{"a" * 256}"',
        "name=f; filename*=UTF-8''..%2Fa",
        "name=f; filename*=UTF-8''%ff",
        "name=f; filename*=KOI8-R''%C1",
        "name=f; filename*=nonsense",
        'name="f"; filename=""',
    ],
)
def test_a_part_whose_name_no_file_can_have_is_refused(
    service: Service, untouched: str, parameters: str
) -> None:
    body = multipart(('name="f"; filename="good"', b"1"), (parameters, b"x"))
    for path in (UPLOAD, f"{UPLOAD}/{untouched}/files"):
        answer = service.http.post(path, content=body, headers=FORM)
        assert (answer.status_code, list(answer.json())) == (422, ["detail"])


def test_a_name_that_is_no_utf_8_is_refused(service: Service, untouched: str) -> None:
    body = multipart(('name="f"; filename="X"', b"x")).replace(b'"X"', b'"caf\xe9"')
    answer = service.http.post(UPLOAD, content=body, headers=FORM)
    assert answer.status_code == 422
    assert "UTF-8" in answer.json()["detail"]


# Bodies


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"garbage", "broken"),
        (b"--xyz", "breaks off"),
        (b"--xyz\r\n", "breaks off"),
        (b"", "breaks off"),
        (multipart(('name="f"; filename="a"', b"x"), end=False), "breaks off"),
        (b"--abc\r\n\r\nx\r\n--abc--\r\n", "broken"),
        (b"--xyz\r\nno colon\r\n\r\nx\r\n--xyz--\r\n", "broken"),
        (b"--xyz\r\nX: " + b"y" * 5000 + b"\r\n\r\n", ""),
        (b"--xyz\r\n" + b"X: y\r\n" * 100 + b"\r\n", "broken"),
        (multipart(("name=label", b"x" * 5000)), "1,000 characters"),
        (multipart(("name=label", b"x" * 1001)), "1,000 characters"),
        (multipart(("name=label", b"a\0b")), "NUL"),
        (multipart(("name=label", b"caf\xe9")), "UTF-8"),
    ],
)
def test_a_broken_form_is_refused(
    service: Service, untouched: str, body: bytes, words: str
) -> None:
    for path in (UPLOAD, f"{UPLOAD}/{untouched}/files"):
        answer = service.http.post(path, content=body, headers=FORM)
        assert answer.status_code == 422
        assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'b' * 500}",
        "multipart/mixed; boundary=xyz",
        "application/json",
        "text/plain",
        "nonsense",
        "",
    ],
)
def test_files_that_come_as_no_form_are_refused(
    service: Service, untouched: str, kind: str
) -> None:
    body = multipart(('name="f"; filename="a"', b"x"))
    answer = service.http.post(UPLOAD, content=body, headers={"Content-Type": kind})
    assert (answer.status_code, list(answer.json())) == (422, ["detail"])


def test_a_request_without_a_file_is_refused_where_there_must_be_one(
    service: Service, untouched: str
) -> None:
    no_files = (multipart(), multipart(("name=label", b"x")), multipart(('filename=""', b"")))
    for body in no_files:
        answer = service.http.post(f"{UPLOAD}/{untouched}/files", content=body, headers=FORM)
        assert answer.status_code == 422
        assert answer.json() == {"detail": "There is no file in this request."}


def test_text_beside_the_files_is_let_go_by_but_not_for_ever(
    service: Service, untouched: str
) -> None:
    for part, number in ((("name=other", b"x" * (1 << 18)), 5), (("name=label", b""), 60_000)):
        body = multipart(*[part] * number)
        answer = service.http.post(UPLOAD, content=body, headers=FORM)
        assert answer.status_code == 413


def test_a_part_of_a_file_cannot_be_put(service: Service, untouched: str) -> None:
    url = f"{UPLOAD}/{untouched}/files/a"
    answer = service.http.put(url, content=b"x", headers={"Content-Range": "bytes 0-0/4"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body"),
        (b"{", "no JSON"),
        (b"[]", "JSON object"),
        (b"{}", "body.into"),
        (b'{"into": 7}', "body.into"),
        (b'{"into": null}', "body.into"),
        (b'{"into": "a", "more": 1}', "body.more"),
        (b'{"into": ""}', "1 to 255 bytes"),
        (b'{"into": ".."}', "'..'"),
        (b'{"into": "../x"}', "'/'"),
        (b'{"into": "/etc/x"}', "'/'"),
        (b'{"into": "a\\u0000b"}', "control characters"),
        (b'{"into": "\\ud800"}', "Unicode"),
        (json.dumps({"into": "x" * 256}).encode(), "255 bytes"),
        (b"[" * 10_000, "no JSON"),
        (b'{"into": "\xff"}', "no JSON"),
        (b'{"into": NaN}', "body.into"),
    ],
)
def test_a_claim_into_nonsense_is_refused(
    service: Service, untouched: str, body: bytes, words: str
) -> None:
    url = f"{UPLOAD}/{untouched}/claim"
    answer = service.http.post(url, content=body, headers=JSON)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_a_claim_that_is_no_json_by_its_own_word_is_refused(
    service: Service, untouched: str
) -> None:
    url = f"{UPLOAD}/{untouched}/claim"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = service.http.post(url, content=b'{"into": "x"}', headers={"Content-Type": kind})
        assert answer.status_code == 422
        assert "application/json" in answer.json()["detail"]


def test_a_claim_of_a_hundred_thousand_bytes_is_too_large(service: Service, untouched: str) -> None:
    body = json.dumps({"into": "x" * 100_000}).encode()
    answer = service.http.post(f"{UPLOAD}/{untouched}/claim", content=body, headers=JSON)
    assert answer.status_code == 413


# Files that are none


def test_what_is_no_regular_file_is_not_sent(service: Service, tmp_path: Path) -> None:
    session_id = service.create()
    here = service.root / session_id
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (here / "link").symlink_to(secret)
    (here / "directory").mkdir()
    os.mkfifo(here / "pipe")
    for name in ("link", "directory", "pipe", "missing"):
        answer = service.http.get(f"{UPLOAD}/{session_id}/files/{quote(name)}")
        assert (answer.status_code, answer.json()) == (404, {"detail": f"File '{name}' not found"})
        assert service.http.delete(f"{UPLOAD}/{session_id}/files/{name}").status_code == 404
    put = service.http.put(f"{UPLOAD}/{session_id}/files/directory", content=b"x")
    assert put.status_code == 409
    assert service.http.put(f"{UPLOAD}/{session_id}/files/link", content=b"x").status_code == 409
    assert secret.read_text() == "secret"
