"""coatcheck over HTTP: what an application of one's own embeds, and a client of the service. The
service itself is web.app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from web.client import Client
    from web.lifespan import lifespan_for
    from web.uploads import upload_router

__all__ = ["Client", "lifespan_for", "upload_router"]

# Imported when it is asked for: who embeds the routes needs no httpx, and the client no FastAPI.
_WHERE = {"Client": "client", "lifespan_for": "lifespan", "upload_router": "uploads"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module 'web' has no attribute '{name}'")
    return getattr(import_module(f"web.{_WHERE[name]}"), name)
