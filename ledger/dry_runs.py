"""Dry runs. One that is recorded has its row, and its list is kept for an hour.

The list lies in the root, so that every worker of it finds it; it is carried out once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import Row

from ledger import guards, pruning, removal
from ledger.errors import CoatcheckError, DryRunGone, SweepUnderWay
from ledger.listing import Listing
from ledger.place import Place
from ledger.report import Report, parse_report
from ledger.runs import Order, RecordedRun
from ledger.settings import HOUR_US

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def report(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    """A dry run that nothing is written of. Raises RootMismatch, RootUnavailable."""
    with guards.usable(place.root.path):
        guards.check_root(place)
        return _listed(place, order, clock(), clock)


def _listed(place: Place, order: Order, now: int, clock: Callable[[], int]) -> Report:
    listed = Listing(place, order, now, clock).report()
    listed.objections = list(guards.objections(place, listed, clock()))
    return listed


def run(place: Place, order: Order, clock: Callable[[], int]) -> Report:
    """A dry run with its row; its list is kept. Raises SweepUnderWay, RootMismatch, OSError."""
    with guards.one_sweeper(place):
        guards.check_root(place)
        now = clock()
        recorded = RecordedRun(place, order, now)
        try:
            pruning.prune_reports(place, now)
            with recorded.kept_up():
                report = _listed(place, order, now, clock)
            if not order.progress.cancel.is_set():
                _keep(place, recorded.sweep_id, report)
        except BaseException as error:
            with suppress(CoatcheckError):
                recorded.failed(error, clock())
            raise
        recorded.done(report, order.progress, clock())
        return report


def load(place: Place, row: Row[Any], now: int) -> Report:
    """The list of a dry run, by its row. Raises SweepUnderWay while it runs, and DryRunGone."""
    if row.carried_out_at is not None:
        raise DryRunGone(f"The list of the dry run {row.sweep_id} was carried out already.")
    with os.fdopen(open_list(place, row, now), "rb") as file:
        report = parse_report(file.read())
    report.sweep_id = row.sweep_id
    return report


def open_list(place: Place, row: Row[Any], now: int) -> int:
    """A descriptor of a dry run's list, as JSON. Raises SweepUnderWay, DryRunGone."""
    if row.state == "running":
        raise SweepUnderWay
    gone = DryRunGone(f"The list of the dry run {row.sweep_id} is kept no more: make a new one.")
    if row.state != "done" or now - row.finished_at > HOUR_US:
        raise gone
    try:
        return os.open(_name(row.sweep_id), _READ, dir_fd=place.root.reports)
    except FileNotFoundError:
        raise gone from None


def _keep(place: Place, sweep_id: int, report: Report) -> None:
    """Written before the row says that the run is done: who reads it, reads it whole."""
    name = _name(sweep_id)
    fd = os.open(name, _WRITE, 0o600, dir_fd=place.root.reports)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.writelines(report.json_pieces())
    except BaseException:
        removal.unlink_file(name, dir_fd=place.root.reports)
        raise


def _name(sweep_id: int) -> str:
    return f"{sweep_id}.json"
