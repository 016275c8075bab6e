"""Every setting, once. Each is read from `COATCHECK_<NAME>` or given as a keyword."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ledger.errors import UsageError

PREFIX = "COATCHECK_"
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

CENTURY_HOURS = 876_000
Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """How one service, or one embedded ledger, behaves; made once, at the entry."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # an empty ROOT must not mean the current directory
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    root: Path = Field(Path("data/temp"), description="The directory that holds the sessions.")
    ledger: str = Field(
        "",
        repr=False,  # it may hold a password
        description="sqlite:///… or postgresql+psycopg://…; unset: ledger.db beside ROOT.",
    )
    claims: Path = Field(
        Path(), description="Where claimed directories go; unset: claims beside ROOT."
    )
    adopt: bool = Field(False, description="Consent to take an existing pile over.")
    max_age_hours: float = Field(
        24, gt=0, le=CENTURY_HOURS, allow_inf_nan=False, description="Untouched longer: stale."
    )
    sweep_every_minutes: float = Field(
        15, ge=0, le=525_600, allow_inf_nan=False, description="0: at start-up only."
    )
    undo_hours: float = Field(
        0, ge=0, le=CENTURY_HOURS, allow_inf_nan=False, description="How long swept bytes wait."
    )
    operator_token: SecretStr | None = Field(
        None, description="Opens the operator routes and /metrics; unset: they answer 403."
    )
    max_session_bytes: ByteSize = Field(
        ByteSize(1 << 30), gt=0, description="The most one session may hold."
    )
    max_session_files: int = Field(1000, gt=0, description="The most files in one session.")
    max_root_bytes: ByteSize | None = Field(
        None, gt=0, description="The most all active sessions together may hold."
    )
    keep_history_days: float = Field(
        30, gt=0, le=36_500, allow_inf_nan=False, description="Then ended rows and events go."
    )
    disk_warning_percent: float = Field(
        10, ge=0, le=100, description="Free space of ROOT's disk below which health warns."
    )
    brake: int = Field(100, ge=0, description="The most a newly lowered max age may take at once.")
    claim_needs_token: bool = Field(False, description="Claiming needs the operator token.")
    cors_origins: Names = Field((), description="Foreign origins let in, separated by commas.")
    hosts: Names = Field((), description="Accepted Host names, separated by commas.")
    log_format: Literal["text", "json"] = Field("text", description="Of the service's log lines.")

    @field_validator("cors_origins", "hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("operator_token")
    @classmethod
    def _token_is_not_blank(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value().strip() else None

    @field_validator("root", mode="before")
    @classmethod
    def _root_has_a_name(cls, value: Any) -> Any:
        if not os.fspath(value):
            raise ValueError("must name a directory")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        beside = Path(os.path.abspath(values.get("root") or "data/temp")).parent
        return {
            **values,
            "ledger": str(values.get("ledger") or f"sqlite:///{beside / 'ledger.db'}"),
            "claims": values.get("claims") or beside / "claims",
        }

    @model_validator(mode="after")
    def _ledger_is_known(self) -> Self:
        if not re.match(r"(sqlite:///|postgresql\+psycopg://).", self.ledger):
            raise ValueError("LEDGER must be sqlite:///… or postgresql+psycopg://…")
        return self

    @property
    def max_age_us(self) -> int:
        return hours_us(self.max_age_hours)

    @property
    def undo_us(self) -> int:
        return hours_us(self.undo_hours)

    @property
    def ledger_file(self) -> Path | None:
        """The SQLite file; none when the ledger is a server."""
        if not self.ledger.startswith("sqlite:///"):
            return None
        return Path(os.path.abspath(self.ledger.removeprefix("sqlite:///")))


def hours_us(hours: float) -> int:
    """Hours as whole microseconds, rounded to the nearest."""
    return round(hours * HOUR_US)


def load_settings(environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """The settings of the environment, with `given` before it.

    Raises UsageError for a wrong value, and for a `COATCHECK_` variable that is no setting:
    a mistyped one would otherwise leave its default in force without a word.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"{name} is not a setting of coatcheck{hint}")
    try:
        return Settings(**given)
    except ValidationError as error:
        raise UsageError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """One line for each wrong setting, by the name the user wrote; values are not repeated."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{PREFIX}{name.upper()}: {message}" if name else message)
    return "\n".join(lines)
