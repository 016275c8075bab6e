"""Where a benchmark runs, how large it is, and fresh processes for what must be measured alone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.rivals import Rivals


@dataclass(frozen=True)
class Bench:
    """`scale` 1 is the size that the targets speak of."""

    place: Path
    scale: float
    rounds: int
    rivals: Rivals

    def sized(self, full: int, *, least: int = 3) -> int:
        return max(least, round(full * self.scale))

    def seconds(self, full: float) -> float:
        """How long something goes on that is measured while it does."""
        return max(0.3, full * min(1.0, self.scale))


@dataclass(frozen=True)
class Spent:
    """What a piece of work gave in a process of its own, and the most memory it ever had."""

    result: Any
    peak_bytes: float


def alone(act: Callable[..., Any], *arguments: Any) -> Spent:
    """Does it in a fresh process. `act` stands at the top of its module."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_do, args=(its, act, arguments))
    process.start()
    its.close()
    try:
        spent = ours.recv()
    except EOFError:
        raise RuntimeError(f"{act.__name__} failed in its process") from None
    finally:
        process.join()
    assert isinstance(spent, Spent)
    return spent


def _do(pipe: Connection, act: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    result = act(*arguments)
    pipe.send(Spent(result, peak_memory()))


def peak_memory() -> float:
    """The most bytes of memory that this process has had at once."""
    status = Path("/proc/self/status").read_text()
    return next(
        float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")
    )


def resident() -> float:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
