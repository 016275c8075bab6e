"""Every error that coatcheck raises on purpose.

CoatcheckError
├── UsageError            an argument, a name, a report or a setting is wrong
├── SessionError          this one session cannot do that
│   ├── SessionNotFound   nothing of that name, neither in the ledger nor on the disk
│   ├── SessionEnded      claimed, deleted, expired or missing
│   ├── SessionBusy       another operation is at it; repeat in a moment
│   ├── SessionElsewhere  it belongs to another root of the same ledger
│   └── NameTaken         the place it should go to is occupied
├── LimitExceeded         too many bytes or files for one session
├── NoSpace               the quota of the root, or its disk, is full
├── DryRunGone            a dry run's list was carried out, or is kept no more
├── SweepStopped          a guard said no before anything was removed
│   └── SweepUnderWay     another sweep holds this root
├── RootMismatch          ledger and root do not belong together
├── RootUnavailable       the root cannot be used
│   └── ClaimsUnavailable only claiming cannot be done
└── LedgerUnavailable     the ledger cannot be used; every operation may be repeated
    ├── LedgerFull        no room to write the ledger
    ├── LedgerDamaged     the file is not, or no longer, a sound database
    ├── LedgerGone        the file was deleted or replaced while open
    ├── CommitUnknown     the server was lost in the middle of a change
    └── LedgerTooNew      written by a newer coatcheck
"""

from __future__ import annotations

from enum import StrEnum


class CoatcheckError(Exception):
    """Says what happened, to what, and what to do next; `str()` is fit for a user."""


class UsageError(CoatcheckError):
    """An argument, a name, a report or a setting is wrong."""


class SessionError(CoatcheckError):
    """This one session cannot do what was asked."""


class SessionNotFound(SessionError):
    """Neither the ledger nor the disk knows a session of this name."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session '{session_id}' not found")


class SessionEnded(SessionError):
    """The session was claimed, deleted, expired or is missing; the message says how and when."""


class SessionBusy(SessionError):
    """Another operation is at this session; it may be asked again in a moment."""


class SessionElsewhere(SessionError):
    """The session belongs to another root of the same ledger."""


class NameTaken(SessionError):
    """The place where the directory should go is occupied."""


class LimitExceeded(CoatcheckError):
    """More bytes or files than one session may hold."""


class NoSpace(CoatcheckError):
    """The quota of the root, or the disk below it, is full."""


class DryRunGone(CoatcheckError):
    """A dry run's list was carried out already, or is kept no more."""


class Guard(StrEnum):
    """What can stop a sweep before its first removal."""

    BRAKE = "brake"
    CLOCK = "clock"
    ROOT = "root"
    LOCK = "lock"


class SweepStopped(CoatcheckError):
    """A guard stopped the sweep; nothing was removed."""

    def __init__(self, by: Guard, message: str) -> None:
        super().__init__(message)
        self.by = by


class SweepUnderWay(SweepStopped):
    """Another sweep holds the lock of this root."""

    def __init__(self) -> None:
        super().__init__(
            Guard.LOCK, "Another sweep of this root is under way. Wait until it is done."
        )


class RootMismatch(CoatcheckError):
    """Ledger and root do not belong together; nothing was written to either."""


class RootUnavailable(CoatcheckError):
    """The root cannot be opened, or is no longer the directory that was opened."""


class ClaimsUnavailable(RootUnavailable):
    """Sessions cannot be moved into the claims directory; all else works."""


class LedgerUnavailable(CoatcheckError):
    """The ledger cannot be used now; every operation may be repeated."""


class LedgerFull(LedgerUnavailable):
    """There is no room to write the ledger."""


class LedgerDamaged(LedgerUnavailable):
    """The ledger's file is not, or no longer, a sound database."""


class LedgerGone(LedgerUnavailable):
    """The ledger's file was deleted or replaced while it was open."""


class LedgerTooNew(LedgerUnavailable):
    """The ledger was written by a newer version of coatcheck."""


class CommitUnknown(LedgerUnavailable):
    """The ledger's server was lost in mid-commit: whether it has the change is not known."""
