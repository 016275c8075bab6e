"""A client of the service, typed and synchronous: `Client("http://127.0.0.1:8000")`.

Every method may raise Unreachable, or Refused for an answer that is no success; every request may
be repeated. The answers are those of the OpenAPI document, as values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Self
from urllib.parse import quote

import httpx

from ledger.errors import SessionNotFound
from web.asking import Cancel, Cancelled, Refused, Unreachable
from web.shapes import (
    EventJson,
    EventPage,
    FilesOut,
    ReportJson,
    SeenJson,
    SessionJson,
    SessionOut,
    SessionPage,
    SweepJson,
    SweepPage,
)
from web.wire import TIMEOUT_S, Wire

__all__ = ["Cancel", "Cancelled", "Client", "Refused", "Unreachable"]

UPLOAD = "/api/v1/upload"
OPERATOR = "/api/v1/operator"
REPORT_S = 900.0  # a report takes as long as the root is large

Content = bytes | IO[bytes]
Files = Iterable[tuple[str, Content]]


class Client:
    """One service, at a URL that may have a path in front of its own. Safe from many threads; each
    keeps a connection. `token` is the operator's: only the operator's calls need it.

    `ahead` is by how many microseconds the service's clock is ahead of ours.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._wire = Wire(url, token, timeout_s)
        self.url = self._wire.url

    @property
    def ahead(self) -> int:
        return self._wire.ahead

    def stop(self) -> None:
        """What is still asked for fails now, and what is asked from now on."""
        self._wire.stop()

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Sessions and their files

    def create(self, files: Files = (), *, label: str | None = None) -> SessionOut:
        """A new session, with these files: pairs of a name and its bytes, or what reads them."""
        named = {} if label is None else {"label": label}
        parts = _parts(files)
        sent: dict[str, Any] = {"data": named, "files": parts} if parts or named else {}
        if named and not parts:  # httpx would send a form of another kind
            sent = {"files": [("label", (None, label))]}
        return SessionOut.model_validate(self._json("POST", UPLOAD, once=True, **sent))

    def session(self, session_id: str) -> SessionOut:
        return SessionOut.model_validate(self._json("GET", _upload(session_id)))

    def touch(self, session_id: str) -> SessionOut:
        """It counts as used now."""
        return SessionOut.model_validate(self._json("POST", f"{_upload(session_id)}/touch"))

    def claim(self, session_id: str, into: str) -> SessionOut:
        """Its directory is below the claims directory, under this name."""
        told = self._json("POST", f"{_upload(session_id)}/claim", json={"into": into})
        return SessionOut.model_validate(told)

    def delete(self, session_id: str) -> bool:
        """False when there was none, or it had ended."""
        return self._answer("DELETE", _upload(session_id), accept=(404,)).status_code == 204

    def add_files(self, session_id: str, files: Files) -> FilesOut:
        """All of them, or none; a name that is taken gets a number."""
        told = self._json("POST", f"{_upload(session_id)}/files", once=True, files=_parts(files))
        return FilesOut.model_validate(told)

    def put_file(self, session_id: str, name: str, content: Content | Iterable[bytes]) -> bool:
        """The file is there, whole; False when it replaced one of its name."""
        once = not isinstance(content, bytes)
        answer = self._answer("PUT", _file(session_id, name), once=once, content=content)
        return answer.status_code == 201

    @contextmanager
    def file(self, session_id: str, name: str) -> Iterator[Iterator[bytes]]:
        """A file of the session, in pieces, while the block runs."""
        with self._wire.stream("GET", _file(session_id, name)) as answer:
            if answer.status_code != 200:
                answer.read()
                raise self._refused(answer)
            yield answer.iter_bytes()

    def delete_file(self, session_id: str, name: str) -> bool:
        """False when it was not there."""
        answer = self._answer("DELETE", _file(session_id, name), accept=(404,))
        return answer.status_code == 204

    # For operators

    def sessions(
        self,
        *,
        state: str | None = None,
        sort: str = "-created_at",
        q: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        """One page; `cursor` is the `next` of the page before."""
        told = self.get(
            f"{OPERATOR}/sessions", state=state, sort=sort, q=q, limit=limit, cursor=cursor
        )
        return SessionPage.model_validate(told)

    def every_session(self, **query: Any) -> Iterator[SessionJson]:
        """All of them, page by page, each once while others come and go."""
        page = self.sessions(**query)
        yield from page.sessions
        while page.next is not None:
            page = self.sessions(**{**query, "cursor": page.next})
            yield from page.sessions

    def seen(self, session_id: str) -> SeenJson:
        """One session from both sides, with what a sweep would do now. Raises SessionNotFound."""
        told = self.ask("GET", _session(session_id), accept=(404,))
        if not isinstance(told, dict) or "session" not in told:
            raise SessionNotFound(session_id)
        return SeenJson.model_validate(told)

    def restore(self, session_id: str) -> SessionJson:
        """It is back from the trash, whole."""
        return SessionJson.model_validate(self._json("POST", f"{_session(session_id)}/restore"))

    def report(
        self, max_age_hours: float | None = None, *, cancel: Cancel | None = None
    ) -> ReportJson:
        """The orphan report. Raises Cancelled."""
        told = self.get(f"{OPERATOR}/report", cancel=cancel, max_age_hours=max_age_hours)
        return ReportJson.model_validate(told)

    def report_csv(self, max_age_hours: float | None = None) -> str:
        query = _given(format="csv", max_age_hours=max_age_hours)
        return self._answer("GET", f"{OPERATOR}/report", params=query, timeout_s=REPORT_S).text

    def start_sweep(
        self,
        *,
        dry_run: bool = False,
        max_age_hours: float | None = None,
        of: int | None = None,
        past_the_brake: bool = False,
        trust_clock: bool = False,
    ) -> SweepJson:
        """A run that has just begun; `of` a dry run carries out exactly what that has listed."""
        order = _given(
            dry_run=dry_run or None,
            max_age_hours=max_age_hours,
            of=of,
            past_the_brake=past_the_brake or None,
            trust_clock=trust_clock or None,
        )
        return SweepJson.model_validate(self.ask("POST", f"{OPERATOR}/sweeps", order))

    def sweep(self, sweep_id: int) -> SweepJson:
        return SweepJson.model_validate(self._json("GET", f"{OPERATOR}/sweeps/{sweep_id}"))

    def sweeps(self, *, limit: int = 100, cursor: str | None = None) -> SweepPage:
        """Past and running sweeps, newest first."""
        return SweepPage.model_validate(self.get(f"{OPERATOR}/sweeps", limit=limit, cursor=cursor))

    def cancel_sweep(self, sweep_id: int) -> SweepJson:
        """It has been asked to end between two sessions."""
        return SweepJson.model_validate(self._json("DELETE", f"{OPERATOR}/sweeps/{sweep_id}"))

    def events(self, *, limit: int = 100, cursor: str | None = None) -> EventPage:
        """What happened, newest first."""
        return EventPage.model_validate(self.get(f"{OPERATOR}/events", limit=limit, cursor=cursor))

    def follow(self, after: int | None = None) -> Iterator[EventJson]:
        """What happens from now on, or from behind the event `after` on, until the service ends
        the stream; asked again with the last event that was seen, it leaves none out."""
        sent = {"Accept": "text/event-stream"}
        if after is not None:
            sent["Last-Event-ID"] = str(after)
        # The service says every few seconds that it is still there.
        with self._wire.stream("GET", f"{OPERATOR}/events", headers=sent, timeout_s=60) as answer:
            if answer.status_code != 200:
                answer.read()
                raise self._refused(answer)
            number = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    number = value
                elif name == "data" and number:
                    yield EventJson.model_validate_json(value)
                    number = ""

    def ready(self) -> dict[str, Any]:
        """How the service is, in words; `ready` says whether it can serve."""
        told = self.ask("GET", "/readyz", accept=(503,))
        if not isinstance(told, dict) or "ready" not in told:
            raise Refused(f"{self.url} does not say how it is. Is it coatcheck?")
        return told

    def metrics(self) -> str:
        """Prometheus text."""
        return self._answer("GET", "/metrics").text

    # Any route

    def get(self, path: str, *, cancel: Cancel | None = None, **query: Any) -> Any:
        """The answer's JSON; parameters that are None are left out. Raises as `ask`."""
        return self.ask("GET", path, cancel=cancel, params=_given(**query))

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        accept: tuple[int, ...] = (),
        cancel: Cancel | None = None,
        **sent: Any,
    ) -> Any:
        """The answer's JSON. Raises Unreachable, Cancelled, Refused for a status that is none of
        success and not in `accept`."""
        if body is not None:
            sent["json"] = body
        timeout_s = REPORT_S if path.endswith("/operator/report") else None
        answer = self._answer(
            method, path, accept=accept, cancel=cancel, timeout_s=timeout_s, **sent
        )
        return _json(answer)

    def _json(self, method: str, path: str, **sent: Any) -> Any:
        told = _json(self._answer(method, path, **sent))
        if told is None:
            raise Refused(f"{self.url} did not answer with JSON. Is it coatcheck?")
        return told

    def _answer(
        self, method: str, path: str, *, accept: tuple[int, ...] = (), **sent: Any
    ) -> httpx.Response:
        answer = self._wire.exchange(method, path, **sent)
        if answer.is_success or answer.status_code in accept:
            return answer
        raise self._refused(answer)

    def _refused(self, answer: httpx.Response) -> Refused:
        told = _json(answer)
        detail = told.get("detail") if isinstance(told, dict) else None
        if isinstance(detail, list):  # FastAPI's own list of what is wrong
            detail = "; ".join(str(each.get("msg")) for each in detail if isinstance(each, dict))
        status = answer.status_code
        said = f"{self.url} answered {status}. Is it coatcheck?"
        return Refused(str(detail) if detail else said, status)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _parts(files: Files) -> list[tuple[str, tuple[str, Content]]]:
    return [("file", (name, content)) for name, content in files]


def _json(answer: httpx.Response) -> Any:
    try:
        return json.loads(answer.content) if answer.content else None
    except ValueError:
        return None


def _upload(session_id: str) -> str:
    return f"{UPLOAD}/{quote(session_id, safe='')}"


def _file(session_id: str, name: str) -> str:
    quoted = quote(name, safe="")
    if quoted in (".", ".."):  # the service says that no file has the name; as a step it would not
        quoted = quoted.replace(".", "%2E")
    return f"{_upload(session_id)}/files/{quoted}"


def _session(session_id: str) -> str:
    return f"{OPERATOR}/sessions/{quote(session_id, safe='')}"
