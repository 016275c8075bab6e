"""The command line: what each command does and shows."""

import csv
import io
import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from ledger import Action, Finding, system
from ledger.disk import HOUSE
from tests.cli import HOUR_US, ROOT, a_root, cc, on_terminal, program, session, stray


def swept_with_undo(monkeypatch: pytest.MonkeyPatch) -> str:
    """A session that was swept, and whose bytes wait in the trash."""
    session_id = session(age=48)
    with monkeypatch.context() as patch:
        patch.setenv("COATCHECK_UNDO_HOURS", "12")
        assert cc("sweep").code == 0
    return session_id


def state_of(session_id: str) -> str:
    return str(cc("show", session_id, "--json").json["session"]["state"])


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
def test_progress_is_drawn_on_a_terminal() -> None:
    a_root()
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


def test_delete_takes_a_directory_that_has_no_row_yet() -> None:
    a_root()
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


def test_show_knows_a_directory_that_has_no_row() -> None:
    a_root()
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


def test_show_knows_what_is_foreign() -> None:
    a_root()
    (ROOT / "readme").write_text("theirs")
    shown = cc("show", "readme", "--json").json
    assert (shown["disk"]["kind"], shown["verdict"]["action"]) == ("foreign", str(Action.REPORT))
