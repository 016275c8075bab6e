"""The orphan report: one value that is told, written, read back, and carried out; never trusted."""

import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    Finding,
    Report,
    SessionLedger,
    Settings,
    SweepStopped,
    SweepUnderWay,
    UsageError,
    parse_report,
)
from ledger.demo import SCENES
from ledger.report import COLUMNS, csv_of, micros, moment, rfc3339
from tests.ledger.world import World, around, content, findings

# -- A report that the world has overtaken


def test_only_what_was_listed_is_acted_on_and_only_while_it_is_as_listed(world: World) -> None:
    touched, written, deleted, claimed, gone, still = (world.create(age=30) for _ in range(6))
    stranger = world.stray("stranger", age=30)
    report = world.sessions.report()
    assert findings(report) == {"stale": 6, "unrecorded": 1}
    world.sessions.touch(touched)
    (world.root / written / "photo.jpg").write_bytes(b"another photo")
    world.sessions.delete_session(deleted)
    world.sessions.claim(claimed, into="spring")
    (world.root / gone).rename(world.folder / "gone")
    later = world.create(age=40)
    world.sessions.touch(stranger)
    done = world.sessions.sweep(report)
    assert (done.removed, done.changed, done.failed) == (1, 6, 0)
    assert [entry.session_id for entry in done.entries] == [still]
    assert world.standing() == {touched, written, later, stranger}
    assert world.state(later) == "active"
    assert (world.root / written / "photo.jpg").read_bytes() == b"another photo"
    assert (world.claims / "spring/photo.jpg").exists()


def test_a_report_carried_out_later_acts_on_nothing_that_became_stale_since(world: World) -> None:
    old, young = world.create(age=30), world.create(age=20)
    report = world.sessions.report()
    world.clock.passes(10)
    assert world.sessions.sweep(report).removed == 1
    assert (world.state(old), world.state(young)) == ("expired", "active")


def test_a_report_goes_by_its_own_max_age(world: World) -> None:
    world.reopen(brake=0)
    session_id = world.create(age=30)
    long = world.sessions.report(max_age_hours=48)
    assert findings(long) == {"live": 1}
    assert world.sessions.sweep(long).removed == 0
    longer = world.sessions.report(max_age_hours=25)
    assert world.sessions.sweep(longer).removed == 1
    assert world.state(session_id) == "expired"


def test_a_report_is_carried_out_once(world: World) -> None:
    first, second = world.create(age=30), world.create(age=30)
    report = world.sessions.report()
    assert world.sessions.sweep(report).removed == 2
    again = world.sessions.sweep(report)
    assert (again.removed, again.changed) == (0, 2)
    # Not even where the same name stands there once more, as old as before.
    for session_id in (first, second):
        world.stray(session_id, age=30)
    assert world.sessions.sweep(report).changed == 2
    assert world.standing() == {first, second}


def test_of_two_sweeps_of_one_report_at_once_one_is_refused(world: World) -> None:
    for _ in range(5):
        world.create(age=30)
    report = world.sessions.report()
    raised: list[SweepUnderWay] = []

    def again() -> None:
        with pytest.raises(SweepUnderWay) as under_way:
            world.sessions.sweep(report)
        raised.append(under_way.value)

    with around("survey.examine", after=again):
        assert world.sessions.sweep(report).removed == 5
    assert len(raised) == 1


# -- A report of another root


def test_a_report_of_another_root_is_refused_and_names_both(world: World, tmp_path: Path) -> None:
    session_id = world.create(age=30)
    report = world.sessions.report()
    settings = Settings(root=tmp_path / "other/temp", ledger=f"sqlite:///{tmp_path}/other.db")
    with SessionLedger.open(settings) as other:
        with pytest.raises(UsageError) as refused:
            other.sweep(report)
        other_id = other.place.root_id
    said = str(refused.value)
    assert report.root_id in said
    assert report.root in said
    assert other_id in said
    assert "coatcheck report --json" in said
    assert world.state(session_id) == "active"


@pytest.mark.sqlite
def test_after_an_adoption_a_report_of_before_is_one_of_another_root(world: World) -> None:
    world.create(age=30)
    report = world.sessions.report()
    world.sessions.close()
    (world.folder / "ledger.db").unlink()
    world.sessions = world.open(adopt=True)
    with pytest.raises(UsageError, match="not of"):
        world.sessions.sweep(report)


# -- A report that was edited


def edited(world: World, edit: Callable[[dict[str, Any]], object], **head: Any) -> Report:
    """This root's report, written, edited and read back."""
    body = world.sessions.report().as_json() | head
    for entry in body["findings"]:
        edit(entry)
    return parse_report(json.dumps(body))


def test_a_report_survives_being_written_and_read(world: World) -> None:
    stands = [scene.build(world.sessions) for scene in SCENES.values()]
    try:
        report = world.sessions.report()
        read = parse_report(json.dumps(report.as_json()))
        for before, after in zip(report.entries, read.entries, strict=True):
            assert dataclasses.replace(after, age_us=before.age_us) == before
        assert (read.at, read.root_id, read.max_age_us) == (
            report.at,
            report.root_id,
            report.max_age_us,
        )
        done = world.sessions.sweep(read)
        assert (done.changed, done.failed) == (0, 0)
    finally:
        for stand in stands:
            stand.release()


def outside(world: World) -> Path:
    """A place that a forged path may name; nothing of it may change."""
    place = world.folder / "outside"
    (place / "deeper").mkdir(parents=True)
    (place / "kept").write_bytes(b"kept")
    world.date(place, 99)
    return place


FORGERIES: dict[str, dict[str, Any]] = {
    "its path leads elsewhere": {"path": "/etc"},
    "its path leads out of the root": {"path": "{root}/../outside"},
    "its path is another's": {"path": "{root}/{live}"},
    "its path is empty": {"path": ""},
    "its path is the root's": {"path": "{root}"},
    "its path is the ledger's": {"path": "{root}/../ledger.db"},
    "its path is coatcheck's own": {"path": "{root}/.coatcheck"},
    "its path is the trash": {"path": "{root}/.coatcheck/trash"},
    "its path is a trash entry's": {"path": "{root}/.coatcheck/trash/{waiting}"},
    "its path is out of the trash": {"path": "{root}/.coatcheck/trash/../../{live}"},
    "its path is out of incoming": {"path": "{root}/.coatcheck/incoming/../../{live}"},
    "its path is a leftover's": {"path": "{root}/.coatcheck/incoming/young"},
    "its id leads out": {"session_id": "../outside", "path": "{root}/../outside"},
    "its id is a path": {"session_id": "/etc", "path": "/etc"},
    "its id is coatcheck's own": {"session_id": ".coatcheck", "path": "{root}/.coatcheck"},
    "its id is empty": {"session_id": "", "path": "{root}/"},
    "its id is a dot": {"session_id": ".", "path": "{root}/."},
    "its id has a NUL": {"session_id": "a\0b", "path": "{root}/a\0b"},
    "its path is a dead one's": {"path": "{root}/.coatcheck/trash/dead-abc", "session_id": None},
    "its path has a NUL": {"path": "{root}/.coatcheck/trash/dead-a\0", "session_id": None},
    "its path's salt has a NUL": {"path": "{root}/.coatcheck/trash/sweep-1-0-\0-a"},
    "its id is long": {"session_id": "x" * 5000, "path": "{root}/" + "x" * 5000},
    "its id is a live one's": {"session_id": "{live}", "path": "{root}/{live}"},
    "its id is a foreign one's": {"session_id": "link", "path": "{root}/link"},
    "its id is unknown": {"session_id": "nobody", "path": "{root}/nobody"},
    "it has no id": {"session_id": None},
    "it should be adopted": {"action": "adopt"},
    "it should be ended": {"action": "end"},
    "it should be finished": {"action": "finish"},
    "it should be kept": {"action": "keep"},
    "it is said to be missing": {"finding": "missing", "action": "end"},
    "it is said to be unfinished": {"finding": "unfinished", "action": "finish"},
    "it is said to be waiting": {"finding": "waiting", "action": "finish"},
    "it is said to be a dead one": {
        "finding": "unfinished",
        "action": "finish",
        "session_id": None,
        "last_activity": None,
        "path": "{root}/.coatcheck/trash/dead-\0",
    },
    "it is said to be one that is due": {
        "finding": "unfinished",
        "action": "finish",
        "path": "{root}/.coatcheck/trash/{waiting}",
    },
    "it is said to be a leftover": {
        "finding": "unfinished",
        "action": "finish",
        "session_id": None,
        "last_activity": None,
        "path": "{root}/.coatcheck/incoming/young",
    },
    "it was used at another time": {"last_activity": "2020-01-01T00:00:00Z"},
    "it was used before 1970": {"last_activity": "1969-01-01T00:00:00Z"},
    "it was never used": {"last_activity": None},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_entry_does_nothing(world: World, forgery: str) -> None:
    world.stray("waiting", age=40)
    world.sessions.sweep()
    stale, live = world.create(age=30), world.create(age=1)
    (world.incoming / "young").mkdir()
    (world.root / "link").symlink_to(outside(world))
    names = {"root": str(world.root), "live": live, "waiting": world.in_trash()[0]}

    def forge(entry: dict[str, Any]) -> None:
        if entry["session_id"] == stale:
            for key, value in FORGERIES[forgery].items():
                entry[key] = value.format_map(names) if isinstance(value, str) else value

    report = edited(world, forge)
    before = content(world.folder / "outside"), content(world.root / live)
    done = world.sessions.sweep(report)
    kept = forgery == "it should be kept"
    assert (done.removed, done.changed, done.failed) == (0, 0 if kept else 1, 0)
    assert world.standing() == {stale, live, "link"}
    assert world.in_trash() == [names["waiting"]]
    assert os.listdir(world.incoming) == ["young"]
    assert (content(world.folder / "outside"), content(world.root / live)) == before
    assert world.state(stale) == world.state(live) == "active"
    assert world.state("waiting") == "expired"


NEGATIVE: list[dict[str, Any]] = [
    {"files": -1, "bytes": -5, "age_hours": -30},
    {"files": 2**80, "bytes": 2**80, "age_hours": 1e200},
    {"age_hours": None, "why": "\x1b[2J" * 100},
]


@pytest.mark.parametrize("numbers", NEGATIVE, ids=str)
def test_what_an_entry_says_of_itself_beside_its_evidence_counts_for_nothing(
    world: World, numbers: dict[str, Any]
) -> None:
    stale = world.create(age=30)
    done = world.sessions.sweep(edited(world, lambda entry: entry.update(numbers)))
    assert (done.removed, done.changed) == (1, 0)
    [entry] = done.entries
    assert (entry.files, entry.bytes) == (2, 13)
    assert "unused for 30.0 h" in entry.why
    row = world.known(stale)
    assert (row.files, row.bytes) == (2, 13)


def test_an_entry_that_is_listed_twice_is_carried_out_once(world: World) -> None:
    world.create(age=30)
    body = world.sessions.report().as_json()
    body["findings"] *= 3
    done = world.sessions.sweep(parse_report(json.dumps(body)))
    assert (done.removed, done.changed, done.failed) == (1, 2, 0)


@pytest.mark.parametrize("age", [-1000, 1000, None])
def test_forged_ages_do_not_pass_the_brake(world: World, age: float | None) -> None:
    world.reopen(brake=1)
    for _ in range(2):
        world.create(age=2)
    body = world.sessions.report(max_age_hours=1).as_json()
    for entry in body["findings"]:
        entry["age_hours"] = age
    with pytest.raises(SweepStopped, match="brake"):
        world.sessions.sweep(parse_report(json.dumps(body)))
    assert len(world.standing()) == 2


# -- A report that is none

HEAD = {
    "at": "2025-01-01T00:00:00Z",
    "root": "/srv/temp",
    "root_id": "x",
    "max_age_hours": 24,
    "findings": [],
}
ENTRY = {
    "finding": "stale",
    "session_id": "a",
    "path": "/srv/temp/a",
    "last_activity": "2024-12-30T00:00:00Z",
    "age_hours": 48,
    "files": 1,
    "bytes": 1,
    "action": "set_aside",
    "why": "old",
}


def report_with(**changes: Any) -> str:
    return json.dumps(HEAD | changes)


def entry_with(**changes: Any) -> str:
    return json.dumps(HEAD | {"findings": [ENTRY | changes]})


GARBAGE = {
    "nothing": "",
    "no JSON": "{",
    "a number": "17",
    "a list": "[]",
    "null": "null",
    "not UTF-8": b'{"at": "\xff"}',
    "deep": "[" * 100_000,
    "a huge number": '{"at": ' + "9" * 5000 + "}",
    "no head": "{}",
    "no findings": json.dumps({k: v for k, v in HEAD.items() if k != "findings"}),
    "no root's id": json.dumps({k: v for k, v in HEAD.items() if k != "root_id"}),
    "a root's id that is a number": report_with(root_id=17),
    "no time": report_with(at="yesterday"),
    "a time without its zone": report_with(at="2025-01-01T00:00:00"),
    "a time that cannot be": report_with(at="2025-13-01T00:00:00Z"),
    "max age 0": report_with(max_age_hours=0),
    "max age below 0": report_with(max_age_hours=-1),
    "max age next to nothing": report_with(max_age_hours=1e-15),
    "max age true": report_with(max_age_hours=True),
    "max age in words": report_with(max_age_hours="24"),
    "max age not a number": report_with().replace("24", "NaN"),
    "max age without end": report_with().replace("24", "Infinity"),
    "max age beyond all": report_with(max_age_hours=1e300),
    "max age of a billion years": report_with(max_age_hours=1e13),
    "findings that are none": report_with(findings={}),
    "an entry that is none": report_with(findings=["a"]),
    "an unknown finding": entry_with(finding="lost"),
    "an unknown action": entry_with(action="remove"),
    "an activity that is a number": entry_with(last_activity=0),
    "an activity without its zone": entry_with(last_activity="2024-12-30T00:00:00"),
    "an id that is a number": entry_with(session_id=7),
    "an id that is half a character": entry_with(session_id="\udc80"),
    "no path": entry_with(path=None),
    "files in fractions": entry_with(files=1.5),
    "files that are true": entry_with(files=True),
    "an age without end": entry_with().replace("48", "Infinity"),
    "an age that is no number": entry_with().replace("48", "NaN"),
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_report_is_refused_in_words(text: str | bytes) -> None:
    with pytest.raises(UsageError, match="no report of coatcheck: ") as refused:
        parse_report(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_report_may_say_more_than_is_known_here() -> None:
    """One of a later version, or one that somebody has annotated."""
    assert parse_report(report_with(comment="fine", findings=[ENTRY | {"mood": "good"}])).entries


# -- As JSON, as CSV


def test_the_json_has_every_field_and_every_findings_count(world: World) -> None:
    session_id = world.create(age=30)
    body = world.sessions.report().as_json()
    assert list(body) == [
        *("at", "root", "max_age_hours", "dry_run", "counts", "bytes", "removed", "waiting"),
        *("changed", "failed", "root_id", "findings"),
    ]
    assert body["counts"] == {finding.value: int(finding == "stale") for finding in Finding}
    assert body["bytes"] == {finding.value: 13 * (finding == "stale") for finding in Finding}
    assert body["dry_run"] is True
    [entry] = body["findings"]
    assert tuple(entry) == COLUMNS
    assert (entry["session_id"], entry["files"], entry["bytes"]) == (session_id, 2, 13)
    assert entry["path"] == str(world.root / session_id)
    assert entry["age_hours"] == pytest.approx(30, abs=0.1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["last_activity"])
    json.dumps(body, allow_nan=False)


def test_live_sessions_are_counted_and_not_listed(world: World) -> None:
    world.create()
    report = world.sessions.report()
    assert findings(report) == {"live": 1}
    assert report.as_json()["bytes"]["live"] == 13
    assert report.entries == []


def test_a_sweep_that_is_told_not_to_keep_its_entries_still_counts_them(world: World) -> None:
    world.create(age=30)
    done = world.sessions.sweep(keep_entries=False)
    assert (done.removed, done.entries, findings(done)) == (1, [], {"stale": 1})


def test_the_csv_is_one_line_a_finding_and_no_formula_in_it(world: World) -> None:
    for name in ["=cmd", "+1", "-1", "@x", "\tx", "ok"]:
        world.stray(name, age=1)
    rows = list(csv.DictReader(io.StringIO(world.sessions.report().as_csv())))
    assert len(rows) == 6
    assert tuple(rows[0]) == COLUMNS
    names = {row["path"].rpartition("/")[2] for row in rows}
    assert names == {"=cmd", "+1", "-1", "@x", r"\tx", "ok"}
    assert all(cell[:1] not in {*"=+-@\t\r"} for row in rows for cell in row.values())
    assert csv_of([]).strip() == ",".join(COLUMNS)


@pytest.mark.parametrize(
    "at", [0, 1, -1, 999_999, 1_700_000_000_123_456, -62_135_596_800_000_000, 2**53 + 1]
)
def test_times_are_whole_microseconds_both_ways(at: int) -> None:
    text = rfc3339(at)
    assert text is not None
    assert text.endswith("Z")
    assert micros(text) == at


def test_times_beyond_a_calendars_end_are_told_all_the_same() -> None:
    assert moment(2**62).year == 9999
    assert moment(-(2**62)).year == 1
    assert rfc3339(None) is None


@pytest.mark.parametrize("name", ["tmp\u00a0root", "new\nline", "\U0001f9e5"])
def test_a_root_of_any_name_has_reports_that_can_be_carried_out(tmp_path: Path, name: str) -> None:
    settings = Settings(root=tmp_path / name, ledger=f"sqlite:///{tmp_path}/l.db")
    with SessionLedger.open(settings) as sessions:
        SCENES["stale"].build(sessions)
        SCENES["dead"].build(sessions)
        SCENES["leftover"].build(sessions)
        text = json.dumps(sessions.report().as_json())
        done = sessions.sweep(parse_report(text))
        assert (done.removed, done.changed, done.failed) == (1, 0, 0)
        assert sessions.report().settled
