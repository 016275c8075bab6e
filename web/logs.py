"""Lines for the log: one for each thing that happens, as text or as JSON, with the short id of the
session it concerns; never a whole id, nor the token, and nothing in it begins another line."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from ledger.disk import TrashName
from ledger.models import short
from ledger.report import printable
from ledger.settings import Settings

# An id that is cut short already.
_CUT = r"(?![^/\s]{1,8}…)"
# What follows the routes' prefixes, the end of a name in the trash, and whatever else has the form
# of an id of ours.
_IDS = re.compile(
    rf"(?<=/upload/){_CUT}[^/\s?'\"]+|(?<=/sessions/){_CUT}[^/\s?'\"]+"
    r"|(?:user|sweep)-\d+-\d+-[a-z0-9]+-[A-Za-z0-9_.-]+"
    r"|(?<![a-z2-7])[a-z2-7]{26}(?![a-z2-7])"
)
_IN_TEXT = ("session", "traceback")  # what else there is, the message says
_LEAST_TOKEN = 8  # a shorter one would be found in any word

# The session that the request at hand concerns, for every line that is written meanwhile.
_concerned: ContextVar[str | None] = ContextVar("coatcheck_session", default=None)


def concerns(session_id: str) -> None:
    """What is logged from here on, in this request, concerns this session."""
    _concerned.set(session_id)


def concerned() -> str | None:
    """The short id of the session that this request concerns."""
    whole = _concerned.get()
    return None if whole is None else short(whole)


def shortened(text: str) -> str:
    """`text` with every id in it cut short."""
    return _IDS.sub(_shorter, text)


def _shorter(found: re.Match[str]) -> str:
    name = TrashName.parse(found[0])
    return f"{short(name.session_id if name else found[0])}…"


class Line(logging.Formatter):
    """One line for a record. Its `fields`, where it has some, are told apart in JSON."""

    def __init__(self, form: Literal["text", "json"], token: str | None, root: str) -> None:
        super().__init__()
        self._form = form
        self._token = token if token and len(token) >= _LEAST_TOKEN else None
        self._in_root = re.compile(rf"(?<={re.escape(root)}/){_CUT}[^/\s'\"]+")

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._fit(record.getMessage()),
        }
        more: dict[str, Any] = dict(getattr(record, "fields", {}))
        if session := concerned():
            more["session"] = session
        if record.exc_info:
            more["traceback"] = self._fit(self.formatException(record.exc_info))
        if self._form == "json":
            return json.dumps({**told, **more}, ensure_ascii=False)
        words = "{at} {level} {logger}: {message}".format(**told)
        return " ".join([words, *(f"{name}={more[name]}" for name in _IN_TEXT if name in more)])

    def _fit(self, text: str) -> str:
        """Fit for a line, and with no secret in it."""
        whole = _concerned.get()
        if whole is not None and short(whole) != whole:
            text = re.sub(rf"(?<![\w.-]){re.escape(whole)}(?![\w.-])", f"{short(whole)}…", text)
        if self._token:
            text = text.replace(self._token, "…")
        return printable(shortened(self._in_root.sub(self._cut, text)))

    @staticmethod
    def _cut(found: re.Match[str]) -> str:
        """A name in the root, but for those of coatcheck's own."""
        return found[0] if found[0].startswith(".coatcheck") else f"{short(found[0])}…"


def set_up(settings: Settings, level: int = logging.INFO) -> None:
    """From here on this process logs such lines to standard error, and no others."""
    token = settings.operator_token.get_secret_value() if settings.operator_token else None
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line(settings.log_format, token, str(settings.root.absolute())))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("alembic", "python_multipart"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
