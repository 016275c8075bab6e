"""Real ledgers and roots for the dashboard's tests, and how to wait for what it shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import update

from docs.looks import shown, until, until_shown
from ledger import Session, SessionLedger, Settings
from ledger.models import SESSIONS
from tests.web.services import listening, wait_for
from tui.app import Dashboard
from tui.local import LocalSource
from tui.remote import RemoteSource
from tui.source import Source
from web.app import create_app

TOKEN = "a-token-for-tests"
HOUR = 3_600_000_000

__all__ = ["HOUR", "TOKEN", "World", "shown", "until", "until_shown", "world_of"]


@dataclass
class World:
    """A ledger that the test acts on, and the source that a dashboard sees it through."""

    sessions: SessionLedger
    source: Source
    is_remote: bool = False

    @property
    def root(self) -> Path:
        return Path(self.sessions.place.root.path)

    def create(self, label: str | None = None, **files: int) -> Session:
        with self.sessions.upload(None) as upload:
            for name, size in files.items():
                upload.open_file(name)
                upload.write(b"x" * size)
            record, _ = upload.commit(label)
        return self.sessions.get(record.session_id)

    def stray(self, name: str, hours: float, size: int = 1000) -> Path:
        """A directory that somebody else made, unused for so long."""
        place = self.root / name
        place.mkdir()
        (place / "part").write_bytes(b"x" * size)
        self.age(place, hours)
        return place

    def age(self, place: Path, hours: float) -> None:
        at = self.sessions.clock() - round(hours * HOUR)
        for each in (place / "part", place):
            if each.exists():
                os.utime(each, ns=(at * 1000, at * 1000))

    def forget(self, session: Session, hours: float) -> None:
        """Neither ledger nor disk has seen a touch for so long."""
        at = self.sessions.clock() - round(hours * HOUR)
        self.set_row(session.id, last_touch_at=at, created_at=at)
        place = self.root / session.id
        for each in (*place.rglob("*"), place):
            os.utime(each, ns=(at * 1000, at * 1000))

    def set_row(self, session_id: str, **values: object) -> None:
        with self.sessions.place.database.write() as connection:
            row = update(SESSIONS).where(SESSIONS.c.session_id == session_id)
            connection.execute(row.values(values))

    def dashboard(self, *, read_only: bool = False) -> Dashboard:
        return Dashboard(self.source, read_only=read_only, through_service=self.is_remote)


@contextmanager
def world_of(kind: str, folder: Path, **options: object) -> Iterator[World]:
    """A new root, seen directly or through a service that really listens."""
    given = {"root": folder / "temp", "operator_token": TOKEN, "sweep_every_minutes": 0, **options}
    settings = Settings(**given)  # type: ignore[arg-type]
    with ExitStack() as stack:
        source: Source
        if kind == "remote":
            url = stack.enter_context(listening(create_app(settings)))
            source = RemoteSource(url, TOKEN)
            wait_for(lambda: has_swept(source))  # as it does when it starts
        else:
            source = LocalSource(SessionLedger.open(settings))
        stack.callback(source.close)
        sessions = stack.enter_context(SessionLedger.open(settings))
        yield World(sessions, source, kind == "remote")


def has_swept(source: Source) -> bool:
    return any(sweep.state != "running" for sweep in source.sweeps(1))
