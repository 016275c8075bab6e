"""The page at /, and below /static the browser client: read once, and never stale in a browser."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, HTTPException, Request, Response

PAGE = "index.html"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
}
# Nothing from elsewhere, nothing inline; nobody puts the page into a frame and has it clicked.
POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        *(f"{what} 'none'" for what in ("base-uri", "form-action", "frame-ancestors")),
        "require-trusted-types-for 'script'",
    ]
)


def page_router() -> APIRouter:
    """GET / and /static/…, for browsers; no part of the API, so not in its schema."""
    assets = {each.name: Asset(each.name, each.read_bytes()) for each in _FOLDER.iterdir()}
    router = APIRouter()

    async def page(request: Request) -> Response:
        return assets[PAGE].answer(request)

    async def static(request: Request, name: str) -> Response:
        if name not in assets:
            raise HTTPException(404, "There is no such file.")
        return assets[name].answer(request)

    methods = ["GET", "HEAD"]
    router.add_api_route("/", page, methods=methods, include_in_schema=False)
    router.add_api_route("/static/{name}", static, methods=methods, include_in_schema=False)
    return router


class Asset:
    """One file, as it is sent."""

    def __init__(self, name: str, content: bytes) -> None:
        self._content = content
        self._headers = {
            "Content-Type": KINDS[PurePath(name).suffix],
            "Content-Security-Policy": POLICY,
            # A script that is older than its page would be worse than a question for its tag.
            "Cache-Control": "no-cache",
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            # Listed origins ask by CORS, and what they were answered is no other's answer.
            "Cross-Origin-Resource-Policy": "same-origin",
            "Vary": "Origin",
        }

    def answer(self, request: Request) -> Response:
        if self._headers["ETag"] in _tags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)


def _tags(header: str) -> set[str]:
    """The tags of If-None-Match; a proxy that compresses has made them weak."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


_FOLDER = files("web") / "static"
