"""Taking a pile over: what it would mean, and the recording of every directory with its times."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ledger import states
from ledger.disk import Root, examine, is_session_id
from ledger.models import Actor
from ledger.place import Place
from ledger.plan import Facts, Kind
from ledger.runs import Progress
from ledger.settings import Settings
from ledger.states import New
from ledger.survey import gather, mounts_in

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Pile:
    """What adopting a root would mean: `stale` of its directories the next sweep would take."""

    directories: int
    stale: int
    bytes: int
    foreign: int


def preview(settings: Settings, now: int) -> Pile:
    """What stands in the root, looked at without opening a ledger. Raises RootUnavailable."""
    root = Root(Path(os.path.abspath(settings.root)))
    try:
        directories = stale = size = foreign = 0
        mounts = mounts_in(root)
        with root.names() as entries:
            for entry in entries:
                facts = examine(root, entry.name, now, mounts).facts
                if facts.kind is not Kind.DIRECTORY or not is_session_id(entry.name):
                    foreign += 1
                    continue
                directories += 1
                size += facts.bytes
                stale += facts.mtime is not None and now - facts.mtime > settings.max_age_us
        return Pile(directories, stale, size, foreign)
    finally:
        root.close()


def record_all(place: Place, now: int, by: Actor, progress: Progress) -> int:
    """Every directory of the root that had no row has one now; how many were recorded."""
    mounts = mounts_in(place.root)
    recorded = 0
    with place.root.names() as entries:
        ids = (entry.name for entry in entries if is_session_id(entry.name))
        while names := list(islice(ids, _AT_ONCE)):
            suspects = gather(place, names, now, mounts)
            new = [
                _new(suspect.evidence.session_id, suspect.evidence.disk, now)
                for suspect in suspects
                if suspect.evidence.row is None and suspect.evidence.disk.kind is Kind.DIRECTORY
            ]
            with place.database.write() as connection:
                recorded += len(states.insert(connection, place.root_id, new, by, now))
            progress.advance(len(names))
    return recorded


def _new(session_id: str, disk: Facts, now: int) -> New:
    at = now if disk.mtime is None else disk.mtime
    return New.adopted(session_id, "found when the root was taken over", disk, at)
