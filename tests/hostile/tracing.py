"""Children watched by strace: what they ask of the system, in order; and killed, or refused it."""

import ctypes
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.hostile.blows import Act, Told, listen, telling
from tests.hostile.worlds import fork

CHANGES = (
    "write,pwrite64,pwritev,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,"
    "mkdir,mkdirat,ftruncate,truncate,fallocate,utimensat,link,linkat,symlink,symlinkat,fchmod,"
    "fchmodat,chmod"
)
SENDING = "sendto,sendmsg"  # how a child tells what it has to say
OPENINGS = "open,openat,openat2"
PR_SET_PTRACER, ANY = 0x59616D61, ctypes.c_ulong(-1)
PATIENCE_S = 20


@dataclass(frozen=True)
class Call:
    """One system call; `paths` are those of its descriptors and its names, in their order."""

    name: str
    paths: tuple[str, ...]
    line: str

    def __str__(self) -> str:
        return self.line


@cache
def why_no_strace() -> str | None:
    """Why nothing can be watched here; None where it can be."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "nobody may be traced here"


needs_strace = pytest.mark.skipif(why_no_strace() is not None, reason=why_no_strace() or "")


def hit(act: Act, *strace: str, log: Path | None = None) -> Told:
    """Does `act` in a child that strace watches, with the options given."""
    reader, writer = socket.socketpair()
    waiting, go = os.pipe()

    def child() -> None:
        reader.close()
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
        os.read(waiting, 1)
        telling(act, writer)

    pid = fork(child)
    writer.close()
    os.close(waiting)
    out = str(log or os.devnull)
    command = ["strace", "-f", "-y", "-qq", "-s", "200", "-o", out, *strace, "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        try:
            _wait_until(lambda: _is_traced(pid) or tracer.poll() is not None)
            os.write(go, b".")
            os.close(go)
            told = listen(reader)
            _, status = os.waitpid(pid, 0)
        except BaseException:
            os.kill(pid, 9)
            raise
        _, errors = tracer.communicate(timeout=PATIENCE_S)
    told.points = 0 if os.WIFEXITED(status) else None
    assert not told.died or os.WTERMSIG(status) == 9, errors.decode()
    return told


def killed(at: int, calls: str = CHANGES) -> list[str]:
    """The options by which strace kills the child before the `at`-th of these calls."""
    return ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={at}"]


def refused(error: str, when: str, calls: str) -> list[str]:
    """The options by which these calls fail; `when`: the N-th (`N`), or from it on (`N+`)."""
    return ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}"]


def calls_of(act: Act, folder: Path, calls: str = f"{CHANGES},{OPENINGS}") -> list[Call]:
    """Every one of these system calls that succeeded, in order, and what the child said among
    them as `said`."""
    log = folder / "strace.log"
    told = hit(act, "-e", f"trace={calls},{SENDING}", log=log)
    assert not told.died
    assert told.raised is None, told.in_words
    lines = log.read_text(errors="replace").splitlines()
    return [call for line in lines if (call := _parse(line))]


_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")


def _parse(line: str) -> Call | None:
    found = _LINE.match(line)
    if not found or int(found[3]) < 0:
        return None
    name, arguments = found[1], found[2]
    if name in SENDING.split(","):
        word = re.search(r'\\"said\\", \\"(.*?)\\"', arguments)
        return Call("said", (word[1] if word else "",), line)
    paths = re.findall(r"<(.*?)>|\"(.*?)\"", arguments)
    return Call(name, tuple(a or b for a, b in paths), line)


def _is_traced(pid: int) -> bool:
    with suppress(FileNotFoundError), open(f"/proc/{pid}/status") as lines:
        return any(line.startswith("TracerPid:") and int(line[10:]) for line in lines)
    return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
