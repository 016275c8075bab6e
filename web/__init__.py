"""coatcheck over HTTP: what an application of one's own embeds. The service itself is web.app."""

from web.lifespan import lifespan_for
from web.uploads import upload_router

__all__ = ["lifespan_for", "upload_router"]
