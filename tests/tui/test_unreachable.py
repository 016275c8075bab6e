"""A service that goes away and comes back, or will not let one in."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger import Progress, SessionLedger, Settings, UsageError
from tests.tui.worlds import TOKEN, until_shown, world_of
from tests.web.services import wait_for
from tui.app import Dashboard
from tui.page import HealthLine
from tui.remote import RemoteSource
from tui.source import FAILURES, View
from web.app import create_app
from web.asking import Cancel, Unreachable
from web.server import Server

pytestmark = pytest.mark.anyio
SIZE = (120, 30)


class Stage:
    """A service on one port that can be stopped and started again."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._stop: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        server = Server(create_app(self.settings))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        wait_for(lambda: server.started)

        def stop() -> None:
            server.should_exit = True
            thread.join()
            listener.close()

        self._stop = stop

    def stop(self) -> None:
        if self._stop is not None:
            self._stop()
            self._stop = None


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    settings = Settings(
        root=tmp_path / "temp",
        operator_token=TOKEN,
        sweep_every_minutes=0,
    )
    stage = Stage(settings)
    yield stage
    stage.stop()


@contextmanager
def dashboard_on(url: str, token: str | None = TOKEN) -> Iterator[Dashboard]:
    source = RemoteSource(url, token)
    try:
        yield Dashboard(source, through_service=True)
    finally:
        source.close()


async def test_a_service_that_is_away_is_named_in_words_and_tried_until_it_comes(
    stage: Stage,
) -> None:
    with dashboard_on(stage.url) as app:
        async with app.run_test(size=SIZE) as pilot:
            await until_shown(
                pilot, f"✖ service: {stage.url} cannot be reached (connection refused)"
            )
            assert app.screen.query_one(HealthLine).has_class("-bad")
            stage.start()
            await until_shown(pilot, "✔ service", "There are no sessions.")


@pytest.mark.slow
async def test_what_was_seen_last_stays_while_the_service_is_away(stage: Stage) -> None:
    with SessionLedger.open(stage.settings) as sessions:
        sessions.create("order 17")
    stage.start()
    with dashboard_on(stage.url) as app:
        async with app.run_test(size=SIZE) as pilot:
            await until_shown(pilot, "order 17", "✔ service")
            stage.stop()
            await until_shown(pilot, "✖ service:", "Not read:", "order 17")
            with SessionLedger.open(stage.settings) as sessions:
                sessions.create("order 18")
            stage.start()
            await until_shown(pilot, "✔ service", "order 18", "1 of 2")


@pytest.mark.parametrize(
    ("token", "said"), [(None, "needs the operator token"), ("wrong", "is not the operator's")]
)
async def test_a_wrong_token_is_said_to_be(tmp_path: Path, token: str | None, said: str) -> None:
    with world_of("remote", tmp_path) as world, dashboard_on(world.source.name, token) as app:
        async with app.run_test(size=SIZE) as pilot:
            await until_shown(pilot, "Not read:", said)


@contextmanager
def stranger(answer: bytes) -> Iterator[str]:
    """Something that listens, and gives every caller the same answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "Is it coatcheck?"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "answered 404. Is it coatcheck?"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP"),
        (b"", "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "cannot be reached"),
    ],
)
def test_what_is_no_coatcheck_is_said_to_be_none(answer: bytes, said: str) -> None:
    with stranger(answer) as url:
        source = RemoteSource(url, TOKEN)
        with pytest.raises(FAILURES, match=said.replace("?", r"\?")):
            source.health()
        source.close()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://user:secret@host", "file:///etc"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no address of a service"):
        RemoteSource(url, None)


def test_a_token_that_no_header_can_carry_is_refused_without_being_told() -> None:
    with pytest.raises(UsageError) as error:
        RemoteSource("http://127.0.0.1:1", "tok\nen")
    assert "tok" not in str(error.value).replace("token", "")


def test_a_reading_is_cut_short_by_its_cancel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = RemoteSource(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN)
        cancel = Cancel()
        outcome: list[BaseException] = []

        def read() -> None:
            try:
                source.open(View(), cancel)
            except BaseException as error:
                outcome.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        connection, _ = listener.accept()
        assert connection.recv(65536)
        cancel()
        reader.join()
        connection.close()
        source.close()
    assert [type(error).__name__ for error in outcome] == ["Cancelled"]


def test_a_report_is_given_up_when_it_is_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = RemoteSource(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN)
        progress = Progress()

        def cancel_when_asked() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(65536)
                progress.cancel.set()
                assert connection.recv(65536) == b""  # nobody listens any more

        service = threading.Thread(target=cancel_when_asked)
        service.start()
        with pytest.raises(FAILURES, match="It was cancelled"):
            source.dry_run(None, progress, keep=False)
        service.join()
        source.close()


def test_what_is_asked_for_when_one_leaves_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = RemoteSource(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN)
        outcome: list[BaseException] = []

        def read() -> None:
            try:
                source.health()
            except FAILURES as error:
                outcome.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        connection, _ = listener.accept()
        assert connection.recv(65536)
        source.stop()
        reader.join()
        connection.close()
        source.close()
    assert isinstance(outcome[0], Unreachable)
    with pytest.raises(Unreachable, match="not asked any more"):
        source.health()


def test_a_connection_that_is_opened_while_one_leaves_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = RemoteSource(f"http://127.0.0.1:{listener.getsockname()[1]}", TOKEN)
        connect = socket.create_connection
        opened: list[socket.socket] = []

        def leave_and_connect(*args: Any, **kwargs: Any) -> socket.socket:
            source.stop()
            opened.append(connect(*args, **kwargs))
            return opened[-1]

        monkeypatch.setattr(socket, "create_connection", leave_and_connect)
        with pytest.raises(Unreachable):
            source.health()
        with pytest.raises(Unreachable, match="not asked any more"):
            source.health()
        source.close()
    (connection,) = opened
    assert connection.fileno() == -1


def test_a_kept_connection_that_the_service_closed_is_opened_again(stage: Stage) -> None:
    stage.start()
    source = RemoteSource(stage.url, TOKEN)
    assert source.health().ready
    stage.stop()
    stage.start()
    assert source.health().ready
    source.close()


def test_the_clock_of_the_service_is_gone_by() -> None:
    date = b"Date: Fri, 14 Mar 2025 09:26:53 GMT\r\n"
    answer = b"HTTP/1.0 503 Away\r\n" + date + b"\r\n"
    with stranger(answer) as url:
        source = RemoteSource(url, TOKEN)
        with pytest.raises(FAILURES):
            source.health()
        assert abs(source.now() - 1_741_944_413_000_000) < 60_000_000
        source.close()
