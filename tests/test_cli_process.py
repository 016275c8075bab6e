"""The command line as a process: how it begins and ends, and its demo."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from coatcheck_start import VERSION
from ledger import Finding, Progress, SessionLedger
from ledger.disk import HOUSE
from tests.cli import ROOT, cc, command, env, program, session, stray

# How it begins


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_its_version_is_said_before_anything_that_takes_time_is_loaded(word: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "coatcheck_start", word]
    done = subprocess.run(command, env=env(), capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"\| +(\S+)$", done.stderr, re.MULTILINE))
    assert ({"typer", "ledger"} <= loaded) is (word == "--help")
    assert done.stdout.startswith(f"coatcheck {VERSION}\n") is (word == "--version")


def test_the_program_says_the_version_that_is_installed() -> None:
    assert version("coatcheck") == VERSION


# Ends that are no errors


@pytest.mark.slow
def test_a_closed_pipe_ends_it_in_silence() -> None:
    for number in range(3):
        session(label=f"{number}" * 100)
    running = subprocess.Popen(
        command("sessions", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env()
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    said = running.stderr.read()
    running.stderr.close()
    assert (running.wait(60), said) == (1, b"")


def test_a_first_interrupt_ends_the_sweep_between_two_sessions_and_the_next_does_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [session(age=48) for _ in range(3)] + [stray(f"s{n}", age=48) for n in range(150)]
    advance = Progress.advance
    came: list[int] = []

    def interrupted(progress: Progress, by: int) -> None:
        advance(progress, by)
        if not came:
            came.append(by)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", interrupted)
    before = signal.getsignal(signal.SIGINT)
    ran = cc("sweep", "--json")
    assert ran.code == 130
    assert "Cancelled: this is what was done until then" in ran.err
    left = {name for name in os.listdir(ROOT) if name != HOUSE}
    assert len(ids) - len(left) == ran.json["removed"] < len(ids)
    assert cc("sweep").code == 0
    assert os.listdir(ROOT) == [HOUSE]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_at_any_other_time_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SessionLedger, "create", interrupted)
    ran = cc("create")
    assert (ran.code, ran.out, ran.err) == (130, "", "")


@pytest.mark.parametrize("imported", ["typer", "rich", "sqlmodel"])
def test_an_interrupt_during_the_imports_is_no_traceback(imported: str) -> None:
    interrupt = (
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('went on')"
    )
    Path(f"{imported}.py").write_text(interrupt)  # beside the program, and so found first
    said = subprocess.run(
        ["sh", "-c", '"$@"; echo "ended with $?"', "sh", *command("report")],
        capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # whoever runs the tests
        text=True,
        check=True,
        env=env(),
        timeout=100,
    )
    assert (said.stdout, said.stderr) == ("ended with 130\n", "")


def test_an_interrupt_that_is_ignored_is_ignored_during_the_imports_too() -> None:
    Path("typer.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('went on')"
    )
    heedless = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command("report")]
    said = subprocess.run(
        heedless, capture_output=True, text=True, check=False, env=env(), timeout=100
    )
    assert said.stderr == "went on\n"


def test_serve_says_where_it_cannot_listen() -> None:
    ran = cc("serve", "--host", "192.0.2.1", "--port", "8000")
    assert (ran.code, "192.0.2.1:8000 cannot be listened on" in ran.err) == (2, True)


# The demo


@pytest.mark.slow
def test_the_demo_shows_each_command_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = program("demo", TMPDIR=str(tmp_path))
    assert (ran.code, ran.err) == (0, "")
    for typed in ("report", "sweep --dry-run", "sweep", "restore ", "show "):
        assert f"\n$ coatcheck {typed}" in ran.out
    for finding in Finding:
        assert finding.value in ran.out
    assert os.listdir(tmp_path) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.slow
def test_the_demo_can_be_kept_to_look_around(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cc("demo", "--keep")
    [line] = [line for line in ran.out.splitlines() if line.startswith("export COATCHECK_ROOT=")]
    monkeypatch.setenv("COATCHECK_ROOT", line.removeprefix("export COATCHECK_ROOT="))
    assert Path(os.environ["COATCHECK_ROOT"]).is_relative_to(temporary)
    assert cc("report", "--json").json["counts"]["foreign"] == 5


def test_the_demos_json_has_every_report(temporary: Path) -> None:
    play = cc("demo", "--json").json
    assert all(play["report"]["counts"][finding] for finding in map(str, Finding))
    assert play["sweep"]["removed"] > 0
    unsettled = {
        name
        for name, count in play["after"]["counts"].items()
        if count and name not in ("live", "waiting", "in_use", "foreign")
    }
    assert unsettled == {"unreadable"}
    assert (play["restored"]["session"]["state"], play["kept"]) == ("active", None)
    assert os.listdir(temporary) == []
