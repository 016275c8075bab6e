"""A trash with one dead entry in it, and places outside that nothing may touch."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ledger.removal import DEAD, Removed, remove_dead

NAME = DEAD + "entry"
AWKWARD = [
    b"\xff\xfe not UTF-8",
    b"x" * 255,
    "ü".encode() * 127,
    b"new\nline\r\n",
    b"\x1b[2J escape \x07",
    "\u202eright to left".encode(),
    b" ",
    b"-rf",
    b"*",
    b"...",
    b"back\\slash",
    b"dead-",
    b".coatcheck",
    NAME.encode(),
]


@dataclass(frozen=True)
class Trash:
    path: Path
    fd: int

    @property
    def dead(self) -> Path:
        return self.path / NAME

    def remove(self) -> Removed:
        return remove_dead(self.fd, NAME)

    def remove_all(self) -> tuple[Removed, ...]:
        """What the next run does: every dead entry, those lifted before included."""
        return tuple(remove_dead(self.fd, name) for name in os.listdir(self.fd))

    def left(self) -> list[str]:
        return sorted(os.listdir(self.fd))


def fill(directory: Path, files: int = 3) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (directory / f"file-{number}").write_text("bytes")
    return directory


def seen(place: Path) -> dict[str, tuple[object, ...]]:
    """All that a removal could have changed below a place, and in its own rights."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [place, *sorted(place.rglob("*"))]:
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found[str(path.relative_to(place))] = (
            info.st_mode,
            info.st_uid,
            info.st_ino,
            info.st_mtime_ns,
            content,
        )
    return found


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
