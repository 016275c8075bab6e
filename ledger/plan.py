"""Decides: what a sweep should do with one session, and why. Pure: no I/O and no clock.

The table that this file is, is the heart of coatcheck; `docs/architecture.md` shows it whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ledger.models import ENDED, Record, State

# File systems stamp by a coarse clock, so a time this little ahead is still the present.
FUTURE_US = 1_000_000
# By as much such a clock may be behind: within one tick of it nobody can say what was first.
TICK_US = 10_000


class Finding(StrEnum):
    """What the ledger and the disk, side by side, say about one session."""

    LIVE = "live"
    DRIFTED = "drifted"
    STALE = "stale"
    MISSING = "missing"
    UNRECORDED = "unrecorded"
    UNFINISHED = "unfinished"
    REVIVED = "revived"
    WAITING = "waiting"
    IN_USE = "in_use"
    UNREADABLE = "unreadable"
    FOREIGN = "foreign"


SETTLED = frozenset({Finding.LIVE, Finding.IN_USE, Finding.WAITING, Finding.FOREIGN})


class Action(StrEnum):
    """What a sweep does about a finding."""

    KEEP = "keep"
    HEAL = "heal"
    SET_ASIDE = "set_aside"
    END = "end"
    ADOPT = "adopt"
    REVIVE = "revive"
    FINISH = "finish"
    REPORT = "report"


class Kind(StrEnum):
    """What stands at a session's name in the root."""

    DIRECTORY = "directory"
    ABSENT = "absent"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of one directory; times in microseconds, those in the future left out."""

    kind: Kind
    what: str = ""
    inode: str | None = None
    mtime: int | None = None
    ctime: int | None = None
    files: int = 0
    bytes: int = 0
    in_use: bool = False


ABSENT = Facts(Kind.ABSENT)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One session's row and its directory, as they were read."""

    session_id: str
    row: Record | None
    disk: Facts


@dataclass(frozen=True, slots=True)
class Policy:
    """By what ages to judge, in microseconds."""

    max_age: int
    undo: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, what to do about it, and why.

    `activity` is the instant the session was last known to be used; None where every time it
    bears lies in the future, so that its age counts from first sight. `due` is when the bytes
    of a directory that is set aside may be removed (0: at once).
    """

    finding: Finding
    action: Action
    why: str
    activity: int | None = None
    due: int = 0


def judge(evidence: Evidence, now: int, policy: Policy) -> Verdict | None:
    """The verdict on one session; None when neither side knows of it, or both agree it ended."""
    row, disk = evidence.row, evidence.disk
    if disk.kind is Kind.UNREADABLE:
        return Verdict(Finding.UNREADABLE, Action.REPORT, f"cannot be read: {disk.what}")
    if disk.in_use:
        activity = _activity(row, disk, now)
        return Verdict(Finding.IN_USE, Action.KEEP, "an upload or a program holds it", activity)
    if row is not None and row.state in (State.REMOVING, State.CLAIMING):
        return _interrupted(row)  # whatever took its place meanwhile is judged when this is done
    if disk.kind is Kind.FOREIGN:
        return Verdict(Finding.FOREIGN, Action.REPORT, f"{disk.what}, which is never touched")
    if row is None:
        return _unrecorded(disk, now, policy) if disk.kind is Kind.DIRECTORY else None
    if row.state in ENDED:
        return _ended(row, disk, now, policy) if disk.kind is Kind.DIRECTORY else None
    return _active(row, disk, now, policy)


def _active(row: Record, disk: Facts, now: int, policy: Policy) -> Verdict:
    touch = _evidence(row.last_touch_at, now)
    if disk.kind is Kind.ABSENT:
        why = "the ledger has it, but its directory is gone"
        return Verdict(Finding.MISSING, Action.END, why, touch)
    if touch is not None and now - touch <= policy.max_age:
        return Verdict(Finding.LIVE, Action.KEEP, f"touched {_age(now, touch)} ago", touch)
    if touch is None:  # a real touch, by a clock that was ahead: nobody knows when
        why = "the ledger's touch lies in the future, so its age counts from now"
        return Verdict(Finding.DRIFTED, Action.HEAL, why)
    activity = max(touch, disk.mtime or 0)
    if now - activity <= policy.max_age:
        why = f"the disk saw it used {_age(now, activity)} ago, later than the ledger did"
        return Verdict(Finding.DRIFTED, Action.HEAL, why, activity)
    return _set_aside(Finding.STALE, disk, activity, now, policy, trusted=row.touched)


def _unrecorded(disk: Facts, now: int, policy: Policy) -> Verdict:
    activity = disk.mtime
    if activity is None:
        why = "not in the ledger; its times lie in the future, so its age counts from now"
        return Verdict(Finding.UNRECORDED, Action.ADOPT, why)
    if now - activity <= policy.max_age:
        why = f"not in the ledger; used {_age(now, activity)} ago"
        return Verdict(Finding.UNRECORDED, Action.ADOPT, why, activity)
    return _set_aside(Finding.UNRECORDED, disk, activity, now, policy, trusted=False)


def _interrupted(row: Record) -> Verdict:
    doing = "claim" if row.state == State.CLAIMING else "removal"
    by = f" by {row.remover}" if row.remover else ""
    why = f"its {doing}{by} was interrupted"
    return Verdict(Finding.UNFINISHED, Action.FINISH, why, row.last_touch_at)


def _ended(row: Record, disk: Facts, now: int, policy: Policy) -> Verdict:
    if row.state in (State.DELETED, State.EXPIRED) and _same_as_ended(row, disk):
        why = f"{row.state}, but its directory still stands unchanged: the removal was lost"
        return Verdict(Finding.UNFINISHED, Action.FINISH, why, row.last_touch_at)
    activity = disk.mtime
    if activity is None:
        why = f"{row.state}, but a directory stands there, with times in the future"
        return Verdict(Finding.REVIVED, Action.REVIVE, why)
    if now - activity <= policy.max_age:
        why = f"{row.state}, but a directory stands there, used {_age(now, activity)} ago"
        return Verdict(Finding.REVIVED, Action.REVIVE, why, activity)
    return _set_aside(Finding.REVIVED, disk, activity, now, policy, trusted=False)


def _same_as_ended(row: Record, disk: Facts) -> bool:
    """A new directory may bear an old inode: made in the tick of a DELETE, it may look older. (What
    a sweep has taken is told by the mtime that it was judged by.)"""
    end = (row.ended_at or 0) - (TICK_US if row.state == State.DELETED else 0)
    return disk.inode == row.inode and max(disk.mtime or 0, disk.ctime or 0) <= end


def _set_aside(
    finding: Finding, disk: Facts, activity: int, now: int, policy: Policy, *, trusted: bool
) -> Verdict:
    """Old. Where only the disk says so and its ctimes say otherwise, the bytes wait."""
    why = f"unused for {_age(now, activity)}, longer than {_hours(policy.max_age)}"
    due = now + policy.undo if policy.undo else 0
    changed = disk.ctime
    if not trusted and changed is not None and now - changed <= policy.max_age:
        due = max(due, changed + policy.max_age)
        why += f"; but moved or unpacked {_age(now, changed)} ago, so its bytes wait"
    return Verdict(finding, Action.SET_ASIDE, why, activity, due)


def _activity(row: Record | None, disk: Facts, now: int) -> int | None:
    touch = _evidence(row.last_touch_at, now) if row else None
    return max(touch or 0, disk.mtime or 0) or None


def _evidence(at: int | None, now: int) -> int | None:
    """A time that lies in the future says nothing."""
    return None if at is None or at > now + FUTURE_US else at


def _age(now: int, at: int) -> str:
    return _hours(max(0, now - at))


def _hours(us: int) -> str:
    seconds = us / 1_000_000
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
