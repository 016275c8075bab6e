"""Sweeps, users and other programs at the same sessions at the same time, in processes.

The sessions are stale, so that a sweep takes each that nobody uses; whoever uses one is told so,
and what he was told must hold: the races are judged by that alone.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ledger import Settings
from ledger.models import State
from tests.hostile import racing
from tests.hostile.racing import BASE, Ground, Racer, Racers, Told, one_by_one

A_FEW, MANY = (2, 12), (50, 40)  # rounds, and sessions in each

ACTS: dict[str, Racer] = {
    "sweep": racing.sweep,
    "sweep without a lock": racing.sweep_without_lock,
    **{
        act.__name__.replace("_", " "): one_by_one(act)
        for act in (
            racing.touch,
            racing.upload,
            racing.claim,
            racing.claim_the_same,
            racing.delete,
            racing.restore,
            racing.take_file_out,
            racing.write,
            racing.keep_writing,
        )
    },
}
USES = {"touch", "upload", "restore", "take file out"}
CLAIMS = {"claim", "claim the same"}
WRITES = {"write", "keep writing"}

Race = tuple[str, ...]
UNLOCKED = "sweep without a lock"
RACES: list[Race] = [
    ("sweep", "sweep"),
    ("sweep", "touch"),
    ("sweep", "upload"),
    ("sweep", "take file out"),
    ("sweep", "claim"),
    ("sweep", "delete"),
    ("sweep", "write"),
    ("sweep", "keep writing"),
    ("sweep", "claim", "delete", "touch"),
    (UNLOCKED, UNLOCKED),
    (UNLOCKED, UNLOCKED, "touch"),
    (UNLOCKED, UNLOCKED, "claim"),
    (UNLOCKED, UNLOCKED, "delete"),
    (UNLOCKED, UNLOCKED, "write"),
    ("claim", "claim"),
    ("claim the same", "claim the same"),
    ("claim", "delete"),
    ("claim", "upload"),
    ("claim", "touch"),
    ("delete", "delete"),
    ("delete", "upload"),
    ("upload", "upload"),
]
FOR_WHAT_WAITS: list[Race] = [
    ("restore", "sweep"),
    ("restore", "restore"),
    ("restore", "delete"),
    ("restore", "delete", "sweep"),
    ("restore", UNLOCKED, UNLOCKED),
    ("delete", "sweep"),
]


# What the ledger decides, and not the disk, is raced for on a server before a change lands; what
# else there is, in torture alone.
DECIDED_BY_THE_LEDGER = {
    ("sweep", "claim", "delete", "touch"),
    (UNLOCKED, UNLOCKED, "delete"),
    ("claim", "delete"),
    ("upload", "upload"),
    ("restore", "delete", "sweep"),
}


# Of each kind of race one; the others are run before a change lands.
EVERY_DAY = {
    ("sweep", "touch"),
    ("sweep", "write"),
    ("sweep", "claim", "delete", "touch"),
    (UNLOCKED, UNLOCKED),
    (UNLOCKED, UNLOCKED, "delete"),
    ("claim", "upload"),
    ("restore", "delete", "sweep"),
}


def on_both(races: list[Race], *, torture: bool = False) -> pytest.MarkDecorator:
    """Each race on each ledger; what takes too long for every day is marked so."""
    cases = [
        pytest.param(
            kind,
            race,
            id=f"{kind}: {' x '.join(race)}",
            marks=[
                *([pytest.mark.postgresql] if kind == "postgresql" else []),
                *([] if kind == "sqlite" and race in EVERY_DAY else [pytest.mark.slow]),
                *([pytest.mark.torture] if torture or is_torture(kind, race) else []),
            ],
        )
        for kind in ("sqlite", "postgresql")
        for race in races
    ]
    return pytest.mark.parametrize(("ledger_url", "race"), cases, indirect=["ledger_url"])


def is_torture(kind: str, race: Race) -> bool:
    return kind == "postgresql" and race not in DECIDED_BY_THE_LEDGER


@pytest.fixture
def ground(tmp_path: Path, ledger_url: str) -> Ground:
    settings = Settings(
        root=tmp_path / "root", ledger=ledger_url, claims=tmp_path / "claims", brake=10**6
    )
    return Ground(settings)


@on_both(RACES)
def test_whoever_was_told_that_he_won_has_won(race: Race, ground: Ground) -> None:
    run(ground, race, A_FEW)


@pytest.mark.parametrize("waiting", ["waiting", "due"])
@on_both(FOR_WHAT_WAITS)
def test_what_waits_in_the_trash_is_won_by_one_as_well(
    race: Race, waiting: str, ground: Ground
) -> None:
    run(ground, race, A_FEW, waiting)


@on_both(RACES, torture=True)
def test_whoever_was_told_so_has_won_thousands_of_times(race: Race, ground: Ground) -> None:
    run(ground, race, MANY)


@pytest.mark.parametrize("waiting", ["waiting", "due"])
@on_both(FOR_WHAT_WAITS, torture=True)
def test_what_waits_is_won_by_one_thousands_of_times(
    race: Race, waiting: str, ground: Ground
) -> None:
    run(ground, race, MANY, waiting)


def run(ground: Ground, race: Race, how_many: tuple[int, int], waiting: str = "") -> None:
    rounds, sessions = how_many
    racers = Racers(ground.settings, [ACTS[name] for name in race])
    ends: Counter[str] = Counter()
    fds: list[list[int]] = []  # of each round, those of each racer
    try:
        for _ in range(rounds):
            ids = ground.plant(sessions)
            if waiting:
                ground.let_wait(ids, due=waiting == "due")
            told = racers.race(ids)
            removed = sum(each.removed for each in told) + ground.settle()
            ends.update(judge(ground, ids, list(zip(race, told, strict=True))))
            states = Counter(row.state for row in ground.rows(ids).values())
            # A sweep that meets a DELETE half done finishes it, and counts it.
            most = states[State.EXPIRED] + states[State.DELETED]
            assert waiting or states[State.EXPIRED] <= removed <= most
            fds.append([each.fds for each in told])
    finally:
        racers.close()
        ground.sessions.close()
    print(" x ".join(race), dict(ends))
    for of_one in zip(*fds, strict=True):
        assert of_one[-1] <= max(of_one[:-1])


def judge(ground: Ground, ids: list[str], told: list[tuple[str, Told]]) -> list[str]:
    """Holds the ledger and the disk against what each racer was told; how each session ended."""
    rows = ground.rows(ids)
    for its in ids:
        row = rows[its]
        answers = [(name, each.of[its]) for name, each in told if its in each.of]
        won = Counter(name for name, answer in answers if answer == "ok")
        case = f"{row.state} after {answers}"
        assert not [answer for _, answer in answers if answer.startswith("error")], case
        claims = sum(won[name] for name in CLAIMS)
        assert claims == (row.state == State.CLAIMED) or won["claim the same"], case
        assert won["delete"] == (row.state == State.DELETED), case
        if any(won[name] for name in USES) or claims:
            assert row.state != State.EXPIRED, case
        content = ground.content(row)
        if row.state in (State.ACTIVE, State.CLAIMED):
            assert content == expected(answers, content or {}), case
        else:
            assert content is None, case
            assert row.state in (State.DELETED, State.EXPIRED), case
        if row.state == State.EXPIRED:
            committed = max(each.committed.get(its, 0) for _, each in told)
            for _, answer in answers:
                if committed and answer.startswith("written"):
                    assert int(answer.split()[1]) > committed, case
    return [str(rows[its].state) for its in ids]


def expected(answers: list[tuple[str, str]], found: dict[str, bytes]) -> dict[str, bytes]:
    """What whoever used a session put into it and took out, and nothing else."""
    files = dict(BASE)
    for name, answer in answers:
        if name == "take file out" and answer == "ok":
            del files["a.txt"]
        if name in WRITES and answer.startswith("written"):
            files["written.txt"] = b"written" if name == "write" else b"writ" * 20 + b"ten!"
    uploads = sum(name == "upload" and answer == "ok" for name, answer in answers)
    uploaded = {name: content for name, content in found.items() if name.startswith("up-")}
    assert len(uploaded) == uploads
    assert set(uploaded.values()) <= {b"uploaded"}
    return files | uploaded
