"""One list at one moment, of which only the stretches that were looked at are in memory.

A Window knows how many rows there are, holds some of them, and names what must be read for the
screen (a Task). What was read (a Part) is put in by the same thread that paints.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from ledger.pages import Key, Stretch
from tui.filters import Row

BLOCK = 128  # rows read at once
KEPT = 24  # blocks in memory
_ANCHORS = 4096
_FIRST = Stretch(BLOCK)


@dataclass(frozen=True, slots=True)
class Task:
    """A block that is wanted, and the cheapest way to it: a stretch of a ledger, or for a
    service the cursor of its page."""

    number: int
    stretch: Stretch = _FIRST
    cursor: str | None = None
    up: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one block; `cursor` leads on behind it, where the source has such."""

    number: int
    rows: list[Row]
    cursor: str | None = None


class Window(Protocol):
    """Ranks run from 0 in the order of the list. `exact`: there are no more than `total` rows.

    `from_end`: read from the last row upwards; then new rows come in before rank 0.
    """

    total: int
    exact: bool
    from_end: bool

    def row(self, rank: int) -> Row | None: ...
    def tasks(self, first: int, last: int) -> list[Task]: ...
    def put(self, part: Part) -> None: ...


class RankWindow:
    """A list whose every rank can be reached: from a known key forwards or backwards, or by
    counting from the nearer end."""

    from_end = False

    def __init__(self, total: int, *, exact: bool) -> None:
        self.total = total
        self.exact = exact
        self._blocks: OrderedDict[int, list[Row]] = OrderedDict()
        self._anchors: dict[int, Key] = {}
        self._ranks: list[int] = []

    def row(self, rank: int) -> Row | None:
        block = self._blocks.get(rank // BLOCK, [])
        return block[rank % BLOCK] if 0 <= rank % BLOCK < len(block) else None

    def anchor(self, rank: int, key: Key) -> None:
        self._anchors[rank] = key
        self._ranks = []

    def tasks(self, first: int, last: int) -> list[Task]:
        """What is missing of these ranks, in their order."""
        end = self.total if self.exact else self.total + BLOCK
        numbers = range(max(first, 0) // BLOCK, max(0, min(last, end - 1)) // BLOCK + 1)
        for number in numbers:
            if number in self._blocks:
                self._blocks.move_to_end(number)
        missing = [n for n in numbers if n not in self._blocks]
        return [Task(n, self._way(n)) for n in missing if n * BLOCK < end]

    def _way(self, number: int) -> Stretch:
        low = number * BLOCK
        high = min(low + BLOCK, self.total) if self.exact else low + BLOCK
        ways = [Stretch(high - low, skip=low)]
        if self.exact:
            ways.append(Stretch(high - low, skip=self.total - high, back=True))
        if not self._ranks:
            self._ranks = sorted(self._anchors)
        at = bisect_right(self._ranks, low - 1) - 1
        if at >= 0:
            rank = self._ranks[at]
            ways.append(Stretch(high - low, self._anchors[rank], low - 1 - rank))
        at = bisect_right(self._ranks, high - 1)
        if at < len(self._ranks):
            rank = self._ranks[at]
            ways.append(Stretch(high - low, self._anchors[rank], rank - high, back=True))
        return min(ways, key=lambda way: way.skip)

    def put(self, part: Part) -> None:
        low = part.number * BLOCK
        self._blocks[part.number] = part.rows
        self._blocks.move_to_end(part.number)
        if not self.exact:
            self.total = max(self.total, low + len(part.rows))
            self.exact = len(part.rows) < BLOCK and self.total == low + len(part.rows)
        if part.rows:  # the keys of its edges outlive the rows
            self.anchor(low, part.rows[0].key)
            self.anchor(low + len(part.rows) - 1, part.rows[-1].key)
        if len(self._anchors) > _ANCHORS:
            self._anchors = dict(list(self._anchors.items())[_ANCHORS // 2 :])
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)

    def counted(self, total: int) -> None:
        """The total is known now."""
        self.total = max(total, self.total)
        self.exact = True


@dataclass(slots=True)
class _Chunk:
    cursor: str | None
    count: int


class ChunkWindow:
    """A list that can only be followed page by page, by cursors, from one of its ends.

    Pages differ in how many of their rows pass the filter; the last few are kept whole, of the
    others only cursor and count.
    """

    def __init__(self, *, from_end: bool = False) -> None:
        self.from_end = from_end
        self.total = 0
        self.exact = False
        self._chunks: list[_Chunk] = []
        self._starts: list[int] = []
        self._rows: OrderedDict[int, list[Row]] = OrderedDict()
        self._next: str | None = None

    def next_task(self) -> Task | None:
        """What comes behind all that is known."""
        return None if self.exact else self._task(len(self._chunks))

    def row(self, rank: int) -> Row | None:
        if not 0 <= rank < self.total:
            return None
        place = self._place(rank)
        number = self._at(place)
        rows = self._rows.get(number, [])
        inside = place - self._starts[number]
        return rows[inside] if inside < len(rows) else None

    def _place(self, rank: int) -> int:
        """How far a rank is from the end that is read from."""
        return self.total - 1 - rank if self.from_end else rank

    def _at(self, place: int) -> int:
        return bisect_right(self._starts, place) - 1

    def tasks(self, first: int, last: int) -> list[Task]:
        near, far = sorted((self._place(max(first, 0)), self._place(last)))
        tasks = []
        if self.total:
            low, high = self._at(max(near, 0)), self._at(min(far, self.total - 1))
            numbers = [n for n in range(low, high + 1) if self._chunks[n].count]
            tasks = [self._task(n) for n in numbers if n not in self._rows]
            for number in numbers:
                if number in self._rows:
                    self._rows.move_to_end(number)
        if not self.exact and far >= self.total - 1:
            tasks.append(self._task(len(self._chunks)))
        return tasks

    def _task(self, number: int) -> Task:
        cursor = self._chunks[number].cursor if number < len(self._chunks) else self._next
        return Task(number, cursor=cursor, up=self.from_end)

    def put(self, part: Part) -> None:
        """`part.rows` run in the order of reading: from the end, when that is read from."""
        if part.number == len(self._chunks):
            self._chunks.append(_Chunk(self._next, len(part.rows)))
            self._next = part.cursor
            self.exact = part.cursor is None
        elif part.number > len(self._chunks):
            return
        self._chunks[part.number].count = len(part.rows)
        self._rows[part.number] = part.rows
        self._rows.move_to_end(part.number)
        self._recount()
        while len(self._rows) > KEPT // 3:
            self._rows.popitem(last=False)

    def _recount(self) -> None:
        self._starts, self.total = [], 0
        for chunk in self._chunks:
            self._starts.append(self.total)
            self.total += chunk.count
