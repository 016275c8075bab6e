"""The cross-check's table, row by row, as the pure function that it is."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.models import ENDED, Actor, Origin, Record, State
from ledger.plan import (
    ABSENT,
    SETTLED,
    Action,
    Evidence,
    Facts,
    Finding,
    Kind,
    Policy,
    Verdict,
    judge,
)

HOUR = 3_600_000_000
SECOND = 1_000_000
TICK_H = 0.004 / 3600  # of the clock by which Linux stamps files
NOW = 2_000_000 * HOUR
MAX_AGE = 24 * HOUR
POLICY = Policy(MAX_AGE)
ENDED_STATES = sorted(ENDED)


def ago(hours: float) -> int:
    return NOW - round(hours * HOUR)


def row(state: State = State.ACTIVE, *, touch: float = 0, touched: bool = True) -> Record:
    """A session last touched so many hours ago, by the ledger."""
    ended = state in ENDED
    return Record(
        pk=1,
        root_id="root",
        session_id="session",
        state=state,
        version=3,
        label=None,
        origin=Origin.CREATED if touched else Origin.ADOPTED,
        touched=touched,
        created_at=ago(touch),
        last_touch_at=ago(touch),
        bytes=5,
        files=1,
        inode="7",
        remover=None,
        trash=None,
        destination=None,
        ended_at=ago(touch) if ended else None,
        ended_by="sweep" if ended else None,
        ended_why="because" if ended else None,
    )


def directory(
    mtime: float | None = 0, *, ctime: float | None = None, inode: str = "7", in_use: bool = False
) -> Facts:
    """A directory whose newest mtime and ctime are so many hours ago; None: all in the future."""
    changed = mtime if ctime is None else ctime
    return Facts(
        Kind.DIRECTORY,
        inode=inode,
        mtime=None if mtime is None else ago(mtime),
        ctime=None if changed is None else ago(changed),
        files=1,
        bytes=5,
        in_use=in_use,
    )


def verdict(row: Record | None, disk: Facts, policy: Policy = POLICY) -> Verdict:
    found = judge(Evidence("session", row, disk), NOW, policy)
    assert found is not None
    return found


@dataclass(frozen=True)
class Case:
    name: str
    row: Record | None
    disk: Facts
    finding: Finding
    action: Action
    activity: float | None = None
    due: float | None = None  # hours ago, like every time here; None: at once


LIVE, DRIFTED, STALE, MISSING = Finding.LIVE, Finding.DRIFTED, Finding.STALE, Finding.MISSING
UNRECORDED, UNFINISHED, REVIVED = Finding.UNRECORDED, Finding.UNFINISHED, Finding.REVIVED
IN_USE, UNREADABLE, FOREIGN = Finding.IN_USE, Finding.UNREADABLE, Finding.FOREIGN
KEEP, HEAL, ASIDE, END = Action.KEEP, Action.HEAL, Action.SET_ASIDE, Action.END
ADOPT, REVIVE, FINISH, REPORT = Action.ADOPT, Action.REVIVE, Action.FINISH, Action.REPORT
US = 1 / HOUR
BY_LEDGER, BY_DISK = True, False


# fmt: off
TABLE = [
    # active, touched within max age | directory
    Case("touched now", row(), directory(), LIVE, KEEP, 0),
    Case("touched within max age", row(touch=23), directory(23), LIVE, KEEP, 23),
    Case("touched within, its mtimes old", row(touch=23), directory(99), LIVE, KEEP, 23),
    Case("touched exactly max age ago", row(touch=24), directory(24), LIVE, KEEP, 24),
    Case("touched a second ahead", row(touch=-1 / 3600), directory(), LIVE, KEEP, -1 / 3600),
    Case("adopted, touch within", row(touch=1, touched=BY_DISK), directory(1), LIVE, KEEP, 1),
    # active, touch old | directory, newest mtime within max age
    Case("written to since", row(touch=30), directory(2), DRIFTED, HEAL, 2),
    Case("written to exactly max age ago", row(touch=30), directory(24), DRIFTED, HEAL, 24),
    Case("written to a second ahead", row(touch=30), directory(-1 / 3600), DRIFTED, HEAL,
         -1 / 3600),
    Case("touched in the future", row(touch=-2), directory(99), DRIFTED, HEAL, None),
    Case("touched ahead, written ahead", row(touch=-2), directory(None), DRIFTED, HEAL, None),
    # active, touch old | directory, all old
    Case("all old", row(touch=30), directory(40), STALE, ASIDE, 30),
    Case("a microsecond too old", row(touch=24 + US), directory(99), STALE, ASIDE, 24 + US),
    Case("old, mtime the later", row(touch=50), directory(25), STALE, ASIDE, 25),
    Case("old, mtimes all in the future", row(touch=30), directory(None), STALE, ASIDE, 30),
    Case("touched of old, just renamed", row(touch=30), directory(30, ctime=1), STALE, ASIDE, 30),
    # … where only the disk says so, and its ctimes disagree
    Case("adopted, just moved in", row(touch=30, touched=BY_DISK), directory(30, ctime=1),
         STALE, ASIDE, 30, -23),
    Case("adopted, moved in long ago", row(touch=30, touched=BY_DISK), directory(30, ctime=25),
         STALE, ASIDE, 30),
    Case("adopted, moved in exactly max age ago", row(touch=30, touched=BY_DISK),
         directory(30, ctime=24), STALE, ASIDE, 30, 0),
    Case("adopted, ctimes in the future", row(touch=30, touched=BY_DISK),
         replace(directory(30), ctime=None), STALE, ASIDE, 30),
    # active | nothing
    Case("young and gone", row(touch=1), ABSENT, MISSING, END, 1),
    Case("old and gone", row(touch=99), ABSENT, MISSING, END, 99),
    Case("ahead and gone", row(touch=-2), ABSENT, MISSING, END, None),
    # none | directory
    Case("a stranger, young", None, directory(1), UNRECORDED, ADOPT, 1),
    Case("a stranger, exactly max age old", None, directory(24), UNRECORDED, ADOPT, 24),
    Case("a stranger, all in the future", None, directory(None), UNRECORDED, ADOPT, None),
    Case("a stranger, old", None, directory(25), UNRECORDED, ASIDE, 25),
    Case("a stranger, unpacked", None, directory(25, ctime=2), UNRECORDED, ASIDE, 25, -22),
    Case("a stranger from 1970", None, directory(2_000_000, ctime=30), UNRECORDED, ASIDE,
         2_000_000),
    # removing | any;  claiming, and nobody at it | by where the inode stands
    *[Case(f"{state}, {where}", row(state, touch=1), disk, UNFINISHED, FINISH, 1)
      for state in (State.REMOVING, State.CLAIMING)
      for where, disk in [("still there", directory(1)), ("gone", ABSENT), ("old", directory(99))]],
    # deleted, expired | the same inode stands, no mtime or ctime newer than its end
    *[Case(f"{state}, the same stands", row(state, touch=5), directory(6), UNFINISHED, FINISH, 5)
      for state in (State.DELETED, State.EXPIRED)],
    Case("deleted, one with its inode, made in the tick of its end", row(State.DELETED, touch=5),
         directory(5 + TICK_H), REVIVED, REVIVE, 5 + TICK_H),
    Case("expired, the same, of its very end", row(State.EXPIRED, touch=5), directory(5),
         UNFINISHED, FINISH, 5),
    # ended otherwise | directory stands
    *[Case(f"{state}, another stands", row(state, touch=5), directory(6, inode="8"),
           REVIVED, REVIVE, 6)
      for state in ENDED_STATES],
    *[Case(f"{state}, written to since", row(state, touch=5), directory(4), REVIVED, REVIVE, 4)
      for state in ENDED_STATES],
    *[Case(f"{state}, changed since", row(state, touch=5), directory(6, ctime=4),
           REVIVED, REVIVE, 6)
      for state in ENDED_STATES],
    *[Case(f"{state}, the same stands unchanged", row(state, touch=5), directory(6),
           REVIVED, REVIVE, 6)
      for state in (State.CLAIMED, State.MISSING)],
    *[Case(f"{state}, another, of the future", row(state, touch=5), directory(None, inode="8"),
           REVIVED, REVIVE, None)
      for state in ENDED_STATES],
    *[Case(f"{state}, an old one stands", row(state, touch=50), directory(25, inode="8"),
           REVIVED, ASIDE, 25)
      for state in ENDED_STATES],
    *[Case(f"{state}, an old one just moved in", row(state, touch=50),
           directory(25, ctime=3, inode="8"), REVIVED, ASIDE, 25, -21)
      for state in ENDED_STATES],
    # any | flock held, upload in progress
    *[Case(f"in use, {state}", row(state, touch=30), directory(30, in_use=True), IN_USE, KEEP, 30)
      for state in State],
    Case("in use, a stranger", None, directory(30, in_use=True), IN_USE, KEEP, 30),
    Case("claimed by somebody at it", row(State.CLAIMING, touch=30), replace(ABSENT, in_use=True),
         IN_USE, KEEP, 30),
    # any | cannot be read
    *[Case(f"unreadable, {state}", row(state, touch=30), Facts(Kind.UNREADABLE, "EIO"),
           UNREADABLE, REPORT)
      for state in State],
    Case("unreadable, a stranger", None, Facts(Kind.UNREADABLE, "EIO"), UNREADABLE, REPORT),
    # any | foreign
    *[Case(f"foreign, {state}", row(state, touch=30), Facts(Kind.FOREIGN, "a file"),
           FOREIGN, REPORT)
      for state in State if state not in (State.REMOVING, State.CLAIMING)],
    *[Case(f"{state}, its place taken", row(state, touch=1), Facts(Kind.FOREIGN, "a file"),
           UNFINISHED, FINISH, 1)
      for state in (State.REMOVING, State.CLAIMING)],
    Case("foreign, a stranger", None, Facts(Kind.FOREIGN, "a file"), FOREIGN, REPORT),
]
# fmt: on


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_each_row_of_the_table_has_its_verdict(case: Case) -> None:
    found = verdict(case.row, case.disk)
    assert (found.finding, found.action) == (case.finding, case.action)
    assert found.activity == (None if case.activity is None else ago(case.activity))
    assert found.due == (0 if case.due is None else ago(case.due))
    assert found.why


def test_the_table_shows_every_finding_and_every_action() -> None:
    # What waits in the trash has no directory in the root, and is judged apart.
    assert {case.finding for case in TABLE} == {*Finding} - {Finding.WAITING}
    assert {case.action for case in TABLE} == {*Action}


@pytest.mark.parametrize("state", ENDED_STATES)
def test_what_has_ended_and_is_gone_is_no_finding(state: State) -> None:
    assert judge(Evidence("session", row(state, touch=5), ABSENT), NOW, POLICY) is None


def test_what_neither_side_knows_is_no_finding() -> None:
    assert judge(Evidence("session", None, ABSENT), NOW, POLICY) is None


def test_settled_are_live_in_use_waiting_and_foreign() -> None:
    assert {LIVE, IN_USE, FOREIGN, Finding.WAITING} == SETTLED


# -- Reasons, in words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (verdict(row(touch=30), directory(40)), "unused for 30.0 h, longer than 24.0 h"),
        (verdict(row(touch=30), directory(2)), "the disk saw it used 2.0 h ago"),
        (verdict(row(touch=1 / 60), directory()), "touched 60.0 s ago"),
        (verdict(row(touch=1), directory()), "touched 60 min ago"),
        (verdict(row(touch=1), ABSENT), "its directory is gone"),
        (verdict(None, directory(25, ctime=2)), "moved or unpacked 2.0 h ago, so its bytes wait"),
        (verdict(None, Facts(Kind.FOREIGN, "a socket")), "a socket, which is never touched"),
        (verdict(None, Facts(Kind.UNREADABLE, "Permission denied")), "Permission denied"),
        (verdict(row(State.CLAIMING), ABSENT), "its claim was interrupted"),
        (
            verdict(row(State.REMOVING)._replace(remover=Actor.API), ABSENT),
            "its removal by api was interrupted",
        ),
        (verdict(row(State.EXPIRED, touch=1), directory(2)), "the removal was lost"),
        (verdict(row(State.CLAIMED, touch=9), directory(1)), "claimed, but a directory stands"),
    ],
)
def test_the_reason_says_what_was_seen(found: Verdict, words: str) -> None:
    assert words in found.why


# -- How long bytes wait


def test_undo_gives_every_swept_session_its_time() -> None:
    policy = Policy(MAX_AGE, undo=2 * HOUR)
    for evidence in [
        (row(touch=30), directory(30)),
        (None, directory(30)),
        (row(State.CLAIMED, touch=90), directory(30)),
    ]:
        assert verdict(*evidence, policy).due == NOW + 2 * HOUR


@pytest.mark.parametrize(("undo", "due"), [(2, -23), (23, -23), (40, -40)])
def test_the_later_of_undo_and_disagreement_counts(undo: int, due: int) -> None:
    found = verdict(None, directory(30, ctime=1), Policy(MAX_AGE, undo=undo * HOUR))
    assert found.due == ago(due)


# -- What can never be


TIMES = st.none() | st.integers(0, NOW + 30 * 24 * HOUR) | st.integers(NOW - MAX_AGE, NOW)
DISKS = st.builds(
    Facts,
    st.sampled_from(Kind),
    inode=st.sampled_from([None, "7", "8"]),
    mtime=TIMES,
    ctime=TIMES,
    in_use=st.booleans(),
)
ROWS = st.none() | st.builds(
    Record._replace,
    st.sampled_from(State).map(row),
    last_touch_at=st.integers(0, NOW + 30 * 24 * HOUR) | st.integers(NOW - MAX_AGE, NOW),
    touched=st.booleans(),
    ended_at=st.none() | st.integers(0, NOW),
    inode=st.sampled_from([None, "7", "8"]),
)
POLICIES = st.builds(Policy, st.integers(1, 100 * 24 * HOUR), st.integers(0, 24 * HOUR))


@given(ROWS, DISKS, POLICIES)
def test_nothing_that_either_side_saw_used_within_max_age_is_set_aside(
    row: Record | None, disk: Facts, policy: Policy
) -> None:
    found = judge(Evidence("session", row, disk), NOW, policy)
    if found is None or found.action is not ASIDE:
        return
    seen = [disk.mtime, row.last_touch_at if row and row.state is State.ACTIVE else None]
    for at in seen:
        assert at is None or at > NOW + SECOND or NOW - at > policy.max_age
    assert disk.kind is Kind.DIRECTORY
    assert not disk.in_use
    assert found.activity is not None
    assert found.due == 0 or found.due >= NOW


@given(ROWS, DISKS, POLICIES)
def test_nothing_is_immortal(row: Record | None, disk: Facts, policy: Policy) -> None:
    """Judged again after max age, with nothing new to be seen, what was kept is taken."""
    found = judge(Evidence("session", row, disk), NOW, policy)
    if found is None or found.action not in (KEEP, HEAL, ADOPT, REVIVE) or disk.in_use:
        return
    # What lies further in the future is none of a directory's facts.
    assume(disk.mtime is None or disk.mtime <= NOW + SECOND)
    assert row is not None or found.action is ADOPT
    base = row or TABLE[0].row
    assert base is not None
    at = NOW if found.activity is None else found.activity
    kept = base._replace(state=State.ACTIVE, last_touch_at=at)
    later = NOW + policy.max_age + SECOND + 1
    past = [at for at in (disk.mtime, disk.ctime) if at is not None and at <= NOW + SECOND]
    still = replace(disk, mtime=max(past, default=None), ctime=max(past, default=None))
    again = judge(Evidence("session", kept, still), later, policy)
    assert again is not None
    assert again.action is ASIDE


@given(ROWS, DISKS, POLICIES)
def test_the_same_evidence_has_the_same_verdict(
    row: Record | None, disk: Facts, policy: Policy
) -> None:
    evidence = Evidence("session", row, disk)
    assert judge(evidence, NOW, policy) == judge(evidence, NOW, policy)
