"""The checks of `coatcheck doctor`: looks at everything, and survives whatever is broken.

It only looks: no place is initialised, no schema migrated, no damaged ledger written to. The one
thing it does is a trial rename into the claims directory, where both are there already.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from ledger import checks_ledger, guards, pairing, system
from ledger.checks import Check, Checks, Patient, Status, holders, in_words
from ledger.claims import Claims
from ledger.disk import HOUSE, SWEEP_LOCK, Root
from ledger.errors import CoatcheckError, RootUnavailable, UsageError
from ledger.settings import Settings, load_settings

_ADOPT = (
    "Is the right disk mounted, are COATCHECK_ROOT and COATCHECK_LEDGER right? To take over what "
    "stands in the root: coatcheck adopt"
)


def consult() -> list[Check]:
    """Every check, by the environment's settings; where those are wrong, that alone."""
    try:
        return examine(load_settings(), system.now_us())
    except UsageError as error:
        todo = "Correct it in the environment."
        return [Check("settings", Status.BAD, str(error), todo)]


def examine(settings: Settings, now: int) -> list[Check]:
    """Every check there is; where the places themselves are wrong, that alone. Raises nothing."""
    patient = Patient(settings, now)
    checks = _survived("settings", _settings, patient)
    if any(check.status is Status.BAD for check in checks):
        return checks
    try:
        for what, look in _CHECKS.items():
            checks += _survived(what, look, patient)
    finally:
        if patient.root is not None:
            patient.root.close()
    return checks


def _survived(what: str, look: Callable[[Patient], Checks], patient: Patient) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(look(patient))
    except CoatcheckError as error:
        found.append(Check(what, Status.BAD, str(error)))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        found.append(Check(what, Status.BAD, f"Cannot be read: {error.strerror}{where}."))
    except (SQLAlchemyError, sqlite3.Error) as error:
        found.append(checks_ledger.trouble(what, error, patient.settings))
    return found


# Settings


def _settings(patient: Patient) -> Checks:
    pairing.check_paths(patient.settings)
    settings = patient.settings
    said = f"Root {os.path.abspath(settings.root)}, max age {settings.max_age_hours:g} h."
    yield Check("settings", Status.OK, said)
    if settings.operator_token is None:
        said = "No operator token is set: over HTTP, operator routes and metrics are closed."
        yield Check("token", Status.OK, said)


# The root


def _root(patient: Patient) -> Checks:
    path = os.path.abspath(patient.settings.root)
    if not os.path.lexists(path):
        if any(row.path == path for row in patient.roots or ()):
            said = f"{path} does not exist, though the ledger knows it."
            todo = (
                "Mount its disk. If it is lost for good, make an empty one and run: coatcheck adopt"
            )
            yield Check("root", Status.BAD, said, todo)
        else:
            said = f"{path} does not exist yet; the first opening makes it."
            yield Check("root", Status.OK, said)
        return
    try:
        patient.root = Root(Path(path))
    except RootUnavailable as error:
        yield Check("root", Status.BAD, str(error), "Correct COATCHECK_ROOT, or its rights.")
        return
    yield Check("root", Status.OK, f"{path} is a directory.")


def _identity(patient: Patient) -> Checks:
    root = patient.root
    if root is None:
        return
    on_disk = root.read_id()
    if patient.roots is None:
        said = f"The root bears the id {on_disk or 'none'}; the ledger cannot be asked."
        yield Check("identity", Status.WARN, said, "Mend the ledger first.")
    elif patient.row is not None:
        yield Check("identity", Status.OK, f"Root and ledger both have the id {on_disk}.")
    elif not _formers(patient) and not root.has_sessions() and not _trash(root):
        yield Check("identity", Status.OK, "Root and ledger are new; the first opening pairs them.")
    else:
        disk = f"the id {on_disk}" if on_disk else "no id of coatcheck"
        others = ", ".join(row.root_id for row in _formers(patient))
        ledger = f"belongs to {others}" if others else "knows no root here"
        said = f"The root bears {disk}, and the ledger {ledger}: nothing is touched."
        lost = "If the ledger was lost, put a copy of it back. " if patient.ledger_is_new else ""
        yield Check("identity", Status.BAD, said, lost + _ADOPT)


def _formers(patient: Patient) -> list[Row[Any]]:
    """Roots that the ledger had here: a SQLite file has one, a server those of many machines."""
    roots = patient.roots or ()
    if patient.settings.ledger_file:
        return list(roots)
    return [row for row in roots if patient.root and row.path == patient.root.path]


def _trash(root: Root) -> list[str]:
    with suppress(FileNotFoundError):
        return os.listdir(root.trash)
    return []


def _rights(patient: Patient) -> Checks:
    settings = patient.settings
    wanted = {"claims directory": Path(settings.claims)}
    if settings.ledger_file:
        wanted["ledger's directory"] = settings.ledger_file.parent
    if patient.root is not None:
        wanted |= {"root": Path(settings.root), "house": Path(settings.root, HOUSE)}
    lacking = {name: path for name, path in wanted.items() if not _may_change(path)}
    for name, path in lacking.items():
        todo = "Change its owner or mode, or run coatcheck as the user whom it belongs to."
        said = f"The {name}, {path}, cannot be read and written, or its file system is read only."
        yield Check("rights", Status.BAD, said, todo)
    if not lacking:
        yield Check("rights", Status.OK, f"The {', the '.join(wanted)} can be read and written.")


def _may_change(path: Path) -> bool:
    """Whether a directory can be read and written; of one that is to be made, its parent."""
    return os.access(_standing(path), os.R_OK | os.W_OK | os.X_OK, effective_ids=_EFFECTIVE)


def _standing(path: Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    path = Path(os.path.abspath(path))
    return next(each for each in (path, *path.parents) if each.exists())


# What lies below


def _file_systems(patient: Patient) -> Checks:
    places = {"root": Path(patient.settings.root)}
    if patient.settings.ledger_file:
        places["ledger"] = patient.settings.ledger_file.parent
    for name, path in places.items():
        yield _file_system(name, _standing(path))


def _file_system(name: str, path: Path) -> Check:
    kind = system.filesystem_of(path)
    if system.is_network_filesystem(path):
        said = f"The {name} lies on {kind}, a network file system: its locks cannot be trusted."
        return Check("file system", Status.BAD, said, "Move it to a disk of this machine.")
    if kind in _FLEETING:
        said = f"The {name} lies on {kind}, which {_FLEETING[kind]}."
        return Check("file system", Status.WARN, said, "Move it, or mount a volume there.")
    if not kind:
        said = f"The {name}'s file system cannot be told here."
        return Check("file system", Status.WARN, said, "Keep it off network file systems.")
    return Check("file system", Status.OK, f"The {name} lies on {kind}.")


def _kernel(_: Patient) -> Checks:
    if system.rename_is_exclusive():
        yield Check("renames", Status.OK, "The kernel can rename without ever replacing.")
    else:
        said = "The kernel cannot rename without replacing: two at one name may hurt each other."
        yield Check("renames", Status.WARN, said, "Let no other program make names in the root.")
    if os.path.exists("/proc/self/mountinfo"):
        yield Check("mounts", Status.OK, "Mounts inside sessions are seen, bind mounts included.")
    else:
        said = "There is no /proc/self/mountinfo: bind mounts inside sessions go unseen."
        yield Check("mounts", Status.WARN, said, "Mount /proc.")


def _claims(patient: Patient) -> Checks:
    path = Path(patient.settings.claims)
    if patient.root is None or patient.row is None:
        return
    if not path.exists():
        if os.stat(_standing(path)).st_dev == patient.root.device:
            yield Check(
                "claims", Status.OK, f"{path} does not exist yet; the first claim makes it."
            )
        else:
            said = f"{path} would lie on another disk than the root, so nothing can be claimed."
            yield Check("claims", Status.BAD, said, "Set COATCHECK_CLAIMS to the root's disk.")
        return
    if problem := Claims(path, patient.root).problem():
        yield Check("claims", Status.BAD, problem)
    else:
        yield Check("claims", Status.OK, f"A trial directory moved to {path} in one step.")


def _disk(patient: Patient) -> Checks:
    places = {"root": Path(patient.settings.root)}
    if patient.settings.ledger_file:
        places["ledger"] = patient.settings.ledger_file.parent
    for name, path in places.items():
        disk = os.statvfs(_standing(path))
        free = 100 * disk.f_bavail / disk.f_blocks if disk.f_blocks else 100
        low = free < patient.settings.disk_warning_percent
        status = Status.BAD if not disk.f_bavail else Status.WARN if low else Status.OK
        todo = "Free some space: coatcheck sweep" if status is not Status.OK else ""
        yield Check("disk", status, f"The {name}'s disk has {free:.1f} % free.", todo)
        if disk.f_files and not disk.f_favail:
            said = f"The {name}'s disk has no inode left: no file can be made."
            yield Check("disk", Status.BAD, said, "Remove files there: coatcheck sweep")


def _clock(patient: Patient) -> Checks:
    row = patient.row
    why = row and (row.distrusted_why or guards.jump(row, patient.now))
    if why:
        said = f"The clock is not trusted: {why}. Nothing is swept."
        todo = "Set it right. If it is right now: coatcheck sweep --trust-clock"
        yield Check("clock", Status.BAD, said, todo)
    elif not system.boot_id():
        said = "This system does not name its boots: a jump of the clock may go unseen."
        yield Check("clock", Status.WARN, said, "Mount /proc.")
    else:
        yield Check("clock", Status.OK, "The clock has not jumped.")


def _sweeper(patient: Patient) -> Checks:
    if patient.root is None:
        return
    path = Path(patient.root.path, HOUSE, SWEEP_LOCK)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        free = system.lock_shared(fd)
    finally:
        os.close(fd)
    who = in_words(holders(path, "FLOCK"))
    said = "No sweep is under way." if free else f"A sweep is under way{who}."
    yield Check("sweeper", Status.OK, said)


_EFFECTIVE = os.access in os.supports_effective_ids
_FLEETING = {
    "tmpfs": "is memory: it is empty after a restart",
    "ramfs": "is memory: it is empty after a restart",
    "overlay": "is a container's own layer: it goes with the container",
}
_CHECKS: dict[str, Callable[[Patient], Checks]] = {
    "ledger": checks_ledger.ledger,
    "reserve": checks_ledger.reserve,
    "root": _root,
    "identity": _identity,
    "rights": _rights,
    "file system": _file_systems,
    "renames": _kernel,
    "claims": _claims,
    "disk": _disk,
    "clock": _clock,
    "sweeper": _sweeper,
}
