"""The command line where calls are refused: an exit code and a sentence, never a traceback."""

import errno
import json
import os
import random
import sys
from io import StringIO

import pytest

import coatcheck
from ledger import SessionLedger
from tests.everyday import every_day
from tests.hostile import blows, tracing
from tests.hostile.blows import Fail, Points, Told, walk
from tests.hostile.operations import Create, OnOne, Sweep
from tests.hostile.scenario import CLAIMED, GONE, LIVE, WAITING, Expected, Operation, Said, Stage
from tests.hostile.test_faults import ERRORS, SEED
from tests.hostile.tracing import needs_strace, refused

# All that changes the disk but for `write`, by which the sentences themselves are told.
CALLS = tracing.CHANGES.removeprefix("write,").replace(",writev", "")


class Command(Operation):
    """One command; says its exit code, and what it told on standard output and error."""

    arguments = ["sweep", "--json"]

    def run(self, said: Said) -> None:
        os.environ |= {
            "COATCHECK_ROOT": str(self.stage.root),
            "COATCHECK_LEDGER": f"sqlite:///{self.stage.ledger}",
            "COATCHECK_CLAIMS": str(self.stage.claims),
        }
        sys.stdout, sys.stderr = out, err = StringIO(), StringIO()
        code = coatcheck.run([word.format(its=getattr(self, "its", "")) for word in self.arguments])
        said(json.dumps([code, out.getvalue(), err.getvalue()]))


class SweepCommand(Command, Sweep):
    pass


class ReportCommand(Command, Sweep):
    arguments = ["report", "--json"]


class SessionsCommand(Command, Sweep):
    arguments = ["sessions", "--json"]


class DoctorCommand(Command, Sweep):
    arguments = ["doctor", "--json"]


class CreateCommand(Command, Create):
    arguments = ["create", "--json"]

    def expected(self, said: list[str]) -> dict[str, Expected]:
        return Create.expected(self, [])


class OnOneCommand(Command, OnOne):
    """Whatever was said: a refused command may have done it, or not."""

    arguments = ["touch", "{its}", "--json"]
    after = before = {LIVE}

    def prepare(self, sessions: SessionLedger) -> None:
        OnOne.prepare(self, sessions)
        self.after = self.before


class TouchCommand(OnOneCommand):
    pass


class ShowCommand(OnOneCommand):
    arguments = ["show", "{its}", "--json"]


class ClaimCommand(OnOneCommand):
    arguments = ["claim", "{its}", "spring", "--json"]
    before = {LIVE, CLAIMED}

    def prepare(self, sessions: SessionLedger) -> None:
        super().prepare(sessions)
        self.destinations[self.its] = "spring"


class DeleteCommand(OnOneCommand):
    arguments = ["delete", "{its}", "--json"]
    before = {LIVE, GONE}


class RestoreCommand(OnOneCommand):
    arguments = ["restore", "{its}", "--json"]
    scene = "waiting"
    before = {LIVE, WAITING}


COMMANDS: list[type[Command]] = [
    *(SweepCommand, ReportCommand, SessionsCommand, DoctorCommand, CreateCommand),
    *(TouchCommand, ShowCommand, ClaimCommand, DeleteCommand, RestoreCommand),
]
every_command = pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)


def speaks(operation: Command, stage: Stage, told: Told, what: str) -> None:
    """It ended with a code and one JSON document, and said what was wrong, if anything was."""
    try:
        assert told.raised is None, told.in_words
        [said] = told.said
        code, out, err = json.loads(said)
        assert code in range(5)
        assert "Traceback" not in err
        assert "A mistake in coatcheck" not in err
        document = json.loads(out)
        in_it = document.get("failures") or document.get("ok") is False  # as the doctor says it
        assert code == 0 or err.strip() or in_it, "silent failure"
        judge = operation.judge(told.said)
        judge.nothing_is_half_there()
        judge.a_sweep_settles_it()
    except AssertionError as error:
        error.add_note(f"{type(operation).__name__}: {what}; said {told.said}")
        raise


def at_its_own_points(kind: type[Command], stage: Stage, every: int) -> None:
    operation, dice = kind(), random.Random(SEED)
    for at in walk(every, SEED):
        number, for_good = dice.choice(ERRORS), dice.random() < 0.5
        operation.set_up(stage)
        points = Points(at, Fail(number), for_good=for_good, looks=True)
        told = blows.hit(operation.run, points)
        what = f"{errno.errorcode[number]} {'from' if for_good else 'at'} {at}"
        speaks(operation, stage, told, what)
        if told.points is not None and told.points < at:
            break


def at_system_calls(kind: type[Command], stage: Stage, every: int) -> None:
    operation, dice = kind(), random.Random(SEED)
    operation.set_up(stage)
    last = len(tracing.calls_of(operation.run, stage.folder, CALLS))
    for at in range(dice.randrange(every) + 1, last + 1, every):
        number, for_good = dice.choice(ERRORS), dice.random() < 0.5
        options = refused(errno.errorcode[number], f"{at}+" if for_good else f"{at}", CALLS)
        operation.set_up(stage)
        told = tracing.hit(operation.run, *options)
        speaks(operation, stage, told, " ".join(options))


@every_day({ClaimCommand, SweepCommand}, COMMANDS, ids=lambda kind: kind.__name__)
def test_refused_anywhere_it_says_so_in_a_sentence(kind: type[Command], stage: Stage) -> None:
    at_its_own_points(kind, stage, every=200)


@needs_strace
@every_day({SweepCommand}, [ClaimCommand, DeleteCommand, SweepCommand])
def test_refused_by_the_system_it_says_so_in_a_sentence(kind: type[Command], stage: Stage) -> None:
    at_system_calls(kind, stage, every=120)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@every_command
def test_refused_in_many_places_it_says_so_in_a_sentence(kind: type[Command], stage: Stage) -> None:
    """What is refused is walked whole in test_faults; here, what a command says of it."""
    at_its_own_points(kind, stage, every=7)
    if tracing.why_no_strace() is None:
        at_system_calls(kind, stage, every=7)
