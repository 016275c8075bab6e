"""What the doctor's checks hand each other: the patient, and what was found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from ledger.disk import Root
from ledger.errors import RootUnavailable
from ledger.settings import Settings


class Status(StrEnum):
    """How grave a finding is; what is bad keeps coatcheck from its work."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and what to do about it."""

    what: str
    status: Status
    said: str
    todo: str = ""

    def as_json(self) -> dict[str, str]:
        return {
            "what": self.what,
            "status": self.status.value,
            "said": self.said,
            "todo": self.todo,
        }


@dataclass(slots=True)
class Patient:
    """What the checks look at. `roots`: those the ledger knows, None when it cannot be read."""

    settings: Settings
    now: int
    root: Root | None = None
    roots: Sequence[Row[Any]] | None = None
    ledger_is_new: bool = False

    @property
    def row(self) -> Row[Any] | None:
        """What the ledger says of this root; None where they are not paired, or nobody can tell."""
        on_disk = None
        with suppress(RootUnavailable):
            on_disk = self.root.read_id() if self.root else None
        return next((row for row in self.roots or () if row.root_id == on_disk), None)


Checks = Iterator[Check]


def holders(path: Path, kind: str) -> list[int]:
    """The processes that hold a lock on the file, as far as the system tells."""
    with suppress(OSError):
        facts = os.stat(path)
        device = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            fields = [line.split() for line in file]
        held = [each for each in fields if len(each) > 5 and each[1] == kind and each[5] == device]
        return sorted({int(each[4]) for each in held if each[3] == "WRITE" and int(each[4]) > 0})
    return []


def in_words(processes: list[int]) -> str:
    return f" by process {', '.join(map(str, processes))}" if processes else ""
