"""Every setting: its default, its limits, and the word that is said of a wrong one."""

import os
from pathlib import Path
from typing import Any

import pytest

from ledger import SessionLedger, Settings, UsageError, load_settings
from ledger.settings import DAY_US, HOUR_US, hours_us

DEFAULTS: dict[str, Any] = {
    "root": Path("data/temp"),
    "adopt": False,
    "max_age_hours": 24,
    "sweep_every_minutes": 15,
    "undo_hours": 0,
    "operator_token": None,
    "max_session_bytes": 1 << 30,
    "max_session_files": 1000,
    "max_root_bytes": None,
    "keep_history_days": 30,
    "disk_warning_percent": 10,
    "brake": 100,
    "claim_needs_token": False,
    "cors_origins": (),
    "hosts": (),
    "log_format": "text",
}


def test_the_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    settings = load_settings()
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert settings.ledger == f"sqlite:///{tmp_path}/data/ledger.db"
    assert settings.claims == tmp_path / "data/claims"
    assert Settings.model_fields.keys() == DEFAULTS.keys() | {"ledger", "claims"}


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_read_from_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "root": "other/temp",
        "ledger": "sqlite:///elsewhere.db",
        "claims": "finished",
        "operator_token": "secret",
        "cors_origins": "https://a.example, https://b.example",
        "hosts": "coat.example",
        "log_format": "json",
        "adopt": "1",
        "claim_needs_token": "true",
        "max_session_bytes": "5MiB",
        "max_root_bytes": "1GB",
    }
    monkeypatch.setenv(f"COATCHECK_{name.upper()}", values.get(name, "7"))
    set_to = getattr(load_settings(), name)
    assert set_to != DEFAULTS.get(name)
    expected = {
        "cors_origins": ("https://a.example", "https://b.example"),
        "hosts": ("coat.example",),
        "max_session_bytes": 5 << 20,
        "max_root_bytes": 10**9,
        "max_age_hours": 7,
    }
    assert name not in expected or set_to == expected[name]


def test_ledger_and_claims_lie_beside_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_ROOT", "/srv/uploads/temp")
    settings = load_settings()
    assert settings.ledger == "sqlite:////srv/uploads/ledger.db"
    assert settings.ledger_file == Path("/srv/uploads/ledger.db")
    assert settings.claims == Path("/srv/uploads/claims")
    assert load_settings(root="/var/temp").claims == Path("/var/claims")


def test_what_is_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_BRAKE", "3")
    assert load_settings().brake == 3
    assert load_settings(brake=5).brake == 5


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_that_is_empty_is_one_that_is_not_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As compose files leave it; an empty root must never mean the current directory."""
    unset = load_settings()
    monkeypatch.setenv(f"COATCHECK_{name.upper()}", "")
    assert load_settings() == unset


@pytest.mark.parametrize("root", ["", "."])
def test_the_current_directory_is_a_root_only_by_its_name(root: str, tmp_path: Path) -> None:
    if root == "":
        with pytest.raises(UsageError, match="COATCHECK_ROOT"):
            load_settings(root=root)
    else:
        (tmp_path / "temp").mkdir()
        os.chdir(tmp_path / "temp")
        with SessionLedger.open(load_settings(root=root)) as sessions:
            assert sessions.create().path.startswith(f"{tmp_path}/temp/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_AGE_HOURS", "0"),
        ("MAX_AGE_HOURS", "-1"),
        ("MAX_AGE_HOURS", "nan"),
        ("MAX_AGE_HOURS", "inf"),
        ("MAX_AGE_HOURS", "1e9"),
        ("MAX_AGE_HOURS", "a day"),
        ("SWEEP_EVERY_MINUTES", "-1"),
        ("SWEEP_EVERY_MINUTES", "nan"),
        ("UNDO_HOURS", "-0.5"),
        ("KEEP_HISTORY_DAYS", "0"),
        ("BRAKE", "-1"),
        ("BRAKE", "1.5"),
        ("MAX_SESSION_BYTES", "0"),
        ("MAX_SESSION_BYTES", "lots"),
        ("MAX_SESSION_FILES", "0"),
        ("MAX_ROOT_BYTES", "-1"),
        ("DISK_WARNING_PERCENT", "101"),
        ("ADOPT", "maybe"),
        ("LEDGER", "mysql://user:hunter2@host/db"),
        ("LEDGER", "ledger.db"),
        ("LEDGER", "sqlite:///"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"COATCHECK_{name}", value)
    with pytest.raises(UsageError) as refused:
        load_settings()
    said = str(refused.value)
    assert name in said
    assert "hunter2" not in said
    assert "\n" not in said
    assert "Traceback" not in said


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_BRAKE", "x")
    monkeypatch.setenv("COATCHECK_UNDO_HOURS", "x")
    with pytest.raises(UsageError) as refused:
        load_settings()
    lines = str(refused.value).splitlines()
    assert {line.split(":")[0] for line in lines} == {"COATCHECK_BRAKE", "COATCHECK_UNDO_HOURS"}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("COATCHECK_MAX_AGE_HOUR", "did you mean COATCHECK_MAX_AGE_HOURS?"),
        ("COATCHECK_SWEEP_EVERY", "COATCHECK_SWEEP_EVERY_MINUTES"),
        ("coatcheck_undo_hour", "COATCHECK_UNDO_HOURS"),
        ("COATCHECK_XYZZY", "is not a setting of coatcheck"),
    ],
)
def test_a_mistyped_setting_is_refused_and_not_ignored(
    name: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError, match=name) as refused:
        load_settings()
    assert near in str(refused.value)


def test_a_keyword_that_is_no_setting_is_refused() -> None:
    with pytest.raises(UsageError, match="COATCHECK_MAX_AGE"):
        load_settings(max_age=3)


def test_the_operators_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_OPERATOR_TOKEN", "hunter2")
    settings = load_settings()
    assert "hunter2" not in repr(settings) + str(settings)
    assert settings.operator_token is not None
    assert settings.operator_token.get_secret_value() == "hunter2"
    for blank in ("", "  ", "\t"):
        monkeypatch.setenv("COATCHECK_OPERATOR_TOKEN", blank)
        assert load_settings().operator_token is None


def test_the_ledgers_password_is_never_shown() -> None:
    settings = load_settings(ledger="postgresql+psycopg://coat:hunter2@host/db")
    assert "hunter2" not in repr(settings) + str(settings)


@pytest.mark.parametrize(("hours", "us"), [(24, DAY_US), (0.001, 3_600_000), (1 / 3, HOUR_US // 3)])
def test_fractions_of_an_hour_are_whole_microseconds(hours: float, us: int) -> None:
    assert hours_us(hours) == us
    assert load_settings(max_age_hours=hours).max_age_us == us


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().brake = 1  # type: ignore[misc]
