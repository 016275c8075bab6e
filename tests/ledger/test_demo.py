"""The demo's scenes are what the table says, and its stage leaves nothing behind."""

import os
import tempfile
from pathlib import Path

import pytest

from ledger import Finding, Settings, UsageError
from ledger.demo import SCENES, stage
from ledger.props import without_roots_rights


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_finding_has_a_scene() -> None:
    assert {scene.finding for scene in SCENES.values()} == {*Finding}


def test_the_report_finds_each_scene_as_the_table_says_and_nothing_else() -> None:
    with stage() as (sessions, stands):
        report = sessions.report()
        found = {entry.path: entry for entry in report.entries}
        for name, scene in SCENES.items():
            if scene.finding is Finding.LIVE:
                continue
            entry = found.pop(stands[name].path)
            assert (entry.finding, entry.action) == (scene.finding, scene.action), name
            assert entry.session_id == stands[name].session_id
        assert found == {}
        assert report.counts[Finding.LIVE] == 1


def test_the_stage_is_gone_afterwards_with_all_that_lay_in_it(tmp_path: Path) -> None:
    with stage() as (sessions, _):
        sessions.sweep()
        assert len(os.listdir(tmp_path / "tmp")) == 1
    assert os.listdir(tmp_path / "tmp") == []


def test_the_stage_is_gone_when_the_play_is_broken_off(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), stage():
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "tmp") == []


def test_a_stage_that_is_kept_can_be_opened_again(tmp_path: Path) -> None:
    with stage(keep=True) as (sessions, stands):
        root = sessions.settings.root
    assert (root / str(stands["live"].session_id) / "photo.jpg").exists()
    assert Settings(root=root).ledger_file == root.parent / "ledger.db"


def test_the_stage_goes_by_its_own_ages_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COATCHECK_MAX_AGE_HOURS", "9000")
    monkeypatch.setenv("COATCHECK_LEDGER", "sqlite:////nowhere/at/all.db")
    with stage() as (sessions, _):
        assert sessions.report().counts[Finding.STALE] == 2


def test_wrong_settings_are_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COATCHECK_BRAKE", "hard")
    with pytest.raises(UsageError, match="COATCHECK_BRAKE"), stage():
        pass
    assert os.listdir(tmp_path / "tmp") == []


def test_without_roots_rights_a_closed_directory_is_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with without_roots_rights(), pytest.raises(PermissionError):
        os.listdir(closed)
    closed.chmod(0o700)
    assert os.listdir(closed) == []
