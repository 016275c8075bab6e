"""How the command line answers: by JSON, by its exit code, and in words fit to read."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import coatcheck
from ledger import SessionLedger, Settings, State, system
from ledger.disk import HOUSE, SWEEP_LOCK
from ledger.props import without_roots_rights
from tests.cli import HOUR_US, ROOT, Ran, a_root, cc, program, session, stray

# One JSON document, and nothing else


JSON_COMMANDS: dict[str, Callable[[], list[str]]] = {
    "sweep": list,
    "sweep --dry-run": list,
    "report": list,
    "report --check": list,
    "sessions": list,
    "create": list,
    "adopt": list,
    "doctor": list,
    "demo": list,
    "show": lambda: [session()],
    "touch": lambda: [session()],
    "claim": lambda: [session(), "spring"],
    "delete": lambda: [session()],
}


@pytest.mark.parametrize("name", JSON_COMMANDS)
def test_json_is_one_document_on_standard_output_and_nothing_else(name: str) -> None:
    ran = cc(*name.split(), *JSON_COMMANDS[name](), "--json")
    assert ran.code == 0, ran.err
    assert isinstance(ran.json, dict)
    assert ran.out.isascii()


def test_every_command_that_ends_by_itself_offers_json() -> None:
    for name in commands():
        offers = "--json" in options(name)
        assert offers is (name not in ("serve", "dashboard")), name


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(coatcheck.app)
    return dict(group.commands)


def options(name: str) -> set[str]:
    return {option for param in commands()[name].params for option in param.opts}


def test_what_fails_is_one_json_document_too() -> None:
    ran = cc("show", "nobody", "--json")
    assert (ran.code, ran.json) == (
        1,
        {"detail": "Session 'nobody' not found", "exit_code": 1},
    )
    assert ran.err == "coatcheck: Session 'nobody' not found\n"


def test_the_program_keeps_logs_and_progress_off_standard_output() -> None:
    session(age=48)
    ran = program("sweep", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["removed"] == 1


# Exit codes


def ok() -> None:
    """Nothing is in the way."""


def a_root_that_is_a_file() -> None:
    ROOT.parent.mkdir()
    ROOT.write_text("no directory")


def a_pile() -> None:
    stray("theirs")


def a_lost_root() -> None:
    cc("create")
    ROOT.rename("moved")


def a_damaged_ledger() -> None:
    cc("create")
    Path("data/ledger.db").write_bytes(b"no database" * 1000)


def a_lowered_max_age() -> None:
    os.environ["COATCHECK_BRAKE"] = "0"  # the test's own fixture takes it back
    session(age=2)


def a_report_of_another_root() -> None:
    cc("create")
    report = cc("report", "--json").json
    Path("other.json").write_text(json.dumps({**report, "root_id": "another"}))
    Path("none.json").write_text('{"findings": 3}')


def something_to_do() -> None:
    cc("create")
    stray("theirs")


@pytest.mark.parametrize(
    ("before", "words", "code", "said"),
    [
        (ok, "create", 0, ""),
        (ok, "report --check", 0, ""),
        (ok, "--version", 0, ""),
        (something_to_do, "report --check", 1, "Not settled"),
        (ok, "touch nobody", 1, "Session 'nobody' not found"),
        (ok, "restore nobody", 1, "Session 'nobody' not found"),
        (ok, "delete ../../etc", 1, "not found"),
        (ok, "show ..", 1, "not found"),
        (ok, "show " + "x" * 300, 1, "not found"),
        (ok, "bogus", 2, "No such command"),
        (ok, "report --bogus", 2, "No such option"),
        (ok, "touch", 2, "Missing argument 'ID'"),
        (ok, "sweep --max-age-hours often", 2, "should be a valid number"),
        (ok, "sweep --max-age-hours 0", 2, "must be above 0 hours"),
        (ok, "report --max-age-hours nan", 2, "must be above 0 hours"),
        (ok, "report --json --csv", 2, "exclude each other"),
        (ok, "sweep --only nowhere.json", 2, "nowhere.json cannot be read"),
        (ok, "sweep --only data --dry-run", 2, "--only goes by its report"),
        (a_report_of_another_root, "sweep --only other.json", 2, "is of the root another"),
        (a_report_of_another_root, "sweep --only none.json", 2, "no report of coatcheck"),
        (ok, "sessions --sort colour", 2, "Sessions are sorted by"),
        (ok, "sessions --cursor xyz", 2, "no cursor"),
        (ok, "sessions --limit 5000", 2, "less than or equal to 1000"),
        (ok, "sessions --state lost", 2, "'lost' is not one of"),
        (ok, "serve --port 99999", 2, "less than or equal to 65535"),
        (ok, "claim nobody a/../../b", 2, "A claim must lie below"),
        (a_pile, "report", 3, "coatcheck adopt"),
        (a_pile, "adopt", 2, "--yes"),
        (a_lowered_max_age, "sweep --max-age-hours 1", 3, "--past-the-brake"),
        (a_root_that_is_a_file, "report", 4, "is a link or no directory"),
        (a_lost_root, "sweep", 4, "is its disk mounted?"),
        (a_damaged_ledger, "sessions", 4, "is damaged"),
    ],
)
def test_exit_codes(
    before: Callable[[], None],
    words: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COATCHECK_BRAKE", "100")
    before()
    ran = cc(*words.split())
    assert (ran.code, said in ran.err) == (code, True), ran
    assert "Traceback" not in ran.err
    if code:
        assert "coatcheck: " in ran.err or ran.err.startswith("Not settled")


@pytest.mark.parametrize(
    ("name", "value", "code", "said"),
    [
        ("COATCHECK_MAXAGE", "3", 2, "did you mean COATCHECK_MAX_AGE_HOURS?"),
        ("COATCHECK_MAX_AGE_HOURS", "-1", 2, "COATCHECK_MAX_AGE_HOURS: "),
        ("COATCHECK_MAX_AGE_HOURS", "a day", 2, "COATCHECK_MAX_AGE_HOURS: "),
        ("COATCHECK_LEDGER", "mysql://here", 2, "LEDGER must"),
        ("COATCHECK_LEDGER", "postgresql+psycopg://x@host:port/coats", 2, "COATCHECK_LEDGER"),
        ("COATCHECK_ROOT", "/", 2, "/ is no place for temp sessions"),
        ("COATCHECK_CLAIMS", "data/temp/claims", 2, "must not lie in one another"),
        ("COATCHECK_LEDGER", "postgresql+psycopg://x@127.0.0.1:1/none", 4, "127.0.0.1"),
    ],
)
def test_exit_codes_of_settings(
    name: str, value: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    ran = cc("report")
    assert (ran.code, said in ran.err) == (code, True), ran
    assert "Traceback" not in ran.err


def test_another_sweep_under_way_is_a_stop() -> None:
    a_root()
    with open(ROOT / HOUSE / SWEEP_LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = cc("sweep")
    assert (ran.code, "Another sweep" in ran.err) == (3, True)


def test_a_distrusted_clock_stops_until_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = system.now_us() + 48 * HOUR_US
    with SessionLedger.open(Settings(), clock=lambda: ahead):
        pass
    ran = cc("sweep")
    assert (ran.code, "--trust-clock" in ran.err) == (3, True)
    assert cc("sweep", "--trust-clock").code == 0
    assert cc("sweep").code == 0


def test_past_the_brake_a_lowered_max_age_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_BRAKE", "0")
    session_id = session(age=2)
    assert cc("sweep", "--max-age-hours", 1).code == 3
    assert (ROOT / session_id).exists()
    ran = cc("sweep", "--max-age-hours", 1, "--past-the-brake", "--json")
    assert (ran.code, ran.json["removed"]) == (0, 1)
    session(age=2)
    assert cc("sweep", "--max-age-hours", 1).code == 0


def test_a_sweep_that_could_not_do_all_says_so_with_a_shortened_id() -> None:
    session_id = session(age=48)
    ROOT.chmod(0o500)
    with without_roots_rights():
        ran = cc("sweep")
    ROOT.chmod(0o700)
    assert (ran.code, "1 failed" in ran.out) == (1, True)
    assert session_id[:8] in ran.err
    assert session_id not in ran.err
    assert (ROOT / session_id).exists()


def test_a_mistake_of_ours_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(SessionLedger, "create", mistaken)
    ran = cc("create")
    assert ran.code == 1
    assert ran.err.startswith("coatcheck: A mistake in coatcheck: ZeroDivisionError: by nothing")


# What cannot be shown as it is


def test_names_and_labels_are_shown_as_they_are_without_markup_or_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session_id = session(label="[red]order[/] :smile: 12.5")
    (ROOT / session_id / "\x1b[31mred\n\udcff").write_bytes(b"x")
    listed, shown = cc("sessions"), cc("show", session_id)
    assert "[red]order[/] :smile: 12.5" in listed.out
    assert r"\x1b[31mred\n\xff" in shown.out
    assert "\x1b" not in shown.out
    assert r"\x1b[31mred\n\xff" in cc("show", session_id, "--json").out.replace("\\\\", "\\")


@pytest.mark.slow
def test_a_terminal_without_utf8_gets_what_it_can_show() -> None:
    session_id = session(label="Żółć 🎉")
    ran = program("show", session_id, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.isascii()
    assert r"\u017b\xf3\u0142\u0107" in ran.out


@pytest.mark.parametrize("columns", ["80", "40", "400"])
def test_an_id_is_shown_whole_where_there_is_room(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    session_id = session()
    assert session_id in cc("sessions").out


# Secrets, help, and the dashboard's arguments


def test_no_secret_is_ever_an_argument() -> None:
    for name in commands():
        for option in options(name):
            assert not any(word in option for word in ("password", "secret", "token")) or (
                option == "--token-file"
            ), name


@pytest.mark.parametrize("name", ["", *sorted(commands())])
def test_every_command_explains_itself(name: str) -> None:
    ran = cc(*name.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: coatcheck" in ran.out


def test_every_state_can_be_asked_for() -> None:
    for state in State:
        assert cc("sessions", "--state", state.value, "--json").json["sessions"] == []


def dashboard(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[Any, Ran]:
    called: list[Any] = []

    def run_dashboard(settings: Settings | None, **options: Any) -> int:
        called.append((settings, options))
        return 0

    monkeypatch.setattr("tui.run_dashboard", run_dashboard, raising=False)
    ran = cc("dashboard", *arguments)
    return (called or [None])[0], ran


def test_the_dashboard_works_on_the_ledger_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    (settings, options), ran = dashboard(monkeypatch, "--read-only")
    assert (ran.code, settings) == (0, Settings())
    assert options == {"url": None, "token": None, "read_only": True}


def test_the_dashboards_token_file_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COATCHECK_OPERATOR_TOKEN", "from the environment")
    (settings, options), _ = dashboard(monkeypatch, "--url", "http://127.0.0.1:8000")
    assert (settings, options["token"]) == (None, "from the environment")
    Path("token").write_text("from the file\n")
    (_, options), _ = dashboard(monkeypatch, "--url", "http://x", "--token-file", "token")
    assert options["token"] == "from the file"
    called, ran = dashboard(monkeypatch, "--token-file", "nowhere")
    assert (called, ran.code, "nowhere cannot be read" in ran.err) == (None, 2, True)
