"""The real program in a real terminal: in tmux from end to end, and when the terminal goes away."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ledger import SessionLedger, Settings
from tests.web.services import wait_for

PROGRAM = [sys.executable, "-m", "coatcheck"]
HOUSE = Path(__file__).parents[2]
SECONDS = 60.0


def environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(HOUSE),
        "COATCHECK_ROOT": str(folder / "temp"),
    }


def settings(folder: Path) -> Settings:
    return Settings(root=folder / "temp")


class Tmux:
    """A server of its own, with one window of 100 by 30, and the program in it."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "tmux")
        self.folder = folder

    def run(self, *arguments: str) -> str:
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment(self.folder)
        )
        return done.stdout

    def start(self, command: str) -> None:
        self.run("new-session", "-d", "-x", "100", "-y", "30", "sh")
        self.type(command, "Enter")

    def type(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    def text(self) -> str:
        return self.run("capture-pane", "-p")

    def shows(self, *texts: str) -> None:
        """Returns once all of this is on the screen; fails, with the screen, when it is not."""
        deadline = time.monotonic() + SECONDS
        while missing := [text for text in texts if text not in self.text()]:
            assert time.monotonic() < deadline, f"{missing} not shown:\n{self.text()}"
            time.sleep(0.05)

    def says_yes(self, outcome: str) -> None:
        """Says yes until it is heard: typed before the question could be read, it is no answer."""
        deadline = time.monotonic() + SECONDS
        while outcome not in self.text():
            assert time.monotonic() < deadline, f"{outcome} not shown:\n{self.text()}"
            self.type("y")
            asked_again = time.monotonic() + 2.0
            while outcome not in self.text() and time.monotonic() < asked_again:
                time.sleep(0.05)

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.run("kill-server")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed (Debian, Ubuntu: apt install tmux)")
    made = Tmux(tmp_path)
    yield made
    made.end()


@pytest.mark.slow
def test_from_a_full_root_to_an_empty_one_and_back_to_the_shell(tmux: Tmux, tmp_path: Path) -> None:
    with SessionLedger.open(settings(tmp_path)) as sessions:
        kept = sessions.create("order 17")
        doomed = sessions.create("order 18")
        stray = tmp_path / "temp" / "legacy_7"
        stray.mkdir()
        os.utime(stray, (1_700_000_000, 1_700_000_000))
        program = " ".join(PROGRAM)
        tmux.start(f"clear; echo as before; {program} dashboard; echo left with $?")
        tmux.shows("coatcheck", "order 17", "order 18", "✔ ledger", "1 of 2")
        sessions.create("order 19")
        tmux.shows("order 19", "1 of 3")
        tmux.type("/", "order 18", "Enter")
        tmux.shows("1 of 1", "filter: order 18")
        tmux.type("d")
        tmux.shows("Delete 1 session?", "Keep")
        tmux.says_yes("deleted")
        assert not Path(doomed.path).exists()
        tmux.type("Escape")
        tmux.shows("1 of 3")
        tmux.type("3")
        tmux.shows("Dry run")
        tmux.type("Enter")
        tmux.shows("1 session would go", "unrecorded")
        tmux.type("x")
        tmux.shows("Sweep exactly this list?")
        tmux.says_yes("Swept. 1 session removed")
        assert not stray.exists()
        tmux.type("4")
        tmux.shows("Events", "operator")
        tmux.type("q")
        tmux.shows("left with 0")
        assert "Events" not in tmux.text()
        assert "as before" in tmux.text()
        tmux.type("echo typed $((6 * 7))", "Enter")
        tmux.shows("typed 42")
        assert Path(kept.path).exists()


# The terminal goes away


class Terminal:
    """A pseudo-terminal with the program in it."""

    def __init__(self, folder: Path, *, ignore_hangup: bool = False) -> None:
        self.errors = folder / "errors"
        self.ours, theirs = pty.openpty()
        ignore = "trap '' HUP; " if ignore_hangup else ""
        self.process = subprocess.Popen(
            ["sh", "-c", f'{ignore}exec "$@"', "sh", *PROGRAM, "dashboard"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(folder),
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(theirs),
        )
        os.close(theirs)
        self.shown = b""

    def shows(self, text: bytes) -> None:
        os.set_blocking(self.ours, False)

        def seen() -> bool:
            with suppress(BlockingIOError):
                self.shown += os.read(self.ours, 65536)
            return text in self.shown

        wait_for(seen, SECONDS)

    def drain(self) -> None:
        with suppress(OSError):
            while more := os.read(self.ours, 65536):
                self.shown += more


def _take_terminal(fd: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


@pytest.mark.slow
@pytest.mark.parametrize("ignore_hangup", [False, True], ids=["a shell's", "under nohup"])
def test_a_closed_terminal_ends_it_cleanly(tmp_path: Path, ignore_hangup: bool) -> None:
    terminal = Terminal(tmp_path, ignore_hangup=ignore_hangup)
    terminal.shows(b"There are no sessions.")
    os.close(terminal.ours)
    assert terminal.process.wait(SECONDS) == 0


@pytest.mark.slow
def test_sigterm_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.shows(b"There are no sessions.")
    terminal.process.send_signal(signal.SIGTERM)

    def ended() -> bool:
        terminal.drain()
        return terminal.process.poll() is not None

    wait_for(ended, SECONDS)
    terminal.drain()
    assert terminal.process.returncode == 0
    assert b"\x1b[?1049l" in terminal.shown  # back from the alternate screen
    assert terminal.shown.rindex(b"\x1b[?25h") > terminal.shown.rindex(b"\x1b[?25l")
    assert b"Traceback" not in terminal.shown
    os.close(terminal.ours)


@pytest.mark.slow
def test_without_a_terminal_it_says_what_to_use_instead(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "dashboard"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.torture
def test_a_browser_that_goes_away_ends_it_cleanly(tmp_path: Path) -> None:
    """textual-serve runs it by pipes, with a driver of its own."""
    driver = {"TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver"}
    with subprocess.Popen(
        [*PROGRAM, "dashboard", "--read-only"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(tmp_path) | driver,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        begun = b""
        while b"There are no sessions." not in begun:
            more = os.read(process.stdout.fileno(), 65536)
            assert more, process.stderr.read()
            begun += more
        process.stdin.close()
        process.stdout.close()
        assert process.wait(SECONDS) == 0
        assert process.stderr.read() == b""
