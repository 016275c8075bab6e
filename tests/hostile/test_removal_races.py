"""A removal while others change what is removed, at the worst moments and at random ones."""

import ctypes
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ledger import system
from ledger.removal import DEAD, remove_dead
from tests.hostile.trash import NAME, Trash, fill
from tests.hostile.worlds import fork, mayhem

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def exchange(a: Path, b: Path) -> bool:
    """Swaps two names in one step; False when one of them is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE)
    return done == 0


def just_before(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], object]
) -> list[str]:
    """The first call of `module.name` is preceded by `act`; says in the end that it was."""
    real = getattr(module, name)
    happened: list[str] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not happened:
            happened.append(name)
            act()
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, call)
    return happened


def swapped(path: Path, outside: Path) -> Callable[[], object]:
    """Puts a link to the outside in the place of a directory, which is kept beside it."""

    def swap() -> None:
        path.rename(path.with_name("away"))
        path.symlink_to(outside)

    return swap


@pytest.mark.parametrize("openat2", [True, False])
@pytest.mark.parametrize("moment", ["rmdir", "rename", "chmod"])
def test_a_directory_swapped_for_a_link_at_the_worst_moment_is_only_unlinked(
    moment: str, openat2: bool, trash: Trash, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not openat2:
        monkeypatch.setattr(system, "_openat2", lambda: None)
    fill(trash.dead / "victim")
    swap = swapped(trash.dead / "victim", outside)
    if moment == "chmod":
        refusals = [PermissionError(13, "refused")]
        real = os.rename

        def refuse_once(*args: Any, **kwargs: Any) -> None:
            if refusals:
                raise refusals.pop()
            real(*args, **kwargs)

        monkeypatch.setattr(os, "rename", refuse_once)
        happened = just_before(monkeypatch, system, "chmod_private", swap)
    else:
        happened = just_before(monkeypatch, os, moment, swap)
    removed = trash.remove()
    assert happened
    assert removed.failures == ()
    assert trash.left() == []


@pytest.mark.parametrize("openat2", [True, False])
def test_a_lifted_directory_swapped_before_it_is_opened_is_only_unlinked(
    openat2: bool, trash: Trash, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not openat2:
        monkeypatch.setattr(system, "_openat2", lambda: None)
    fill(trash.dead / "victim")
    real = system.open_directory

    def swap_and_open(name: str, *, dir_fd: int) -> int:
        if name != NAME:
            swapped(trash.path / name, outside)()
        return real(name, dir_fd=dir_fd)

    monkeypatch.setattr(system, "open_directory", swap_and_open)
    assert trash.remove().failures == ()
    assert trash.left() == ["away"]
    assert len(os.listdir(trash.path / "away")) == 3


def test_the_dead_entry_swapped_once_it_is_open_is_emptied_all_the_same(
    trash: Trash, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(trash.dead)
    just_before(monkeypatch, os, "scandir", swapped(trash.dead, outside))
    (failure,) = trash.remove().failures
    assert failure == f"{NAME}: Not a directory"
    assert trash.left() == ["away", NAME]
    assert os.listdir(trash.path / "away") == []


def test_a_file_swapped_for_a_directory_goes_with_all_that_is_in_it(
    trash: Trash, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(trash.dead, 1)

    def swap() -> None:
        (trash.dead / "file-0").rename(trash.dead / "away")
        fill(trash.dead / "file-0")

    happened = just_before(monkeypatch, os, "unlink", swap)
    assert trash.remove().failures == ()
    assert happened
    assert trash.left() == []


@pytest.mark.parametrize("least", [30, pytest.param(3000, marks=pytest.mark.torture)])
@pytest.mark.parametrize("openat2", [True, False])
def test_a_process_that_swaps_directories_for_links_reaches_nothing_outside(
    openat2: bool, least: int, trash: Trash, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not openat2:
        monkeypatch.setattr(system, "_openat2", lambda: None)
    pairs = 4
    arena = trash.dead / "arena"

    def swap() -> int:
        return sum(exchange(arena / f"directory-{n}", arena / f"link-{n}") for n in range(pairs))

    rounds = 0
    with mayhem(swap) as swaps:
        while rounds < least or swaps() < least:
            rounds += 1
            for n in range(pairs):
                fill(arena / f"directory-{n}/deeper", 1)
                (arena / f"link-{n}").symlink_to(outside)
            # What changed underfoot may take a second pass.
            while trash.left():
                trash.remove_all()


def test_two_removers_of_one_entry_are_in_nobodys_way(trash: Trash) -> None:
    def removed_by_one() -> int:
        entries = 0
        while names := trash.left():
            entries += sum(remove_dead(trash.fd, name).entries for name in names)
        return entries

    def tell(writer: int) -> None:
        os.write(writer, str(removed_by_one()).encode())

    for _ in range(8):
        for number in range(15):
            fill(trash.dead / f"{number}" / "inner")
        expected = sum(1 for _ in trash.dead.rglob("*")) + 1

        reader, writer = os.pipe()
        child = fork(partial(tell, writer))
        ours = removed_by_one()
        os.waitpid(child, 0)
        theirs = int(os.read(reader, 100))
        os.close(reader)
        os.close(writer)
        assert trash.left() == []
        assert ours + theirs == expected


def test_a_directory_that_is_written_into_without_end_is_given_up_and_named(trash: Trash) -> None:
    fill(trash.dead / "log")
    fd = os.open(trash.dead / "log", os.O_RDONLY)
    written = 0

    def write_on(_: int) -> None:
        nonlocal written
        written += 1
        if os.fstat(fd).st_nlink:
            os.close(os.open(f"line-{written}", os.O_CREAT, dir_fd=fd))

    removed = remove_dead(trash.fd, NAME, on_entry=write_on)
    os.close(fd)
    (failure,) = removed.failures
    assert failure.startswith("log (in the trash: dead-")
    assert failure.endswith("something is still being written into it")
    assert all(each.failures == () for each in trash.remove_all())
    assert trash.left() == []


def test_a_removal_that_is_killed_leaves_only_dead_entries_for_the_next(trash: Trash) -> None:
    for after in range(1, 40, 3):
        for number in range(6):
            fill(trash.dead / f"{number}" / "inner", 2)

        def die(entries: int, after: int = after) -> None:
            if entries == after:
                os.kill(os.getpid(), signal.SIGKILL)

        child = fork(partial(remove_dead, trash.fd, NAME, on_entry=die))
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) is (after <= 25)
        assert all(name.startswith(DEAD) for name in trash.left())
        assert all(each.failures == () for each in trash.remove_all())
        assert trash.left() == []
