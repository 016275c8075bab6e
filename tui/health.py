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
    """One thing whose health is told: its mark, a word or two beside others and by itself, and
    the whole sentence."""

    name: str
    mark: str
    brief: str
    word: str
    sentence: str


def lines(status: Status, now: int) -> list[Line]:
    """Everything that is told, in the order of its gravity."""
    health = status.health or Health()
    free = "?" if health.disk_free_percent is None else f"{health.disk_free_percent:.0f}% free"
    told = [
        _line("ledger", health.ledger, "ledger", "answers", "The ledger answers."),
        _line("root", health.root, "root", "the ledger's", "Root and ledger belong together."),
        _line("clock", health.clock, "clock", "trusted", "The clock is trusted."),
        _line("disk", health.disk, f"disk {free}", free, f"The root's disk is {free}."),
        _line("sweep", health.sweep, *_swept(health, now)),
        _line("claims", health.claims, "claims", "possible", "Sessions can be claimed."),
    ]
    if status.health is None:
        told = [
            replace(line, mark=UNKNOWN, word="not known", sentence="Not known.") for line in told
        ]
    return [_service(status), *told]


def _service(status: Status) -> Line:
    if status.through_service:
        return _line("service", status.silence, "service", "answers", "The service answers.")
    direct = "No service is asked: this is the ledger itself."
    return _line("service", status.silence, "direct", "direct", direct)


def _line(name: str, problem: str | None, brief: str, word: str, sentence: str) -> Line:
    mark = BAD if problem else GOOD
    return Line(name, mark, brief, word, problem or sentence)


def _swept(health: Health, now: int) -> tuple[str, str, str]:
    if health.running is not None:
        done = words.count(health.running.done, "session")
        return "sweeping", "under way", f"A sweep is under way: {done} so far."
    if health.last_sweep_at is None:
        return "never swept", "never", "No sweep has been completed yet."
    at = round(health.last_sweep_at.timestamp() * words.SECOND)
    ago = f"{words.rough(now - at)} ago"
    return f"swept {ago}", ago, f"The last completed sweep ended {ago}, {words.instant(at)} UTC."


def health_line(status: Status, now: int, width: int, *, read_only: bool) -> Content:
    """All marks; where something is wrong, the gravest of it first and in words."""
    told = [line for line in lines(status, now) if line.name != "claims" or line.mark == BAD]
    wrong = [line for line in told if line.mark == BAD]
    if status.health is None and status.silence is None:
        return Content(" … asking").append(" · read-only" if read_only else "")
    parts = [Content("read-only").stylize("reverse")] if read_only else []
    parts += [Content(f"{BAD} {line.name}: {line.sentence}").stylize("bold") for line in wrong]
    parts += [Content(f"{line.mark} {line.brief}") for line in told if line.mark != BAD]
    line = Content("  ").join(parts)
    return Content(" ").append(line if line.cell_length < width else Content(" ").join(parts))


def _said(line: Line, *, terse: bool) -> str:
    return line.word if terse and line.mark != BAD else line.sentence


def in_full(status: Status, now: int, *, terse: bool) -> Content:
    """Every line with its sentence, what is wrong first; where it should be terse, only that."""
    rows = [
        Content.assemble(
            (f"{line.mark} {line.name:8}", "bold $text-error" if line.mark == BAD else "bold"),
            (_said(line, terse=terse), "$text-error" if line.mark == BAD else ""),
        )
        for line in sorted(lines(status, now), key=lambda line: line.mark != BAD)
    ]
    return Content("\n").join(rows)
