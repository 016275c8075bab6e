"""The metrics: what they count, and what never stands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from ledger import LedgerUnavailable, SessionLedger
from tests.ledger.world import Clock
from tests.web.operators import AUTH, OPERATOR, TOKEN, settings_in, within
from web import upload_router
from web.app import create_app
from web.metrics import CountRequests, Metrics, metrics_router, template_of
from web.operator import operator_router

pytest_plugins = ["tests.web.operator_fixtures"]

Samples = dict[tuple[str, ...], float]


@dataclass
class Measured:
    """A service, and what its metrics say."""

    http: TestClient

    def text(self) -> str:
        answer = self.http.get("/metrics", headers=AUTH)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.text

    def samples(self) -> Samples:
        """Every sample, by its name and its labels' values in the order of their names."""
        return {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def requests(self, method: str, route: str, status: int) -> float:
        return self.samples().get(("coatcheck_http_requests_total", method, route, str(status)), 0)


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measured]:
    app = create_app(settings_in(tmp_path, sweep_every_minutes=0))
    with TestClient(app, base_url="http://localhost") as http:
        measured = Measured(http)
        # The sweep that every start begins with is counted like any other.
        within(20, lambda: measured.samples().get(("coatcheck_sweeps_total", "false", "done")))
        yield measured


def test_metrics_need_the_token(measured: Measured) -> None:
    assert measured.http.get("/metrics").status_code == 401
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    assert measured.http.get("/metrics", headers=wrong).status_code == 403
    assert measured.http.head("/metrics", headers=AUTH).status_code == 200


def test_requests_are_counted_by_route_and_status_with_no_word_of_a_client(
    measured: Measured,
) -> None:
    made = measured.http.post("/api/v1/upload", files=[("f", ("secret.txt", b"12345"))]).json()
    session_id = made["session_id"]
    for path in (f"/api/v1/upload/{session_id}", f"/api/v1/upload/{session_id}/files/secret.txt"):
        assert measured.http.get(path).status_code == 200
    measured.http.get("/api/v1/upload/unknown-to-all")
    measured.http.put(f"/api/v1/upload/{session_id}/files/more.txt", content=b"678")
    measured.http.get(f"/not/a/route/{session_id}")
    measured.http.request("BREW", f"/{session_id}")
    measured.http.get("/api/v1/upload/x/y/z/../../secret")
    prefix = "/api/v1/upload/{session_id}"
    assert measured.requests("POST", "/api/v1/upload", 201) == 1
    assert measured.requests("GET", prefix, 200) == 1
    assert measured.requests("GET", prefix, 404) == 1
    assert measured.requests("GET", f"{prefix}/files/{{name}}", 200) == 1
    assert measured.requests("PUT", f"{prefix}/files/{{name}}", 201) == 1
    assert measured.requests("GET", "none", 404) >= 1
    assert measured.requests("other", "none", 404) == 1
    text = measured.text()
    assert not re.search(f"secret|unknown-to-all|BREW|{session_id[:8]}|{re.escape(TOKEN)}", text)


def test_what_uploads_bring_is_counted(measured: Measured) -> None:
    session_id = measured.http.post("/api/v1/upload", content=b"").json()["session_id"]
    before = measured.samples()[("coatcheck_upload_bytes_total",)]
    for _ in range(2):
        name = f"/api/v1/upload/{session_id}/files/a.bin"
        measured.http.put(name, content=iter([b"x" * 600, b"y" * 400]))
    measured.http.post(f"/api/v1/upload/{session_id}/touch", content=b"z" * 50)
    samples = measured.samples()
    assert samples[("coatcheck_upload_bytes_total",)] - before == 2000
    assert samples[("coatcheck_upload_requests_total", "201")] == 2  # created, and the first
    assert samples[("coatcheck_upload_requests_total", "204")] == 1


def test_sessions_are_counted_by_state_and_bytes_while_they_are_held(measured: Measured) -> None:
    ids = [
        measured.http.post("/api/v1/upload", files=[("f", ("a", b"x" * 10))]).json()["session_id"]
        for _ in range(3)
    ]
    measured.http.delete(f"/api/v1/upload/{ids[0]}")
    samples = measured.samples()
    assert samples[("coatcheck_sessions", "active")] == 2
    assert samples[("coatcheck_sessions", "deleted")] == 1
    assert samples[("coatcheck_sessions", "claimed")] == 0
    assert samples[("coatcheck_session_bytes",)] == 20
    assert samples[("coatcheck_disk_free_bytes",)] > 0
    assert 0 < samples[("coatcheck_disk_free_ratio",)] <= 1
    assert samples[("coatcheck_ready",)] == 1


def test_sweeps_are_counted_by_how_they_ended(measured: Measured) -> None:
    before = measured.samples()
    for _ in range(2):
        measured.http.post("/api/v1/upload")
    for order in ({"dry_run": True}, {"max_age_hours": 1e-9, "past_the_brake": True}):
        begun = measured.http.post(f"{OPERATOR}/sweeps", json=order, headers=AUTH)
        location = begun.headers["Location"]
        within(20, lambda at=location: _ended(measured, at))  # type: ignore[misc]
    after = measured.samples()

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert more("coatcheck_sweeps_total", "true", "done") == 1
    assert more("coatcheck_sweeps_total", "false", "done") == 1
    assert more("coatcheck_sweep_removed_sessions_total") == 2
    assert more("coatcheck_sweep_failures_total") == 0
    assert more("coatcheck_sweep_duration_seconds_count") == 1
    assert more("coatcheck_sweep_last_success_timestamp_seconds") > 0
    assert (
        measured.samples()[("coatcheck_sweep_duration_seconds_count",)]
        == (after[("coatcheck_sweep_duration_seconds_count",)])
    )


def _ended(measured: Measured, location: str) -> bool:
    state = measured.http.get(location, headers=AUTH).json()["state"]
    return bool(state != "running")


def test_sweeps_of_other_processes_are_counted_and_those_of_before_are_not(
    tmp_path: Path, clock: Clock
) -> None:
    with SessionLedger.open(settings_in(tmp_path), clock=clock) as sessions:
        sessions.sweep()
        clock.passes(0.001)
        metrics = Metrics()
        clock.passes(0.001)
        with SessionLedger.open(settings_in(tmp_path), clock=clock) as other:
            other.sweep()
            other.dry_run()
        for _ in range(2):
            text = metrics.told(sessions).decode()
            assert 'coatcheck_sweeps_total{dry_run="false",state="done"} 1.0' in text
            assert 'coatcheck_sweeps_total{dry_run="true",state="done"} 1.0' in text
            assert "coatcheck_sweep_duration_seconds_count 1.0" in text


def test_a_ledger_that_is_away_leaves_its_own_numbers_out_and_says_so(
    measured: Measured, tmp_path: Path
) -> None:
    (tmp_path / "ledger.db").rename(tmp_path / "elsewhere.db")
    samples = measured.samples()
    assert samples[("coatcheck_ready",)] == 0
    assert not any(name == "coatcheck_sessions" for name, *_ in samples)
    assert measured.requests("GET", "/metrics", 200) > 0
    (tmp_path / "elsewhere.db").rename(tmp_path / "ledger.db")
    assert measured.samples()[("coatcheck_ready",)] == 1


def test_a_ledger_that_is_not_open_yet_leaves_the_other_metrics_readable() -> None:
    def closed() -> SessionLedger:
        raise LedgerUnavailable("not yet")

    app = FastAPI()
    app.include_router(metrics_router(closed, settings_in(Path("x")).operator_token, Metrics()))
    with TestClient(app) as http:
        assert "coatcheck_ready 0.0" in http.get("/metrics", headers=AUTH).text


def test_two_applications_count_each_for_itself_and_nothing_in_the_common_registry(
    tmp_path: Path,
) -> None:
    before = len(list(REGISTRY.collect()))
    with SessionLedger.open(settings_in(tmp_path)) as sessions:
        clients = []
        for _ in range(2):
            metrics = Metrics()
            app = FastAPI()
            app.add_middleware(CountRequests, metrics=metrics)
            app.include_router(upload_router(sessions), prefix="/api/v1/upload")
            token = sessions.settings.operator_token
            app.include_router(operator_router(sessions, token), prefix=OPERATOR)
            app.include_router(metrics_router(sessions, token, metrics))
            clients.append(Measured(TestClient(app)))
        clients[0].http.post("/api/v1/upload")
        assert clients[0].requests("POST", "/api/v1/upload", 201) == 1
        assert clients[1].requests("POST", "/api/v1/upload", 201) == 0
    assert len(list(REGISTRY.collect())) == before


def test_a_request_that_fails_or_goes_is_counted_too() -> None:
    app = FastAPI()
    metrics = Metrics()
    app.add_middleware(CountRequests, metrics=metrics)

    @app.get("/breaks/{how}")
    def breaks(how: str) -> None:
        raise RuntimeError(how)

    with TestClient(app, raise_server_exceptions=False) as http:
        assert http.get("/breaks/badly").status_code == 500
    text = metrics.told(None).decode()
    assert (
        'coatcheck_http_requests_total{method="GET",route="/breaks/{how}",status="500"} 1.0' in text
    )
    metrics.count({"method": "GET", "path": "/"}, 499, 0)
    assert 'route="none",status="499"' in metrics.told(None).decode()


class Route:
    def __init__(self, path_format: str) -> None:
        self.path_format = path_format


@pytest.mark.parametrize(
    ("route", "path", "params", "template"),
    [
        ("/{id}/files", "/api/upload/abc/files", {"id": "abc"}, "/api/upload/{id}/files"),
        ("/api/upload/{id}", "/api/upload/abc", {"id": "abc"}, "/api/upload/{id}"),
        ("", "/api/upload", {}, "/api/upload"),
        ("/{id}", "/api/{id}", {"id": "{id}"}, "/api/{id}"),
        ("/{id}", "/elsewhere", {"id": "abc"}, "/{id}"),
        ("/static/{path}", "/static/secret", {}, "/static/{path}"),
    ],
)
def test_a_template_is_told_with_its_prefix_and_without_what_was_filled_in(
    route: str, path: str, params: dict[str, str], template: str
) -> None:
    assert template_of({"route": Route(route), "path": path, "path_params": params}) == template
