"""A clock that is set wrong, by years or a day, while the machine runs or while it is off.

Nothing live is removed by it, and nothing becomes immortal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import Finding, Guard, SweepStopped, system
from tests.ledger.world import HOUR_US, Clock, World, around, found

MAX_AGE_H = 24
DAY_H, YEAR_H = 24, 24 * 365
SLACK_H = 0.1  # what a clock may be off by, and nobody asks

_now = system.now_us
_uptime = system.boottime_us


@dataclass
class Machine(Clock):
    """A machine that is switched on and off, and whose clock goes on in between. `ahead` is its
    clock's lead over ours; `lived`, in hours, the time that has truly passed."""

    lived: float = 0
    boots: int = 0
    booted: int = field(default_factory=_uptime)

    def __call__(self) -> int:
        return _now() + self.ahead

    def uptime(self) -> int:
        return _uptime() + self.slept - self.booted

    @property
    def ahead_by(self) -> float:
        """How many hours its clock is ahead of what is right."""
        return self.ahead / HOUR_US - self.lived

    def boot_id(self) -> str:
        return f"boot {self.boots}"

    def passes(self, hours: float) -> None:
        super().passes(hours)
        self.lived += hours

    def restarts(self, *, off: float = 0, jumps: float = 0) -> None:
        """It was off for so many hours, and came back with its clock set to another time."""
        self.ahead += round((off + jumps) * HOUR_US)
        self.lived += off
        self.boots += 1
        self.booted = _uptime() + self.slept


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    plug_in(machine, monkeypatch)
    return machine


def plug_in(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "now_us", machine)
    monkeypatch.setattr(system, "boottime_us", machine.uptime)
    monkeypatch.setattr(system, "boot_id", machine.boot_id)


@pytest.fixture
def world(tmp_path: Path, machine: Machine, ledger_url: str) -> Iterator[World]:
    world = World(tmp_path, machine, ledger_url)
    yield world
    world.sessions.close()


def restart(world: World, machine: Machine, **how: float) -> None:
    world.sessions.close()
    machine.restarts(**how)
    world.sessions = world.open()


def refused(world: World, **options: Any) -> str:
    """Why the sweep was; nothing has changed by it."""
    before = world.standing()
    with pytest.raises(SweepStopped) as stopped:
        world.sessions.sweep(**options)
    assert stopped.value.by is Guard.CLOCK
    assert world.standing() == before
    clock = world.sessions.health().clock
    assert clock is not None
    assert str(stopped.value).split(":")[1].split(".")[0] in clock
    return str(stopped.value)


WRONG: dict[str, tuple[Callable[[World, Machine], None], str]] = {
    "forward ten years": (lambda _, machine: machine.jumps(10 * YEAR_H), "against the machine's"),
    "backward a day": (lambda _, machine: machine.jumps(-DAY_H), "against the machine's"),
    "backward across a restart": (
        lambda world, machine: restart(world, machine, off=1, jumps=-DAY_H),
        "behind where it was",
    ),
    "forward two months across a restart": (
        lambda world, machine: restart(world, machine, off=1, jumps=60 * DAY_H),
        "days have passed",
    ),
    "off for two months": (
        lambda world, machine: restart(world, machine, off=60 * DAY_H),
        "60 days have passed",
    ),
}
every_wrong_clock = pytest.mark.parametrize(("set_wrong", "why"), WRONG.values(), ids=WRONG)


@every_wrong_clock
def test_a_clock_that_jumped_stops_every_sweep_and_the_report_goes_on(
    world: World, machine: Machine, set_wrong: Callable[[World, Machine], None], why: str
) -> None:
    live, stale = world.create(age=1), world.create(age=30)
    set_wrong(world, machine)
    for _ in range(3):
        assert why in refused(world)
        machine.passes(1)
    restart(world, machine)  # what is stored outlives the process
    assert why in refused(world)
    assert sum(world.sessions.report().counts.values()) == 2
    assert world.sessions.touch(live).state == "active"
    assert world.standing() == {live, stale}


@every_wrong_clock
def test_a_clock_is_trusted_again_after_max_age_of_steady_running(
    world: World, machine: Machine, set_wrong: Callable[[World, Machine], None], why: str
) -> None:
    used, _forgotten = world.create(age=1), world.create(age=1)
    set_wrong(world, machine)
    for hours in (4, 8, 8, 3):
        refused(world)
        machine.passes(hours)
        world.sessions.touch(used)
    restart(world, machine)  # a restart begins the steady time anew
    for hours in (4, 8, 8, 4):
        refused(world)
        machine.passes(hours)
        world.sessions.touch(used)
    machine.passes(0.1)
    world.sessions.sweep()
    assert world.sessions.health().clock is None
    assert used in world.standing()
    machine.passes(MAX_AGE_H + 0.1)
    world.sessions.touch(used)
    world.sessions.sweep()
    assert world.standing() == {used}, "what nobody used for so long is not immortal"
    machine.passes(MAX_AGE_H + 0.1)
    world.sessions.sweep()
    assert world.standing() == set()


@every_wrong_clock
def test_a_clock_is_trusted_at_once_when_an_operator_says_that_it_is_right(
    world: World, machine: Machine, set_wrong: Callable[[World, Machine], None], why: str
) -> None:
    stale = world.create(age=30)
    set_wrong(world, machine)
    refused(world)
    machine.jumps(-machine.ahead_by)  # it is put right, and that is a jump as well
    refused(world)
    live = world.create()
    assert world.sessions.sweep(trust_clock=True).removed == 1
    assert world.standing() == {live}
    assert stale not in world.standing()
    assert world.sessions.sweep().removed == 0


def test_a_long_weekend_is_no_reason_to_distrust_a_clock(world: World, machine: Machine) -> None:
    world.create(age=1)
    restart(world, machine, off=29 * DAY_H)
    live = world.create()
    assert world.sessions.sweep().removed == 1
    assert world.standing() == {live}


def test_a_clock_that_jumps_in_the_middle_of_a_sweep_makes_nothing_old(
    world: World, machine: Machine
) -> None:
    live = {world.create(age=1) for _ in range(3)}
    stray = world.stray(age=1)
    world.create(age=30)
    with around("survey.Survey.suspects", before=lambda: machine.jumps(10 * YEAR_H)):
        assert world.sessions.sweep().removed == 1
    assert world.standing() == live | {stray}
    refused(world)


def test_what_is_used_after_the_clock_was_put_back_in_the_middle_of_a_sweep_stays(
    world: World, machine: Machine
) -> None:
    live: set[str] = set()

    def put_back() -> None:
        machine.jumps(-2 * DAY_H)
        live.update((world.create(), world.stray()))

    with around("survey.Survey.suspects", before=put_back):
        assert world.sessions.sweep().removed == 0
    assert world.standing() == live
    refused(world)


# Times in the future


@pytest.mark.parametrize("what", ["file", "directory", "both"])
@pytest.mark.parametrize("ahead", [2, 10 * YEAR_H])
def test_times_in_the_future_are_no_evidence(
    world: World, machine: Machine, what: str, ahead: float
) -> None:
    """Neither for nor against: a live session lives, and a forgotten one goes."""
    live, forgotten, stray = world.create(age=1), world.create(age=1), world.stray(age=1)
    for its in (live, forgotten, stray):
        path = world.root / its
        entry = next(each for each in path.rglob("*") if each.is_file())
        for each in [path] * (what != "file") + [entry] * (what != "directory"):
            future = world.hours_ago(-ahead) * 1000
            os.utime(each, ns=(future, future))
    assert world.sessions.sweep().removed == 0
    assert world.state(stray) == "active"
    for _ in range(2):  # those two hours ahead are in the past by then, and count from there
        machine.passes(MAX_AGE_H + 0.1)
        world.sessions.touch(live)
        world.sessions.sweep()
    assert world.standing() == {live}


def test_touches_by_a_clock_that_was_ahead_are_no_evidence_once_it_is_right(
    world: World, machine: Machine
) -> None:
    live, forgotten = world.create(), world.create()
    machine.jumps(10 * YEAR_H)
    for its in (live, forgotten):
        world.sessions.touch(its)
    created = world.create()
    machine.jumps(-10 * YEAR_H)
    assert found(world.sessions, forgotten) is Finding.DRIFTED
    assert world.sessions.sweep(trust_clock=True).removed == 0
    machine.passes(MAX_AGE_H + 0.1)
    world.sessions.touch(live)
    assert world.sessions.sweep().removed == 2
    assert world.standing() == {live}
    assert created not in world.standing()


# Any life of a machine

_hours = st.sampled_from([0.5, 5, 13, 23, 25])
_jumps = st.sampled_from([-10 * YEAR_H, -60 * DAY_H, -DAY_H, -1, 1, DAY_H, 60 * DAY_H, 10 * YEAR_H])
_steps = st.one_of(
    st.tuples(st.just("passes"), _hours),
    st.tuples(st.just("jumps"), _jumps),
    st.tuples(st.just("restarts"), _hours),
    st.tuples(st.just("restarts wrong"), st.sampled_from([-10 * YEAR_H, -DAY_H, 10 * YEAR_H])),
    st.tuples(st.just("touch"), st.sampled_from([0, 1, 2])),
    st.tuples(st.just("put right"), st.just(0)),
)


@settings(max_examples=8)
@given(st.lists(_steps, max_size=12))
def test_whatever_happens_to_a_clock_what_is_used_stays_and_what_is_not_goes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine()
        plug_in(machine, monkeypatch)
        world = World(tmp_path_factory.mktemp("life"), machine)
        try:
            live_through(world, machine, steps)
        finally:
            world.sessions.close()


def live_through(world: World, machine: Machine, steps: list[tuple[str, float]]) -> None:
    used = {world.create(): machine.lived for _ in range(3)}
    for step, value in steps:
        standing = [its for its in used if its in world.standing()]
        if step == "passes":
            machine.passes(value)
        elif step == "jumps":
            machine.jumps(value)
        elif step == "restarts":
            restart(world, machine, off=value)
        elif step == "restarts wrong":
            restart(world, machine, off=1, jumps=value)
        elif step == "put right":
            put_right(world, machine)
        elif value < len(standing):
            its = standing[int(value)]
            world.sessions.touch(its)
            # Told to trust the clock, a sweep believes that what it dated while it was behind is
            # so old; that is the operator's word, and not held against the sweep.
            used[its] = machine.lived if machine.ahead_by > -SLACK_H else -YEAR_H
        with suppress(SweepStopped):
            world.sessions.sweep()
        for its in used.keys() - world.standing():
            assert machine.lived - used[its] > MAX_AGE_H - SLACK_H
    put_right(world, machine)
    for _ in range(2):
        machine.passes(MAX_AGE_H + 1)
        world.sessions.sweep()
    assert world.standing() == set()


def put_right(world: World, machine: Machine) -> None:
    machine.jumps(-machine.ahead_by)
    world.sessions.sweep(trust_clock=True)
