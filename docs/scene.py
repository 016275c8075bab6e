"""A root as an operator finds it on a Friday morning, the same each time it is built.

For the pictures in the README and the snapshots of the dashboard: real operations by a clock that
is set, with ids from a seed instead of from the secure source.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from sqlalchemy import literal, update

from ledger import Actor, Session, SessionError, SessionLedger, Settings, system
from ledger.disk import HOUSE, TRASH
from ledger.health import Health
from ledger.models import EVENTS, ROOTS, SESSIONS, SWEEPS, Record
from tui.filters import Row
from tui.local import LocalSource
from tui.source import Detail

NOW = 1_741_944_413_000_000  # 2025-03-14 09:26:53 UTC, a Friday
NAME = "/srv/uploads/temp"
SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

_PEOPLE = ("Anna", "Bilal", "Chidi", "Dana", "Eszter", "Femi", "Greta", "Hiro", "Inês", "Jonas")
_THINGS = ("application", "claim", "invoice", "order", "passport photo", "tender", "travel costs")
_FILES = (
    ("letter.pdf", 180 * KIB),
    ("passport.jpg", 3 * MIB),
    ("invoice.xlsx", 44 * KIB),
    ("scan 01.tiff", 41 * MIB),
    ("interview.mp4", 640 * MIB),
    ("portfolio.zip", 212 * MIB),
    ("receipt.png", 720 * KIB),
    ("notes.txt", 3 * KIB),
    ("model.step", 96 * MIB),
)


@dataclass
class SetClock:
    """A clock that stands until it is set."""

    at: int = NOW

    def __call__(self) -> int:
        return self.at


@dataclass
class Scene:
    """The open ledger while it is played; `seed` decides every id, name and size."""

    sessions: SessionLedger
    clock: SetClock
    dice: random.Random = field(default_factory=lambda: random.Random(17))

    @property
    def root(self) -> Path:
        return Path(self.sessions.place.root.path)

    def create(self, label: str | None = None, files: int | None = None) -> Session:
        """A session with files."""
        with self.sessions.upload(None, by=Actor.API) as upload:
            sizes = {}
            for name, size in self.dice.sample(_FILES, files or self.dice.randint(1, 4)):
                upload.open_file(name)
                upload.write(b"%")
                sizes[name] = round(size * self.dice.uniform(0.4, 1.6))
            record, _ = upload.commit(label or self.label())
        self._swell(record.session_id, sizes)
        return self.sessions.get(record.session_id)

    def label(self) -> str:
        return f"{self.dice.choice(_PEOPLE)}, {self.dice.choice(_THINGS)}"

    def _swell(self, session_id: str, sizes: dict[str, int]) -> None:
        """The files have these sizes, for ledger and disk, without taking their room."""
        for name, size in sizes.items():
            os.truncate(self.root / session_id / name, size)
        self.set_row(session_id, bytes=sum(sizes.values()))

    def set_row(self, session_id: str, **values: object) -> None:
        with self.sessions.place.database.write() as connection:
            row = update(SESSIONS).where(SESSIONS.c.session_id == session_id)
            connection.execute(row.values(values))

    def touch(self, session: Session) -> None:
        with suppress(SessionError):  # it has ended by then
            self.sessions.touch(session.id, by=Actor.API)

    def claim(self, session: Session) -> None:
        with suppress(SessionError):
            self.sessions.claim(session.id, session.id[:6], by=Actor.API)

    def delete(self, session: Session) -> None:
        self.sessions.delete_session(session.id, by=Actor.API)
        trash = self.root / HOUSE / TRASH
        while any(not entry.startswith("sweep-") for entry in os.listdir(trash)):
            time.sleep(0.001)  # until its bytes are gone, so that no sweep finds any

    def sweep_now(self) -> None:
        """As the schedule does it. The clock jumps here, and is right all the same."""
        self.sessions.sweep(trust_clock=True, by=Actor.SWEEP)

    def stray(self, name: str, ago: int, size: int) -> Path:
        """A directory that another program made, so long ago."""
        place = self.root / name
        place.mkdir()
        (place / "part.bin").touch()
        os.truncate(place / "part.bin", size)
        self.age(place, ago)
        return place

    def age(self, place: Path, ago: int) -> None:
        """All below it bears a time so long ago."""
        at = (NOW - ago) * 1000
        for each in (*place.rglob("*"), place):
            os.utime(each, ns=(at, at), follow_symlinks=False)


@contextmanager
def seeded_ids(seed: int) -> Iterator[None]:
    """Ids that are the same each time: nothing here is a secret.

    Each length has its own dice, as the thread that removes draws ids of its own.
    """
    of_length: dict[int, random.Random] = {}

    def new_id(length: int = 26) -> str:
        own = of_length.setdefault(length, random.Random(seed + length))
        drawn = own.randbytes(-(-length * 5 // 8))
        return base64.b32encode(drawn).decode("ascii")[:length].lower()

    with patch("ledger.moves.new_id", new_id):
        yield


def settings_in(place: Path) -> Settings:
    """Of the scene that was built there, by paths as a person names them."""
    return Settings(
        root=place / "temp",
        ledger=f"sqlite:///{place}/ledger.db",
        claims=place / "claims",
        undo_hours=7,
    )


def build(place: Path) -> None:
    """Plays two weeks in a new place; afterwards, it is NOW there."""
    clock = SetClock(NOW - 13 * DAY)
    with (
        seeded_ids(4),
        patch("ledger.system.now_us", clock),
        SessionLedger.open(settings_in(place), clock=clock) as sessions,
    ):
        scene = Scene(sessions, clock)
        _days(scene)
        _orphans(scene)
        clock.at = NOW
        _forget_how_long_it_took(sessions)
    set_heartbeat(place)


def _forget_how_long_it_took(sessions: SessionLedger) -> None:
    """A run is dated by how long it really took; the scene's take what the same would elsewhere."""
    second = literal(SECOND)
    with sessions.place.database.write() as connection:
        for column in (SESSIONS.c.ended_at, EVENTS.c.at):
            whole = {column.name: column // second * second}
            connection.execute(update(column.table).values(whole))
        took = SWEEPS.c.started_at + 40_000 + SWEEPS.c.done * 1700
        connection.execute(update(SWEEPS).values(finished_at=took))


def copy(built: Path, place: Path) -> None:
    """The scene stands in another place as well; what is large takes no room there either."""

    def copy_file(source: str, target: str) -> str:
        size = os.path.getsize(source)
        if size < MIB or Path(source).parent == built:
            return shutil.copy2(source, target)
        Path(target).touch()
        os.truncate(target, size)
        shutil.copystat(source, target)
        return target

    shutil.copytree(built, place, symlinks=True, copy_function=copy_file, dirs_exist_ok=True)
    set_heartbeat(place)


def set_heartbeat(place: Path) -> None:
    """The ledger last beat just now, so that its clock is trusted by who opens it next."""
    values = {
        "heartbeat_at": NOW,
        "heartbeat_boottime_us": system.boottime_us(),
        **dict.fromkeys(("distrusted_why", "steady_boot_id", "steady_since_us")),
    }
    with (
        SessionLedger.open(settings_in(place), clock=SetClock()) as sessions,
        sessions.place.database.write() as connection,
    ):
        connection.execute(update(ROOTS).values(values))


def _days(scene: Scene) -> None:
    """Two weeks in their order: sessions come by day, stay a while, and most are claimed."""
    script: list[tuple[int, Callable[[], object]]] = []
    for day in range(12, 0, -1):
        weekday = (NOW - day * DAY) // DAY % 7 not in (2, 3)  # 1970 began on a Thursday
        for _ in range(scene.dice.randint(9, 14) if weekday else 3):
            begun = day * DAY - scene.dice.randint(-80, 700) * MINUTE
            script.append((begun, partial(_live, scene, script, begun)))
        script += [(day * DAY - at * HOUR, scene.sweep_now) for at in (1, 7, 13, 19)]
    for ago in scene.dice.sample(range(3, 180), 14):
        script.append((ago * MINUTE, partial(_live, scene, script, ago * MINUTE)))
    script += [(ago, partial(act, scene)) for ago, act in _STORIES]
    script.append((47 * MINUTE, scene.sweep_now))
    while script:
        script.sort(key=lambda act: act[0])
        ago, act = script.pop()
        scene.clock.at = NOW - ago
        act()


def _live(scene: Scene, script: list[tuple[int, Callable[[], object]]], begun: int) -> None:
    """A session is made; touched once, and in the end claimed, deleted or forgotten."""
    session = scene.create()
    stay = round(scene.dice.expovariate(1 / 9) * HOUR) + 5 * MINUTE
    fate = scene.dice.random()
    later = begun - stay
    if begun - stay // 2 > 0:
        script.append((begun - stay // 2, partial(scene.touch, session)))
    if later > 0 and fate < 0.62:
        script.append((later, partial(scene.claim, session)))
    elif later > 0 and fate < 0.85:
        script.append((later, partial(scene.delete, session)))


def _kofi(scene: Scene) -> None:
    scene.create("Kofi, thesis", 3)


def _lena(scene: Scene) -> None:
    scene.create("Lena, film for the exhibition", 4)


def _asa(scene: Scene) -> None:
    scene.create("Åsa Sjögren, ansökan", 2)


def _mara(scene: Scene) -> None:
    scene.create("Mara, order 1187", 3)


def _noor(scene: Scene) -> None:
    scene.create("Noor, tender", 3)


def _oskar(scene: Scene) -> None:
    scene.create("Oskar, holiday pictures", 4)


def _pia(scene: Scene) -> None:
    scene.create("Pia, claim", 2)


def _quentin(scene: Scene) -> None:
    """Another program goes on writing into it."""
    session = scene.create("Quentin, long upload", 2)
    scene.age(scene.root / session.id, 3 * HOUR)


def _rosa(scene: Scene) -> None:
    """Its directory will be gone."""
    scene.create(_GONE, 2)


_GONE = "Rosa, moved by hand"
_STORIES: tuple[tuple[int, Callable[[Scene], None]], ...] = (
    (24 * HOUR + 41 * MINUTE, _quentin),
    (24 * HOUR + 33 * MINUTE, _noor),
    (24 * HOUR + 21 * MINUTE, _oskar),
    (24 * HOUR + 4 * MINUTE, _pia),
    (23 * HOUR + 56 * MINUTE, _lena),
    (22 * HOUR + 20 * MINUTE, _kofi),
    (5 * HOUR, _rosa),
    (2 * MINUTE, _asa),
    (40 * SECOND, _mara),
)


def _orphans(scene: Scene) -> None:
    """What has come about since the last sweep."""
    gone = next(each for each in scene.sessions.page(q=_GONE))
    shutil.move(scene.root / gone.id, scene.root.parent / "moved-by-hand")
    scene.stray("import-2025-03-13", 20 * HOUR, 310 * MIB)
    scene.stray("legacy_upload_0007", 12 * DAY, 2 * GIB)
    scene.stray("legacy_upload_0008", 12 * DAY, 740 * MIB)
    (scene.root / "README.txt").write_text("Do not put files here.\n")
    (scene.root / "latest").symlink_to("import-2025-03-13")


class SceneSource(LocalSource):
    """The scene as a dashboard's source, in which its root is called something that one would."""

    def __init__(self, place: Path) -> None:
        # What was written when the scene was built is from its future, and says nothing.
        self._machine = patch("ledger.system.now_us", SetClock())
        self._machine.start()
        super().__init__(SessionLedger.open(settings_in(place), clock=SetClock()))
        self.name = NAME
        self._real = self._sessions.place.root.path

    def close(self) -> None:
        super().close()
        self._machine.stop()

    def _row(self, record: Record, sort: str = "created_at") -> Row:
        return self._renamed(super()._row(record, sort))

    def detail(self, session_id: str) -> Detail:
        detail = super().detail(session_id)
        return replace(detail, row=self._renamed(detail.row))

    def _renamed(self, row: Row) -> Row:
        return replace(row, path=row.path.replace(self._real, NAME))

    def health(self) -> Health:
        """The disk of whoever looks is no part of the scene."""
        return replace(super().health(), disk=None, disk_free_percent=43.2)
