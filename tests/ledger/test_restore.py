"""What waits in the trash: brought back whole, or removed when its user says so."""

import itertools
import os

import pytest

from ledger import NameTaken, SessionBusy, SessionError
from ledger.report import moment
from tests.ledger.world import World, around, content, findings, found


def sweep_with_an_older_ledger_left(world: World) -> None:
    """What a sweep has taken waits; then the ledger is a copy from before it."""
    world.reopen(undo_hours=2)
    world.sessions.close()
    older = (world.folder / "ledger.db").read_bytes()
    world.sessions = world.open()
    world.sessions.sweep()
    world.sessions.close()
    (world.folder / "ledger.db").write_bytes(older)
    world.sessions = world.open()


def test_restore_brings_a_directory_back_byte_for_byte(world: World, stale: str) -> None:
    world.reopen(undo_hours=2)
    path = world.root / stale
    (path / "link").symlink_to("photo.jpg")
    (path / "dangling").symlink_to("/nowhere")
    os.link(path / "photo.jpg", path / "second name")
    os.mkfifo(path / "pipe")
    (path / "photo.jpg").chmod(0o640)
    (path / "empty").mkdir(mode=0o750)
    (path / os.fsdecode(b"not \xff utf-8\n")).write_bytes(bytes(range(256)))
    world.date(path, 30)
    before, inode = content(path), path.stat().st_ino
    assert world.sessions.sweep().waiting == 1
    assert world.standing() == set()
    restored = world.sessions.restore(stale)
    assert content(path) == before
    assert path.stat().st_ino == inode
    assert restored.state == "active"
    assert world.path_of_life(stale) == ["active", "removing", "expired", "active"]
    assert found(world.sessions, stale) == "live"
    world.sessions.sweep()
    assert content(path) == before


def test_restore_counts_as_a_touch(world: World, stale: str) -> None:
    world.reopen(undo_hours=2)
    world.sessions.sweep()
    world.sessions.restore(stale)
    assert abs(world.known(stale).last_touch_at - world.clock()) < 10_000_000
    world.clock.passes(23)
    assert world.sessions.sweep().removed == 0
    world.clock.passes(2)
    assert world.sessions.sweep().removed == 1


@pytest.mark.sqlite
def test_restore_counts_as_a_touch_in_an_older_copy_of_the_ledger_too(
    world: World, stale: str
) -> None:
    """Which has the session as active."""
    sweep_with_an_older_ledger_left(world)
    assert world.known(stale).last_touch_at < world.hours_ago(29)
    assert moment(world.hours_ago(1)) < world.sessions.restore(stale).last_touch_at
    assert findings(world.sessions.report()) == {"live": 1}


@pytest.mark.sqlite
def test_restore_works_without_a_row(world: World) -> None:
    world.stray("stranger", age=30)
    world.sessions.sweep()
    world.sessions.close()
    (world.folder / "ledger.db").unlink()
    world.sessions = world.open(adopt=True)
    assert findings(world.sessions.report()) == {"waiting": 1}
    assert world.sessions.restore("stranger").origin == "adopted"
    assert findings(world.sessions.report()) == {"live": 1}


@pytest.mark.parametrize("deleted", [True, False])
def test_there_is_no_restore_of_what_its_user_deleted_or_what_is_gone(
    world: World, stale: str, deleted: bool
) -> None:
    world.reopen(undo_hours=2 if deleted else 0)
    world.sessions.sweep()
    if deleted:
        assert world.sessions.delete_session(stale)
    with pytest.raises(SessionError, match="Nothing of session"):
        world.sessions.restore(stale)
    world.reopen()
    assert world.in_trash() == []


def test_a_delete_of_what_waits_removes_it_now(world: World, stale: str) -> None:
    world.reopen(undo_hours=2)
    world.sessions.sweep()
    assert len(world.in_trash()) == 1
    assert world.sessions.delete_session(stale)
    world.reopen()
    assert world.in_trash() == []
    assert world.state(stale) == "deleted"
    assert not world.sessions.delete_session(stale)


@pytest.mark.sqlite
def test_a_delete_of_what_waits_needs_no_row(world: World, stale: str) -> None:
    world.reopen(undo_hours=2)
    world.sessions.sweep()
    world.sessions.close()
    (world.folder / "ledger.db").unlink()
    world.sessions = world.open(adopt=True)
    assert world.sessions.delete_session(stale)
    world.reopen()
    assert world.in_trash() == []


@pytest.mark.sqlite
def test_what_comes_back_without_a_row_is_counted_in_it(world: World, stale: str) -> None:
    world.reopen(undo_hours=2)
    world.sessions.sweep()
    world.sessions.close()
    (world.folder / "ledger.db").unlink()
    world.sessions = world.open(adopt=True)
    back = world.sessions.restore(stale)
    assert (back.files, back.bytes) == (3, len(b"a photo" + b"a list" + b"a note"))


def test_a_restore_that_is_refused_changes_nothing(world: World, stale: str) -> None:
    """Dated as if it had been used, it would come back by itself when it is due."""
    world.reopen(undo_hours=2)
    world.sessions.sweep()
    world.stray(stale)
    before = content(world.trash)
    with pytest.raises(NameTaken, match="Move it away first"):
        world.sessions.restore(stale)
    assert content(world.trash) == before
    (world.root / stale).rename(world.folder / "away")
    world.clock.passes(3)
    done = world.sessions.sweep()
    assert (done.changed, done.failed) == (0, 0)
    assert world.in_trash() == []
    assert world.standing() == set()


@pytest.mark.sqlite
@pytest.mark.parametrize("swept_since", [True, False])
def test_a_delete_of_what_waits_works_with_an_older_copy_of_the_ledger(
    world: World, stale: str, swept_since: bool
) -> None:
    """Which has it as active, and after a sweep as missing."""
    sweep_with_an_older_ledger_left(world)
    if swept_since:
        world.sessions.sweep()
        assert world.state(stale) == "missing"
    assert world.sessions.delete_session(stale)
    world.reopen()
    assert world.in_trash() == []
    assert world.state(stale) == "deleted"
    assert world.sessions.report().settled


def wait_and_come_again(world: World, name: str) -> None:
    """What a sweep took waits in the trash, and another directory stands under its name."""
    world.stray(name, age=30)
    assert world.sessions.sweep().waiting == 1
    world.stray(name)
    world.sessions.sweep()
    assert world.state(name) == "active"


def test_a_session_that_was_claimed_meanwhile_stays_so_and_its_row_says_where_it_went(
    world: World,
) -> None:
    wait_and_come_again(world, "again")
    claimed = world.sessions.claim("again", "spring")
    before = content(world.trash)
    with pytest.raises(SessionError, match=r"'spring'.*stays claimed") as refusal:
        world.sessions.restore("again")
    [entry] = world.in_trash()
    assert f"copy from {world.trash / entry} before" in str(refusal.value)
    assert (content(world.trash), world.standing()) == (before, set())
    assert world.sessions.get("again").path == claimed.path
    assert world.sessions.claim("again", "spring") == claimed


def test_a_claim_that_was_interrupted_is_finished_before_a_restore_is_refused(
    world: World,
) -> None:
    wait_and_come_again(world, "again")
    for at in itertools.count(1):
        assert world.dies(lambda sessions: sessions.claim("again", "spring"), at)
        if "again" not in world.standing():
            break
    assert world.state("again") == "claiming"
    with pytest.raises(SessionError, match="stays claimed"):
        world.sessions.restore("again")
    assert (world.state("again"), world.standing()) == ("claimed", set())


def test_a_claim_that_takes_the_directory_away_while_a_restore_looks_is_kept(
    world: World,
) -> None:
    wait_and_come_again(world, "again")
    refused: list[str] = []

    def restore() -> None:
        with pytest.raises(SessionBusy, match="just being claimed") as refusal:
            world.sessions.restore("again")
        refused.append(str(refusal.value))

    with around("moves.claim", after=restore):
        claimed = world.sessions.claim("again", "spring")
    assert refused
    assert (len(world.in_trash()), world.standing()) == (1, set())
    assert world.sessions.get("again") == claimed
