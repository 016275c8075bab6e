"""The one door: what an application does with sessions, alone and many at once."""

import logging
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import ledger
from ledger import (
    NameTaken,
    SessionBusy,
    SessionEnded,
    SessionError,
    SessionLedger,
    SessionNotFound,
    Settings,
    UsageError,
)
from tests.ledger.world import World, around, content, findings

INTO = "spring"
NOT_IDS = ["", ".", "..", "../x", "a/b", "/etc", ".coatcheck", "-x", "a b", "é", "a\0", "x" * 129]


def test_the_designs_example_runs_as_written(tmp_path: Path) -> None:
    sessions = SessionLedger.open(Settings(root="data/temp", ledger="sqlite:///data/ledger.db"))
    session = sessions.create(label="order 17")
    sessions.touch(session.id)
    sessions.claim(session.id, into="data/claims/spring")
    assert (tmp_path / "data/claims/spring").is_dir()
    session = sessions.create()
    assert sessions.delete_session(session.id) is True
    assert sessions.cleanup_stale_sessions(max_age_hours=24) == 0
    report = sessions.report(max_age_hours=24)
    assert sessions.sweep(report).removed == 0
    assert sessions.sweep().removed == 0
    sessions.close()
    SessionLedger.open(Settings(root="data/temp", ledger="sqlite:///data/ledger.db")).close()


def test_all_that_is_exported_exists() -> None:
    assert all(hasattr(ledger, name) for name in ledger.__all__)
    assert sorted(ledger.__all__) == ledger.__all__


def test_a_new_session_stands_on_the_disk_and_in_the_ledger(any_world: World) -> None:
    session = any_world.sessions.create(label="order 17")
    assert re.fullmatch("[a-z2-7]{26}", session.id)
    assert session.path == str(any_world.root / session.id)
    assert os.listdir(session.path) == []
    assert (session.state, session.label, session.origin) == ("active", "order 17", "created")
    assert (session.bytes, session.files, session.ended_at) == (0, 0, None)
    assert session.created_at.tzinfo == UTC
    assert session.expires_at - session.last_touch_at == timedelta(hours=24)
    assert any_world.sessions.get(session.id) == session
    assert any_world.sessions.page() == [session]
    assert any_world.path_of_life(session.id) == ["active"]


# -- Touch


def mtime_us(path: Path) -> int:
    return path.stat().st_mtime_ns // 1000


def test_a_touch_is_the_same_in_the_ledger_and_on_the_disk(any_world: World) -> None:
    session_id = any_world.create(age=5)
    before = any_world.known(session_id)
    any_world.sessions.touch(session_id)
    row = any_world.known(session_id)
    assert row.last_touch_at == mtime_us(any_world.root / session_id)
    assert abs(row.last_touch_at - any_world.clock()) < 60_000_000
    assert (row.version, row.touched) == (before.version + 1, True)


def test_a_touch_never_moves_one_back(world: World) -> None:
    session_id = world.create()
    world.clock.passes(1)
    later = world.sessions.touch(session_id).last_touch_at
    world.clock.passes(-0.9)
    assert world.sessions.touch(session_id).last_touch_at == later
    assert mtime_us(world.root / session_id) == world.known(session_id).last_touch_at


def test_reading_is_no_touch(world: World) -> None:
    session_id = world.create(age=5)
    before = world.known(session_id), content(world.root / session_id)
    world.sessions.get(session_id)
    world.sessions.page()
    world.sessions.files(session_id)
    os.close(world.sessions.open_file(session_id, "photo.jpg"))
    world.sessions.judge(session_id)
    world.sessions.report()
    world.sessions.health()
    assert (world.known(session_id), content(world.root / session_id)) == before


@pytest.mark.parametrize("how", ["create", "upload", "take a file out", "restore", "touch"])
def test_what_counts_as_a_touch(world: World, how: str) -> None:
    world.reopen(undo_hours=2)
    session_id = world.sessions.create().id if how == "create" else world.create(age=30)
    if how == "upload":
        with world.sessions.upload(session_id) as upload:
            upload.open_file("third")
            upload.commit()
    elif how == "take a file out":
        assert world.sessions.delete_file(session_id, "photo.jpg")
    elif how == "restore":
        world.sessions.sweep()
        world.sessions.restore(session_id)
    elif how == "touch":
        world.sessions.touch(session_id)
    row = world.known(session_id)
    assert row.touched
    assert abs(row.last_touch_at - world.clock()) < 60_000_000
    assert abs(mtime_us(world.root / session_id) - row.last_touch_at) < 60_000_000
    assert world.sessions.sweep().removed == 0


def test_a_file_that_two_take_out_at_once_is_counted_out_once(world: World) -> None:
    session_id = world.create()
    answers: list[bool] = []

    def take_out() -> None:
        answers.append(world.sessions.delete_file(session_id, "photo.jpg"))

    with around("files.open_file", after=take_out):
        take_out()
    assert sorted(answers) == [False, True]
    row = world.known(session_id)
    assert (row.files, row.bytes) == (1, len(b"a list"))


# -- Delete


def test_delete_is_true_once(any_world: World) -> None:
    session_id = any_world.create()
    assert any_world.sessions.delete_session(session_id) is True
    assert session_id not in any_world.standing()
    assert any_world.sessions.delete_session(session_id) is False
    row = any_world.known(session_id)
    assert (row.state, row.ended_by, row.ended_why) == ("deleted", "library", "deleted")
    any_world.reopen()
    assert any_world.in_trash() == []


@pytest.mark.parametrize("age", [0, 30, -5])
def test_delete_needs_no_row(any_world: World, age: float) -> None:
    any_world.stray("stranger", age=age)
    assert any_world.sessions.delete_session("stranger") is True
    assert any_world.standing() == set()
    assert any_world.sessions.delete_session("stranger") is False
    assert any_world.path_of_life("stranger") == ["active", "removing", "deleted"]
    assert any_world.known("stranger").origin == "adopted"


@pytest.mark.parametrize("name", [*NOT_IDS, "unknown"])
def test_there_is_nothing_to_delete_of_a_name_that_is_none(world: World, name: str) -> None:
    session_id = world.create()
    assert world.sessions.delete_session(name) is False
    assert world.standing() == {session_id}
    assert world.in_trash() == []


@pytest.mark.parametrize("name", [*NOT_IDS, "unknown"])
def test_a_name_that_is_none_is_not_found(world: World, name: str) -> None:
    acts: list[Callable[[], object]] = [
        lambda: world.sessions.get(name),
        lambda: world.sessions.touch(name),
        lambda: world.sessions.claim(name, into=INTO),
        lambda: world.sessions.upload(name),
        lambda: world.sessions.files(name),
        lambda: world.sessions.open_file(name, "photo.jpg"),
        lambda: world.sessions.delete_file(name, "photo.jpg"),
    ]
    for act in acts:
        with pytest.raises(SessionNotFound) as not_found:
            act()
        assert str(not_found.value) == f"Session '{name}' not found"
    with pytest.raises(SessionError):
        world.sessions.restore(name)
    assert world.standing() == set()


@pytest.mark.parametrize("end", ["delete", "expire", "claim", "lose"])
def test_what_has_ended_says_how_and_when(world: World, end: str) -> None:
    session_id = world.create(age=30)
    if end == "delete":
        world.sessions.delete_session(session_id)
    elif end == "claim":
        world.sessions.claim(session_id, into=INTO)
    elif end == "lose":
        (world.root / session_id).rename(world.folder / "away")
    world.sessions.sweep()
    words = {"delete": "deleted", "expire": "expired", "claim": "claimed", "lose": "missing"}
    said = rf"has ended: {words[end]} at \d{{4}}-.*Z \(.+\)"
    for act in (
        lambda: world.sessions.touch(session_id),
        lambda: world.sessions.upload(session_id),
        lambda: world.sessions.claim(session_id, into="elsewhere"),
        lambda: world.sessions.delete_file(session_id, "photo.jpg"),
    ):
        with pytest.raises(SessionEnded, match=said):
            act()
    assert world.sessions.delete_session(session_id) is False
    session = world.sessions.get(session_id)
    assert session.state == words[end]
    assert session.ended_at is not None
    assert session.ended_at - datetime.now(UTC) < timedelta(minutes=1)


def test_what_was_made_just_after_a_delete_is_no_lost_removal(world: World) -> None:
    """Files are stamped by a clock that ticks, and the inode is soon used again."""
    world.stray("again")
    world.sessions.delete_session("again")
    world.stray("again")
    facts = (world.root / "again").stat()
    ended = facts.st_ctime_ns // 1000 + 3000  # as if by a tick later than it was made
    world.alter("again", inode=str(facts.st_ino), ended_at=ended)
    assert world.sessions.sweep().removed == 0
    assert (world.state("again"), world.standing()) == ("active", {"again"})


# -- Claim


def test_a_claimed_session_is_whole_at_its_destination(any_world: World) -> None:
    session_id = any_world.create()
    whole = content(any_world.root / session_id)
    inode = (any_world.root / session_id).stat().st_ino
    claimed = any_world.sessions.claim(session_id, into=any_world.claims / "2025/spring")
    path = any_world.claims / "2025/spring"
    assert claimed.path == str(path)
    assert claimed.state == "claimed"
    assert (content(path), path.stat().st_ino) == (whole, inode)
    assert any_world.standing() == set()
    assert any_world.path_of_life(session_id) == ["active", "claiming", "claimed"]
    # Repeated it answers the same; anywhere else it is too late.
    assert any_world.sessions.claim(session_id, into=any_world.claims / "2025/spring") == claimed
    with pytest.raises(SessionEnded, match="claimed at"):
        any_world.sessions.claim(session_id, into="elsewhere")


def test_a_claim_is_repeated_for_no_other_directory_of_its_name(world: World) -> None:
    world.stray("weekly")
    world.sessions.claim("weekly", into=INTO)
    (world.claims / INTO).rename(world.folder / "processed")
    world.stray("weekly")
    with pytest.raises(SessionEnded, match="claimed at"):
        world.sessions.claim("weekly", into=INTO)
    world.sessions.sweep()  # which finds it to be a session once more
    assert world.sessions.claim("weekly", into=INTO).state == "claimed"
    assert (world.claims / INTO / "deeper/file").exists()


def test_a_claim_needs_no_row(world: World) -> None:
    world.stray("stranger", age=99)
    assert world.sessions.claim("stranger", into=INTO).origin == "adopted"
    assert (world.claims / INTO / "deeper/file").exists()


@pytest.mark.parametrize("taken", ["an empty directory", "a directory", "a file", "a link"])
def test_a_claim_never_replaces_anything(world: World, taken: str) -> None:
    session_id = world.create()
    world.claims.mkdir()
    path = world.claims / INTO
    match taken:
        case "an empty directory":
            path.mkdir()
        case "a directory":
            (path / "deeper").mkdir(parents=True)
        case "a file":
            path.write_text("kept")
        case _:
            path.symlink_to("/etc")
    before = content(world.claims)
    with pytest.raises(NameTaken, match=INTO):
        world.sessions.claim(session_id, into=INTO)
    assert content(world.claims) == before
    assert world.state(session_id) == "active"
    assert (world.root / session_id / "photo.jpg").exists()
    assert findings(world.sessions.report()) == {"live": 1}
    assert world.sessions.claim(session_id, into="autumn").state == "claimed"


@pytest.mark.parametrize(
    "into",
    ["", ".", "..", "../out", "/etc/x", "a/../../out", "a\0b", "a\nb", "x" * 256, "\udc80"],
)
def test_a_claim_goes_only_below_the_claims_directory(world: World, into: str) -> None:
    session_id = world.create()
    place = f"{world.claims}/{into}" if "/" in into and not into.startswith("/") else into
    with pytest.raises(UsageError):
        world.sessions.claim(session_id, into=place)
    assert world.state(session_id) == "active"
    assert world.path_of_life(session_id) == ["active"]


def test_a_claim_never_goes_through_a_link(world: World) -> None:
    session_id = world.create()
    (world.folder / "elsewhere").mkdir()
    world.claims.mkdir()
    (world.claims / "link").symlink_to(world.folder / "elsewhere")
    with pytest.raises(UsageError, match="no directory"):
        world.sessions.claim(session_id, into=world.claims / "link/spring")
    assert os.listdir(world.folder / "elsewhere") == []
    assert world.state(session_id) == "active"


def test_a_session_that_an_upload_fills_cannot_be_claimed(world: World) -> None:
    session_id = world.create()
    with world.sessions.upload(session_id) as upload:
        upload.open_file("third")
        with pytest.raises(SessionBusy, match="try again"):
            world.sessions.claim(session_id, into=INTO)
        upload.write(b"third")
        upload.commit()
    assert world.sessions.claim(session_id, into=INTO).state == "claimed"
    assert (world.claims / INTO / "third").read_bytes() == b"third"


# -- Cleanup


def test_cleanup_removes_logs_and_returns_their_number(
    any_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for age in (0, 23, 25, 30, 99):
        any_world.create(age=age)
    any_world.stray("stranger", age=30)
    with caplog.at_level(logging.INFO, "coatcheck"):
        assert any_world.sessions.cleanup_stale_sessions(max_age_hours=24) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "removed 4 stale sessions (1 of them wait in the trash; 0 failed)"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, "coatcheck"):
        assert any_world.sessions.cleanup_stale_sessions() == 0
    assert "removed 0 stale sessions" in caplog.text


@pytest.mark.parametrize(("hours", "removed"), [(0.5, 3), (0.6, 2), (1.5, 1), (2.5, 0), (1, 2)])
def test_cleanup_takes_fractions_of_an_hour(world: World, hours: float, removed: int) -> None:
    for age in (0.1, 0.55, 1.1, 2.1):
        world.create(age=age)
    assert world.sessions.cleanup_stale_sessions(hours) == removed


def test_what_breaks_one_removal_ends_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("a mistake of ours")

    ids = [world.create(), world.create()]
    with around("upkeep.remove_deleted", before=broken):
        for session_id in ids:
            assert world.sessions.delete_session(session_id)
        world.sessions.close()
    assert [record.message for record in caplog.records if record.exc_info] == [
        "this should not happen; the next sweep removes what was deleted"
    ]
    world.sessions = world.open()
    [left] = world.in_trash()
    assert left.endswith(ids[0])
