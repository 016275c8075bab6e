"""Deleting and touching one session or many: each is looked at again as it is acted on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tui import words
from tui.filters import Row
from tui.source import FAILURES, Source, name_of


@dataclass(slots=True)
class Work:
    """What is asked for and how far it is, watched from another thread."""

    verb: str
    rows: Sequence[Row]
    done: list[Row] = field(default_factory=list)
    refused: list[tuple[Row, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        return len(self.done) + len(self.refused) == len(self.rows)

    def so_far(self) -> str:
        return f"{self.verb} {len(self.done) + len(self.refused):,} of {len(self.rows):,}"

    def outcome(self) -> str:
        """What came of it, as a sentence."""
        size = words.size(sum(row.bytes for row in self.done))
        said = f"{self.verb}: {words.count(len(self.done), 'session')}, {size}."
        left = len(self.rows) - len(self.done) - len(self.refused)
        if left:
            said += f" Stopped: {words.count(left, 'session')} left alone."
        return said


def delete(source: Source, work: Work) -> None:
    """Deletes what is still as it was shown; the rest is refused, with the reason."""
    _each(work, lambda row: _delete(source, row))


def touch(source: Source, work: Work) -> None:
    _each(work, lambda row: source.touch(row.id))


def _each(work: Work, act: Callable[[Row], None]) -> None:
    for row in work.rows:
        if work.stop.is_set():
            return
        try:
            act(row)
            work.done.append(row)
        except _Refusal as refusal:
            work.refused.append((row, str(refusal)))
        except FAILURES as error:
            work.refused.append((row, words.failure(error)))


class _Refusal(Exception):
    pass


def _delete(source: Source, row: Row) -> None:
    now = source.look(row.id)
    if now is None:
        raise _Refusal("it is gone already")
    if now.state != row.state:
        raise _Refusal(f"it is {now.state} by now")
    if (now.last_touch_at, now.bytes) != (row.last_touch_at, row.bytes):
        what = f"{words.count(now.files, 'file')}, {words.size(now.bytes)}"
        raise _Refusal(f"it was used since it was shown, and holds {what} now")
    if not source.delete(row.id):
        raise _Refusal(f"it is {row.state}; nothing of it is left to delete")


def refusals(work: Work) -> list[str]:
    return [f"{name_of(row)}: {why}" for row, why in work.refused]
