"""What each upload route does and answers."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from ledger import Actor, State
from tests.web.services import FORM, UPLOAD, Serve, Service, multipart

NAMES = [
    "plain.txt",
    "with space.txt",
    "größe & maß.txt",
    "日本語の名前.pdf",
    "קובץ.txt",
    "👩‍👩‍👧‍👦 family.jpg",
    "semi;colon='quoted'.txt",
    "100%.txt",
    "a%22b.txt",
    "#hash?query.txt",
    " leading and trailing ",
    "back\\slash.txt",
    "..hidden",
    "é" * 127,
]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def path_of(session_id: str, *more: str) -> str:
    return "/".join([UPLOAD, session_id, *more])


# A session


def test_a_session_is_created_with_its_files_and_its_label(on_both: Service) -> None:
    files = [("one", ("a.txt", b"first")), ("two", ("b.txt", b"second"))]
    answer = on_both.http.post(UPLOAD, data={"label": "order 17"}, files=files)
    body = answer.json()
    assert answer.status_code == 201
    assert re.fullmatch("[a-z2-7]{26}", body["session_id"])
    assert answer.headers["Location"] == f"{UPLOAD}/{body['session_id']}"
    times = {name: body.pop(name) for name in ("created_at", "last_touch_at", "expires_at")}
    assert all(re.fullmatch(TIME, at) for at in times.values())
    assert body == {
        "session_id": body["session_id"],
        "state": "active",
        "label": "order 17",
        "bytes": 11,
        "files": [{"name": "a.txt", "bytes": 5}, {"name": "b.txt", "bytes": 6}],
    }
    stored = on_both.root / body["session_id"]
    assert {path.name: path.read_bytes() for path in stored.iterdir()} == {
        "a.txt": b"first",
        "b.txt": b"second",
    }
    session = on_both.sessions.get(body["session_id"])
    assert (session.label, session.bytes, session.files) == ("order 17", 11, 2)


@pytest.mark.parametrize("first", [True, False])
def test_the_label_may_come_before_or_after_the_files(service: Service, first: bool) -> None:
    parts = [("name=label", "größer".encode()), ('name=f; filename="a"', b"x")]
    body = multipart(*(parts if first else reversed(parts)))
    answer = service.http.post(UPLOAD, content=body, headers=FORM)
    assert answer.json()["label"] == "größer"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"", {"Content-Type": "application/x-www-form-urlencoded"}),
        (multipart(), FORM),
        (multipart(('name="file"; filename=""', b"")), FORM),
        (multipart(("name=other", b"text"), ("name=label", b"")), FORM),
    ],
    ids=["nothing", "curl -d ''", "no parts", "no file chosen", "no file part"],
)
def test_a_session_may_be_created_empty(
    on_both: Service, content: bytes, headers: dict[str, str]
) -> None:
    answer = on_both.http.post(UPLOAD, content=content, headers=headers)
    assert answer.status_code == 201
    assert (answer.json()["label"], answer.json()["files"]) == (None, [])
    assert os.listdir(on_both.root / answer.json()["session_id"]) == []


def test_a_session_is_shown_with_its_files(on_both: Service) -> None:
    session_id = on_both.create(("b.txt", b"12"), ("a.txt", b"1"), label="mine")
    answer = on_both.http.get(path_of(session_id))
    assert answer.status_code == 200
    assert answer.json()["files"] == [{"name": "a.txt", "bytes": 1}, {"name": "b.txt", "bytes": 2}]
    assert answer.json()["label"] == "mine"


def test_names_that_another_program_gave_are_shown_as_text(on_both: Service) -> None:
    session_id = on_both.create()
    Path(os.fsdecode(os.fsencode(on_both.root / session_id) + b"/\xff\n.txt")).write_bytes(b"x")
    answer = on_both.http.get(path_of(session_id))
    assert answer.json()["files"] == [{"name": "\\xff\n.txt", "bytes": 1}]


def test_a_touch_moves_the_expiry_and_looking_does_not(on_both: Service) -> None:
    session_id = on_both.create(("a", b"x"))
    before = on_both.sessions.get(session_id)
    on_both.http.get(path_of(session_id))
    on_both.http.get(path_of(session_id, "files", "a"))
    assert on_both.sessions.get(session_id) == before
    touched = on_both.http.post(path_of(session_id, "touch"))
    assert touched.status_code == 200
    assert datetime.fromisoformat(touched.json()["expires_at"]) > before.expires_at


def test_a_claim_moves_the_directory_and_answers_the_same_when_repeated(on_both: Service) -> None:
    session_id = on_both.create(("a.txt", b"mine"))
    first = on_both.http.post(path_of(session_id, "claim"), json={"into": "spring"})
    assert first.status_code == 200
    assert first.json()["state"] == "claimed"
    assert first.json()["files"] == [{"name": "a.txt", "bytes": 4}]
    assert (Path(on_both.settings.claims) / "spring/a.txt").read_bytes() == b"mine"
    again = on_both.http.post(path_of(session_id, "claim"), json={"into": "spring"})
    assert (again.status_code, again.json()) == (200, first.json())
    (Path(on_both.settings.claims) / "spring").rename(on_both.root.parent / "on")
    later = on_both.http.post(path_of(session_id, "claim"), json={"into": "spring"})
    assert (later.status_code, later.json()["files"]) == (200, [])


def test_a_claim_into_a_place_that_is_taken_is_refused(on_both: Service) -> None:
    one, two = on_both.create(), on_both.create()
    assert on_both.http.post(path_of(one, "claim"), json={"into": "taken"}).status_code == 200
    answer = on_both.http.post(path_of(two, "claim"), json={"into": "taken"})
    assert answer.status_code == 409
    assert "'taken'" in answer.json()["detail"]
    assert on_both.sessions.get(two).state is State.ACTIVE


@pytest.mark.parametrize("how", [("DELETE", ()), ("POST", ("discard",))], ids=["DELETE", "discard"])
def test_a_session_is_deleted_once(on_both: Service, how: tuple[str, tuple[str, ...]]) -> None:
    method, more = how
    session_id = on_both.create(("a", b"x"))
    answer = on_both.http.request(method, path_of(session_id, *more))
    assert (answer.status_code, answer.content) == (204, b"")
    assert session_id not in on_both.standing()
    again = on_both.http.request(method, path_of(session_id, *more))
    assert again.status_code == 404
    assert again.json() == {"detail": f"Session '{session_id}' not found"}
    assert on_both.sessions.get(session_id).ended_by == Actor.API


def test_a_directory_of_another_program_is_deleted_touched_and_claimed(on_both: Service) -> None:
    for name in ("upload-1", "upload-2", "upload-3"):
        (on_both.root / name).mkdir()
    assert on_both.http.delete(path_of("upload-1")).status_code == 204
    assert on_both.http.post(path_of("upload-2", "touch")).json()["session_id"] == "upload-2"
    claimed = on_both.http.post(path_of("upload-3", "claim"), json={"into": "adopted"})
    assert claimed.json()["state"] == "claimed"
    assert not {"upload-1", "upload-3"} & on_both.standing()


# Its files


def test_files_are_added_and_answered_with_their_urls(on_both: Service) -> None:
    session_id = on_both.create()
    files = [("a", ("größe 1.txt", b"12345")), ("b", ("two.txt", b""))]
    answer = on_both.http.post(path_of(session_id, "files"), files=files)
    urls = [path_of(session_id, "files", quote(name)) for name in ("größe 1.txt", "two.txt")]
    assert answer.status_code == 201
    assert answer.json() == {
        "url": urls[0],
        "files": [
            {"name": "größe 1.txt", "bytes": 5, "url": urls[0]},
            {"name": "two.txt", "bytes": 0, "url": urls[1]},
        ],
    }
    assert on_both.http.get(urls[0]).content == b"12345"


def test_names_that_are_taken_get_a_number(on_both: Service) -> None:
    same = [("f", ("a.txt", b"1")), ("f", ("a.txt", b"2")), ("f", ("a.txt", b"3"))]
    created = on_both.http.post(UPLOAD, files=same).json()
    names = ["a (2).txt", "a (3).txt", "a.txt"]
    assert [file["name"] for file in created["files"]] == names
    added = on_both.http.post(path_of(created["session_id"], "files"), files=same[:2]).json()
    assert [file["name"] for file in added["files"]] == ["a (4).txt", "a (5).txt"]
    assert (on_both.root / created["session_id"] / "a.txt").read_bytes() == b"1"


def test_a_file_is_put_new_and_then_replaced(on_both: Service) -> None:
    session_id = on_both.create()
    url = path_of(session_id, "files", "my%20file.txt")
    new = on_both.http.put(url, content=b"first")
    assert (new.status_code, new.headers["Location"]) == (201, url)
    assert new.json() == {"name": "my file.txt", "bytes": 5, "url": url}
    replaced = on_both.http.put(url, content=b"second time")
    assert (replaced.status_code, replaced.content) == (204, b"")
    assert on_both.http.get(url).content == b"second time"
    session = on_both.sessions.get(session_id)
    assert (session.bytes, session.files) == (11, 1)


def test_an_answer_without_a_body_names_no_type_of_one(service: Service) -> None:
    session_id = service.create(("a", b"x"), ("b", b"x"))
    for answer in (
        service.http.put(path_of(session_id, "files", "a"), content=b"y"),
        service.http.delete(path_of(session_id, "files", "b")),
        service.http.delete(path_of(session_id)),
    ):
        assert answer.status_code == 204
        assert not answer.headers.keys() & {"content-type", "content-length"}
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_empty_file_is_a_file(on_both: Service) -> None:
    session_id = on_both.create()
    assert on_both.http.put(path_of(session_id, "files", "empty"), content=b"").status_code == 201
    assert on_both.http.get(path_of(session_id, "files", "empty")).content == b""


def test_a_file_is_taken_back_out(on_both: Service) -> None:
    session_id = on_both.create(("a.txt", b"12"), ("b.txt", b"3"))
    assert on_both.http.delete(path_of(session_id, "files", "a.txt")).status_code == 204
    again = on_both.http.delete(path_of(session_id, "files", "a.txt"))
    assert (again.status_code, again.json()) == (404, {"detail": "File 'a.txt' not found"})
    session = on_both.sessions.get(session_id)
    assert (session.bytes, session.files) == (1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_kept_as_they_are(service: Service, name: str) -> None:
    session_id = service.create()
    put = service.http.put(path_of(session_id, "files", quote(name, safe="")), content=b"put")
    assert put.json()["name"] == name
    [stored] = (service.root / session_id).iterdir()
    assert stored.name == name
    got = service.http.get(put.json()["url"])
    assert got.content == b"put"
    assert (
        quote(name, safe="") in got.headers["Content-Disposition"]
        or name in (got.headers["Content-Disposition"])
    )


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ('name=f; filename="größe 日本.txt"', "größe 日本.txt"),
        ("name=f; filename=bare.txt", "bare.txt"),
        ('name="f"; filename="a%22b%22.txt"', 'a"b".txt'),
        ('name="f"; filename="a\\"b.txt"', 'a"b.txt'),
        ('name="f"; filename="50%25 %41.txt"', "50%25 %41.txt"),
        ('name="f"; filename="dir\\file.txt"', "dir\\file.txt"),
        ('name="f"; filename="a;b=c.txt"', "a;b=c.txt"),
        ("name=f; filename*=UTF-8''%e2%82%ac%20rates", "€ rates"),
        ("name=f; filename=\"EURO\"; filename*=UTF-8'en'%e2%82%ac.txt", "€.txt"),
        ("name=f; filename*=ISO-8859-1''%a3.txt", "£.txt"),
        ('NAME=f; FileName="case.txt"', "case.txt"),
        ('name="f"; filename="ends\\"', "ends\\"),
    ],
)
def test_a_part_names_its_file_as_clients_do(service: Service, parameters: str, name: str) -> None:
    body = multipart((parameters, b"x"))
    answer = service.http.post(UPLOAD, content=body, headers=FORM)
    assert answer.json()["files"] == [{"name": name, "bytes": 1}]


@pytest.mark.parametrize(
    ("asked", "status", "content", "range_"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=0-999", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=-999", 206, b"0123456789", "bytes 0-9/10"),
        ("BYTES=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=" + "9" * 30 + "-", 200, b"0123456789", None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
    ],
)
def test_ranges(
    service: Service, asked: str | None, status: int, content: bytes | None, range_: str | None
) -> None:
    url = path_of(service.create(("n", b"0123456789")), "files", "n")
    answer = service.http.get(url, headers={} if asked is None else {"Range": asked})
    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == range_
    if content is not None:
        assert answer.content == content
        assert int(answer.headers["Content-Length"]) == len(content)
        assert answer.headers["Accept-Ranges"] == "bytes"


def test_a_range_of_a_file_that_was_replaced_is_the_whole_new_one(service: Service) -> None:
    session_id = service.create(("n", b"0123456789"))
    url = path_of(session_id, "files", "n")
    etag = service.http.get(url).headers["ETag"]
    asked = {"Range": "bytes=2-4", "If-Range": etag}
    assert service.http.get(url, headers=asked).content == b"234"
    service.http.put(url, content=b"abcdefghij")
    assert service.http.get(url, headers=asked).content == b"abcdefghij"


def test_downloads_are_saved_and_never_shown(service: Service) -> None:
    session_id = service.create(("page ü.html", b"<script>alert(1)</script>"))
    answer = service.http.get(path_of(session_id, "files", "page%20%C3%BC.html"))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename=\"page _.html\"; filename*=UTF-8''page%20%C3%BC.html"
    )


def test_what_is_removed_while_it_is_sent_is_sent_whole(service: Service) -> None:
    content = os.urandom(8 << 20)
    session_id = service.create(("big", content))
    with service.http.stream("GET", path_of(session_id, "files", "big")) as answer:
        pieces = answer.iter_bytes(1 << 16)
        got = [next(pieces)]
        assert service.http.delete(path_of(session_id)).status_code == 204
        got += pieces
    assert b"".join(got) == content


def test_head_answers_as_get_does_without_the_body(service: Service) -> None:
    session_id = service.create(("a", b"12345"))
    for path in (path_of(session_id), path_of(session_id, "files", "a"), "/healthz", "/readyz"):
        head, get = service.http.head(path), service.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


# What has ended


@pytest.mark.parametrize("how", ["deleted", "claimed", "expired"])
def test_an_ended_session_says_how_and_when(on_both: Service, how: str) -> None:
    session_id = on_both.create(("a", b"x"))
    if how == "deleted":
        on_both.sessions.delete_session(session_id)
    elif how == "claimed":
        on_both.sessions.claim(session_id, "ended")
    else:
        (on_both.root / session_id / "a").unlink()
        os.utime(on_both.root / session_id, (1, 1))
        on_both.alter(session_id, last_touch_at=1)
        assert on_both.sessions.cleanup_stale_sessions(1) == 1
    one = path_of(session_id)
    answers = [
        on_both.http.get(one),
        on_both.http.head(one),
        on_both.http.post(f"{one}/touch"),
        on_both.http.post(f"{one}/claim", json={"into": "elsewhere"}),
        on_both.http.post(f"{one}/files", files=[("f", ("b", b"x"))]),
        on_both.http.put(f"{one}/files/b", content=b"x"),
        on_both.http.get(f"{one}/files/a"),
    ]
    assert [answer.status_code for answer in answers] == [410] * len(answers)
    assert re.search(rf"{how} at {TIME}", answers[0].json()["detail"])
    gone = [on_both.http.delete(one), on_both.http.delete(f"{one}/files/a")]
    assert [answer.status_code for answer in gone] == [404, 404]
    assert on_both.http.post(f"{one}/discard").status_code == 404


def test_a_session_of_another_root_is_elsewhere(on_both: Service) -> None:
    session_id = on_both.create()
    on_both.alter(session_id, root_id="another")
    (on_both.root / session_id).rmdir()
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/touch"), ("PUT", "/files/a")):
        answer = on_both.http.request(method, path_of(session_id) + more)
        assert answer.status_code == 421
        assert session_id not in answer.json()["detail"]
    assert on_both.http.post(UPLOAD).status_code == 201


# Limits


def test_one_byte_more_than_a_session_may_hold_is_refused(serve: Serve) -> None:
    service = serve(max_session_bytes=10)
    session_id = service.create(("a", b"1234567890"))
    for answer in (
        service.http.post(UPLOAD, files=[("f", ("a", b"12345678901"))]),
        service.http.post(path_of(session_id, "files"), files=[("f", ("b", b"1"))]),
        service.http.put(path_of(session_id, "files", "b"), content=b"1"),
    ):
        assert answer.status_code == 413
        assert "10 bytes" in answer.json()["detail"]
    assert service.standing() == {session_id}
    assert os.listdir(service.root / session_id) == ["a"]
    assert service.incoming() == []
    replaced = service.http.put(path_of(session_id, "files", "a"), content=b"abcdefghij")
    assert replaced.status_code == 204


def test_one_file_more_than_a_session_may_hold_is_refused(serve: Serve) -> None:
    service = serve(max_session_files=2)
    session_id = service.create(("a", b"1"), ("b", b"2"))
    answer = service.http.post(path_of(session_id, "files"), files=[("f", ("c", b"3"))])
    assert (answer.status_code, sorted(os.listdir(service.root / session_id))) == (413, ["a", "b"])
    assert service.http.put(path_of(session_id, "files", "c"), content=b"3").status_code == 413
    assert service.http.put(path_of(session_id, "files", "b"), content=b"3").status_code == 204


def test_a_full_quota_is_told_as_such_and_freed_by_deleting(serve: Serve) -> None:
    service = serve(max_root_bytes=10)
    session_id = service.create(("a", b"12345678"))
    answer = service.http.post(UPLOAD, files=[("f", ("b", b"123"))])
    assert (answer.status_code, service.incoming()) == (507, [])
    service.http.delete(path_of(session_id))
    assert service.http.post(UPLOAD, files=[("f", ("b", b"123"))]).status_code == 201


# Who may claim


def test_claiming_may_need_the_operators_token(serve: Serve) -> None:
    service = serve(claim_needs_token=True, operator_token="s3cret")
    session_id = service.create()
    tokens = {None: 401, "Bearer wrong": 403, "Basic s3cret": 401, "Bearer s3cret": 200}
    for token, status in tokens.items():
        headers = {} if token is None else {"Authorization": token}
        answer = service.http.post(
            path_of(session_id, "claim"), json={"into": "x"}, headers=headers
        )
        assert answer.status_code == status


def test_claiming_is_closed_where_a_token_is_needed_and_none_is_set(serve: Serve) -> None:
    service = serve(claim_needs_token=True)
    answer = service.http.post(path_of(service.create(), "claim"), json={"into": "x"})
    assert answer.status_code == 403
    assert "COATCHECK_OPERATOR_TOKEN" in answer.json()["detail"]
