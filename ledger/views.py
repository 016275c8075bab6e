"""What operators are shown of sessions, as values with their JSON: one whole, or a page of many."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Row

from ledger import queries
from ledger.cursors import cursor_of, place_of
from ledger.disk import HOUSE, TRASH, StoredFile, is_session_id
from ledger.errors import CoatcheckError, SessionNotFound, UsageError
from ledger.models import State
from ledger.plan import Evidence, Kind, Verdict
from ledger.report import Entry, printable, rfc3339
from ledger.sessions import Session, SessionLedger
from ledger.survey import survey_trash, trash_entries

NAMES_IN_A_PAGE = 10_000


def stamp(at: datetime | None) -> str | None:
    """A moment as RFC 3339, to the microsecond."""
    return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def files_of(sessions: SessionLedger, session: Session) -> list[StoredFile]:
    """The files of a session, a claimed one's where it went; none where they cannot be read."""
    with suppress(CoatcheckError, OSError):
        if session.state is State.CLAIMED:
            return sessions.claimed_files(session)
        return sessions.files(session.id)
    return []


def session_json(session: Session, files: Sequence[StoredFile] | None = None) -> dict[str, Any]:
    """A session as operators see it over HTTP; `files` is null where they were not looked up."""
    listed = None
    if files is not None:
        listed = [{"name": printable(name), "bytes": size} for name, size in files]
    return {
        "session_id": session.id,
        "state": session.state.value,
        "label": session.label,
        "created_at": stamp(session.created_at),
        "last_touch_at": stamp(session.last_touch_at),
        "expires_at": stamp(session.expires_at),
        "bytes": session.bytes,
        "file_count": session.files,
        "files": listed,
        "origin": session.origin.value,
        "path": printable(session.path),
        "ended_at": stamp(session.ended_at),
        "ended_by": session.ended_by,
        "ended_why": session.ended_why,
    }


def event_json(row: Row[Any]) -> dict[str, Any]:
    """One change of a session's state; `session` is the short form of its id."""
    return {
        "event_id": row.event_id,
        "at": rfc3339(row.at),
        "session": row.session,
        "from": row.from_state,
        "to": row.to_state,
        "by": row.by,
        "why": printable(row.why),
    }


@dataclass(frozen=True, slots=True)
class Page:
    """Some sessions of a list, each with its files where they were looked up; `after` is the
    cursor of those that follow, None at the end."""

    sessions: list[tuple[Session, list[StoredFile] | None]]
    after: str | None

    @classmethod
    def of(
        cls,
        sessions: SessionLedger,
        *,
        sort: str = "-created_at",
        cursor: str | None = None,
        most: int = 100,
        state: State | None = None,
        q: str | None = None,
        with_files: bool = True,
    ) -> Self:
        """Raises UsageError for an order or a cursor that is none."""
        if sort.removeprefix("-") not in queries.SORTS:
            known = ", ".join(queries.SORTS)
            raise UsageError(f"Sessions are sorted by {known}, with - in front downwards.")
        order, after = f"sessions {sort}", None
        if cursor is not None:
            after = tuple(place_of(cursor, order, *queries.kinds_in(sort)))
        with sessions.place.database.read() as connection:
            found = queries.page(
                connection,
                sessions.place.root_id,
                sort=sort,
                after=after,
                most=most + 1,
                state=state and state.value,
                q=q,
            )
        following = None
        if len(found) > most:
            following = cursor_of(order, *queries.place_in(found[most - 1], sort))
        files = _Files(sessions, NAMES_IN_A_PAGE if with_files else 0)
        listed = [sessions.session_of(record) for record in found[:most]]
        return cls([(session, files.of(session)) for session in listed], following)

    def as_json(self) -> dict[str, Any]:
        return {"sessions": [session_json(*each) for each in self.sessions], "next": self.after}


class _Files:
    """The names of a page's files, as long as they are not too many."""

    def __init__(self, sessions: SessionLedger, most: int) -> None:
        self._sessions = sessions
        self._left = most

    def of(self, session: Session) -> list[StoredFile] | None:
        """The files of one session; none where it has ended, None where they are too many."""
        if session.state is not State.ACTIVE or session.files == 0:
            return []
        if session.files > self._left:
            return None
        self._left -= session.files
        return files_of(self._sessions, session)


@dataclass(frozen=True, slots=True)
class Seen:
    """One session from both sides, with its life, and what a sweep would do with it now.

    `path` is where it stands, or would; a claimed one's is its destination. `max_age_hours` is
    what the sweep would judge it by.
    """

    session_id: str
    path: str
    max_age_hours: float
    session: Session | None
    evidence: Evidence
    verdict: Verdict | None
    files: list[StoredFile]
    trash: list[Entry]
    events: list[dict[str, Any]]

    @classmethod
    def of(cls, sessions: SessionLedger, session_id: str) -> Self:
        """Raises SessionNotFound where neither ledger, root nor trash has anything of it,
        SessionElsewhere, RootUnavailable."""
        if not is_session_id(session_id):
            raise SessionNotFound(session_id)
        sessions.place.root.check()
        evidence, verdict = sessions.judge(session_id)
        row, trash = evidence.row, _in_trash(sessions, session_id)
        if row is None and not trash and evidence.disk.kind is Kind.ABSENT:
            sessions.get(session_id)  # says in which other root it is, or that it is nowhere
        session = sessions.session_of(row) if row else None
        return cls(
            session_id,
            session.path if session else sessions.place.root.path_of(session_id),
            sessions.settings.max_age_hours,
            session,
            evidence,
            verdict,
            files=files_of(sessions, session) if session else [],
            trash=trash,
            events=_life(sessions, row.pk) if row else [],
        )

    def as_json(self) -> dict[str, Any]:
        disk, verdict = self.evidence.disk, self.verdict
        return {
            "session_id": self.session_id,
            "path": printable(self.path),
            "max_age_hours": self.max_age_hours,
            "session": self.session and session_json(self.session, self.files),
            "disk": {
                "kind": disk.kind.value,
                "what": disk.what,
                "mtime": rfc3339(disk.mtime),
                "ctime": rfc3339(disk.ctime),
                "files": disk.files,
                "bytes": disk.bytes,
                "in_use": disk.in_use,
            },
            "verdict": verdict
            and {
                "finding": verdict.finding.value,
                "action": verdict.action.value,
                "why": verdict.why,
                "last_activity": rfc3339(verdict.activity),
            },
            "trash": [entry.as_json() for entry in self.trash],
            "events": self.events,
        }


def _in_trash(sessions: SessionLedger, session_id: str) -> list[Entry]:
    place, now = sessions.place, sessions.clock()
    trash = f"{place.root.path}/{HOUSE}/{TRASH}"
    its = (e for e in trash_entries(place.root) if e.name and e.name.session_id == session_id)
    return [
        Entry.of(
            found.verdict,
            session_id,
            f"{trash}/{found.entry.entry}",
            now,
            files=found.facts.files,
            size=found.facts.bytes,
        )
        for found in survey_trash(place, now, its)
    ]


def _life(sessions: SessionLedger, pk: int) -> list[dict[str, Any]]:
    with sessions.place.database.read() as connection:
        return [event_json(row) for row in queries.session_events(connection, pk)]
