"""The doctor finds each kind of trouble, says the way out, and changes nothing while it looks."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import update

from ledger import SessionLedger, Settings, system
from ledger.checks import Check, Status
from ledger.database import Database
from ledger.disk import HOUSE, ROOT_ID, SWEEP_LOCK
from ledger.doctor import examine
from ledger.models import ROOTS
from ledger.props import without_roots_rights
from tests.cli import cc, env

DAY_US = 86_400_000_000


def settings(**given: object) -> Settings:
    return Settings(root=Path("data/temp"), **given)  # type: ignore[arg-type]


@pytest.fixture
def place() -> Path:
    """A root and a ledger in good health, with a few sessions; nobody has them open."""
    with SessionLedger.open(settings()) as sessions:
        for number in range(20):
            sessions.create(f"order {number}" * 20)
        sessions.claim(sessions.create().id, "claimed")
    return Path("data").absolute()


def look(**given: object) -> dict[str, Check]:
    """The gravest check of each name."""
    order = list(Status)
    found: dict[str, Check] = {}
    for check in examine(settings(**given), system.now_us()):
        before = found.get(check.what)
        if before is None or order.index(check.status) > order.index(before.status):
            found[check.what] = check
    return found


def bad(**given: object) -> dict[str, str]:
    """What is bad, and all that is said of it."""
    return {
        check.what: f"{check.said} {check.todo}"
        for check in look(**given).values()
        if check.status is Status.BAD
    }


def seen(folder: Path) -> dict[str, object]:
    """Everything below, with its content."""
    found: dict[str, object] = {}
    for parent, folders, names in os.walk(folder):
        for name in folders + names:
            path = Path(parent, name)
            is_file = path.is_file() and not path.is_symlink()
            content = hashlib.sha256(path.read_bytes()).digest() if is_file else None
            found[str(path)] = (path.lstat().st_mode, path.lstat().st_ino, content)
    return found


def ledger_of(place: Path) -> Path:
    return place / "ledger.db"


# In good health, and new


def test_in_a_healthy_place_nothing_is_bad_and_nothing_is_changed(place: Path) -> None:
    before = seen(place)
    checks = examine(settings(), system.now_us())
    assert {check.status for check in checks if check.what not in ("disk", "file system")} == {
        Status.OK
    }
    assert seen(place) == before


def test_where_there_is_nothing_yet_nothing_is_made(tmp_path: Path) -> None:
    assert bad() == {}
    assert os.listdir(tmp_path) == []


def test_it_looks_while_the_ledger_is_open_and_written(place: Path) -> None:
    with SessionLedger.open(settings()) as sessions:
        sessions.create()
        assert bad() == {}
        sessions.create()
        assert len(sessions.page()) == 23


# The ledger in trouble


def truncated(ledger: Path) -> None:
    os.truncate(ledger, ledger.stat().st_size // 2)


def damaged_in_the_middle(ledger: Path) -> None:
    with open(ledger, "r+b") as file:
        file.seek(ledger.stat().st_size // 2)
        file.write(os.urandom(ledger.stat().st_size // 4))


def no_database(ledger: Path) -> None:
    ledger.write_bytes(b"These are not the rows you are looking for.\n" * 100)


def a_directory(ledger: Path) -> None:
    shutil.move(ledger, ledger.with_suffix(".moved"))
    ledger.mkdir()


def lost(ledger: Path) -> None:
    shutil.move(ledger, ledger.with_suffix(".moved"))


def empty(ledger: Path) -> None:
    os.truncate(ledger, 0)


def of_another_root(ledger: Path) -> None:
    other = Settings(root=Path("other/temp"))
    SessionLedger.open(other).close()
    assert other.ledger_file is not None
    shutil.copy(other.ledger_file, ledger)


def from_a_newer_coatcheck(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection, connection:
        connection.execute("UPDATE coatcheck_schema SET version_num = '9999'")


@pytest.mark.parametrize(
    ("breaks", "what", "said", "way_out"),
    [
        (truncated, "ledger", "damaged", "put a copy of the ledger back"),
        (damaged_in_the_middle, "ledger", "damaged", "coatcheck adopt"),
        (no_database, "ledger", "not a database", "coatcheck adopt"),
        (a_directory, "ledger", "is no file", "COATCHECK_LEDGER"),
        (lost, "identity", "knows no root here", "If the ledger was lost, put a copy of it back"),
        (empty, "identity", "knows no root here", "If the ledger was lost, put a copy of it back"),
        (of_another_root, "identity", "belongs to", "coatcheck adopt"),
        (from_a_newer_coatcheck, "schema", "newer coatcheck", "Install that version"),
    ],
)
def test_a_ledger_in_trouble_is_found_told_and_left_as_it_is(
    place: Path, breaks: Callable[[Path], None], what: str, said: str, way_out: str
) -> None:
    breaks(ledger_of(place))
    before = seen(place)
    assert said in bad()[what]
    assert way_out in bad()[what]
    assert list(bad()) == [what]
    assert seen(place) == before
    shown = cc("doctor")
    assert (shown.code, shown.err) == (1, "")


@contextmanager
def another_process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code`, says so, and waits until it is let go."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env(),
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
        child.communicate("\n", timeout=60)


OPENED = """
from ledger import SessionLedger, Settings
sessions = SessionLedger.open(Settings(root="data/temp"))
"""


def test_a_ledger_that_stays_locked_is_found_with_the_process_that_locks_it(place: Path) -> None:
    locks = OPENED + "c = sessions.place.database.write(); c.__enter__()"
    with another_process(locks) as child:
        assert f"locked by process {child.pid}" in bad()["ledger"]


def test_a_ledger_deleted_while_open_is_found_with_the_process_that_still_uses_it(
    place: Path,
) -> None:
    with another_process(OPENED) as child:
        ledger_of(place).rename(place / "moved")
        assert f"Process {child.pid}" not in bad().get("ledger", "")
        (place / "moved").rename(ledger_of(place))
        shutil.copy(ledger_of(place), place / "copy")
        ledger_of(place).unlink()
        assert f"Process {child.pid} still uses" in bad()["ledger"]
        (place / "copy").rename(ledger_of(place))
        assert f"Process {child.pid} still uses" in bad()["ledger"]
        assert "Stop it" in bad()["ledger"]


def test_an_old_copy_of_the_ledger_is_no_trouble(place: Path) -> None:
    shutil.copy(ledger_of(place), place / "old")
    with SessionLedger.open(settings()) as sessions:
        sessions.create()
    shutil.copy(place / "old", ledger_of(place))
    assert bad() == {}


def test_a_ledger_without_its_reserve_is_warned_about(place: Path) -> None:
    os.truncate(f"{ledger_of(place)}.reserve", 0)
    assert look()["reserve"].status is Status.WARN


def test_a_database_of_another_program_is_warned_about(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as connection:
        connection.execute("CREATE TABLE theirs (id)")
    found = look(ledger=f"sqlite:///{tmp_path / 'theirs.db'}")
    assert found["schema"].status is Status.WARN


def test_a_server_that_does_not_answer_is_found_and_its_password_is_not_shown(place: Path) -> None:
    url = "postgresql+psycopg://clerk:s3cr3t@127.0.0.1:1/coats"
    found = bad(ledger=url)
    assert "does not answer" in found["ledger"]
    assert "s3cr3t" not in str(look(ledger=url))


@pytest.mark.postgresql
def test_a_server_that_answers_is_fine(postgres_url: str) -> None:
    SessionLedger.open(settings(ledger=postgres_url)).close()
    assert bad(ledger=postgres_url) == {}
    assert look(ledger=postgres_url)["identity"].status is Status.OK


# The root in trouble


def missing(root: Path) -> None:
    root.rename(root.with_name("moved"))


def unmounted(root: Path) -> None:
    missing(root)
    root.mkdir()


def a_file(root: Path) -> None:
    missing(root)
    root.write_text("no directory")


def a_link(root: Path) -> None:
    missing(root)
    root.symlink_to("moved")


def with_another_id(root: Path) -> None:
    (root / HOUSE / ROOT_ID).write_text("somebodyelses\n")


def with_an_id_that_is_a_link(root: Path) -> None:
    (root / HOUSE / ROOT_ID).unlink()
    (root / HOUSE / ROOT_ID).symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("breaks", "what", "said"),
    [
        (missing, "root", "does not exist, though the ledger knows it. Mount its disk"),
        (unmounted, "identity", "Is the right disk mounted"),
        (a_file, "root", "a link or no directory"),
        (a_link, "root", "a link or no directory"),
        (with_another_id, "identity", "the id somebodyelses"),
        (with_an_id_that_is_a_link, "identity", "root-id"),
    ],
)
def test_a_root_in_trouble_is_found_told_and_left_as_it_is(
    place: Path, breaks: Callable[[Path], None], what: str, said: str
) -> None:
    breaks(place / "temp")
    before = seen(place)
    assert said in bad()[what]
    assert list(bad()) == [what]
    assert seen(place) == before


def test_a_root_that_cannot_be_read_is_found(place: Path) -> None:
    (place / "temp").chmod(0)
    with without_roots_rights():
        assert "Permission denied" in bad()["root"]
    (place / "temp").chmod(0o700)


def test_places_that_cannot_be_written_are_found(place: Path) -> None:
    (place / "temp").chmod(0o500)
    with without_roots_rights():
        assert "The root, data/temp, cannot be read and written" in bad()["rights"]
    (place / "temp").chmod(0o700)
    place.chmod(0o500)
    with without_roots_rights():
        found = bad()
    place.chmod(0o700)
    assert "ledger's directory" in found["rights"]


def test_a_pile_without_a_ledger_is_told_from_a_new_place(tmp_path: Path) -> None:
    (tmp_path / "data/temp/theirs").mkdir(parents=True)
    assert "coatcheck adopt" in bad()["identity"]
    assert sorted(os.listdir(tmp_path / "data/temp")) == ["theirs"]


@pytest.mark.parametrize("root", ["/", "~", "data/claims/temp"])
def test_places_inside_one_another_are_found_and_nothing_else_is_asked(
    root: str, tmp_path: Path
) -> None:
    given = Path(root).expanduser()
    found = examine(Settings(root=given, claims=tmp_path / "data/claims"), system.now_us())
    assert [(check.what, check.status) for check in found] == [("settings", Status.BAD)]


# What lies below


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(
    place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "filesystem_of", lambda path: kind)
    assert "a network file system" in bad()["file system"]


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", ""])
def test_a_file_system_that_may_not_last_is_warned_about(
    place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "filesystem_of", lambda path: kind)
    assert look()["file system"].status is Status.WARN


def test_claims_that_cannot_be_used_are_found_by_a_trial(place: Path) -> None:
    (place / "claims/claimed").rename(place / "kept")
    (place / "claims").rmdir()
    (place / "claims").write_text("no directory")
    assert "claims" in bad()
    assert os.listdir(place / "temp" / HOUSE / "incoming") == []


def test_a_kernel_that_cannot_rename_exclusively_is_warned_about(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "rename_is_exclusive", lambda: False)
    assert look()["renames"].status is Status.WARN


def test_a_disk_with_less_room_than_the_setting_is_warned_about(place: Path) -> None:
    assert look(disk_warning_percent=100)["disk"].status is Status.WARN


# Clock and sweeper


def test_a_distrusted_clock_is_found(place: Path) -> None:
    database = Database(settings())
    with database.write() as connection:
        connection.execute(update(ROOTS).values(distrusted_why="it jumped"))
    database.close()
    assert "it jumped" in bad()["clock"]
    assert "--trust-clock" in bad()["clock"]


def test_a_clock_that_jumped_is_found_before_a_sweep_stores_it(place: Path) -> None:
    checks = examine(settings(), system.now_us() + 3650 * DAY_US)
    [clock] = [check for check in checks if check.what == "clock"]
    assert clock.status is Status.BAD
    assert "against the machine's uptime" in clock.said


def test_who_is_sweeping_is_said(place: Path) -> None:
    sweeps = OPENED + "from ledger import guards\ng = guards.one_sweeper(sessions.place)\n"
    with another_process(sweeps + "g.__enter__()") as child:
        said = look()["sweeper"].said
        assert said.startswith("A sweep is under way")
        if os.path.exists("/proc/locks"):
            assert str(child.pid) in said
    assert look()["sweeper"].said == "No sweep is under way."
    assert (place / "temp" / HOUSE / SWEEP_LOCK).exists()


# The command


def test_the_command_prints_each_check_as_json(place: Path) -> None:
    ran = cc("doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["ok"] is True
    assert {"what": "schema", "status": "ok", "said": "The schema is 0002.", "todo": ""} in (
        ran.json["checks"]
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("COATCHECK_MAXAGE", "3", "did you mean COATCHECK_MAX_AGE_HOURS?"),
        ("COATCHECK_BRAKE", "hard", "COATCHECK_BRAKE"),
        ("COATCHECK_LEDGER", "mysql://x", "LEDGER must"),
    ],
)
def test_the_command_finds_wrong_settings(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    ran = cc("doctor", "--json")
    assert ran.code == 1
    assert [check["what"] for check in ran.json["checks"]] == ["settings"]
    assert said in ran.json["checks"][0]["said"]
