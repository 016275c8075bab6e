"""Who is let in, by what a browser says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from web.errors import problem

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether who listens on `host` is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(host: str) -> tuple[str, str]:
    """The name and the port of a Host header; the port is "" where it has none."""
    name, colon, port = host.rpartition(":")
    if not colon or not (port.isdecimal() or port == "") or host.endswith("]"):
        name, port = host, ""
    return name.strip("[]").lower(), port


class HostCheck:
    """Lets in only who asked for this server by a name of its own; a page that had its name
    changed to our address (DNS rebinding) did not."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], listens_on: str) -> None:
        self._app = app
        self._hosts = [_split(host) for host in hosts]
        if not hosts and is_loopback(listens_on):
            self._hosts = [(name, "") for name in {*_LOOPBACK, listens_on.lower()}]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("host", "") if scope["type"] == "http" else None
        if given is None or self._knows(given):
            await self._app(scope, receive, send)
            return
        refusal = problem(
            403, f"This server does not answer to the Host '{given[:100]}': see COATCHECK_HOSTS."
        )
        await refusal(scope, receive, send)

    def _knows(self, given: str) -> bool:
        name, port = _split(given)
        return not self._hosts or any(
            name == known and wanted in ("", port) for known, wanted in self._hosts
        )


class OriginCheck:
    """Lets no page of another origin in, but those of CORS_ORIGINS."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = {origin.rstrip("/").lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._lets_in(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        refusal = problem(
            403, "A page of another origin may not do this: see COATCHECK_CORS_ORIGINS."
        )
        await refusal(scope, receive, send)

    def _lets_in(self, headers: Headers) -> bool:
        if headers.get("sec-fetch-site") in ("same-origin", "none"):
            return True
        origin = headers.get("origin")
        if origin is None:
            return True
        return _is_host(origin, headers.get("host", "")) or origin.lower() in self._origins


def _is_host(origin: str, host: str) -> bool:
    """Whether the origin's host and port are those of the Host header."""
    try:
        parts = urlsplit(origin)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        name, port = _split(host)
        return default is not None and (parts.hostname, parts.port or default) == (
            name,
            int(port or default),
        )
    except ValueError:
        return False
