"""A root and ledger set up anew for each run, and what may have become of them afterwards."""

import hashlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ledger import Report, SessionLedger, Settings, State, system
from ledger.demo import SCENES
from ledger.disk import HOUSE, INCOMING, TRASH, TrashName
from ledger.props import Stands
from ledger.removal import DEAD

Tree = dict[str, str]
"""Every entry below a directory: a file's bytes by their hash, a link's target, or its kind."""

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
ENDED = {State.DELETED, State.EXPIRED, State.MISSING}


class Fate(StrEnum):
    """Where a session is, by ledger and disk alike, when nothing is unfinished any more."""

    LIVE = "in the root, whole, and active"
    CLAIMED = "at its destination, whole, and claimed"
    WAITING = "in the trash, whole, and ended"
    GONE = "nowhere, and ended"
    UNKNOWN = "nowhere, and in no row"


LIVE, CLAIMED, WAITING, GONE, UNKNOWN = Fate
Said = Callable[[str], None]


@dataclass
class Expected:
    """What may have become of one session; `trees`: what it may hold, wherever it is found."""

    fates: set[Fate]
    trees: list[Tree] = field(default_factory=list)


def tree(top: Path) -> Tree:
    found: Tree = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            found[str(path.relative_to(top))] = told(path.read_bytes())
        else:
            target = os.readlink(path) if stat.S_ISLNK(mode) else ""
            found[str(path.relative_to(top))] = f"{stat.filemode(mode)} {target}"
    return found


def told(content: bytes) -> str:
    return f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()[:16]}"


def tree_of(files: Mapping[str, bytes]) -> Tree:
    return {name: told(content) for name, content in files.items()}


class Stage:
    """The place of one test. `clear` makes it new and empty, as often as one likes."""

    def __init__(self, folder: Path, empty_ledger: Path) -> None:
        self.folder = folder
        self.here = folder / "here"
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "file").write_bytes(b"not ours to touch")
        self._empty_ledger = empty_ledger
        self.clear()

    @property
    def settings(self) -> Settings:
        return Settings(
            root=self.root,
            ledger=f"sqlite:///{self.ledger}",
            claims=self.claims,
        )

    @property
    def root(self) -> Path:
        return self.here / "temp"

    @property
    def trash(self) -> Path:
        return self.root / HOUSE / TRASH

    @property
    def incoming(self) -> Path:
        return self.root / HOUSE / INCOMING

    @property
    def claims(self) -> Path:
        return self.here / "claims"

    @property
    def ledger(self) -> Path:
        return self.here / "ledger" / "ledger.db"

    @property
    def wal(self) -> Path:
        return self.ledger.with_name("ledger.db-wal")

    def clear(self) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        self.ledger.parent.mkdir(parents=True)
        shutil.copy(self._empty_ledger, self.ledger)
        self.outside_before = tree(self.outside)

    def open(self, *, adopt: bool = False, ahead: int = 0) -> SessionLedger:
        """`ahead`: by how many microseconds its clock is before the machine's."""
        return SessionLedger.open(self.settings, adopt=adopt, clock=lambda: system.now_us() + ahead)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["session_id"]: row for row in self.query("SELECT * FROM coatcheck_session")}

    def query(self, sql: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.ledger)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]

    # Where a session's bytes are

    def places(self, session_id: str, destination: str | None = None) -> dict[str, Path]:
        """Wherever the session's directory stands; what is dead in the trash is nobody's."""
        found: dict[str, Path] = {}
        if (self.root / session_id).is_dir():
            found["root"] = self.root / session_id
        for entry in os.listdir(self.trash) if self.trash.exists() else ():
            name = TrashName.parse(entry)
            if name is not None and name.session_id == session_id:
                found[entry] = self.trash / entry
        if destination and (self.claims / destination).is_dir():
            found["claims"] = self.claims / destination
        return found


@dataclass
class Judge:
    """Holds a stage against what was promised, by session id."""

    stage: Stage
    expected: Mapping[str, Expected]
    destinations: Mapping[str, str] = field(default_factory=dict)
    adopt: bool = False
    foreign: Mapping[Path, Tree] = field(default_factory=dict)
    lost_its_tail: bool = False

    def nothing_is_half_there(self) -> None:
        """Right after the blow: each session is whole, in one place, or may be gone."""
        for session_id, expected in self.expected.items():
            places = self.stage.places(session_id, self.destinations.get(session_id))
            assert len(places) <= 1, f"{session_id} is in more than one place: {places}"
            for place in places.values():
                self._is_whole(session_id, place)
            may_be_away = {Fate.GONE, Fate.UNKNOWN} & expected.fates
            assert places or may_be_away, f"{session_id} is lost"

    def a_sweep_settles_it(self) -> Report:
        """Reopened and swept, every session has one of its fates, and nothing is left to do."""
        with self.stage.open(adopt=self.adopt) as sessions:
            first = sessions.sweep(max_age_hours=24)
            assert first.failures == []
            self.fates_are_kept()
            second = sessions.sweep(max_age_hours=24)
            left = (second.removed, second.changed, second.failures)
            assert left == (0, 0, []), f"unfinished: {second.as_json()}"
            report = sessions.report(max_age_hours=24)
            assert report.settled, f"not settled: {report.as_json()}"
        self.fates_are_kept()
        self.no_rubbish_stays()
        self.the_ledger_is_sound()
        assert tree(self.stage.outside) == self.stage.outside_before
        return first

    def fates_are_kept(self) -> None:
        rows = self.stage.rows()
        for session_id, expected in self.expected.items():
            row = rows.get(session_id)
            fate = self._fate(session_id, row)
            assert fate in expected.fates, f"{session_id}: {fate}; row {row}"
        active = {name for name, row in rows.items() if row["state"] == State.ACTIVE}
        foreign = {path.name for path in self.foreign}
        assert set(os.listdir(self.stage.root)) == active | foreign | {HOUSE}
        assert {path: tree(path) for path in self.foreign} == self.foreign

    def _fate(self, session_id: str, row: dict[str, Any] | None) -> Fate:
        places = self.stage.places(session_id, self.destinations.get(session_id))
        for place in places.values():
            self._is_whole(session_id, place)
        state = row and row["state"]
        match list(places), state:
            case ["root"], State.ACTIVE:
                return Fate.LIVE
            case ["claims"], State.CLAIMED:
                return Fate.CLAIMED
            case [entry], State.EXPIRED if row and row["trash"] == entry:
                return Fate.WAITING
            case [entry], None | State.MISSING | State.DELETED if self.lost_its_tail:
                assert entry.startswith("sweep-"), f"{session_id}: {entry} was not finished"
                return Fate.WAITING  # its name tells all that is needed
            case [], None:
                return Fate.UNKNOWN
            case [], _ if state in ENDED:
                return Fate.GONE
        raise AssertionError(f"{session_id} is {state}, and stands in {places}")

    def _is_whole(self, session_id: str, place: Path) -> None:
        trees = self.expected[session_id].trees
        found = tree(place)
        assert not trees or found in trees, f"{session_id} in {place} holds {found}"

    def no_rubbish_stays(self) -> None:
        dead = [name for name in os.listdir(self.stage.trash) if name.startswith(DEAD)]
        assert dead == []
        if os.listdir(self.stage.incoming):
            with self.stage.open(ahead=2 * HOUR_US) as later:
                assert later.sweep(max_age_hours=24, trust_clock=True).failures == []
        assert os.listdir(self.stage.incoming) == []

    def the_ledger_is_sound(self) -> None:
        assert self.stage.query("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        rows = {row["pk"]: row for row in self.stage.rows().values()}
        last: dict[int, str | None] = {}
        for event in self.stage.query("SELECT * FROM coatcheck_event ORDER BY event_id"):
            key = event["session_pk"]
            assert event["from_state"] == last.get(key), f"a step is missing before {event}"
            last[key] = event["to_state"]
        assert last == {pk: row["state"] for pk, row in rows.items()}
        running = self.stage.query("SELECT * FROM coatcheck_sweep WHERE state = 'running'")
        assert running == []
        counted = "SELECT root_id, labels, value FROM coatcheck_count WHERE name = 'sessions'"
        looked = "SELECT root_id, state labels, count(*) value FROM coatcheck_session GROUP BY 1, 2"
        kept = [row for row in self.stage.query(f"{counted} ORDER BY 1, 2") if row["value"]]
        assert kept == self.stage.query(f"{looked} ORDER BY 1, 2")


class Operation:
    """Set up, and done, as often as one likes, on a stage; every bystander lives on."""

    adopt = False

    def set_up(self, stage: Stage) -> None:
        self.stage = stage
        self.destinations: dict[str, str] = {}
        self.trees: dict[str, Tree] = {}
        self.foreign: dict[Path, Tree] = {}
        self.may: dict[str, set[Fate]] = {}
        stage.clear()
        with stage.open() as sessions:
            for name in ("live", "drifted"):
                self.promise(SCENES[name].build(sessions), LIVE)
            self.prepare(sessions)
        for session_id, row in stage.rows().items():
            if row["destination"]:
                self.destinations[session_id] = row["destination"]
        self.look()

    def look(self) -> None:
        """What each session holds, wherever it stands by now."""
        for session_id in self.may:
            destination = self.destinations.get(session_id)
            for place in self.stage.places(session_id, destination).values():
                self.trees[session_id] = tree(place)

    def promise(self, stands: Stands, *fates: Fate) -> str:
        assert stands.session_id is not None
        self.may[stands.session_id] = set(fates)
        return stands.session_id

    def prepare(self, sessions: SessionLedger) -> None:
        """Sets up what the operation acts on."""

    def act(self, sessions: SessionLedger, said: Said) -> None:
        """The operation; `said` after each call that has returned."""
        raise NotImplementedError

    def run(self, said: Said) -> None:
        with self.stage.open() as sessions:
            self.act(sessions, said)

    def expected(self, said: list[str]) -> dict[str, Expected]:
        return {
            session_id: Expected(fates, [self.trees.get(session_id, {})])
            for session_id, fates in self.may.items()
        }

    def judge(self, said: list[str]) -> Judge:
        expected = self.expected(said)
        return Judge(self.stage, expected, self.destinations, self.adopt, self.foreign)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Somebody keeps the directory locked, so that it is in use."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert system.lock_exclusive(fd)
        yield
    finally:
        os.close(fd)
