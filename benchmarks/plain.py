"""The plain way that coatcheck is measured against: no ledger, `st_mtime` and `rmtree`.

`uvicorn benchmarks.plain:app` serves it, on the root that PLAIN_ROOT names.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response

DAY_S = 24 * 3600
ROOT = Path(os.environ.get("PLAIN_ROOT", "plain-root"))


def clean_up(root: Path) -> int:
    """Removes what is older than a day; how many."""
    removed = 0
    before = time.time() - DAY_S
    for path in root.iterdir():
        if path.is_dir() and path.stat().st_mtime < before:
            shutil.rmtree(path)
            removed += 1
    return removed


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    clean_up(ROOT)
    yield


app = FastAPI(lifespan=_lifespan)


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.delete("/api/v1/upload/{session_id}", status_code=204)
async def delete(session_id: str) -> None:
    path = ROOT / session_id
    if not path.is_dir():
        raise HTTPException(404, f"Session '{session_id}' not found")
    shutil.rmtree(path)


async def put(request: Request) -> Response:
    """A bare Starlette route: the body's bytes into a file, as they come."""
    with open(ROOT / request.path_params["name"], "wb") as file:  # noqa: ASYNC230 - its plain way
        async for chunk in request.stream():
            file.write(chunk)
    return Response(status_code=201)


app.add_route("/bare/{name}", put, methods=["PUT"])


@app.post("/noop/{session_id}")
def noop(session_id: str) -> dict[str, str]:
    return {"session_id": session_id}
