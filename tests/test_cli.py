"""The command line: what each command does, prints and exits with."""

import csv
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

import coatcheck
from coatcheck_start import VERSION
from ledger import Action, Finding, Progress, SessionLedger, Settings, State, system
from ledger.disk import HOUSE, SWEEP_LOCK
from ledger.props import without_roots_rights
from tests.cli import Ran, cc, command, env, on_terminal, program

HOUR_US = 3_600_000_000
ROOT = Path("data/temp")

Place = SessionLedger


@pytest.fixture
def sessions() -> SessionLedger:
    """The place that commands will find here, as it stands before them; closed already."""
    with SessionLedger.open(Settings()) as opened:
        return opened


def session(age: float = 0, label: str = "order 17") -> str:
    """A session with one file, last used `age` hours ago."""
    at = system.now_us() - round(age * HOUR_US)
    with SessionLedger.open(Settings()) as opened:
        then = SessionLedger(opened.place, lambda: at)
        with then.upload(None) as upload:
            upload.open_file("photo.jpg")
            upload.write(b"a photo")
            record, _ = upload.commit(label)
    path = ROOT / record.session_id
    for each in (path / "photo.jpg", path):
        os.utime(each, ns=(at * 1000, at * 1000))
    return record.session_id


def stray(name: str, age: float = 0) -> str:
    at = system.now_us() - round(age * HOUR_US)
    (ROOT / name).mkdir(parents=True)
    (ROOT / name / "file").write_bytes(b"another program's")
    for path in (ROOT / name / "file", ROOT / name):
        os.utime(path, ns=(at * 1000, at * 1000))
    return name


def swept_with_undo(monkeypatch: pytest.MonkeyPatch) -> str:
    """A session that was swept, and whose bytes wait in the trash."""
    session_id = session(age=48)
    with monkeypatch.context() as patch:
        patch.setenv("COATCHECK_UNDO_HOURS", "12")
        assert cc("sweep").code == 0
    return session_id


def state_of(session_id: str) -> str:
    return str(cc("show", session_id, "--json").json["session"]["state"])


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


def test_another_sweep_under_way_is_a_stop(sessions: SessionLedger) -> None:
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


# Ends that are no errors


@pytest.mark.slow
def test_a_closed_pipe_ends_it_in_silence() -> None:
    for number in range(3):
        session(label=f"{number}" * 100)
    running = subprocess.Popen(
        command("sessions", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env()
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    said = running.stderr.read()
    running.stderr.close()
    assert (running.wait(60), said) == (1, b"")


def test_a_first_interrupt_ends_the_sweep_between_two_sessions_and_the_next_does_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [session(age=48) for _ in range(3)] + [stray(f"s{n}", age=48) for n in range(150)]
    advance = Progress.advance
    came: list[int] = []

    def interrupted(progress: Progress, by: int) -> None:
        advance(progress, by)
        if not came:
            came.append(by)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", interrupted)
    before = signal.getsignal(signal.SIGINT)
    ran = cc("sweep", "--json")
    assert ran.code == 130
    assert "Cancelled: this is what was done until then" in ran.err
    left = {name for name in os.listdir(ROOT) if name != HOUSE}
    assert len(ids) - len(left) == ran.json["removed"] < len(ids)
    assert cc("sweep").code == 0
    assert os.listdir(ROOT) == [HOUSE]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_at_any_other_time_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SessionLedger, "create", interrupted)
    ran = cc("create")
    assert (ran.code, ran.out, ran.err) == (130, "", "")


@pytest.mark.parametrize("imported", ["typer", "rich", "sqlmodel"])
def test_an_interrupt_during_the_imports_is_no_traceback(imported: str) -> None:
    interrupt = (
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('went on')"
    )
    Path(f"{imported}.py").write_text(interrupt)  # beside the program, and so found first
    said = subprocess.run(
        ["sh", "-c", '"$@"; echo "ended with $?"', "sh", *command("report")],
        capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests
        text=True,
        check=True,
        env=env(),
        timeout=100,
    )
    assert (said.stdout, said.stderr) == ("ended with 130\n", "")


def test_an_interrupt_that_is_ignored_is_ignored_during_the_imports_too() -> None:
    Path("typer.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('went on')"
    )
    heedless = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command("report")]
    said = subprocess.run(
        heedless, capture_output=True, text=True, check=False, env=env(), timeout=100
    )
    assert said.stderr == "went on\n"


def test_serve_says_where_it_cannot_listen() -> None:
    ran = cc("serve", "--host", "192.0.2.1", "--port", "8000")
    assert (ran.code, "192.0.2.1:8000 cannot be listened on" in ran.err) == (2, True)


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


# Report and sweep


def test_the_report_lists_each_finding_with_its_reason() -> None:
    stale, fresh = session(age=48), session()
    stray("theirs")
    ran = cc("report")
    assert "stale: a sweep would take it out of the root" in ran.out
    assert "unrecorded: a sweep would record it in the ledger" in ran.out
    assert stale in ran.out
    assert fresh not in ran.out
    assert "unused for 48.0 h, longer than 24.0 h" in ran.out
    assert "a sweep would take out or finish 1, up to 7 bytes" in ran.out
    assert (ROOT / stale).exists()


def test_the_reports_json_is_the_contract() -> None:
    stale = session(age=48)
    report = cc("report", "--json").json
    assert [*report] == [
        *("at", "root", "max_age_hours", "dry_run", "counts", "bytes", "removed", "waiting"),
        *("changed", "failed", "root_id", "findings"),
    ]
    assert report["counts"] == {**dict.fromkeys(map(str, Finding), 0), "stale": 1}
    [found] = report["findings"]
    assert [*found] == [
        *("finding", "session_id", "path", "last_activity", "age_hours", "files", "bytes"),
        *("action", "why"),
    ]
    assert (found["session_id"], found["action"], found["files"], found["bytes"]) == (
        *(stale, "set_aside", 1, 7),
    )
    assert found["age_hours"] == pytest.approx(48, abs=0.1)


def test_the_reports_csv_has_a_row_for_each_finding() -> None:
    stale = session(age=48)
    ran = cc("report", "--csv")
    [row] = csv.DictReader(io.StringIO(ran.out, newline=""))
    assert (row["finding"], row["session_id"], row["action"]) == ("stale", stale, "set_aside")


def test_check_tells_whether_a_sweep_would_have_anything_to_do() -> None:
    session(age=48)
    assert cc("report", "--check").code == 1
    assert cc("sweep").code == 0
    assert cc("report", "--check").code == 0


def test_a_dry_run_is_the_report_and_does_nothing() -> None:
    stale = session(age=48)
    dry, report = cc("sweep", "--dry-run", "--json").json, cc("report", "--json").json
    assert dry["findings"][0] | {"age_hours": 0} == report["findings"][0] | {"age_hours": 0}
    assert (dry["dry_run"], dry["removed"]) == (True, 0)
    assert (ROOT / stale / "photo.jpg").read_bytes() == b"a photo"


def test_a_dry_run_says_which_guard_would_stop_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_BRAKE", "0")
    session(age=2)
    assert cc("sweep", "--dry-run").err == ""
    ran = cc("sweep", "--dry-run", "--max-age-hours", 1)
    assert ran.code == 0
    assert "A sweep would be stopped. 1 sessions are stale by the max age of 1 h" in ran.err
    for args in (("sweep", "--dry-run"), ("report",)):
        [objection] = cc(*args, "--max-age-hours", 1, "--json").json["objections"]
        assert objection["guard"] == "brake"
        assert objection["why"] in ran.err


@pytest.mark.slow
def test_progress_is_drawn_on_a_terminal(sessions: SessionLedger) -> None:
    stray("theirs", age=48)
    code, said = on_terminal("", "sweep")
    assert code == 0
    assert "\x1b[" in said
    assert "removed 1 (1 of them wait in the trash)" in said


def test_max_age_hours_go_before_the_settings() -> None:
    session(age=2)
    assert cc("report", "--json").json["counts"]["stale"] == 0
    report = cc("report", "--json", "--max-age-hours", "1.5").json
    assert (report["counts"]["stale"], report["max_age_hours"]) == (1, 1.5)


def test_only_what_a_report_lists_is_swept_and_only_while_it_is_as_listed() -> None:
    listed, touched = session(age=48), session(age=48)
    Path("report.json").write_text(cc("report", "--json").out)
    later = session(age=48)
    cc("touch", touched)
    swept = cc("sweep", "--only", "report.json", "--json").json
    assert (swept["removed"], swept["changed"]) == (1, 1)
    assert {name for name in os.listdir(ROOT) if name != HOUSE} == {touched, later}
    assert state_of(listed) == "expired"


@pytest.mark.slow
def test_a_report_can_come_through_a_pipe() -> None:
    session(age=48)
    report = cc("sweep", "--dry-run", "--json").out
    ran = program("sweep", "--only", "-", stdin=report)
    assert (ran.code, "removed 1" in ran.out) == (0, True)
    assert os.listdir(ROOT) == [HOUSE]


def test_an_edited_report_does_not_make_a_live_session_go() -> None:
    live = session()
    session(age=48)
    report = cc("report", "--json").json
    report["findings"][0]["session_id"] = live
    report["findings"][0]["path"] = str(ROOT.absolute() / live)
    Path("report.json").write_text(json.dumps(report))
    ran = cc("sweep", "--only", "report.json", "--json")
    assert (ran.json["removed"], ran.json["changed"]) == (0, 1)
    assert (ROOT / live / "photo.jpg").exists()


def test_a_report_of_many_findings_is_cut_for_people_and_whole_for_programs() -> None:
    cc("create")
    for number in range(230):
        stray(f"theirs-{number}")
    shown = cc("report")
    assert "… and 30 more" in shown.out
    assert len(cc("report", "--json").json["findings"]) == 230


# Sessions, one by one


def test_a_session_goes_through_its_life() -> None:
    made = cc("create", "--label", "order 17", "--json").json
    assert (made["state"], made["label"], made["files"], made["origin"]) == (
        *("active", "order 17", [], "created"),
    )
    kept = cc("touch", made["session_id"], "--json").json
    assert kept["last_touch_at"] > made["last_touch_at"]
    claimed = cc("claim", made["session_id"], "spring", "--json").json
    assert (claimed["state"], claimed["path"]) == (
        "claimed",
        str(Path("data/claims/spring").absolute()),
    )
    assert Path("data/claims/spring").is_dir()
    again = cc("touch", made["session_id"])
    assert (again.code, "has ended: claimed" in again.err) == (1, True)
    events = cc("show", made["session_id"], "--json").json["events"]
    assert [event["to"] for event in events] == ["active", "claiming", "claimed"]
    assert {event["by"] for event in events} == {"operator"}


def test_create_prints_the_id_alone_so_that_a_script_can_use_it() -> None:
    ran = cc("create")
    assert ran.out.removesuffix("\n") in os.listdir(ROOT)


def test_delete_takes_the_bytes_and_a_second_one_says_that_it_has_ended() -> None:
    session_id = session()
    assert cc("delete", session_id, "--json").json == {"session_id": session_id, "deleted": True}
    assert os.listdir(ROOT) == [HOUSE]
    assert os.listdir(ROOT / HOUSE / "trash") == []
    ran = cc("delete", session_id)
    assert (ran.code, f"Session '{session_id}' has ended: deleted at 20" in ran.err) == (1, True)


def test_delete_takes_a_directory_that_has_no_row_yet(sessions: SessionLedger) -> None:
    stray("theirs")
    assert cc("delete", "theirs").code == 0
    assert os.listdir(ROOT) == [HOUSE]


def test_restore_brings_a_swept_session_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = swept_with_undo(monkeypatch)
    assert not (ROOT / session_id).exists()
    (ROOT / session_id).mkdir()
    taken = cc("restore", session_id)
    assert (taken.code, "Move it away first" in taken.err) == (1, True)
    (ROOT / session_id).rmdir()
    back = cc("restore", session_id, "--json").json
    assert (back["state"], back["files"]) == ("active", [{"name": "photo.jpg", "bytes": 7}])
    assert (ROOT / session_id / "photo.jpg").read_bytes() == b"a photo"


def test_the_list_is_paged_sorted_and_filtered() -> None:
    ids = [session(age=age) for age in (1, 2, 3)]
    cc("delete", session(age=4))
    first = cc("sessions", "--json", "--limit", 2, "--state", "active").json
    assert [each["session_id"] for each in first["sessions"]] == ids[:2]
    assert all(len(each["files"]) == each["file_count"] == 1 for each in first["sessions"])
    rest = cc(
        *("sessions", "--json", "--limit", 2, "--state", "active", "--cursor", first["next"])
    ).json
    assert ([each["session_id"] for each in rest["sessions"]], rest["next"]) == (ids[2:], None)
    wrong = cc("sessions", "--sort", "bytes", "--cursor", first["next"])
    assert wrong.code == 2
    oldest = cc("sessions", "--json", "--sort", "created_at").json["sessions"]
    assert [each["session_id"] for each in oldest][1:] == ids[::-1]
    shown = cc("sessions", "--limit", 2)
    assert "More: --cursor " in shown.out


# One session shown


@pytest.mark.parametrize(
    ("age", "finding", "action", "words"),
    [
        (0, "live", "keep", "A sweep now would leave it alone. Found live: touched"),
        (48, "stale", "set_aside", "would take it out of the root. Found stale: unused for 48.0 h"),
    ],
)
def test_show_says_what_a_sweep_would_do_now_and_why(
    age: float, finding: str, action: str, words: str
) -> None:
    session_id = session(age=age)
    assert words in cc("show", session_id).out
    shown = cc("show", session_id, "--json").json
    assert (shown["verdict"]["finding"], shown["verdict"]["action"]) == (finding, action)
    assert shown["session"]["files"] == [{"name": "photo.jpg", "bytes": 7}]
    assert (shown["disk"]["kind"], shown["disk"]["bytes"]) == ("directory", 7)
    if finding == "stale":
        [listed] = cc("report", "--json").json["findings"]
        assert (listed["action"], listed["why"]) == (action, shown["verdict"]["why"])


def test_show_sets_both_clocks_side_by_side() -> None:
    session_id = session(age=48)
    used = system.now_us() - HOUR_US
    os.utime(ROOT / session_id / "photo.jpg", ns=(used * 1000, used * 1000))
    shown = cc("show", session_id, "--json").json
    ledger = datetime.fromisoformat(shown["session"]["last_touch_at"])
    disk = datetime.fromisoformat(shown["disk"]["mtime"])
    assert (disk - ledger).total_seconds() == pytest.approx(47 * 3600, abs=60)
    assert shown["verdict"]["finding"] == "drifted"


def test_show_knows_a_directory_that_has_no_row(sessions: SessionLedger) -> None:
    stray("theirs")
    shown = cc("show", "theirs", "--json").json
    assert (shown["session"], shown["verdict"]["finding"]) == (None, "unrecorded")
    assert "not in the ledger" in cc("show", "theirs").out


def test_show_knows_what_waits_in_the_trash(monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = swept_with_undo(monkeypatch)
    shown = cc("show", session_id, "--json").json
    assert (shown["session"]["state"], shown["verdict"]) == ("expired", None)
    [waiting] = shown["trash"]
    assert (waiting["finding"], waiting["bytes"]) == ("waiting", 7)
    said = cc("show", session_id)
    assert "In the trash: set aside; restorable" in said.out
    assert "A sweep now would do nothing" in said.out


def test_show_knows_what_is_foreign(sessions: SessionLedger) -> None:
    (ROOT / "readme").write_text("theirs")
    shown = cc("show", "readme", "--json").json
    assert (shown["disk"]["kind"], shown["verdict"]["action"]) == ("foreign", str(Action.REPORT))


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


# The demo


@pytest.mark.slow
def test_the_demo_shows_each_command_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = program("demo", TMPDIR=str(tmp_path))
    assert (ran.code, ran.err) == (0, "")
    for typed in ("report", "sweep --dry-run", "sweep", "restore ", "show "):
        assert f"\n$ coatcheck {typed}" in ran.out
    for finding in Finding:
        assert finding.value in ran.out
    assert os.listdir(tmp_path) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.slow
def test_the_demo_can_be_kept_to_look_around(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cc("demo", "--keep")
    [line] = [line for line in ran.out.splitlines() if line.startswith("export COATCHECK_ROOT=")]
    monkeypatch.setenv("COATCHECK_ROOT", line.removeprefix("export COATCHECK_ROOT="))
    assert Path(os.environ["COATCHECK_ROOT"]).is_relative_to(temporary)
    assert cc("report", "--json").json["counts"]["foreign"] == 5


def test_the_demos_json_has_every_report(temporary: Path) -> None:
    play = cc("demo", "--json").json
    assert all(play["report"]["counts"][finding] for finding in map(str, Finding))
    assert play["sweep"]["removed"] > 0
    unsettled = {
        name
        for name, count in play["after"]["counts"].items()
        if count and name not in ("live", "waiting", "in_use", "foreign")
    }
    assert unsettled == {"unreadable"}
    assert (play["restored"]["session"]["state"], play["kept"]) == ("active", None)
    assert os.listdir(temporary) == []


# How it begins


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_its_version_is_said_before_anything_that_takes_time_is_loaded(word: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "coatcheck_start", word]
    done = subprocess.run(command, env=env(), capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))
    assert ({"typer", "ledger"} <= loaded) is (word == "--help")
    assert done.stdout.startswith(f"coatcheck {VERSION}\n") is (word == "--version")


def test_the_program_says_the_version_that_is_installed() -> None:
    assert version("coatcheck") == VERSION
