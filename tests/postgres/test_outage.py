"""A service whose server goes away, crashes and comes back, while clients go on asking."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from ledger import SessionLedger, Settings
from tests.ledgers import Server
from tests.postgres.services import Service, wait_for

pytestmark = pytest.mark.postgresql


@pytest.fixture
def service(tmp_path: Path, own_postgres: Server) -> Iterator[Service]:
    """A service on a server of its own, which need not run when it starts."""
    own_postgres.do("CREATE DATABASE coatcheck")
    service = Service(tmp_path / "root", own_postgres.url("coatcheck"), "service")
    with ExitStack() as stack:
        service.start()
        stack.callback(service.end)
        yield service
    assert "Traceback" not in service.log.read_text()


@dataclass
class Client:
    """Creates, touches and deletes until told to stop; knows what it was promised."""

    service: Service
    stop: threading.Event = field(default_factory=threading.Event)
    live: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    refused: int = 0
    strange: list[str] = field(default_factory=list)

    def run(self) -> None:
        with httpx.Client(base_url=self.service.url, timeout=60) as http:
            number = 0
            while not self.stop.is_set():
                number += 1
                content = f"{id(self)}-{number}".encode()
                answer = self.ask(http, "POST", "", 201, files={"file": ("a.txt", content)})
                if answer is None:
                    continue
                its = answer.json()["session_id"]
                self.live[its] = content
                self.ask(http, "POST", f"/{its}/touch", 200)
                if number % 2:
                    self.doubtful.add(its)
                    if self.ask(http, "DELETE", f"/{its}", 204):
                        self.deleted.add(its)

    def ask(
        self, http: httpx.Client, method: str, path: str, expected: int, **options: object
    ) -> httpx.Response | None:
        """The answer, if it is as expected; 503 is counted, and anything else is strange."""
        answer = http.request(method, f"/api/v1/upload{path}", **options)  # type: ignore[arg-type]
        if answer.status_code == expected:
            return answer
        if answer.status_code == 503 and answer.headers.get("Retry-After"):
            self.refused += 1
        else:
            self.strange.append(f"{method} {path}: {answer.status_code} {answer.text}")
        return None


@pytest.mark.slow
def test_a_service_says_503_while_its_server_is_away_and_recovers_by_itself(
    service: Service, own_postgres: Server
) -> None:
    its = service.create()
    own_postgres.stop("fast")
    for method, path in (
        ("GET", f"/{its}"),
        ("POST", ""),
        ("POST", f"/{its}/touch"),
        ("DELETE", f"/{its}"),
    ):
        answer = service.ask(method, path)
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"]
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/readyz").status_code == 503
    own_postgres.start()
    assert service.client.get("/readyz").status_code == 200
    assert service.ask("GET", f"/{its}/files/a.txt").content == b"bytes"
    assert service.ask("DELETE", f"/{its}").status_code == 204


@pytest.mark.slow
def test_a_service_may_start_before_its_server(tmp_path: Path, own_postgres: Server) -> None:
    own_postgres.do("CREATE DATABASE coatcheck")
    own_postgres.stop("fast")
    service = Service(tmp_path / "root", own_postgres.url("coatcheck"), "early")
    service.start()
    assert service.ask("POST", "").status_code == 503
    own_postgres.start()
    wait_for(lambda: service.ask("POST", "").status_code == 201, "it finds its server")
    assert service.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "outages"),
    [
        ("crash", 1),
        *(pytest.param(how, 20, marks=pytest.mark.torture) for how in ("cut off", "crash")),
    ],
)
def test_nothing_acknowledged_is_lost_when_the_server_is(
    how: str, outages: int, service: Service, own_postgres: Server
) -> None:
    clients = [Client(service) for _ in range(4)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for _ in range(outages):
        goal = total(clients) + 15
        wait_for(partial(reached, clients, goal), "the clients get on")
        if how == "crash":
            own_postgres.stop("immediate")
            own_postgres.start()
        else:
            own_postgres.cut_off("coatcheck")
    wait_for(partial(reached, clients, total(clients) + 15), "the clients get on again")
    for client in clients:
        client.stop.set()
    for thread in threads:
        thread.join()
    assert [strange for client in clients for strange in client.strange] == []
    for client in clients:
        for its, content in client.live.items():
            answer = service.ask("GET", f"/{its}/files/a.txt")
            if its in client.deleted:
                assert answer.status_code in (404, 410)
            elif answer.status_code != 200:
                assert its in client.doubtful
            else:
                assert answer.content == content
    wait_until_settled(service)


def total(clients: list[Client]) -> int:
    return sum(len(client.live) for client in clients)


def reached(clients: list[Client], goal: int) -> bool:
    return total(clients) >= goal


def wait_until_settled(service: Service) -> None:
    """Its own sweeps finish what was left half done."""
    settings = Settings(root=service.root, ledger=service.ledger)
    with SessionLedger.open(settings) as sessions:
        wait_for(lambda: sessions.report().settled, "its sweeps finish what was left")
