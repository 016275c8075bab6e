"""What the documentation shows: one example of each thing that is asked or answered."""

from __future__ import annotations

from typing import Any

ID = "gxvklftgppbpxt4hzxfbvrur3e"
_ROOT, _ROOT_ID = "/srv/uploads/temp", "5w2gk6p3x7q4m2n8r5t6v3y7za"
_AT, _LATER = "2026-03-14T09:26:53.589793Z", "2026-03-14T09:31:02.118034Z"
_NEXT_DAY, _OLD = "2026-03-15T09:31:02.118034Z", "2026-03-12T18:00:00.000000Z"

FILE = {"name": "order.txt", "bytes": 17}
SESSION: dict[str, Any] = {
    "session_id": ID,
    "state": "active",
    "label": "order 17",
    "created_at": _AT,
    "last_touch_at": _LATER,
    "expires_at": _NEXT_DAY,
    "bytes": 17,
    "files": [FILE],
}
URL = f"/api/v1/upload/{ID}/files/order.txt"
FILE_OUT = {**FILE, "url": URL}
FILES_OUT = {"url": URL, "files": [FILE_OUT]}
CLAIM = {"into": "spring"}

OF_OPERATORS: dict[str, Any] = {
    **SESSION,
    "file_count": 1,
    "origin": "created",
    "path": f"{_ROOT}/{ID}",
    "ended_at": None,
    "ended_by": None,
    "ended_why": None,
}
NEXT = "WyJzZXNzaW9ucyAtY3JlYXRlZF9hdCIsMTc0MTk0NDQxM10"
SESSIONS = {"sessions": [OF_OPERATORS], "next": NEXT}

EVENT: dict[str, Any] = {
    "event_id": 42,
    "at": _AT,
    "session": ID[:8],
    "from": None,
    "to": "active",
    "by": "api",
    "why": "created",
}
EVENTS = {"events": [EVENT], "next": None}
EVENT_STREAM = f'retry: 2000\n\nid: 42\ndata: {{"event_id":42,"at":"{_AT}",…}}\n\n: still here\n\n'

FINDING: dict[str, Any] = {
    "finding": "stale",
    "session_id": ID,
    "path": f"{_ROOT}/{ID}",
    "last_activity": _OLD,
    "age_hours": 39.4482,
    "files": 1,
    "bytes": 17,
    "action": "set_aside",
    "why": "unused for 39.4 h, longer than 24.0 h",
}
_ZEROS = dict.fromkeys(
    (
        *("live", "drifted", "stale", "missing", "unrecorded", "unfinished", "revived", "waiting"),
        *("in_use", "unreadable", "foreign"),
    ),
    0,
)
_HEAD: dict[str, Any] = {
    "at": _AT,
    "root": _ROOT,
    "root_id": _ROOT_ID,
    "max_age_hours": 24.0,
    "counts": {**_ZEROS, "live": 3, "stale": 1},
    "bytes": {**_ZEROS, "live": 5120, "stale": 17},
}
_NOTHING_DONE = {"removed": 0, "waiting": 0, "changed": 0, "failed": 0}
REPORT = {**_HEAD, "dry_run": True, **_NOTHING_DONE, "findings": [FINDING]}
REPORT_CSV = (
    "finding,session_id,path,last_activity,age_hours,files,bytes,action,why\r\n"
    f"stale,{ID},{_ROOT}/{ID},{_OLD},39.4482,1,17,set_aside,…\r\n"
)
SWEEP: dict[str, Any] = {
    "sweep_id": 7,
    "state": "done",
    "done": 4,
    "total": 4,
    "dry_run": False,
    "started_at": _AT,
    "finished_at": _LATER,
    "stopped_by": None,
    "result": {
        **_HEAD,
        "dry_run": False,
        **_NOTHING_DONE,
        "removed": 1,
        "failures": [],
        "live_sessions": 3,
        "live_bytes": 5120,
        "by": "operator",
        "why": None,
    },
}
RUNNING = {**SWEEP, "state": "running", "done": 0, "finished_at": None, "result": None}
SWEEPS = {"sweeps": [SWEEP], "next": None}
ORDER = {"dry_run": True, "max_age_hours": 24}

DISK = {
    "kind": "directory",
    "what": "",
    "mtime": _LATER,
    "ctime": _LATER,
    "files": 1,
    "bytes": 17,
    "in_use": False,
}
VERDICT = {
    "finding": "live",
    "action": "keep",
    "why": "touched 4 min ago",
    "last_activity": _LATER,
}
SEEN = {
    "session_id": ID,
    "path": f"{_ROOT}/{ID}",
    "max_age_hours": 24.0,
    "session": OF_OPERATORS,
    "disk": DISK,
    "verdict": VERDICT,
    "trash": [],
    "events": [EVENT],
}
OBJECTION = {"guard": "clock", "why": "The clock is not trusted: it jumped by 2.0 h."}

ALIVE = {"status": "alive"}
READY: dict[str, Any] = {
    "ready": True,
    "ledger": None,
    "root": None,
    "clock": None,
    "sweep": None,
    "disk": None,
    "claims": None,
    "disk_free_percent": 61.8,
    "last_sweep_at": _LATER,
    "running": {"sweep_id": 8, "done": 120, "total": 400, "removed": 3},
    "sessions": 3,
    "bytes": 5120,
}
METRICS = (
    "# HELP coatcheck_sessions Sessions\n# TYPE coatcheck_sessions gauge\n"
    'coatcheck_sessions{state="active"} 3.0\n…\n'
)

# What each status means, and how it may sound.
ERRORS: dict[int, tuple[str, str]] = {
    401: (
        "The operator's token is missing.",
        "This needs the operator token: send the header Authorization: Bearer TOKEN.",
    ),
    403: (
        "A wrong token or none set, a strange Host, or a page of another origin.",
        "A page of another origin may not do this: see COATCHECK_CORS_ORIGINS.",
    ),
    404: ("There is none.", f"Session '{ID}' not found"),
    408: (
        "The request's body stood still for a minute; nothing of it is left.",
        "The request's body stood still for 60 seconds.",
    ),
    409: (
        "It is busy, or something is in the way.",
        f"Session {ID[:8]}… is just being claimed.",
    ),
    410: (
        "It has ended; the words say how and when.",
        f"The session has ended: expired at {_LATER} (unused for 39.4 h, longer than 24.0 h).",
    ),
    413: (
        "More than one session may hold, or one request; nothing of it is left.",
        "A session may hold 1073741824 bytes; this upload is beyond that.",
    ),
    416: ("The file has no such range.", "The file has 17 bytes."),
    421: (
        "The session belongs to another root: ask the server that holds it.",
        f"Session {ID[:8]}… belongs to another root of this ledger: ask the server that holds it.",
    ),
    422: (
        "A name, a parameter or the body is wrong; the words say which.",
        "query.limit: Input should be less than or equal to 1000",
    ),
    503: (
        "Ledger or root cannot be used now: try again after `Retry-After` seconds.",
        "The ledger /srv/uploads/ledger.db stayed locked; try again.",
    ),
    507: (
        "No room: the quota, the disk, or the ledger's; nothing of the request is left.",
        "The upload quota of this server is used up; try again later.",
    ),
}
