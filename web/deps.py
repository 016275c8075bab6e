"""What routes ask for, as `Annotated` names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, cast
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials

from ledger.disk import is_session_id
from ledger.errors import SessionNotFound, UsageError
from ledger.report import printable
from ledger.sessions import SessionLedger
from web.auth import bearer, needs_token
from web.examples import ID
from web.logs import concerns

_SHOWN = 40

# A ledger, or what gives it: raising, as long as it is not open, why it is not.
Source = SessionLedger | Callable[[], SessionLedger]


def lending(source: Source) -> Callable[[Request], Awaitable[None]]:
    """A dependency of a whole router: its routes get their `Sessions` from here."""

    async def lend(request: Request) -> None:
        request.state.coatcheck_sessions = source if isinstance(source, SessionLedger) else source()

    return lend


async def _sessions(request: Request) -> SessionLedger:
    return cast(SessionLedger, request.state.coatcheck_sessions)


async def _session_id(
    session_id: Annotated[str, Path(description="The id of a session.", examples=[ID])],
) -> str:
    """An id that a session can have; no other comes near a path. Raises SessionNotFound."""
    if is_session_id(session_id):
        concerns(session_id)
        return session_id
    cut = session_id if len(session_id) <= _SHOWN else session_id[:_SHOWN] + "…"
    raise SessionNotFound(printable(cut))


async def _file_name(
    request: Request,
    name: Annotated[str, Path(description="The name of a file.", examples=["order.txt"])],
) -> str:
    """The name as it was sent: servers replace what is no UTF-8, and two names would be one."""
    try:
        unquote_to_bytes(request.scope.get("raw_path", b"")).decode()
    except UnicodeDecodeError:
        raise UsageError("A file name must be valid Unicode, as UTF-8.") from None
    return name


Sessions = Annotated[SessionLedger, Depends(_sessions)]
SessionId = Annotated[str, Depends(_session_id)]
FileName = Annotated[str, Depends(_file_name)]


async def may_claim(
    sessions: Sessions, credentials: HTTPAuthorizationCredentials | None = Depends(bearer)
) -> None:
    """Lets a claim in: anybody's, or only the operator's, as CLAIM_NEEDS_TOKEN says."""
    if sessions.settings.claim_needs_token:
        await needs_token(sessions.settings.operator_token)(credentials)
