"""The service: every router in one application, who is let in, and how it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from ledger.counts import Tally
from ledger.errors import CoatcheckError
from ledger.settings import Settings
from web import logs, openapi
from web.assets import page_router
from web.bodies import STALL_S
from web.errors import answer_to, problem
from web.guard import HostCheck, OriginCheck
from web.lifespan import Keeper, kept
from web.manual import manual_router
from web.measuring import metrics_router
from web.opening import Opening
from web.operator import operator_router
from web.ready import ready_router
from web.server import run
from web.uploads import upload_router
from web.watching import Outermost


def create_app(settings: Settings, *, host: str = "127.0.0.1", stall_s: float = STALL_S) -> FastAPI:
    """The service of these settings, to be served on `host`.

    While the root needs consent, or root or ledger cannot be used, it answers 503 with what to
    do, and tries again by itself. Raises UsageError for wrong settings.
    """
    opening = Opening(settings)
    tally = Tally()
    keeper = Keeper(opening.wait, tally)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with kept(keeper):
            yield
        await to_thread.run_sync(opening.close)

    app = FastAPI(
        title="coatcheck",
        version=version("coatcheck"),
        description=openapi.INTRO,
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=openapi.name_of,
        lifespan=lifespan,
        middleware=_middleware(settings, host, tally),
        docs_url=None,  # their pages load scripts from elsewhere: see manual.py
        redoc_url=None,
    )
    app.include_router(ready_router(opening.sessions, lambda: keeper.progress))
    app.include_router(upload_router(opening.sessions, stall_s=stall_s), prefix="/api/v1/upload")
    operators = operator_router(opening.sessions, settings.operator_token)
    app.include_router(operators, prefix="/api/v1/operator")
    app.include_router(metrics_router(opening.sessions, settings.operator_token, tally))
    app.include_router(page_router())
    app.openapi = partial(openapi.document_of, app)  # type: ignore[method-assign]
    app.include_router(manual_router(app.openapi))
    for kind in (CoatcheckError, OSError, RequestValidationError):
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(Exception, _broken)
    return app


def serve(settings: Settings, host: str, port: int, workers: int = 1) -> None:
    """Serves until SIGTERM or SIGINT. Raises UsageError where it cannot listen there."""
    logs.set_up(settings)
    run(lambda: create_app(settings, host=host), host, port, workers)


def _middleware(settings: Settings, host: str, tally: Tally) -> list[Middleware]:
    """From the outermost to the innermost."""
    origins = [origin.rstrip("/") for origin in settings.cors_origins]
    guards = [
        Middleware(Outermost, tally=tally),
        Middleware(HostCheck, hosts=settings.hosts, listens_on=host),
        Middleware(OriginCheck, origins=origins),
    ]
    if origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["Content-Type", "Range"],
            expose_headers=["Location", "Content-Disposition", "Retry-After"],
        )
        guards.append(cors)
    return guards


async def _failed(request: Request, error: Exception) -> Response:
    return answer_to(request, error)


async def _broken(_request: Request, _error: Exception) -> Response:
    return problem(500, "Something went wrong in the server; its log has the details.")
