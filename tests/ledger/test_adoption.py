"""Taking over a pile of directories that another program made: shown, asked for, recorded."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from ledger import RootMismatch, SessionLedger, Settings, system
from ledger.adoption import Pile, preview
from ledger.disk import HOUSE
from tests.cli import cc, on_terminal
from tests.hostile.worlds import enter_own_mounts, in_child, mount_tmpfs

HOUR_US = 3_600_000_000
ROOT = Path("data/temp")


def pile(directories: int, *, old: int, root: Path = ROOT) -> None:
    """Directories of another program, one file in every tenth; the first `old` are two days old."""
    root.mkdir(parents=True)
    for number in range(directories):
        directory = root / f"upload_{number:05}"
        directory.mkdir()
        if number % 10 == 0:
            (directory / "part.bin").write_bytes(b"theirs")
        if number < old:
            at = (system.now_us() - 48 * HOUR_US) * 1000
            for path in (*directory.iterdir(), directory):
                os.utime(path, ns=(at, at))


def names(root: Path = ROOT) -> Sequence[str]:
    return sorted(os.listdir(root))


def on_memory_if_possible(act: Callable[[], None]) -> None:
    """In a child whose `data` is memory, where one may mount: some disks need 20 s for removing
    ten thousand directories after the test."""

    def in_memory() -> None:
        with suppress(pytest.skip.Exception, OSError):
            enter_own_mounts()
            Path("data").mkdir()
            mount_tmpfs("data")
        act()

    if os.geteuid() == 0:
        in_child(in_memory)
    else:
        act()


@pytest.mark.parametrize("many", [300, pytest.param(10_000, marks=pytest.mark.torture)])
def test_a_pile_is_shown_asked_for_recorded_and_swept(many: int) -> None:
    on_memory_if_possible(lambda: taken_over(many, old=many * 2 // 5))


def taken_over(many: int, old: int) -> None:
    pile(many, old=old)
    (ROOT / "readme").write_text("not a session")
    before = names()

    code, said = on_terminal("", "adopt")
    assert code == 1
    assert "bears no id of coatcheck" in said
    assert "coatcheck adopt" not in said
    assert f"would record {many:,} directories" in said
    assert f"The next sweep would take {old:,} of them" in said
    assert "1 other entries would never be touched" in said
    assert names() == before

    code, said = on_terminal("y", "adopt")
    assert (code, f"Recorded {many:,} directories" in said) == (0, True), said
    assert f"The next sweep will take {old:,} of them" in said

    report = cc("report", "--json").json
    assert (report["counts"]["live"], report["counts"]["stale"]) == (many - old, old)
    swept = cc("sweep", "--json").json
    assert (swept["removed"], swept["failed"]) == (old, 0)
    assert names() == sorted([HOUSE, "readme", *(f"upload_{n:05}" for n in range(old, many))])
    assert cc("report", "--check").code == 0


def test_what_is_recorded_bears_the_times_and_sizes_of_the_disk() -> None:
    pile(20, old=10)
    assert cc("adopt", "--yes").code == 0
    shown = cc("show", "upload_00000", "--json").json
    assert shown["session"]["last_touch_at"] == shown["disk"]["mtime"]
    assert shown["session"]["created_at"] == shown["disk"]["mtime"]
    assert (shown["session"]["origin"], shown["session"]["bytes"]) == ("adopted", 6)
    [event] = shown["events"]
    assert (event["from"], event["to"], event["by"]) == (None, "active", "operator")


def test_without_a_terminal_and_without_yes_nothing_is_taken_over() -> None:
    pile(3, old=1)
    ran = cc("adopt")
    assert (ran.code, "there is no terminal to ask on" in ran.err) == (2, True)
    assert names() == ["upload_00000", "upload_00001", "upload_00002"]


@pytest.mark.slow
def test_any_answer_but_yes_takes_nothing_over() -> None:
    pile(1, old=0)
    code, said = on_terminal("perhaps\nn", "adopt")
    assert (code, "Nothing was done" in said) == (1, True)
    assert names() == ["upload_00000"]


def test_adopt_says_what_it_did_as_json() -> None:
    pile(5, old=2)
    (ROOT / "link").symlink_to("upload_00000")
    ran = cc("adopt", "--yes", "--json")
    assert ran.json == {
        "root": str(ROOT.absolute()),
        "root_id": (ROOT / HOUSE / "root-id").read_text().strip(),
        "taken_over": True,
        "recorded": 5,
        "directories": 5,
        "stale": 2,
        "bytes": 6,
        "foreign": 1,
    }


def test_in_a_place_that_belongs_together_only_the_unrecorded_are_recorded() -> None:
    assert cc("create").code == 0
    root_id = (ROOT / HOUSE / "root-id").read_text()
    (ROOT / "theirs").mkdir()
    ran = cc("adopt")
    assert ran.code == 0
    assert "belong together already. Recorded 1 directories" in ran.out
    assert (ROOT / HOUSE / "root-id").read_text() == root_id
    assert cc("adopt", "--json").json["recorded"] == 0


def test_a_ledger_of_another_root_is_told_and_its_sessions_are_kept() -> None:
    made = cc("create", "--json").json
    former = (ROOT / HOUSE / "root-id").read_text().strip()
    ROOT.rename("elsewhere")
    pile(2, old=0)
    assert former in cc("adopt").err
    assert cc("adopt", "--yes").code == 0
    assert (ROOT / HOUSE / "root-id").read_text().strip() != former
    known = {each["session_id"] for each in cc("sessions", "--json").json["sessions"]}
    assert known == {made["session_id"], "upload_00000", "upload_00001"}


def test_after_taking_over_the_former_ledger_sweeps_there_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pile(2, old=2)
    assert cc("adopt", "--yes").code == 0
    with monkeypatch.context() as patch:
        patch.setenv("COATCHECK_LEDGER", f"sqlite:///{Path('new/ledger.db').absolute()}")
        assert cc("sweep").code == 3
        assert cc("adopt", "--yes").code == 0
    ran = cc("sweep")
    assert (ran.code, "do not belong together" in ran.err) == (3, True)
    assert (ROOT / "upload_00000").exists()


def test_the_setting_is_consent_for_a_service_in_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pile(3, old=1)
    with pytest.raises(RootMismatch):
        SessionLedger.open(Settings())
    monkeypatch.setenv("COATCHECK_ADOPT", "1")
    with SessionLedger.open(Settings()) as sessions:
        assert sessions.cleanup_stale_sessions(24) == 1
    assert names() == [HOUSE, "upload_00001", "upload_00002"]


def test_adopt_asks_whatever_the_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pile(1, old=0)
    monkeypatch.setenv("COATCHECK_ADOPT", "1")
    assert cc("adopt").code == 2
    assert names() == ["upload_00000"]


def test_looking_at_a_pile_changes_nothing_in_it() -> None:
    pile(4, old=2)
    before = {path: path.stat().st_mtime_ns for path in ROOT.rglob("*")}
    assert preview(Settings(), system.now_us()) == Pile(4, 2, 6, 0)
    assert {path: path.stat().st_mtime_ns for path in ROOT.rglob("*")} == before


def test_a_root_whose_disk_is_away_is_not_taken_over_anew() -> None:
    assert cc("create").code == 0
    ROOT.rename("unmounted")
    ran = cc("adopt", "--yes")
    assert (ran.code, "is its disk mounted?" in ran.err) == (4, True)
    assert not ROOT.exists()
