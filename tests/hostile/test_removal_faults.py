"""A removal whose calls fail: nothing is raised, what is left is named, the next one ends it."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger import removal, system
from ledger.removal import DEAD, FAILURES, Removed
from tests.everyday import params
from tests.hostile.trash import AWKWARD, NAME, Trash, fill
from tests.hostile.worlds import in_child, leave_descriptors

CALLS = [
    (os, "unlink"),
    (os, "rmdir"),
    (os, "rename"),
    (os, "scandir"),
    (os, "fstat"),
    (system, "open_directory"),
]
ERRORS = ["EIO", "ENOSPC", "EACCES", "EPERM", "EMFILE", "EROFS"]


def a_tree(trash: Trash) -> None:
    for place in ("", "a", "a/b", "a/b/c", "d"):
        fill(trash.dead / place, 2)
    (trash.dead / "empty").mkdir()


class Failing:
    """The call, which fails the nth time, or from then on."""

    def __init__(self, real: Any, number: int, nth: int, for_ever: bool) -> None:
        self.real, self.number, self.nth, self.for_ever = real, number, nth, for_ever
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.nth or (self.for_ever and self.calls > self.nth):
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*args, **kwargs)


@pytest.mark.parametrize("for_ever", params({True}, [False, True]))
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("module", "name"), CALLS, ids=[name for _, name in CALLS])
def test_whatever_call_fails_nothing_is_raised_and_the_next_removal_finishes(
    module: Any,
    name: str,
    error: str,
    for_ever: bool,
    trash: Trash,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nth = 0
    while True:
        nth += 1
        a_tree(trash)
        failing = Failing(getattr(module, name), getattr(errno, error), nth, for_ever)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failing)
            removed = trash.remove()
        left = trash.left()
        assert all(each.startswith(DEAD) for each in left)
        assert bool(removed.failures) is bool(left)
        again = trash.remove_all()
        assert all(each.failures == () for each in again)
        assert removed.entries + sum(each.entries for each in again) == 16
        assert trash.left() == []
        if failing.calls < nth:
            break
    assert nth > 1


# Only the files that remove: the rest of the ledger would be a second of tracing.
STRACED = """
import os, sys, types
sys.modules["ledger"] = types.ModuleType("ledger")
sys.modules["ledger"].__path__ = [sys.argv[1]]
from ledger.removal import remove_dead
removed = remove_dead(os.open(sys.argv[2], os.O_RDONLY), sys.argv[3])
print(*removed.failures, sep="\\n")
"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("unlinkat:error=EIO:when=2", None),  # the second reading finds it well
        ("unlinkat:error=EIO", "Input/output error"),
        ("renameat:error=ENOSPC", "No space left on device"),
        ("renameat:error=EDQUOT", "Disk quota exceeded"),
        ("openat2:error=EMFILE", "Too many open files"),
        ("openat2:error=ENOSYS", None),
        ("openat2:error=EPERM", None),
        ("getdents64:error=EIO:when=2", "Input/output error"),
    ],
)
def test_a_kernel_that_fails_is_reported(fault: str, told: str | None, trash: Trash) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    a_tree(trash)
    places = [trash.path, trash.dead, trash.dead / "a"]
    command = [strace, "-qq", "-o", os.devnull, f"--inject={fault}"]
    for place in places:
        command += ["-P", str(place)]
    ledger = str(Path(removal.__file__).parent)
    command += [sys.executable, "-c", STRACED, ledger, str(trash.path), NAME]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")
    failures = done.stdout.strip()
    assert failures.endswith(told) if told else not failures
    assert bool(trash.left()) is bool(told)
    assert all(each.failures == () for each in trash.remove_all())
    assert trash.left() == []


@pytest.mark.parametrize("descriptors", [0, 1])
def test_without_the_two_descriptors_it_takes_nothing_is_removed_and_that_is_said(
    descriptors: int, trash: Trash
) -> None:
    a_tree(trash)

    def remove() -> Removed:
        leave_descriptors(descriptors)
        return trash.remove()

    assert in_child(remove) == Removed(0, (f"{NAME}: Too many open files",))


def fail_to_unlink(monkeypatch: pytest.MonkeyPatch) -> Failing:
    failing = Failing(os.unlink, errno.EIO, 1, for_ever=True)
    monkeypatch.setattr(os, "unlink", failing)
    return failing


def test_of_many_failures_some_are_named_and_the_others_counted(
    trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in "abc":
        fill(trash.dead / place, FAILURES - 5)
    with monkeypatch.context() as patch:
        fail_to_unlink(patch)
        removed = trash.remove()
    assert len(removed.failures) == FAILURES + 1
    assert removed.failures[-1] == f"and {3 * (FAILURES - 5) - FAILURES} more"
    assert len(set(removed.failures)) == FAILURES + 1


def test_each_failure_is_told_once_though_a_directory_is_read_twice(
    trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(trash.dead, 3)
    for number in range(10):
        fill(trash.dead / f"{number}", 0)
    with monkeypatch.context() as patch:
        failing = fail_to_unlink(patch)
        removed = trash.remove()
    assert sorted(removed.failures) == [
        f"{NAME}/file-{number}: Input/output error" for number in range(3)
    ]
    assert failing.calls == 2 * 3


def test_what_another_remover_took_is_no_failure_beside_one(
    trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(trash.dead, 2)
    unlink = os.unlink

    def take_or_fail(name: str, *, dir_fd: int) -> None:
        if name == "file-0":
            unlink(name, dir_fd=dir_fd)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", take_or_fail)
        assert trash.remove() == Removed(0, (f"{NAME}/file-1: Input/output error",))


@pytest.mark.parametrize("name", AWKWARD)
def test_a_failure_is_one_line_that_any_terminal_and_log_can_show(
    name: bytes, trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = os.fsencode(trash.dead) + b"/" + name
    os.makedirs(place)
    with open(place + b"/" + name, "xb"):
        pass
    with monkeypatch.context() as patch:
        fail_to_unlink(patch)
        (failure,) = trash.remove().failures
    assert failure.isprintable()
    assert failure.encode("utf-8")
    assert failure.endswith(": Input/output error")
    assert len(failure) < 5_000


def test_a_failure_far_below_is_named_by_the_end_of_its_path(
    trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(trash.dead / "/".join(["long-name"] * 60), 1)
    with monkeypatch.context() as patch:
        fail_to_unlink(patch)
        (failure,) = trash.remove().failures
    assert failure.startswith("...")
    assert "long-name/file-0 (in the trash: dead-" in failure
    assert len(failure) < 400
