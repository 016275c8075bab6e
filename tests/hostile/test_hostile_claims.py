"""Claims whose way was tampered with. Nothing gets outside of the claims directory, and what is
wrong with one claim, or with the claims directory itself, stops no sweep."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import ClaimsUnavailable, NameTaken, SessionError, SessionLedger, Settings, UsageError
from ledger.claims import ELSEWHERE
from ledger.demo import SCENES
from tests.hostile.places import OLD, in_own_mounts, needs_mounts, opened_kinds, put_a_socket
from tests.hostile.trash import fill
from tests.hostile.worlds import bind, mount_tmpfs
from tests.ledger.world import World, content, findings


def refuse(world: World, into: str | os.PathLike[str], error: type[Exception] = UsageError) -> str:
    """The claim is refused, the session stands as it did; in these words."""
    session_id = world.create()
    before = content(world.root / session_id)
    with pytest.raises(error) as refused:
        world.sessions.claim(session_id, into)
    assert world.state(session_id) == "active"
    assert content(world.root / session_id) == before
    return str(refused.value)


# -- Where to


@pytest.mark.parametrize(
    "into",
    [
        *("", ".", "..", "new\nline", "nul\0", "\x1b[2J", "not UTF-8 \udcff", "x" * 256),
        *("../elsewhere", "claims/../elsewhere", "claims/..", "/", "/etc/spring"),
        *("claims/new\nline", f"claims/{'x' * 256}/spring", "claims/a/../../temp/spring"),
        *("temp/spring", "temp/.coatcheck/trash/spring"),
    ],
)
def test_a_destination_that_is_none_is_refused_and_nothing_is_made(into: str, world: World) -> None:
    world.claims.mkdir()
    before = sorted(os.listdir(world.folder))
    refuse(world, into)
    assert sorted(os.listdir(world.folder)) == before
    assert os.listdir(world.claims) == []


def test_a_claim_goes_through_no_link_below_the_claims_directory(
    world: World, untouched: Path
) -> None:
    world.claims.mkdir()
    (world.claims / "link").symlink_to(untouched)
    (world.claims / "file").touch()
    (world.claims / "dangling").symlink_to(untouched / "nowhere")
    for way in ("link/spring", "link/deeper/spring", "file/spring", "dangling/spring"):
        said = refuse(world, world.claims / way)
        assert "in the claim's path is no directory, or on another mount" in said


@pytest.mark.parametrize("taken", ["empty directory", "file", "link", "dangling link"])
def test_a_claim_replaces_nothing(taken: str, world: World, untouched: Path) -> None:
    world.claims.mkdir()
    match taken:
        case "empty directory":
            (world.claims / "spring").mkdir()
        case "file":
            (world.claims / "spring").touch()
        case _:
            (world.claims / "spring").symlink_to(untouched / ("nowhere" if " " in taken else ""))
    before = (world.claims / "spring").lstat()
    refuse(world, "spring", NameTaken)
    assert (world.claims / "spring").lstat() == before


PLACES = {"root": "temp", "claims": "claims", "ledger": "sqlite:///ledger.db"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"claims": "temp"}, "COATCHECK_CLAIMS"),
        ({"claims": "temp/claims"}, "COATCHECK_CLAIMS"),
        ({"claims": "temp/.coatcheck/claims"}, "COATCHECK_CLAIMS"),
        ({"claims": "."}, "COATCHECK_CLAIMS"),
        ({"claims": "link/claims"}, "COATCHECK_CLAIMS"),
        ({"claims": "elsewhere", "root": "elsewhere/link/temp"}, "COATCHECK_CLAIMS"),
        ({"ledger": "sqlite:///temp/ledger.db"}, "COATCHECK_LEDGER"),
        ({"ledger": "sqlite:///link/ledger.db"}, "COATCHECK_LEDGER"),
        ({"ledger": "sqlite:///claims/ledger.db"}, "COATCHECK_LEDGER"),
        ({"root": "/"}, "COATCHECK_ROOT"),
        ({"root": "home"}, "COATCHECK_ROOT"),
        ({"root": "."}, "COATCHECK_ROOT"),
    ],
)
def test_places_that_lie_in_one_another_are_refused_whatever_links_lead_there(
    settings: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("temp", "home", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("temp")
    (tmp_path / "elsewhere/link").symlink_to(".")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    before = content(tmp_path)
    with pytest.raises(UsageError, match=named):
        SessionLedger.open(Settings(**PLACES | settings))
    assert content(tmp_path) == before


# -- What became of the claims directory


def test_a_claims_directory_that_leads_elsewhere_by_now_is_not_used(
    world: World, untouched: Path
) -> None:
    world.sessions.claim(world.create(), "first")
    world.claims.rename(world.folder / "away")
    world.claims.symlink_to(untouched)
    said = refuse(world, "second", ClaimsUnavailable)
    assert said == f"{world.claims} cannot be used for claims: {ELSEWHERE}."
    world.create(age=OLD)
    assert world.sessions.sweep().removed == 1
    world.claims.unlink()
    (world.folder / "away").rename(world.claims)
    world.sessions.claim(world.create(), "second")
    assert sorted(os.listdir(world.claims)) == ["first", "second"]


@pytest.mark.parametrize("way", ["removed", "moved away", "made anew"])
def test_a_claim_is_where_it_says_though_the_claims_directory_was_replaced(
    way: str, world: World
) -> None:
    world.sessions.claim(world.create(), "first")
    world.claims.rename(world.folder / "away")
    match way:
        case "removed":
            shutil.rmtree(world.folder / "away")
        case "made anew":
            world.claims.mkdir()
    claimed = world.sessions.claim(world.create(), "second")
    assert content(Path(claimed.path)).keys() == {"photo.jpg", "list.txt"}
    assert claimed.path == str(world.claims / "second")


def two_bind_mounts(world: World) -> None:
    """As a container has them that is given two directories of one disk."""
    for place in (world.root, world.claims):
        bind(place, place)


@needs_mounts
@pytest.mark.parametrize(
    "mount", [lambda world: mount_tmpfs(world.claims), two_bind_mounts], ids=["tmpfs", "two binds"]
)
def test_claims_on_another_mount_are_refused_with_the_way_out(
    mount: Callable[[World], None], world: World
) -> None:
    world.claims.mkdir()

    def check() -> None:
        mount(world)
        with world.open() as world.sessions:
            for _ in range(2):
                said = refuse(world, "spring", ClaimsUnavailable)
                assert "Mount their common parent instead, or set COATCHECK_CLAIMS" in said
            assert world.sessions.health().claims == said
            world.create(age=OLD)
            assert world.sessions.sweep().removed == 1
        assert os.listdir(world.claims) == []

    in_own_mounts(world, check)


@needs_mounts
def test_claims_that_something_was_mounted_on_are_refused_until_it_is_gone(world: World) -> None:
    world.sessions.claim(world.create(), "first")

    def check() -> None:
        world.sessions.claim(world.create(), "second")
        mount_tmpfs(world.claims)
        assert "on different mounts" in refuse(world, "third", ClaimsUnavailable)
        subprocess.run(["umount", world.claims], check=True)
        world.sessions.claim(world.create(), "third")
        (world.claims / "mounted").mkdir()
        mount_tmpfs(world.claims / "mounted")
        assert "on another mount" in refuse(world, world.claims / "mounted/fourth")

    in_own_mounts(world, check)
    assert sorted(os.listdir(world.claims)) == ["first", "mounted", "second", "third"]


# -- Claims that were interrupted, and their way changed


def a_claim_below(world: World, scene: str) -> tuple[str, Path]:
    """An interrupted claim into a directory below the claims directory, and that directory."""
    session_id, _, _ = SCENES[scene].build(world.sessions)
    row = world.known(str(session_id))
    name = str(row.destination)
    world.alter(row.session_id, destination=f"orders/{name}")
    (world.claims / "orders").mkdir(parents=True)
    if (world.claims / name).exists():
        (world.claims / name).rename(world.claims / "orders" / name)
    return row.session_id, world.claims / "orders"


def a_link(at: Path, untouched: Path) -> None:
    at.symlink_to(untouched)


def a_file(at: Path, untouched: Path) -> None:
    at.touch()


def nothing(at: Path, untouched: Path) -> None:
    """Only away."""


@pytest.mark.parametrize("instead", [a_link, a_file, nothing])
def test_a_claim_whose_way_is_gone_stops_no_sweep_and_is_taken_back(
    instead: Callable[[Path, Path], None], world: World, untouched: Path
) -> None:
    session_id, orders = a_claim_below(world, "claim_begun")
    other = world.create(age=OLD)
    orders.rename(world.folder / "away")
    instead(orders, untouched)
    assert findings(world.sessions.report()) == {"unfinished": 1, "stale": 1}
    assert orders.exists() is (instead is not nothing)
    swept = world.sessions.sweep()
    assert (swept.removed, swept.failures) == (1, [])
    assert (world.state(session_id), world.state(other)) == ("active", "expired")
    assert world.standing() == {session_id}
    assert world.sessions.report().settled


def test_a_claim_that_moved_on_with_its_directory_is_missing_and_whole(
    world: World, untouched: Path
) -> None:
    session_id, orders = a_claim_below(world, "claim_half_done")
    orders.rename(world.folder / "away")
    orders.symlink_to(untouched)
    assert world.sessions.sweep().failures == []
    assert world.state(session_id) == "missing"
    [moved_on] = (world.folder / "away").iterdir()
    assert content(moved_on)
    assert world.sessions.report().settled


def test_a_claim_waits_while_the_claims_directory_leads_elsewhere(
    world: World, untouched: Path
) -> None:
    session_id, _ = a_claim_below(world, "claim_half_done")
    other = world.create(age=OLD)
    world.claims.rename(world.folder / "away")
    world.claims.symlink_to(untouched)
    swept = world.sessions.sweep()
    assert swept.failures == [f"{session_id[:8]}: {ELSEWHERE}"]
    assert (world.state(session_id), world.state(other)) == ("claiming", "expired")
    world.claims.unlink()
    (world.folder / "away").rename(world.claims)
    assert world.sessions.sweep().failures == []
    assert world.state(session_id) == "claimed"


# -- What is claimed


@pytest.fixture
def awkward(world: World, untouched: Path) -> str:
    """A session with everything in it that is neither file nor directory, and links outside."""
    session_id = world.create()
    for place in (world.root / session_id, fill(world.root / session_id / "inner")):
        os.mkfifo(place / "pipe")
        (place / "link").symlink_to(untouched)
        (place / "link to a file").symlink_to(untouched / "file-0")
        (place / os.fsdecode(b"not UTF-8 \xff\n")).write_bytes(b"named so")
        put_a_socket(place / "socket")
        if os.geteuid() == 0:
            os.mknod(place / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return session_id


def test_a_claim_opens_no_pipe_no_device_and_no_link(world: World, awkward: str) -> None:
    before = content(world.root / awkward)
    with opened_kinds() as opened:
        claimed = world.sessions.claim(awkward, "spring")
    assert opened
    assert all(stat.S_ISREG(mode) or stat.S_ISDIR(mode) for mode in opened)
    assert content(Path(claimed.path)) == before


@needs_mounts
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_a_session_with_a_mount_inside_is_not_claimed_until_that_is_gone(
    kind: str, world: World, untouched: Path
) -> None:
    session_id = world.create()
    (world.root / session_id / "inner/point").mkdir(parents=True)

    def check() -> None:
        point = world.root / session_id / "inner/point"
        mount_tmpfs(point) if kind == "tmpfs" else bind(untouched, point)
        with pytest.raises(SessionError, match="another file system is mounted inside it"):
            world.sessions.claim(session_id, "spring")
        assert world.state(session_id) == "active"
        subprocess.run(["umount", point], check=True)
        world.sessions.claim(session_id, "spring")

    in_own_mounts(world, check)
    assert os.listdir(world.claims) == ["spring"]
