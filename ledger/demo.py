"""The scenes of `coatcheck demo`: each row of the cross-check's table, set up for real.

The tests of the cross-check use the same scenes. A scene goes by the clock and the max age of the
ledger it is handed. Rows get there by the steps of real operations; where a crash is played,
the steps simply end.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ledger import moves, props, removal, states
from ledger.disk import HOUSE, INCOMING, TRASH, Root
from ledger.models import Actor, Origin
from ledger.plan import Action, Finding
from ledger.props import OLD, YOUNG, Stands, without_roots_rights
from ledger.removal import DEAD
from ledger.sessions import SessionLedger
from ledger.settings import HOUR_US, Settings, load_settings
from ledger.states import New

Build = Callable[[SessionLedger], Stands]


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of the cross-check's table: `row` and `disk` in the table's words, and its verdict.

    `build(sessions)` sets it up in their root, as often as one likes, by the clock and the max
    age of `sessions`; the clock must tick.
    """

    name: str
    row: str
    disk: str
    finding: Finding
    action: Action
    build: Build


SCENES: dict[str, Scene] = {}


def _scene(row: str, disk: str, finding: Finding, action: Action) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        name = build.__name__.strip("_")
        SCENES[name] = Scene(name, row, disk, finding, action, build)
        return build

    return add


# Where ledger and disk agree, or nearly


@_scene("active, touched within max age", "directory", Finding.LIVE, Action.KEEP)
def _live(sessions: SessionLedger) -> Stands:
    return props.session(sessions, YOUNG)


@_scene("active, touch old", "newest mtime within max age", Finding.DRIFTED, Action.HEAL)
def _drifted(sessions: SessionLedger) -> Stands:
    """Written into a file that was there: its directory's mtime stays."""
    stands = props.session(sessions, OLD)
    props.date(f"{stands.path}/notes.txt", props.ago(sessions, YOUNG).clock())
    return stands


@_scene("active, touched in the future", "times in the future", Finding.DRIFTED, Action.HEAL)
def _ahead(sessions: SessionLedger) -> Stands:
    """The clock was ahead when it was created."""
    return props.session(sessions, -OLD)


@_scene("active, touch old", "directory, all old", Finding.STALE, Action.SET_ASIDE)
def _stale(sessions: SessionLedger) -> Stands:
    return props.session(sessions, OLD)


@_scene("active, never touched", "old, but just moved in", Finding.STALE, Action.SET_ASIDE)
def _moved_in(sessions: SessionLedger) -> Stands:
    """Only the disk says that it is old, and its ctimes disagree: its bytes wait."""
    stands = props.stray(sessions, OLD)
    at = props.ago(sessions, OLD).clock()
    new = New(str(stands.session_id), Origin.ADOPTED, "adopted", at, at, files=2, bytes=49_200)
    with sessions.place.database.write() as connection:
        states.insert(connection, sessions.place.root_id, [new], Actor.SWEEP, sessions.clock())
    return stands


@_scene("active", "nothing", Finding.MISSING, Action.END)
def _missing(sessions: SessionLedger) -> Stands:
    return props.lost(sessions, YOUNG)


# What the ledger does not know, or believes to have ended


@_scene("none", "directory, activity within max age", Finding.UNRECORDED, Action.ADOPT)
def _unrecorded(sessions: SessionLedger) -> Stands:
    return props.stray(sessions, YOUNG)


@_scene("none", "directory, all old", Finding.UNRECORDED, Action.SET_ASIDE)
def _forgotten(sessions: SessionLedger) -> Stands:
    return props.stray(sessions, OLD)


@_scene("ended otherwise", "directory stands, young", Finding.REVIVED, Action.REVIVE)
def _revived(sessions: SessionLedger) -> Stands:
    return props.stands_again(sessions, YOUNG)


@_scene("ended otherwise", "directory stands, old", Finding.REVIVED, Action.SET_ASIDE)
def _revived_old(sessions: SessionLedger) -> Stands:
    return props.stands_again(sessions, OLD)


# What a crash left


@_scene("removing, by a user", "still in the root", Finding.UNFINISHED, Action.FINISH)
def _delete_begun(sessions: SessionLedger) -> Stands:
    return props.removed(sessions, YOUNG, Actor.API)


@_scene("removing, by a user", "in the trash", Finding.UNFINISHED, Action.FINISH)
def _delete_half_done(sessions: SessionLedger) -> Stands:
    return props.removed(sessions, YOUNG, Actor.API, renamed=True)


@_scene("deleted", "in the trash", Finding.UNFINISHED, Action.FINISH)
def _deleted_bytes_left(sessions: SessionLedger) -> Stands:
    return props.removed(sessions, YOUNG, Actor.API, renamed=True, ended=True)


@_scene("deleted", "the same inode stands, unchanged", Finding.UNFINISHED, Action.FINISH)
def _delete_lost(sessions: SessionLedger) -> Stands:
    """A power cut took back the rename, and not the row."""
    return props.removed(sessions, YOUNG, Actor.API, ended=True)


@_scene("removing, by a sweep", "still in the root", Finding.UNFINISHED, Action.FINISH)
def _sweep_begun(sessions: SessionLedger) -> Stands:
    return props.removed(sessions, OLD, Actor.SWEEP)


@_scene("removing, by a sweep", "in the trash", Finding.UNFINISHED, Action.FINISH)
def _sweep_half_done(sessions: SessionLedger) -> Stands:
    return props.removed(sessions, OLD, Actor.SWEEP, renamed=True)


@_scene("expired", "in the trash, due", Finding.UNFINISHED, Action.FINISH)
def _due(sessions: SessionLedger) -> Stands:
    return props.removed(sessions, OLD, Actor.SWEEP, renamed=True, ended=True)


@_scene("expired", "the same inode stands, unchanged", Finding.UNFINISHED, Action.FINISH)
def _sweep_lost(sessions: SessionLedger) -> Stands:
    return props.removed(sessions, OLD, Actor.SWEEP, ended=True)


@_scene("claiming, and nobody at it", "in the root", Finding.UNFINISHED, Action.FINISH)
def _claim_begun(sessions: SessionLedger) -> Stands:
    return props.claimed(sessions, renamed=False)


@_scene("claiming, and nobody at it", "at its destination", Finding.UNFINISHED, Action.FINISH)
def _claim_half_done(sessions: SessionLedger) -> Stands:
    return props.claimed(sessions, renamed=True)


@_scene("none", "a dead entry in the trash", Finding.UNFINISHED, Action.FINISH)
def _dead(sessions: SessionLedger) -> Stands:
    path = Path(sessions.place.root.path, HOUSE, TRASH, DEAD + moves.new_id(16))
    return Stands(None, props.write(path, props.ago(sessions, OLD).clock()))


@_scene("none", "a leftover in incoming", Finding.UNFINISHED, Action.FINISH)
def _leftover(sessions: SessionLedger) -> Stands:
    path = Path(sessions.place.root.path, HOUSE, INCOMING, moves.new_id())
    return Stands(None, props.write(path, sessions.clock() - 2 * HOUR_US))


# What is left alone


@_scene("any", "in the trash, not due yet", Finding.WAITING, Action.KEEP)
def _waiting(sessions: SessionLedger) -> Stands:
    due = props.ago(sessions, -0.5).clock()
    return props.removed(sessions, OLD, Actor.SWEEP, renamed=True, ended=True, due=due)


@_scene("any", "flock held, upload in progress", Finding.IN_USE, Action.KEEP)
def _in_use(sessions: SessionLedger) -> Stands:
    session_id, path, _ = props.session(sessions, OLD)
    upload = props.ago(sessions, OLD).upload(session_id, by=Actor.API)
    return Stands(session_id, path, upload.discard)


@_scene("any", "cannot be read (EACCES)", Finding.UNREADABLE, Action.REPORT)
def _unreadable(sessions: SessionLedger) -> Stands:
    stands = props.stray(sessions, OLD)
    held = ExitStack()
    held.callback(os.chmod, stands.path, 0o700)
    os.chmod(stands.path, 0)
    held.enter_context(without_roots_rights())
    return Stands(stands.session_id, stands.path, held.close)


@_scene("any", "a file", Finding.FOREIGN, Action.REPORT)
def _file(sessions: SessionLedger) -> Stands:
    path = props.new_path(sessions, "readme")
    path.write_text("Who put this here?\n")
    return Stands(path.name, str(path))


@_scene("any", "a link", Finding.FOREIGN, Action.REPORT)
def _link(sessions: SessionLedger) -> Stands:
    path = props.new_path(sessions, "link")
    elsewhere = Path(sessions.place.root.path).with_name(path.name)
    path.symlink_to(props.write(elsewhere, props.ago(sessions, OLD).clock()))
    return Stands(path.name, str(path))


@_scene("any", "a pipe", Finding.FOREIGN, Action.REPORT)
def _pipe(sessions: SessionLedger) -> Stands:
    path = props.new_path(sessions, "pipe")
    os.mkfifo(path)
    return Stands(path.name, str(path))


@_scene("any", "a socket", Finding.FOREIGN, Action.REPORT)
def _socket(sessions: SessionLedger) -> Stands:
    path = props.new_path(sessions, "socket")
    # By descriptor: a socket's address holds no more than 107 bytes.
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(f"/proc/self/fd/{sessions.place.root.fd}/{path.name}")
    return Stands(path.name, str(path))


@_scene("any", "a name that is no session id", Finding.FOREIGN, Action.REPORT)
def _name(sessions: SessionLedger) -> Stands:
    path = props.new_path(sessions, "summer photos")
    return Stands(path.name, props.write(path, props.ago(sessions, OLD).clock()))


# The demo's own place


@contextmanager
def stage(*, keep: bool = False) -> Iterator[tuple[SessionLedger, dict[str, Stands]]]:
    """A ledger in a temporary folder of its own, with every scene set up in its root.

    Afterwards the folder is gone, unless `keep`. Raises UsageError for wrong settings.
    """
    load_settings()  # wrong ones are said before anything is made
    folder = Path(tempfile.mkdtemp(prefix="coatcheck-demo-"))
    opened = SessionLedger.open(_settings(folder))
    try:
        with opened as sessions, ExitStack() as held:
            stands = {}
            for scene in SCENES.values():
                stands[scene.name] = scene.build(sessions)
                held.callback(stands[scene.name].release)
            yield sessions, stands
    finally:
        if not keep:
            _take_away(folder)


def _settings(folder: Path) -> Settings:
    return load_settings(
        root=folder / "temp",
        ledger=f"sqlite:///{folder / 'ledger.db'}",
        claims=folder / "claims",
        max_age_hours=24,
        undo_hours=0,
        brake=100,
    )


def _take_away(folder: Path) -> None:
    """The folder and all in it are gone: buried in the trash of its root, and removed there."""
    root = Root(folder / "temp")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _bury_all(root, root.fd, but=HOUSE)
        _bury_all(root, fd, but=root.real.rpartition("/")[2])
        _bury_all(root, root.house, but=TRASH)
        for name in os.listdir(root.trash):
            removal.remove_dead(root.trash, moves.bury(root, name))
        removal.remove_empty_directory(TRASH, dir_fd=root.house)
        removal.remove_empty_directory(HOUSE, dir_fd=root.fd)
        removal.remove_empty_directory("temp", dir_fd=fd)
    finally:
        os.close(fd)
        root.close()
    fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        removal.remove_empty_directory(folder.name, dir_fd=fd)
    finally:
        os.close(fd)


def _bury_all(root: Root, fd: int, *, but: str) -> None:
    for name in os.listdir(fd):
        if name != but:
            removal.remove_dead(root.trash, moves.bury(root, name, dir_fd=fd))
