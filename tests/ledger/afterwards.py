"""What a sweep leaves of each scene of the cross-check's table."""

import os
from dataclasses import dataclass, field

from tests.ledger.world import World

ROOT, TRASH, CLAIMS, GONE = "root", "trash", "claims", "gone"


@dataclass(frozen=True)
class After:
    """What a sweep leaves of a scene: the row's state, where its directory is, the next report."""

    state: str | None
    where: str
    report: dict[str, int] = field(default_factory=dict)
    life: tuple[str, ...] = ()
    removed: int = 0


LIVE, WAITING, FOREIGN = {"live": 1}, {"waiting": 1}, {"foreign": 1}

AFTER = {
    "live": After("active", ROOT, LIVE, ("active",)),
    "drifted": After("active", ROOT, LIVE, ("active",)),
    "ahead": After("active", ROOT, LIVE, ("active",)),
    "stale": After("expired", GONE, {}, ("active", "removing", "expired"), removed=1),
    "moved_in": After("expired", TRASH, WAITING, ("active", "removing", "expired"), removed=1),
    "missing": After("missing", GONE, {}, ("active", "missing")),
    "unrecorded": After("active", ROOT, LIVE, ("active",)),
    "forgotten": After("expired", TRASH, WAITING, ("removing", "expired"), removed=1),
    "revived": After("active", ROOT, LIVE, ("active", "missing", "active")),
    "revived_old": After(
        "expired", TRASH, WAITING, ("active", "missing", "removing", "expired"), removed=1
    ),
    "delete_begun": After("deleted", GONE, {}, ("active", "removing", "deleted"), removed=1),
    "delete_half_done": After("deleted", GONE, {}, ("active", "removing", "deleted")),
    "deleted_bytes_left": After("deleted", GONE, {}, ("active", "removing", "deleted")),
    "delete_lost": After("deleted", GONE, {}, ("active", "removing", "deleted"), removed=1),
    # Finished means active again; then the same sweep judges it as any other.
    "sweep_begun": After(
        "expired", GONE, {}, ("active", "removing", "active", "removing", "expired"), removed=1
    ),
    # No sweep has counted it yet: the one that took it out of the root was interrupted.
    "sweep_half_done": After("expired", GONE, {}, ("active", "removing", "expired"), removed=1),
    "due": After("expired", GONE, {}, ("active", "removing", "expired")),
    "sweep_lost": After("expired", GONE, {}, ("active", "removing", "expired"), removed=1),
    "claim_begun": After("active", ROOT, LIVE, ("active", "claiming", "active")),
    "claim_half_done": After("claimed", CLAIMS, {}, ("active", "claiming", "claimed")),
    "dead": After(None, GONE),
    "leftover": After(None, GONE),
    "waiting": After("expired", TRASH, WAITING, ("active", "removing", "expired")),
    "in_use": After("active", ROOT, {"in_use": 1}, ("active",)),
    "unreadable": After(None, ROOT, {"unreadable": 1}),
    "file": After(None, ROOT, FOREIGN),
    "link": After(None, ROOT, FOREIGN),
    "pipe": After(None, ROOT, FOREIGN),
    "socket": After(None, ROOT, FOREIGN),
    "name": After(None, ROOT, FOREIGN),
}


def where(world: World, session_id: str | None, path: str) -> str:
    """The one place where the session's directory is."""
    places = set()
    if os.path.lexists(world.root / (session_id or "")) and session_id:
        places.add(ROOT)
    if session_id and any(name.endswith(f"-{session_id}") for name in world.in_trash()):
        places.add(TRASH)
    row = world.row(session_id) if session_id else None
    if row and row.destination and os.path.lexists(world.claims / row.destination):
        places.add(CLAIMS)
    if session_id is None and os.path.lexists(path):
        places.add(path)
    assert len(places) < 2
    return places.pop() if places else GONE
