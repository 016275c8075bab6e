"""What one types to see fewer sessions: `order 17`, `active`, `age>12h size>1G`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ledger import State
from ledger.pages import Bound, Choice, Key

_TEST = re.compile(r"(age|touch|left|size|files)\s*([<>])\s*(\S*)", re.IGNORECASE)
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([a-z]*)", re.IGNORECASE)
_SECOND = 1_000_000
_TIMES = {
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
    "d": 86_400 * _SECOND,
    "w": 7 * 86_400 * _SECOND,
}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_EXAMPLES = {"age": "12h", "touch": "30m", "left": "1h", "size": "1G", "files": "10"}
_STATES = frozenset(str(state) for state in State)
_ORIGINS = ("origin:created", "origin:adopted")


@dataclass(frozen=True, slots=True)
class Row:
    """One session in a list. `key` is its place in the list's order, where the source has one."""

    id: str
    label: str | None
    state: str
    origin: str
    created_at: int
    last_touch_at: int
    expires_at: int
    bytes: int
    files: int
    path: str
    ended_at: int | None = None
    ended_by: str | None = None
    ended_why: str | None = None
    key: Key = ()

    @property
    def is_active(self) -> bool:
        return self.state == State.ACTIVE


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison; times in microseconds, sizes in bytes."""

    field: str
    above: bool
    value: int

    def holds(self, row: Row, now: int) -> bool:
        if self.field == "left" and not row.is_active:
            return False
        values = {
            "age": now - row.created_at,
            "touch": now - row.last_touch_at,
            "left": row.expires_at - now,
            "size": row.bytes,
            "files": row.files,
        }
        value = values[self.field]
        return value > self.value if self.above else value < self.value

    def bound(self, now: int, max_age: int) -> Bound:
        """The same as a bound on the ledger's column: what is older was touched earlier."""
        match self.field:
            case "age":
                return Bound("created_at", not self.above, now - self.value)
            case "touch":
                return Bound("last_touch_at", not self.above, now - self.value)
            case "left":
                return Bound("last_touch_at", self.above, now + self.value - max_age)
            case "size":
                return Bound("bytes", self.above, self.value)
        return Bound("files", self.above, self.value)


@dataclass(frozen=True, slots=True)
class Filter:
    """Everything in it must hold. `problem`: what a comparison lacks that is being typed."""

    text: str = ""
    state: str | None = None
    origin: str | None = None
    words: tuple[str, ...] = ()
    tests: tuple[Test, ...] = ()
    problem: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Filter:
        """What is not finished yet is left out, and told as the problem."""
        tests = [_test(*found.groups()) for found in _TEST.finditer(text)]
        rest = _TEST.sub(" ", text).split()
        if rest and rest[-1] in _EXAMPLES and text.endswith(rest[-1]):
            tests.append(_lacks(rest.pop(), ">"))
        state = next((word.lower() for word in rest if word.lower() in _STATES), None)
        origin = next((word[7:] for word in rest if word in _ORIGINS), None)
        words = tuple(word for word in rest if word.lower() != state and word not in _ORIGINS)
        finished = tuple(test for test in tests if isinstance(test, Test))
        problem = next((test for test in tests if isinstance(test, str)), "")
        if state is None and any(test.field == "left" for test in finished):
            state = str(State.ACTIVE)  # only what is active has time left
        return cls(" ".join(text.split()), state, origin, words, finished, problem)

    def choice(self, sort: str, now: int, max_age: int, *, down: bool) -> Choice:
        bounds = tuple(test.bound(now, max_age) for test in self.tests)
        return Choice(sort, down, self.state, self.origin, self.words, bounds)

    def matches(self, row: Row, now: int) -> bool:
        return (
            (self.state is None or row.state == self.state)
            and (self.origin is None or row.origin == self.origin)
            and all(_is_in(word, row) for word in self.words)
            and all(test.holds(row, now) for test in self.tests)
        )


EVERYTHING = Filter()


def _is_in(word: str, row: Row) -> bool:
    return word.lower() in row.id.lower() or word.lower() in (row.label or "").lower()


def _test(name: str, sign: str, amount: str) -> Test | str:
    """The comparison, or what it lacks."""
    name = name.lower()
    units = _TIMES if name in ("age", "touch", "left") else _SIZES
    found = _AMOUNT.fullmatch(amount)
    unit = found[2].lower().removesuffix("ib") if found else "?"
    if len(unit) == 2:
        unit = unit.removesuffix("b")
    if found is None or unit not in units:
        return _lacks(name, sign)
    return Test(name, sign == ">", round(float(found[1]) * units[unit]))


def _lacks(name: str, sign: str) -> str:
    return f"{name}{sign} wants an amount, such as {name}{sign}{_EXAMPLES[name]}"
