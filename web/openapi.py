"""What the OpenAPI document says beside its routes."""

from __future__ import annotations

import inspect
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from web import shapes

INTRO = """\
coatcheck keeps temporary upload sessions, and clears away the ones that were forgotten.

A backend or a browser creates a session and uploads files into it. Every use is a touch. A session
that nobody touched within the max age is stale, and the next sweep takes it. Who is done claims it;
who leaves deletes it.

**Ids.** Knowing a session's id is the right to use it. Logs, metrics and events show 8 characters.

**Answers.** Times are RFC 3339 in UTC, sizes are bytes. Every error is `{"detail": "…"}`, in words
that say what to do. Every request may be repeated; a 503 says in `Retry-After` when. Wherever there
is a GET there is a HEAD.

**Pages.** A list has `next`: given as `cursor`, with the same other parameters, it brings what
follows, each entry once while others come and go.

**Browsers.** A page of another origin is let in where `COATCHECK_CORS_ORIGINS` names it.

**Operators.** Where a route needs the operator's token, send `Authorization: Bearer TOKEN`, the
value of `COATCHECK_OPERATOR_TOKEN`; where none is set, these routes answer 403.
"""
TAGS = [
    {
        "name": "uploads",
        "description": "For whoever holds a session: its life, its files, its end.",
    },
    {
        "name": "operator",
        "description": "For operators: every session, the report, sweeps, events and metrics.",
    },
    {"name": "health", "description": "For balancers and supervisors."},
]
_NAMES = {
    "create": "create_session",
    "show": "get_session",
    "delete": "delete_session",
    "discard": "discard_session",
    "touch": "touch_session",
    "claim": "claim_session",
    "sessions": "list_sessions",
    "session": "see_session",
    "restore": "restore_session",
    "report": "get_report",
    "sweep": "get_sweep",
    "events": "list_events",
    "tell": "get_metrics",
    "healthz": "is_alive",
    "readyz": "is_ready",
}


def name_of(route: APIRoute) -> str:
    """The operation's id: what a generated client calls the method."""
    return _NAMES.get(route.name, route.name)


def document_of(app: FastAPI) -> dict[str, Any]:
    """The application's document, made once. FastAPI leaves nulls out, of the examples too."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        for name, schema in made["components"]["schemas"].items():
            model = getattr(shapes, name, None)
            if inspect.isclass(model) and issubclass(model, BaseModel) and "examples" in schema:
                extra: Any = model.model_config["json_schema_extra"]
                schema["examples"] = extra["examples"]
        app.openapi_schema = made
    return app.openapi_schema
