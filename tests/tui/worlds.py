"""Real ledgers and roots for the dashboard's tests, and how to wait for what it shows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import update
from textual.pilot import Pilot

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
SECONDS = 20.0


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


async def until(pilot: Pilot[int], condition: Callable[[], object], what: str = "") -> None:
    """Returns once `condition` holds; fails, and shows the screen, when it does not come to."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what or 'this'} did not come about; on the screen:\n{shown(pilot)}"
            )
        await pilot.pause(0.02)


async def until_shown(pilot: Pilot[int], *texts: str) -> None:
    for text in texts:
        await until(pilot, lambda text=text: text in shown(pilot), f"{text!r}")  # type: ignore[misc]


def shown(pilot: Pilot[int]) -> str:
    """What is on the screen, as lines of text."""
    screen = pilot.app.screen
    return "\n".join(strip.text.rstrip() for strip in screen._compositor.render_strips())
