"""The metrics: what they count, by whichever worker, and what never stands in them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from ledger import LedgerUnavailable, SessionLedger
from ledger.counts import Tally
from ledger.models import SESSIONS
from tests.web.operators import AUTH, HOUSE, OPERATOR, TOKEN, settings_in, within
from web import metrics
from web.app import create_app
from web.measuring import metrics_router, template_of
from web.watching import Outermost

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


def test_sessions_are_counted_by_state_and_by_what_users_did(measured: Measured) -> None:
    ids = [
        measured.http.post("/api/v1/upload", files=[("f", ("a", b"x" * 10))]).json()["session_id"]
        for _ in range(3)
    ]
    measured.http.delete(f"/api/v1/upload/{ids[0]}")
    measured.http.post(f"/api/v1/upload/{ids[1]}/touch")
    assert measured.http.post(f"/api/v1/upload/{ids[2]}/claim", json={"into": "spring"}).is_success
    samples = measured.samples()
    assert samples[("coatcheck_sessions", "active")] == 1
    assert samples[("coatcheck_sessions", "deleted")] == 1
    assert samples[("coatcheck_sessions", "claimed")] == 1
    assert samples[("coatcheck_sessions", "missing")] == 0
    assert samples[("coatcheck_session_claims_total",)] == 1
    assert samples[("coatcheck_session_touches_total",)] == 1
    assert samples[("coatcheck_session_creations_total",)] == 3
    assert samples[("coatcheck_session_deletions_total",)] == 1
    assert 0 < samples[("coatcheck_oldest_session_age_seconds",)] < 100
    assert samples[("coatcheck_stored_bytes",)] == 0  # as of the sweep that it began with
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
    assert more("coatcheck_sweep_last_completed_timestamp_seconds") > 0
    assert more("coatcheck_sweep_findings_total", "stale") == 2
    assert more("coatcheck_sweep_kept_sessions_total", "live") == 0
    assert (
        measured.samples()[("coatcheck_sweep_duration_seconds_count",)]
        == (after[("coatcheck_sweep_duration_seconds_count",)])
    )


def _ended(measured: Measured, location: str) -> bool:
    state = measured.http.get(location, headers=AUTH).json()["state"]
    return bool(state != "running")


@pytest.mark.slow
def test_whichever_worker_is_asked_the_numbers_are_those_of_all(tmp_path: Path) -> None:
    """As under one port, where each scrape meets another process."""
    with ExitStack() as stack:
        apps = [create_app(settings_in(tmp_path, sweep_every_minutes=0)) for _ in range(3)]
        workers = [
            Measured(stack.enter_context(TestClient(app, base_url="http://localhost")))
            for app in apps
        ]
        for worker in workers:
            made = worker.http.post("/api/v1/upload", files=[("f", ("a", b"x" * 10))]).json()
            for _ in range(4):
                worker.http.post(f"/api/v1/upload/{made['session_id']}/touch")

        def all_of_it(samples: Samples) -> bool:
            touch = "/api/v1/upload/{session_id}/touch"
            return (
                samples.get(("coatcheck_http_requests_total", "POST", touch, "200")) == 12
                and samples[("coatcheck_session_touches_total",)] == 12
                and samples[("coatcheck_session_creations_total",)] == 3
                and samples[("coatcheck_upload_bytes_total",)] > 30
                and samples[("coatcheck_http_request_duration_seconds_count", "POST", touch)] == 12
            )

        for worker in workers:
            within(20, lambda worker=worker: all_of_it(worker.samples()))  # type: ignore[misc]
        # No number goes back, whoever is asked next.
        before: Samples = {}
        for turn in range(6):
            now = workers[turn % 3].samples()
            for key, value in before.items():
                if key[0].endswith(("_total", "_bucket", "_count")):
                    assert now[key] >= value, key
            before = now


def test_what_was_counted_outlives_the_service(tmp_path: Path) -> None:
    for run in (1, 2):
        app = create_app(settings_in(tmp_path, sweep_every_minutes=0))
        with TestClient(app, base_url="http://localhost") as http:
            http.post("/api/v1/upload")
            measured = Measured(http)
            assert measured.requests("POST", "/api/v1/upload", 201) == run
            assert measured.samples()[("coatcheck_session_creations_total",)] == run


def test_a_ledger_that_is_away_leaves_the_numbers_out_and_says_so(
    measured: Measured, tmp_path: Path
) -> None:
    before = measured.requests("GET", "/metrics", 200)
    (tmp_path / "ledger.db").rename(tmp_path / "elsewhere.db")
    assert measured.samples() == {("coatcheck_ready",): 0}
    (tmp_path / "elsewhere.db").rename(tmp_path / "ledger.db")
    assert measured.samples()[("coatcheck_ready",)] == 1
    assert measured.requests("GET", "/metrics", 200) > before + 1  # those of meanwhile, too


def test_a_ledger_that_is_not_open_yet_leaves_the_metrics_readable() -> None:
    def closed() -> SessionLedger:
        raise LedgerUnavailable("not yet")

    app = FastAPI()
    app.include_router(metrics_router(closed, settings_in(Path("x")).operator_token, Tally()))
    with TestClient(app) as http:
        assert "coatcheck_ready 0.0" in http.get("/metrics", headers=AUTH).text


def test_nothing_stands_in_the_registry_that_all_of_a_process_share(measured: Measured) -> None:
    assert not [family for family in REGISTRY.collect() if "coatcheck" in family.name]


def test_a_request_that_fails_or_goes_is_counted_too() -> None:
    app = FastAPI()
    tally = Tally()
    app.add_middleware(Outermost, tally=tally)

    @app.get("/breaks/{how}")
    def breaks(how: str) -> None:
        raise RuntimeError(how)

    with TestClient(app, raise_server_exceptions=False) as http:
        assert http.get("/breaks/badly").status_code == 500
    counted = tally.take()
    assert counted[metrics.REQUESTS, ("GET", "/breaks/{how}", "500")] == 1
    assert counted[metrics.SECONDS, ("GET", "/breaks/{how}", "sum")] > 0


def test_promtool_has_no_complaint(measured: Measured) -> None:
    measured.http.post("/api/v1/upload", files=[("f", ("a", b"x" * 10))])
    checked = promtool("check", "metrics", given=measured.text())
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    command = ["promtool", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


def test_a_million_sessions_are_not_counted_by_looking(measured: Measured) -> None:
    """Nothing that is read grows with the sessions: no statement looks at their rows but one,
    by the index that finds the oldest."""
    asked: list[str] = []
    sessions = SessionLedger.open(settings_in(Path.cwd()))
    database = sessions.place.database

    @event.listens_for(database.engine, "before_cursor_execute")
    def _remember(_c: object, _k: object, statement: str, *_: object) -> None:
        asked.append(statement)

    metrics.told(sessions)
    sessions.close()
    of_sessions = [statement for statement in asked if SESSIONS.name in statement]
    assert len(of_sessions) == 1
    assert "min(coatcheck_session.created_at)" in of_sessions[0]


def table_in_the_docs() -> dict[str, str]:
    text = (HOUSE / "docs/operations.md").read_text().partition("\n| metric |")[2]
    rows = re.findall(r"^\| `(\w+)`(?: \| (.*?))? \|", text.partition("\n\n")[0], re.MULTILINE)
    return dict(rows)


def test_the_docs_have_every_metric_and_no_other(measured: Measured) -> None:
    measured.http.post("/api/v1/upload", files=[("f", ("a", b"x" * 10))])
    real = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(measured.text())
    }
    told = table_in_the_docs()
    assert {name: kind.split(" ")[0] for name, kind in told.items()} == real
    everywhere = set(re.findall(r"\bcoatcheck_\w+", (HOUSE / "docs/operations.md").read_text()))
    parts = {re.sub(r"_(bucket|count|sum)$", "", name) for name in everywhere}
    assert parts <= set(real)


def test_the_alerts_in_the_docs_are_rules_that_prometheus_takes(tmp_path: Path) -> None:
    text = (HOUSE / "docs/operations.md").read_text()
    [rules] = re.findall(r"```yaml\n(groups:.*?)```", text, re.DOTALL)
    (tmp_path / "rules.yml").write_text(rules)
    checked = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


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
