"""Roots full of sessions, by the hundred thousand: on the disk, and in the ledger as touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ledger import SessionLedger, Settings, counts
from ledger.models import SESSIONS
from ledger.moves import new_id
from ledger.settings import DAY_US
from ledger.system import now_us

FILES = 3
BYTES = 100
_AT_ONCE = 10_000
Labels = Callable[[int], str | None]


def make_tree(root: Path, count: int, *, files: int = FILES, age_us: int = 0) -> list[str]:
    """So many sessions' directories, all of the same age by their mtimes; their ids."""
    root.mkdir(parents=True, exist_ok=True)
    ids = [new_id() for _ in range(count)]
    at = (now_us() - age_us) * 1000
    content = b"x" * BYTES
    here = os.open(root, os.O_RDONLY)
    for name in ids:
        os.mkdir(name, dir_fd=here)
        for number in range(files):
            path = f"{name}/file-{number}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
            os.write(fd, content)
            if age_us:
                os.utime(fd, ns=(at, at))
            os.close(fd)
        if age_us:
            os.utime(name, ns=(at, at), dir_fd=here)
    os.close(here)
    return ids


def record(
    sessions: SessionLedger,
    ids: Sequence[str],
    *,
    files: int = FILES,
    age_us: int = 0,
    label: Labels = lambda _: None,
    apart_us: int = 10,
) -> None:
    """The ledger has these sessions, as if each was last touched that long ago, and the next one
    `apart_us` earlier."""
    root_id, now = sessions.place.root_id, now_us() - age_us
    for first in range(0, len(ids), _AT_ONCE):
        rows = [
            {
                "root_id": root_id,
                "session_id": name,
                "state": "active",
                "version": 1,
                "label": label(number),
                "origin": "created",
                "touched": True,
                "created_at": now - 2 * number * apart_us,
                "last_touch_at": now - number * apart_us,
                "bytes": files * BYTES,
                "files": files,
            }
            for number, name in enumerate(ids[first : first + _AT_ONCE], first)
        ]
        with sessions.place.database.write() as connection:
            connection.execute(SESSIONS.insert(), rows)
            counts.add(connection, root_id, {counts.of(counts.STATES, "active"): len(rows)})


def settings_in(folder: Path) -> Settings:
    return Settings(root=folder / "temp")


def sessions_in(folder: Path, count: int, *, files: int = FILES, age_us: int = 0) -> Settings:
    """A root with so many sessions, known to its ledger, and all of it on the disk."""
    settings = settings_in(folder)
    with SessionLedger.open(settings) as sessions:
        ids = make_tree(folder / "temp", count, files=files, age_us=age_us)
        record(sessions, ids, files=files, age_us=age_us)
    os.sync()
    return settings


def stale_in(folder: Path, count: int, *, files: int = FILES) -> Settings:
    """The same, unused for two days, so that their bytes go at once."""
    return sessions_in(folder, count, files=files, age_us=2 * DAY_US)


def plain_tree(folder: Path, count: int, *, files: int = FILES, stale: bool = False) -> Path:
    """The same sessions as a backend without a ledger has them."""
    root = folder / "temp"
    make_tree(root, count, files=files, age_us=2 * DAY_US if stale else 0)
    os.sync()
    return root
