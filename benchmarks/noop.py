"""`python -m benchmarks.noop PORT`: coatcheck's application, and a route that only answers.

It is of the same kind as a touch: behind the same middleware, run in a thread, its answer made
from the same model.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from ledger import load_settings
from ledger.models import State
from web.app import create_app
from web.server import run
from web.shapes import SessionOut

_NOW = datetime.now(UTC)


def noop(session_id: str) -> SessionOut:
    return SessionOut(
        session_id=session_id,
        state=State.ACTIVE,
        label=None,
        created_at=_NOW,
        last_touch_at=_NOW,
        expires_at=_NOW,
        bytes=0,
        files=[],
    )


if __name__ == "__main__":
    app = create_app(load_settings())
    app.post("/noop/{session_id}")(noop)
    run(lambda: app, "127.0.0.1", int(sys.argv[1]))
