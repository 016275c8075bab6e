"""Metrics for Prometheus: what the ledger keeps of one root, the same from whichever worker tells
it. No id and no token comes near them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.exposition import generate_latest

from ledger import CoatcheckError, Finding, SessionLedger, State, counts, guards, queries
from ledger.counts import Key
from ledger.runs import CHANGED, DURATIONS_S

REQUESTS, SECONDS, BYTES = "http_requests", "http_seconds", "upload_bytes"
LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


@dataclass(frozen=True)
class Kept:
    """A metric that is read from the counts: `name` there, and in what it is divided to be told."""

    metric: str
    what: str
    name: str
    labels: tuple[str, ...] = ()
    kind: str = "counter"
    bounds: tuple[float, ...] = ()

    def family(self, kept: dict[Key, int]) -> Metric:
        family = Metric(self.metric.removesuffix("_total"), self.what, self.kind)
        found = {labels: value for (name, labels), value in kept.items() if name == self.name}
        if self.kind == "histogram":
            self._add_histograms(family, found)
        else:
            given = found or ({} if self.labels else {(): 0})
            for labels, value in sorted(given.items()):
                family.add_sample(self.metric, self._labelled(labels), value)
        return family

    def _add_histograms(self, family: Metric, found: dict[tuple[str, ...], int]) -> None:
        of = {labels[:-1] for labels in found} or ({()} if not self.labels else set())
        for labels in sorted(of):
            named, total = self._labelled(labels), 0
            for bound in (*self.bounds, float("inf")):
                total += found.get((*labels, f"{bound:g}"), 0)
                le = "+Inf" if bound == float("inf") else str(float(bound))
                family.add_sample(f"{self.metric}_bucket", {**named, "le": le}, total)
            seconds = found.get((*labels, counts.SUM), 0) / 1_000_000
            family.add_sample(f"{self.metric}_count", named, total)
            family.add_sample(f"{self.metric}_sum", named, seconds)

    def _labelled(self, labels: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(self.labels, labels, strict=True))


# Every metric, in the order in which they are told; docs/operations.md has the same table.
KEPT = (
    Kept("coatcheck_sessions", "Sessions", counts.STATES, ("state",), "gauge"),
    Kept("coatcheck_session_creations_total", "Sessions created", counts.CREATIONS),
    Kept(
        "coatcheck_session_touches_total",
        "Touches, those of uploads in progress too",
        counts.TOUCHES,
    ),
    Kept("coatcheck_session_claims_total", "Sessions claimed", counts.CLAIMS),
    Kept("coatcheck_session_deletions_total", "Sessions that users deleted", counts.DELETIONS),
    Kept(
        "coatcheck_sweeps_total",
        "Sweeps and dry runs that ended, by how",
        counts.SWEEPS_ENDED,
        ("state", "dry_run"),
    ),
    Kept(
        "coatcheck_sweep_duration_seconds",
        "How long sweeps took that came to their end",
        counts.SWEEP_SECONDS,
        kind="histogram",
        bounds=DURATIONS_S,
    ),
    Kept(
        "coatcheck_sweep_removed_sessions_total",
        "Sessions that sweeps took out of the root",
        counts.SWEEP_REMOVED,
    ),
    Kept(
        "coatcheck_sweep_failures_total",
        "What sweeps could not remove or finish",
        counts.SWEEP_FAILED,
    ),
    Kept(
        "coatcheck_sweep_findings_total",
        "What sweeps found",
        counts.SWEEP_FINDINGS,
        ("finding",),
    ),
    Kept(
        "coatcheck_sweep_kept_sessions_total",
        "What sweeps left where it is, by why",
        counts.SWEEP_KEPT,
        ("reason",),
    ),
    Kept(
        "coatcheck_http_requests_total",
        "Requests",
        REQUESTS,
        ("method", "route", "status"),
    ),
    Kept(
        "coatcheck_http_request_duration_seconds",
        "Until a request's answer began",
        SECONDS,
        ("method", "route"),
        "histogram",
        LATENCIES_S,
    ),
    Kept("coatcheck_upload_bytes_total", "Bytes of the bodies that bring files", BYTES),
)
READ = {
    "coatcheck_oldest_session_age_seconds": "Age of the oldest live session; 0: there is none",
    "coatcheck_stored_bytes": "Bytes of the live sessions, as of the last completed sweep",
    "coatcheck_trash_bytes": "Bytes that wait in the trash, as of the last completed sweep",
    "coatcheck_sweep_last_completed_timestamp_seconds": "When a sweep last came to its end; 0: "
    "never",
    "coatcheck_disk_free_bytes": "Free bytes of the root's disk",
    "coatcheck_disk_free_ratio": "Their part of it",
}
_STAY = frozenset(Finding) - {Finding.STALE, Finding.MISSING, Finding.UNFINISHED}
READY = {"coatcheck_ready": "Whether ledger and root can be used; if not, there is nothing else"}

# What may be counted is told from the beginning on: else nobody would see its first increase.
ZEROS: dict[Key, int] = {
    **{counts.of(counts.STATES, state): 0 for state in State},
    **{counts.of(counts.SWEEP_FINDINGS, finding): 0 for finding in Finding},
    **{counts.of(counts.SWEEP_KEPT, reason): 0 for reason in (*sorted(_STAY), CHANGED)},
    **{
        counts.of(counts.SWEEPS_ENDED, state, dry_run): 0
        for state in ("done", "stopped", "failed")
        for dry_run in ("false", "true")
    },
}


def told(sessions: SessionLedger | None) -> bytes:
    """The text for Prometheus. Without a ledger, or one that cannot be read, it says just that: a
    number that is not known is left out, since a wrong one would look like a reset."""
    families: list[Metric] = []
    if sessions is not None:
        with suppress(CoatcheckError, OSError):  # coatcheck_ready tells, and /readyz why
            families = list(_families(sessions))
    ready = Metric("coatcheck_ready", READY["coatcheck_ready"], "gauge")
    ready.add_sample("coatcheck_ready", {}, 1 if families else 0)
    return generate_latest(_Told([ready, *families]))


def _families(sessions: SessionLedger) -> Iterator[Metric]:
    place = sessions.place
    guards.check_root(place)
    place.write_counts()
    with place.database.read() as connection:
        kept = counts.kept(connection, place.root_id)
        oldest = queries.oldest_live(connection, place.root_id)
        last = queries.last_sweep_done(connection, place.root_id)
    for each in KEPT:
        yield each.family(ZEROS | kept)
    values: dict[str, float] = {
        "coatcheck_oldest_session_age_seconds": _seconds(oldest and sessions.clock() - oldest),
        "coatcheck_stored_bytes": last.live_bytes or 0 if last else 0,
        "coatcheck_trash_bytes": last.trash_bytes or 0 if last else 0,
        "coatcheck_sweep_last_completed_timestamp_seconds": _seconds(last and last.finished_at),
        "coatcheck_disk_free_bytes": place.root.free_bytes(),
        "coatcheck_disk_free_ratio": place.root.free_percent() / 100,
    }
    for name, what in READ.items():
        family = Metric(name, what, "gauge")
        family.add_sample(name, {}, values[name])
        yield family


def _seconds(us: Any) -> float:
    return max(0, us or 0) / 1_000_000


class _Told:
    """As much of a registry as `generate_latest` wants."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
