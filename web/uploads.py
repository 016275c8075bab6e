"""The upload routes: they only translate between HTTP and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect

from ledger.claims import check_name
from ledger.disk import StoredFile
from ledger.errors import LedgerDamaged, SessionEnded, SessionNotFound, UsageError
from ledger.models import Actor
from ledger.sessions import Session, SessionLedger
from web.batches import Batches
from web.bodies import STALL_S, Refused
from web.deps import FileName, SessionId, Sessions, Source, lending, may_claim
from web.downloads import FileAnswer
from web.errors import documented, route_class
from web.logs import concerns
from web.receiving import arriving, take_body, take_parts
from web.shapes import ClaimIn, FileOut, FilesOut, SessionOut


class _AnyText(PathConvertor):
    """The rest of a path, whatever it is: that no file can have the name is ours to say."""

    regex = "(?s:.*)"


register_url_convertor("any_text", _AnyText())


def upload_router(source: Source, *, stall_s: float = STALL_S) -> APIRouter:
    """The upload routes on a ledger, to be included under a prefix of their own.

    A body that moves no byte for `stall_s` seconds is ended.
    """
    router = APIRouter(
        route_class=route_class(stall_s),
        dependencies=[Depends(lending(source))],
        tags=["uploads"],
    )
    _add_session_routes(router)
    _add_file_routes(router)
    return router


# A session


async def create(request: Request, response: Response, sessions: Sessions) -> SessionOut:
    """Creates a session, with the files and the `label` of a multipart body."""
    async with arriving(request, sessions, None) as arrival:
        label = await take_parts(request, arrival)
        record, received = await arrival.commit(label)
    concerns(record.session_id)
    if await request.is_disconnected():
        # Nobody will ever learn its id.
        await to_thread.run_sync(lambda: sessions.delete_session(record.session_id, by=Actor.API))
        raise ClientDisconnect
    response.headers["Location"] = f"{_path(request).rstrip('/')}/{record.session_id}"
    files = sorted(StoredFile(file.name, file.bytes) for file in received)
    return SessionOut.of(sessions.session_of(record), files)


def show(session_id: SessionId, sessions: Sessions) -> SessionOut:
    """The session with its files. Not a touch."""
    return _with_files(sessions, sessions.standing(session_id))


async def touch(session_id: SessionId, sessions: Sessions) -> SessionOut:
    """Keeps the session alive."""

    def alone() -> SessionOut:
        return _with_files(sessions, sessions.touch(session_id, by=Actor.API))

    told = await _TOUCHES.act(sessions, session_id)
    if isinstance(told, Session):
        return await to_thread.run_sync(_with_files, sessions, told)
    return await to_thread.run_sync(alone) if told is None else told


def claim(session_id: SessionId, wanted: ClaimIn, sessions: Sessions) -> SessionOut:
    """Moves the session below the claims directory; repeated, it answers the same."""
    into = check_name(wanted.into, "The claim's name")
    session = sessions.claim(session_id, into, by=Actor.API)
    return SessionOut.of(session, sessions.claimed_files(session))


async def delete(session_id: SessionId, sessions: Sessions) -> None:
    """Deletes the session: it is gone at once, whatever its size."""

    def alone() -> bool:
        return sessions.delete_session(session_id, by=Actor.API)

    if not (await _DELETES.act(sessions, session_id) or await to_thread.run_sync(alone)):
        raise SessionNotFound(session_id)


async def _no_session() -> None:
    raise SessionNotFound("")


# Its files


async def add_files(request: Request, session_id: SessionId, sessions: Sessions) -> FilesOut:
    """Adds the file parts of a multipart body, all or none; a name that is taken is numbered."""
    async with arriving(request, sessions, session_id) as arrival:
        await take_parts(request, arrival)
        if not arrival.has_files:
            raise UsageError("There is no file in this request.")
        _, received = await arrival.commit()
    base = _path(request)
    files = [FileOut(name=name, bytes=size, url=_below(base, name)) for name, size, _ in received]
    return FilesOut(url=files[0].url, files=files)


async def put_file(
    request: Request,
    response: Response,
    session_id: SessionId,
    name: FileName,
    sessions: Sessions,
) -> FileOut | Response:
    """Stores the body as one file, whole or not at all; one of its name is replaced."""
    if "content-range" in request.headers:
        raise UsageError("A file is put whole: Content-Range is not understood.")
    async with arriving(request, sessions, session_id, file=name) as arrival:
        await take_body(request, arrival)
        _, [received] = await arrival.commit()
    if received.replaced:
        return Response(status_code=204)
    url = _path(request)
    response.headers["Location"] = url
    return FileOut(name=name, bytes=received.bytes, url=url)


def get_file(
    request: Request, session_id: SessionId, name: FileName, sessions: Sessions
) -> FileAnswer:
    """The file, or a range of it, to be saved. Not a touch."""
    sessions.standing(session_id)
    try:
        return FileAnswer(request, sessions.open_file(session_id, name), name)
    except FileNotFoundError:
        raise _no_file(name) from None


def delete_file(session_id: SessionId, name: FileName, sessions: Sessions) -> None:
    """Takes one file back out of the session."""
    if not sessions.delete_file(session_id, name, by=Actor.API):
        raise _no_file(name)


def _touch_all(sessions: SessionLedger, ids: Sequence[str]) -> dict[str, SessionOut | Session]:
    """Of a session with many files only that it is touched: nobody else waits for their list."""
    told: dict[str, SessionOut | Session] = {}
    with suppress(LedgerDamaged):  # by a row of one of them: only who asks for that one learns it
        for session in sessions.touch_all(ids):
            with suppress(OSError, SessionNotFound):  # it is asked by itself, and says why not
                files = sessions.few_files(session.id, _FEW)
                told[session.id] = session if files is None else SessionOut.of(session, files)
    return told


def _delete_all(sessions: SessionLedger, ids: Sequence[str]) -> dict[str, bool]:
    with suppress(LedgerDamaged):
        return dict.fromkeys(sessions.delete_all(ids, by=Actor.API), True)
    return {}


_FEW = 64  # entries, whose names are read as quickly as the session is touched
_TOUCHES = Batches(_touch_all)
_DELETES = Batches(_delete_all)


def _with_files(sessions: SessionLedger, session: Session) -> SessionOut:
    try:
        return SessionOut.of(session, sessions.files(session.id))
    except SessionNotFound:
        raise SessionEnded("The session's directory is gone.") from None


def _no_file(name: str) -> Refused:
    return Refused(404, f"File '{name}' not found")


def _path(request: Request) -> str:
    """The path of the request, wherever the routes are mounted, fit for a URL."""
    return quote(request.scope["path"])


def _below(base: str, name: str) -> str:
    return f"{base}/{quote(name, safe='')}"


# The table


Answers = dict[int | str, dict[str, Any]]

_OPEN = documented(403, 404, 409, 410, 421, 422, 503)
_CLOSING = documented(403, 409, 421, 422, 503, s404="There was none, or it had ended.")
_BODY = documented(408, 413, 507)
_BYTES = {"type": "string", "format": "binary", "description": "The bytes of one file."}
_FILES = {"type": "array", "items": _BYTES, "description": "Files, under any field name."}
_LABEL = {"type": "string", "maxLength": 1000, "description": "Names the session for people."}
_GONE: Answers = {204: {"description": "It is gone."}}


def _told(what: str, **headers: str) -> dict[str, Any]:
    """A success: what it means, and the headers that it brings."""
    text = {"type": "string"}
    named = {name: {"schema": text, "description": said} for name, said in headers.items()}
    return {"description": what, **({"headers": named} if named else {})}


def _add_session_routes(router: APIRouter) -> None:
    a_form = _takes(
        "multipart/form-data",
        _form(label=_LABEL, files=_FILES),
        {"label": "order 17", "files": ["@order.txt"]},
        required=False,
    )
    made: Answers = {201: _told("The session.", Location="Where it is."), **_BODY}
    made |= documented(403, 422, 503)
    new = router.post(
        "", summary="Create a session", status_code=201, responses=made, openapi_extra=a_form
    )
    new(create)
    router.post("/", status_code=201, include_in_schema=False)(create)
    for hidden in (router.get, router.head, router.delete):
        hidden("/", include_in_schema=False)(_no_session)

    one = "/{session_id}"
    known: Answers = {200: _told("The session."), **_OPEN}
    gone = _GONE | _CLOSING
    router.get(one, summary="Look at a session", responses=known)(show)
    router.head(one, include_in_schema=False)(show)
    router.delete(one, summary="Delete a session", status_code=204, responses=gone)(delete)
    beacon = router.post(
        f"{one}/discard",
        summary="Delete a session, from a page that is left",
        description="The same as DELETE, for `navigator.sendBeacon`, which can only POST.",
        status_code=204,
        responses=gone,
        name="discard",
    )
    beacon(delete)
    kept = known | documented(507)
    router.post(f"{one}/touch", summary="Keep a session alive", responses=kept)(touch)
    taken = documented(s409="It is busy, or the claims directory has that name already.")
    claiming = router.post(
        f"{one}/claim",
        summary="Claim a session",
        dependencies=[Depends(may_claim)],
        responses=known | documented(401) | _BODY | taken,
    )
    claiming(claim)


def _add_file_routes(router: APIRouter) -> None:
    a_form = _takes("multipart/form-data", _form(files=_FILES), {"files": ["@order.txt"]})
    adding = router.post(
        "/{session_id}/files",
        summary="Add files",
        status_code=201,
        responses={201: _told("The files, as they are named now."), **_OPEN, **_BODY},
        openapi_extra=a_form,
    )
    adding(add_files)

    one = "/{session_id}/files/{name:any_text}"
    no_file = documented(s404="There is no such session, or no such file in it.")
    put: Answers = {201: _told("It is new.", Location="Where it is."), **_OPEN, **_BODY}
    put |= {204: {"description": "It replaced one of its name."}}
    a_file = _takes("application/octet-stream", _BYTES, "two seats, row 7\n", required=False)
    putting = router.put(
        one,
        summary="Put one file",
        status_code=201,
        response_model=FileOut,
        responses=put,
        openapi_extra=a_file,
    )
    putting(put_file)
    whole = {"application/octet-stream": {"schema": _BYTES, "example": "two seats, row 7\n"}}
    got: Answers = {200: {"description": "The file.", "content": whole}, **_OPEN, **no_file}
    got |= {206: {"description": "The range that was asked for.", "content": whole}}
    got |= documented(416)
    getting = router.get(
        one, summary="Get one file", status_code=200, response_class=FileAnswer, responses=got
    )
    getting(get_file)
    router.head(one, response_class=FileAnswer, include_in_schema=False)(get_file)
    out: Answers = {**_GONE, **_OPEN, **documented(507), **no_file}
    router.delete(one, summary="Take one file out", status_code=204, responses=out)(delete_file)


def _takes(
    kind: str, schema: dict[str, Any], example: Any, *, required: bool = True
) -> dict[str, Any]:
    content = {kind: {"schema": schema, "example": example}}
    return {"requestBody": {"content": content, "required": required}}


def _form(**fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields}
