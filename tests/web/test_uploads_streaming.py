"""Bodies while they stream: flat memory, slow, broken and stubborn clients, early answers."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from ledger import Finding, State, incoming, system
from ledger import place as its_place
from ledger.disk import Root
from tests.ledger.world import around
from tests.web.services import (
    FORM,
    UPLOAD,
    Answer,
    Process,
    Serve,
    Service,
    answer_on,
    chunk,
    curl,
    multipart,
    wait_for,
)
from web import server
from web.receiving import HAND_OVER_BYTES

MIB = 1 << 20
FORM_LINE = f"Content-Type: {FORM['Content-Type']}"
FILE = ('name="f"; filename="a.txt"', b"x" * 1000)


def path_of(session_id: str, *more: str) -> str:
    return "/".join([UPLOAD, session_id, *more])


def post(*, length: int | None = None, to: str = UPLOAD) -> str:
    """The head of a multipart upload; without a length it comes in chunks."""
    how = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {to} HTTP/1.1\n{FORM_LINE}\n{how}"


def nothing_is_left(service: Service, *but: str) -> None:
    wait_for(lambda: service.incoming() == [])
    assert service.standing() == set(but)


# Real files, by curl


def upload_and_fetch(process: Process, size: int) -> int:
    """Bytes by which the service grew while a file of `size` came by PUT and by a form, and went
    back, each time the same."""
    process.start()
    source = process.folder / "source"
    with source.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    small = process.folder / "small"
    small.write_bytes(b"x" * MIB)

    def round_trip(path: Path) -> None:
        created = curl("-F", f"file=@{path};filename=one", f"{process.url}{UPLOAD}")
        session_id = created.split('"')[3]
        url = f"{process.url}{path_of(session_id, 'files')}"
        curl("-T", path, f"{url}/two")
        for name in ("one", "two"):
            got = process.folder / "got"
            curl("-o", got, f"{url}/{name}")
            assert got.stat().st_size == path.stat().st_size
            assert curl("--fail", "-X", "DELETE", f"{url}/{name}") == ""
            with got.open("rb") as ours, path.open("rb") as theirs:
                while piece := ours.read(MIB):
                    assert piece == theirs.read(MIB)

    round_trip(small)
    before = process.rss
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], process.rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        round_trip(source)
    finally:
        done.set()
        watcher.join()
    assert process.end() == 0
    return peak[0] - before


@pytest.mark.slow
def test_64_mib_come_and_go_through_flat_memory(process: Process) -> None:
    assert upload_and_fetch(process, 64 * MIB) < 24 * MIB


@pytest.mark.torture
def test_1_gib_comes_and_goes_through_flat_memory(process: Process) -> None:
    process.environment["COATCHECK_MAX_SESSION_BYTES"] = "2GiB"
    assert upload_and_fetch(process, 1024 * MIB) < 24 * MIB


@pytest.mark.parametrize("expects", ["Expect:", "Expect: 100-continue"], ids=["sends", "asks"])
def test_curl_sees_why_an_upload_is_too_large(serve: Serve, tmp_path: Path, expects: str) -> None:
    service = serve(max_session_bytes=MIB)
    session_id = service.create()
    big = tmp_path / "big"
    big.write_bytes(b"x" * 16 * MIB)
    form = ["-F", f"file=@{big}", f"{service.url}{UPLOAD}"]
    put = ["-T", str(big), f"{service.url}{path_of(session_id, 'files', 'big')}"]
    chunked = ["-H", "Transfer-Encoding: chunked", *put]
    for request in (form, put, chunked):
        said = curl("-H", expects, "-w", "%{http_code}", *request)
        assert said.endswith("413")
        assert "may hold 1048576 bytes" in said
    nothing_is_left(service, session_id)


# As early as can be


def test_what_its_length_says_is_too_large_is_refused_before_it_is_sent(serve: Serve) -> None:
    service = serve(max_session_bytes=MIB)
    session_id = service.create()
    put = f"PUT {path_of(session_id, 'files', 'a')} HTTP/1.1\nContent-Length: {2 * MIB}"
    for head in (post(length=2 * MIB), post(length=2 * MIB, to=path_of(session_id, "files")), put):
        with service.begun(head) as connection:
            assert answer_on(connection).status == 413
    nothing_is_left(service, session_id)


def test_what_its_length_says_does_not_fit_the_quota_or_the_disk_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(max_root_bytes=MIB)
    with service.begun(post(length=2 * MIB)) as connection:
        assert answer_on(connection).status == 507
    monkeypatch.setattr(Root, "free_bytes", lambda self: 1000)
    with service.begun(post(length=MIB)) as connection:
        answer = answer_on(connection)
    assert (answer.status, answer.detail) == (507, "The disk has no room for this upload.")
    nothing_is_left(service)


@pytest.mark.parametrize(("limit", "status"), [("max_session_bytes", 413), ("max_root_bytes", 507)])
def test_the_first_byte_past_a_limit_is_refused_while_the_rest_is_not_sent(
    serve: Serve, limit: str, status: int
) -> None:
    service = serve(**{limit: 1000})
    head, tail = multipart(FILE, end=False)[:-2], b"y"
    with service.begun(post(), chunk(head)) as connection:
        wait_for(lambda: len(service.incoming()) == 1)
        connection.sendall(chunk(tail))
        assert answer_on(connection).status == status
    nothing_is_left(service)


def test_an_answer_comes_at_once_for_a_session_that_cannot_take_files(service: Service) -> None:
    ended = service.create()
    service.sessions.delete_session(ended)
    for session_id, status in ((ended, 410), ("unknown", 404), ("..", 404)):
        put = f"PUT {path_of(session_id, 'files', 'a')} HTTP/1.1\nContent-Length: 1000"
        with service.begun(put) as connection:
            assert answer_on(connection).status == status


def test_a_disk_that_fills_up_is_told_as_such(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    write, written = os.write, []

    def full(fd: int, data: bytes) -> int:
        written.append(fd)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    class FullDisk:
        def __getattr__(self, name: str) -> object:
            return full if name == "write" else getattr(os, name)

    monkeypatch.setattr(incoming, "os", FullDisk())
    body = multipart(('name="f"; filename="a"', b"x" * (2 * HAND_OVER_BYTES)))
    answer = service.http.post(UPLOAD, content=body, headers=FORM)
    assert (answer.status_code, answer.json()["detail"]) == (
        507,
        "The disk is full; try again later.",
    )
    nothing_is_left(service)


# Clients that break off


@pytest.mark.parametrize("where", ["in the head of a part", "in a file", "before the end"])
def test_a_client_that_hangs_up_leaves_nothing_and_no_traceback(
    serve: Serve, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    service = serve()
    session_id = service.create(("kept", b"kept"))
    body = multipart(FILE, FILE)
    sent = {"in the head of a part": 30, "in a file": 600, "before the end": len(body) - 4}[where]
    for to in (UPLOAD, path_of(session_id, "files")):
        with service.begun(post(length=len(body), to=to), body[:sent]):
            wait_for(lambda: len(service.incoming()) == 1)
        nothing_is_left(service, session_id)
    assert os.listdir(service.root / session_id) == ["kept"]
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_a_put_that_breaks_off_leaves_the_old_file(serve: Serve) -> None:
    service = serve()
    session_id = service.create(("a", b"old"))
    put = f"PUT {path_of(session_id, 'files', 'a')} HTTP/1.1\nContent-Length: 1000"
    with service.begun(put, b"new and "):
        wait_for(lambda: len(service.incoming()) == 1)
    nothing_is_left(service, session_id)
    assert (service.root / session_id / "a").read_bytes() == b"old"


def test_a_reset_connection_leaves_nothing(serve: Serve) -> None:
    service = serve()
    with service.begun(post(length=10_000), multipart(FILE, end=False)) as connection:
        wait_for(lambda: len(service.incoming()) == 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    nothing_is_left(service)


# Clients that stand still


@pytest.mark.parametrize("chunked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_body_that_stands_still_is_ended_with_408_and_leaves_nothing(
    serve: Serve, chunked: bool
) -> None:
    service = serve(stall_s=0.3)
    session_id = service.create()
    begun = multipart(FILE, end=False)
    for to in (UPLOAD, path_of(session_id, "files")):
        head = post(to=to) if chunked else post(to=to, length=10_000)
        with service.begun(head, chunk(begun) if chunked else begun) as connection:
            answer = answer_on(connection)
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert answer.detail == "The request's body stood still for 0.3 seconds."
    with service.begun(
        f"POST {path_of(session_id, 'claim')} HTTP/1.1\nContent-Type: application/json\n"
        "Content-Length: 20",
        b'{"into":',
    ) as connection:
        assert answer_on(connection).status == 408
    nothing_is_left(service, session_id)


def test_a_body_that_moves_slowly_is_taken(serve: Serve) -> None:
    service = serve(stall_s=5)
    body = multipart(FILE, ("name=label", b"slow"))
    with service.begun(post(length=len(body))) as connection:
        for at in range(0, len(body) - 100, 100):
            connection.sendall(body[at : at + 100])
            wait_for(lambda: len(service.incoming()) == 1)
        connection.sendall(body[at + 100 :])
        answer = answer_on(connection)
    assert answer.status == 201
    assert b'"label":"slow"' in answer.body


@pytest.mark.slow
def test_200_stalled_uploads_leave_every_other_request_prompt(serve: Serve) -> None:
    service = serve()
    session_id = service.create(("a", b"x"))
    with ExitStack() as stack:
        for number in range(200):
            to = UPLOAD if number % 2 else path_of(session_id, "files")
            head = post(length=10_000, to=to)
            stack.enter_context(service.begun(head, multipart(FILE, end=False)))
        wait_for(lambda: len(service.incoming()) == 200)
        before = threading.active_count()
        assert service.http.get("/healthz", timeout=10).status_code == 200
        assert service.http.get("/readyz", timeout=10).status_code == 200
        assert service.http.get(path_of(session_id), timeout=10).status_code == 200
        assert service.http.put(path_of(session_id, "files", "b"), content=b"y").status_code == 201
        # No thread waits for a client.
        assert before < 100
    nothing_is_left(service, session_id)


@pytest.mark.slow
def test_uploads_that_wait_for_a_locked_directory_keep_nobody_else_waiting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    session_id = service.create()
    monkeypatch.setitem(its_place._PATIENCE_S, True, 60.0)
    refused = refused_of(monkeypatch)
    waiting = path_of(session_id, "files")
    with ExitStack() as stack:
        with service.sessions.place.hold(session_id, shared=False):
            connections = [
                stack.enter_context(service.begun(post(length=len(body), to=waiting), body))
                for body in [multipart(FILE)] * 60
            ]
            wait_for(lambda: len(refused) >= 32)
            assert service.http.get("/healthz", timeout=10).status_code == 200
            assert service.http.get(path_of(session_id), timeout=10).status_code == 200
        answers = [answer_on(connection) for connection in connections]
    assert {answer.status for answer in answers} == {201}
    assert len(os.listdir(service.root / session_id)) == 60


def test_an_upload_into_a_directory_that_stays_locked_is_told_to_come_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    session_id = service.create()
    monkeypatch.setitem(its_place._PATIENCE_S, True, 0.1)
    with service.sessions.place.hold(session_id, shared=False):
        answer = service.http.put(path_of(session_id, "files", "a"), content=b"x")
    assert answer.status_code == 409
    assert session_id not in answer.json()["detail"]
    nothing_is_left(service, session_id)


def refused_of(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads that asked for a shared lock in vain: they try again until they have it."""
    refused: set[int] = set()
    lock = system.lock_shared

    def noticed(fd: int) -> bool:
        if lock(fd):
            return True
        refused.add(threading.get_ident())
        return False

    monkeypatch.setattr(system, "lock_shared", noticed)
    return refused


def test_who_does_not_finish_a_requests_head_is_hung_up_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.3)
    service = serve()
    for said in (b"", b"GET /healthz HTTP/1.1\r\nHost: 127"):
        with socket.create_connection(service.address, timeout=30) as connection:
            connection.sendall(said)
            assert at_its_end(connection) == b""
    with socket.create_connection(service.address, timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /")
        assert at_its_end(connection).startswith(b"HTTP/1.1 200")


def test_a_head_without_an_end_is_hung_up_on(serve: Serve) -> None:
    service = serve()
    with socket.create_connection(service.address, timeout=30) as connection:
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            connection.sendall(b"GET / HTTP/1.1\r\n" + b"X-Long: 1234567890\r\n" * 400_000)
        assert at_its_end(connection) == b""


def at_its_end(connection: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    got = b""
    try:
        while piece := connection.recv(1 << 16):
            got += piece
    except ConnectionResetError:
        pass
    return got


def test_who_reads_nothing_of_an_answer_is_let_go_of(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SILENCE_MS", 500)
    service = serve()
    session_id = service.create(("big", bytes(32 * MIB)))
    get = f"GET {path_of(session_id, 'files', 'big')} HTTP/1.1"
    with service.begun(get) as connection:
        ours, its = connection.getsockname()[1], service.address[1]
        wait_for(lambda: is_connected(its, ours))
        wait_for(lambda: not is_connected(its, ours))


def is_connected(here: int, there: int) -> bool:
    """Whether this end of a connection between two ports of this machine is still held."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [[int(end.split(":")[1], 16) for end in line.split()[1:3]] for line in lines]
    return [here, there] in ends


# Others meanwhile


@pytest.fixture
def under_way(serve: Serve) -> tuple[Service, str, Callable[[], Answer]]:
    """A session with an upload in progress, and what ends it."""
    service = serve()
    session_id = service.create(("before", b"x"))
    body = multipart(FILE)
    stack = ExitStack()
    head = post(length=len(body), to=path_of(session_id, "files"))
    connection = stack.enter_context(service.begun(head, body[:500]))
    wait_for(lambda: len(service.incoming()) == 1)

    def finish() -> Answer:
        with stack:
            connection.sendall(body[500:])
            return answer_on(connection)

    return service, session_id, finish


def test_a_sweep_never_takes_a_session_under_the_writer(
    under_way: tuple[Service, str, Callable[[], Answer]],
) -> None:
    service, session_id, finish = under_way
    service.alter(session_id, last_touch_at=1)
    os.utime(service.root / session_id, (1, 1))
    os.utime(service.root / session_id / "before", (1, 1))
    report = service.sessions.sweep(max_age_hours=1, past_the_brake=True)
    assert (report.removed, report.counts[Finding.IN_USE]) == (0, 1)
    assert finish().status == 201
    assert (service.root / session_id / "a.txt").read_bytes() == FILE[1]


def test_a_claim_during_an_upload_is_refused(
    under_way: tuple[Service, str, Callable[[], Answer]],
) -> None:
    service, session_id, finish = under_way
    claim = service.http.post(path_of(session_id, "claim"), json={"into": "spring"})
    assert claim.status_code == 409
    assert session_id not in claim.json()["detail"]
    assert finish().status == 201


def test_a_delete_during_an_upload_waits_for_nobody_and_the_upload_is_told(
    under_way: tuple[Service, str, Callable[[], Answer]],
) -> None:
    service, session_id, finish = under_way
    assert service.http.delete(path_of(session_id)).status_code == 204
    answer = finish()
    assert answer.status == 410
    assert re.search(r"deleted at \d{4}-", answer.detail)
    nothing_is_left(service)


def test_an_upload_touches_its_session_as_it_goes(serve: Serve) -> None:
    service = serve(max_age_hours=0.002)
    session_id = service.create()
    body = multipart(('name="f"; filename="a"', b"x" * 100_000))
    touched = {service.sessions.get(session_id).last_touch_at}
    head = post(length=len(body), to=path_of(session_id, "files"))
    with service.begun(head, body[:500]) as connection:
        wait_for(lambda: len(service.incoming()) == 1)
        at = 500
        while len(touched) < 4:
            assert at < len(body) - 500
            connection.sendall(body[at : at + 10])
            at += 10
            threading.Event().wait(0.02)
            touched.add(service.sessions.get(session_id).last_touch_at)
        connection.sendall(body[at:])
        assert answer_on(connection).status == 201


def test_a_file_that_becomes_shorter_while_it_is_sent_breaks_off(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    service = serve()
    session_id = service.create(("big", bytes(32 * MIB)))
    get = f"GET {path_of(session_id, 'files', 'big')} HTTP/1.1"
    with service.begun(get) as connection:
        assert connection.recv(1000)
        os.truncate(service.root / session_id / "big", 0)
        assert len(at_its_end(connection)) < 32 * MIB
    wait_for(lambda: "could not be sent to its end" in caplog.text)
    assert "Traceback" not in caplog.text


def test_an_upload_that_cannot_be_published_leaves_nothing(serve: Serve) -> None:
    service = serve()

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/a/path/of/the/server")

    with around("moves.publish_directory", before=fail):
        answer = service.http.post(UPLOAD, content=multipart(FILE), headers=FORM)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "The server could not do that: Input/output error."}
    nothing_is_left(service)


def test_who_leaves_before_the_answer_leaves_no_session(service: Service) -> None:
    """A page that is left while its session is made cannot delete it: it has no id yet."""
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert go_on.wait(30)

    before = service.standing()
    known = {session.id for session in service.sessions.page(most=1000)}
    head = f"POST {UPLOAD} HTTP/1.1\nContent-Length: 0"

    def is_deleted() -> bool:
        made = [each for each in service.sessions.page(most=1000) if each.id not in known]
        return [each.state for each in made] == [State.DELETED]

    with around("incoming.Upload.commit", before=hold):
        with service.begun(head):
            assert reached.wait(30)
        service.http.get("/healthz")  # by now the server knows that the connection is closed
        go_on.set()
        wait_for(is_deleted)
    assert service.standing() == before
