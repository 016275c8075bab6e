"""coatcheck's ledger: temp sessions, their life, and the sweep of what was forgotten."""

from ledger.errors import (
    ClaimsUnavailable,
    CoatcheckError,
    Guard,
    LedgerDamaged,
    LedgerFull,
    LedgerGone,
    LedgerTooNew,
    LedgerUnavailable,
    LimitExceeded,
    NameTaken,
    NoSpace,
    RootMismatch,
    RootUnavailable,
    SessionBusy,
    SessionElsewhere,
    SessionEnded,
    SessionError,
    SessionNotFound,
    SweepStopped,
    SweepUnderWay,
    UsageError,
)
from ledger.models import Actor, Origin, State
from ledger.plan import Action, Finding
from ledger.report import Entry, Report, parse_report
from ledger.runs import Progress
from ledger.sessions import Session, SessionLedger, SweepResult
from ledger.settings import Settings, load_settings

__all__ = [
    "Action",
    "Actor",
    "ClaimsUnavailable",
    "CoatcheckError",
    "Entry",
    "Finding",
    "Guard",
    "LedgerDamaged",
    "LedgerFull",
    "LedgerGone",
    "LedgerTooNew",
    "LedgerUnavailable",
    "LimitExceeded",
    "NameTaken",
    "NoSpace",
    "Origin",
    "Progress",
    "Report",
    "RootMismatch",
    "RootUnavailable",
    "Session",
    "SessionBusy",
    "SessionElsewhere",
    "SessionEnded",
    "SessionError",
    "SessionLedger",
    "SessionNotFound",
    "Settings",
    "State",
    "SweepResult",
    "SweepStopped",
    "SweepUnderWay",
    "UsageError",
    "load_settings",
    "parse_report",
]
