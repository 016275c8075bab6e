"""The health of ledger, root, clock, disk, sweeps and service: in one line, and in full."""

from __future__ import annotations

from dataclasses import dataclass, replace

from textual.content import Content

from ledger.health import Health
from tui import words

GOOD, BAD, UNKNOWN = "✔", "✖", "?"


@dataclass(frozen=True, slots=True)
class Status:
    """What was heard last. `silence`: why nothing is heard now, in words; None while one is."""

    through_service: bool = False
    health: Health | None = None
    silence: str | None = None

    @property
    def is_bad(self) -> bool:
        return self.silence is not None or bool(self.health and self.health.problems)

    def heard(self, health: Health) -> Status:
        return replace(self, health=health, silence=None)

    def unheard(self, why: str) -> Status:
        return replace(self, silence=why)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing whose health is told: its name, its mark, a few words, and the whole sentence."""

    name: str
    mark: str
    brief: str
    sentence: str = ""


def lines(status: Status, now: int) -> list[Line]:
    """Everything that is told, in the order of its gravity."""
    health = status.health or Health()
    known = status.health is not None
    free = health.disk_free_percent
    told = [
        _service(status),
        _line("ledger", health.ledger, "ledger", "The ledger answers."),
        _line("root", health.root, "root", "Root and ledger belong together."),
        _line("clock", health.clock, "clock", "The clock is trusted."),
        _line("disk", health.disk, "disk" if free is None else f"disk {free:.0f}% free", "Room."),
        _line("sweep", health.sweep, *_swept(health, now)),
        _line("claims", health.claims, "claims", "Sessions can be claimed."),
    ]
    return told if known else [told[0], *(replace(line, mark=UNKNOWN) for line in told[1:])]


def _service(status: Status) -> Line:
    if status.silence is not None:
        return Line("service", BAD, "service", status.silence)
    if status.through_service:
        return Line("service", GOOD, "service", "The service answers.")
    return Line("service", GOOD, "direct", "No service is asked: this is the ledger itself.")


def _line(name: str, problem: str | None, brief: str, sentence: str) -> Line:
    return Line(name, BAD, brief, problem) if problem else Line(name, GOOD, brief, sentence)


def _swept(health: Health, now: int) -> tuple[str, str]:
    if health.running is not None:
        done = words.count(health.running.done, "session")
        return "sweeping", f"A sweep is under way: {done} so far."
    if health.last_sweep_at is None:
        return "never swept", "No sweep has been completed yet."
    at = round(health.last_sweep_at.timestamp() * 1_000_000)
    said = f"swept {words.ago(at, now)}"
    return said, f"The last completed sweep ended {words.ago(at, now)}, {words.instant(at)} UTC."


def health_line(status: Status, now: int, *, read_only: bool) -> Content:
    """All marks; where something is wrong, the gravest of it first and in words."""
    told = [line for line in lines(status, now) if line.name != "claims" or line.mark == BAD]
    wrong = [line for line in told if line.mark == BAD]
    if status.health is None and status.silence is None:
        return Content(" … asking").append(" · read-only" if read_only else "")
    parts = [Content("read-only").stylize("reverse")] if read_only else []
    parts += [Content(f"{BAD} {line.name}: {line.sentence}").stylize("bold") for line in wrong]
    parts += [Content(f"{line.mark} {line.brief}") for line in told if line.mark != BAD]
    return Content(" ").append(Content("  ").join(parts))


def _said(line: Line, *, terse: bool) -> str:
    return line.brief if terse and line.mark != BAD else line.sentence


def in_full(status: Status, now: int, *, terse: bool) -> Content:
    """Every line with its sentence; where it should be terse, only what is wrong has one."""
    rows = [
        Content.assemble(
            (f"{line.mark} {line.name:8}", "bold $text-error" if line.mark == BAD else "bold"),
            (_said(line, terse=terse), "$text-error" if line.mark == BAD else ""),
        )
        for line in lines(status, now)
    ]
    return Content("\n").join(rows)
