"""Many processes on one PostgreSQL ledger: with a root of their own each, and all on one root."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from ledger import SessionLedger, Settings, SweepUnderWay, guards, queries
from ledger.settings import DAY_US
from tests.hostile.worlds import fork
from tests.ledgers import Databases, Server
from tests.postgres.services import Service, wait_for

pytestmark = pytest.mark.postgresql

PROCESSES = 40

Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path, postgres_url: str) -> Iterator[Start]:
    """Starts a process that serves the root of this name; at the end, all have ended well."""
    with ExitStack() as stack:

        def start(root: str, name: str, **settings: str) -> Service:
            service = Service(tmp_path / root, postgres_url, name, settings)
            service.start()
            stack.callback(ended_well, service)
            return service

        yield start


def ended_well(service: Service) -> None:
    assert service.end() in (0, -signal.SIGKILL)
    assert "Traceback" not in service.log.read_text()


# Opening


@pytest.mark.parametrize(
    ("kind", "roots"),
    [pytest.param("sqlite", 1, marks=pytest.mark.torture), ("postgresql", 8)],
)
def test_forty_processes_open_a_new_ledger_and_new_roots_at_once(
    kind: str, roots: int, tmp_path: Path, postgres: Server, databases: Databases
) -> None:
    new = postgres.url(databases.new()) if kind == "postgresql" else f"sqlite:///{tmp_path}/l.db"
    settings = [Settings(root=tmp_path / f"root-{number}", ledger=new) for number in range(roots)]
    go, gone = os.pipe()

    def open_and_create(number: int) -> None:
        os.close(gone)
        os.read(go, 1)  # until the parent closes its end
        try:
            with SessionLedger.open(settings[number % roots]) as sessions:
                (tmp_path / f"made-{number}").write_text(sessions.create().id)
        except BaseException:
            traceback.print_exc()
            raise

    children = [fork(partial(open_and_create, number)) for number in range(PROCESSES)]
    os.close(gone)
    for child in children:
        os.waitpid(child, 0)
    os.close(go)
    made = {path.read_text() for path in tmp_path.glob("made-*")}
    assert len(made) == PROCESSES
    for each in settings:
        with SessionLedger.open(each) as sessions:
            assert {session.id for session in sessions.page()} <= made
            assert sessions.health().sessions == PROCESSES // roots


# A root each


@pytest.mark.slow
def test_a_session_of_another_root_is_elsewhere_and_never_missing(start: Start) -> None:
    one, other = start("one", "one"), start("other", "other")
    its = one.create()
    for method, path in (
        ("GET", ""),
        ("GET", "/files/a.txt"),
        ("PUT", "/files/b.txt"),
        ("DELETE", "/files/a.txt"),
        ("POST", "/touch"),
        ("DELETE", ""),
        ("POST", "/discard"),
    ):
        answer = other.ask(method, f"/{its}{path}")
        assert answer.status_code == 421, f"{method} {path}: {answer.text}"
    answer = other.ask("POST", f"/{its}/claim", json={"into": "spring"})
    assert answer.status_code == 421
    assert "ask the server that holds it" in answer.json()["detail"]
    files = {"file": ("b.txt", b"b")}
    assert other.ask("POST", f"/{its}/files", files=files).status_code == 421
    swept = other.operator("sweeps")["sweeps"][0]["sweep_id"]
    wait_for(
        lambda: other.operator("sweeps")["sweeps"][0]["sweep_id"] > swept + 2, "it sweeps again"
    )
    assert other.operator("sessions")["sessions"] == []
    assert [found["state"] for found in one.operator("sessions")["sessions"]] == ["active"]
    assert one.ask("GET", f"/{its}/files/a.txt").content == b"bytes"


# All on one root


@pytest.mark.slow
def test_what_one_process_makes_another_deletes(start: Start) -> None:
    first, second = start("root", "first"), start("root", "second")
    its = first.create()
    assert second.ask("PUT", f"/{its}/files/b.txt", content=b"more").status_code == 201
    assert first.ask("GET", f"/{its}/files/b.txt").content == b"more"
    assert second.ask("DELETE", f"/{its}").status_code == 204
    assert first.ask("DELETE", f"/{its}").status_code == 404
    assert second.ask("POST", f"/{its}/touch").status_code == 410


@pytest.mark.slow
def test_one_sweeps_at_a_time_and_when_it_is_killed_the_others_carry_on(
    start: Start, tmp_path: Path, postgres_url: str
) -> None:
    running = [start("root", name) for name in ("first", "second")]
    live = [running[0].create(name.encode()) for name in ("a", "b", "c")]
    settings = Settings(root=tmp_path / "root", ledger=postgres_url)
    with SessionLedger.open(settings) as sessions:
        while len(running) > 1:
            old = plant(sessions, 120)
            victim = wait_for(partial(in_the_middle, running, old), "a sweep is half done")
            running.remove(victim)
            assert victim.end(signal.SIGKILL) == -signal.SIGKILL
            wait_for(partial(are_gone, old), "the others carry on")
        wait_for(lambda: not os.listdir(sessions.place.root.trash), "their bytes are gone")
        wait_for(lambda: not sessions.health().running, "no killed sweep is under way for ever")
        with sessions.place.database.read() as connection:
            sweeps = queries.sweeps(connection, sessions.place.root_id, most=10_000)[1:]
        assert {findings for findings, n in sessions.report().counts.items() if n} == {"live"}
    for its, content in zip(live, (b"a", b"b", b"c"), strict=True):
        assert running[0].ask("GET", f"/{its}/files/a.txt").content == content
    assert [sweep.state for sweep in sweeps if sweep.state != "done"] == ["failed"]
    for earlier, later in pairwise(reversed(sweeps)):
        assert earlier.finished_at <= later.started_at


def plant(sessions: SessionLedger, count: int) -> list[Path]:
    """Sessions that nobody has used for two days; no sweep begins before the last one stands."""
    then = sessions.clock() - 2 * DAY_US
    before = SessionLedger(sessions.place, lambda: then)
    with wait_for(partial(try_to_sweep, sessions), "no other process sweeps"):
        old = []
        for _ in range(count):
            with before.upload(None) as upload:
                for name in ("a", "b", "c"):
                    upload.open_file(name)
                    upload.write(b"x" * 4096)
                path = Path(sessions.place.root.path, upload.commit()[0].session_id)
            for file in path.iterdir():
                os.utime(file, ns=(then * 1000, then * 1000))
            old.append(path)
    return old


def try_to_sweep(sessions: SessionLedger) -> ExitStack | None:
    with ExitStack() as stack, suppress(SweepUnderWay):
        stack.enter_context(guards.one_sweeper(sessions.place))
        return stack.pop_all()
    return None


def in_the_middle(running: list[Service], old: list[Path]) -> Service | None:
    """Who sweeps, when some of the old are gone and some are not."""
    left = sum(path.exists() for path in old)
    assert left, "the sweep was too quick to be caught"
    if left == len(old):
        return None
    return next((service for service in running if service.sweeps_now()), None)


def are_gone(old: list[Path]) -> bool:
    return not any(path.exists() for path in old)
