"""What removal does with ordinary trees, names and callers; hostile ones are in tests/hostile."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.removal import DEAD, Removed, remove_dead, remove_empty_directory, unlink_file

NAMES_OF_NO_ENTRY = ["", ".", "..", "/", "a/b", "../a", "a/", "/etc"]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def a_tree(path: Path) -> None:
    """Nine entries, the top one included."""
    (path / "a/b/c").mkdir(parents=True)
    (path / "empty").mkdir()
    for name in ("x", "a/y", "a/b/c/z"):
        (path / name).write_text("bytes")
    (path / "a/link").symlink_to("y")


def test_a_dead_entry_is_removed_whole_and_counted(tmp_path: Path, here: int) -> None:
    a_tree(tmp_path / "dead-1")
    assert remove_dead(here, "dead-1") == Removed(entries=9, failures=())
    assert os.listdir(tmp_path) == []


def test_what_else_is_in_the_trash_stays(tmp_path: Path, here: int) -> None:
    for name in ("dead-1", "dead-10", "u.waiting", "dead"):
        a_tree(tmp_path / name)
    remove_dead(here, "dead-1")
    assert sorted(os.listdir(tmp_path)) == ["dead", "dead-10", "u.waiting"]
    assert len(list(tmp_path.rglob("*"))) == 27


def test_a_dead_entry_that_is_gone_is_no_failure(here: int) -> None:
    assert remove_dead(here, "dead-1") == Removed(0, ())


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "fifo"])
def test_a_dead_entry_that_is_no_directory_is_unlinked_itself(
    kind: str, tmp_path: Path, here: int
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    match kind:
        case "file":
            (tmp_path / "dead-1").write_text("bytes")
        case "fifo":
            os.mkfifo(tmp_path / "dead-1")
        case _:
            (tmp_path / "dead-1").symlink_to("kept" if kind == "link" else "nowhere")
    removed = remove_dead(here, "dead-1")
    assert removed == Removed(1, ())
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept/file").read_text() == "kept"


@pytest.mark.parametrize("name", ["", "living", "dead", "Dead-1", "x.dead-1", ".", "..", "/"])
def test_what_is_not_dead_is_refused(name: str, tmp_path: Path, here: int) -> None:
    a_tree(tmp_path / "living")
    with pytest.raises(ValueError, match="not a dead entry"):
        remove_dead(here, name)
    assert len(list(tmp_path.rglob("*"))) == 9


@pytest.mark.parametrize("name", ["dead-/../living", "dead-1/a", "dead-1/"])
def test_a_path_is_refused_however_dead_it_looks(name: str, tmp_path: Path, here: int) -> None:
    for each in ("living", "dead-1", "dead-"):
        a_tree(tmp_path / each)
    with pytest.raises(ValueError, match="not the name of an entry"):
        remove_dead(here, name)
    assert len(list(tmp_path.rglob("*"))) == 27


def test_progress_is_told_entry_by_entry(tmp_path: Path, here: int) -> None:
    a_tree(tmp_path / "dead-1")
    told: list[int] = []
    assert remove_dead(here, "dead-1", on_entry=told.append).entries == 9
    assert told == [1, 2, 3, 4, 5, 6, 7, 8, 9]


class Interruption(Exception):
    pass


@pytest.mark.parametrize("after", range(1, 10))
def test_a_removal_that_is_interrupted_leaves_only_dead_entries_and_no_descriptor(
    after: int, tmp_path: Path, here: int
) -> None:
    def interrupt(entries: int) -> None:
        if entries == after:
            raise Interruption

    a_tree(tmp_path / "dead-1")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Interruption):
        remove_dead(here, "dead-1", on_entry=interrupt)
    assert os.listdir("/proc/self/fd") == before
    left = os.listdir(tmp_path)
    assert all(name.startswith(DEAD) for name in left)
    removed = [remove_dead(here, name) for name in left]
    assert after + sum(each.entries for each in removed) == 9
    assert os.listdir(tmp_path) == []


# -- Single files and directories


def test_a_file_is_unlinked_once(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").touch()
    assert unlink_file("file", dir_fd=here)
    assert os.listdir(tmp_path) == []
    assert not unlink_file("file", dir_fd=here)


def test_of_a_link_only_the_link_is_unlinked(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("file")
    assert unlink_file("link", dir_fd=here)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_directory_is_not_unlinked_as_a_file(tmp_path: Path, here: int) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(IsADirectoryError):
        unlink_file("d", dir_fd=here)
    assert (tmp_path / "d").is_dir()


def test_only_an_empty_directory_is_removed(tmp_path: Path, here: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").touch()
    assert not remove_empty_directory("d", dir_fd=here)
    (tmp_path / "d/file").unlink()
    assert remove_empty_directory("d", dir_fd=here)
    assert not remove_empty_directory("d", dir_fd=here)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_not_removed_as_one(kind: str, tmp_path: Path, here: int) -> None:
    (tmp_path / "empty").mkdir()
    if kind == "file":
        (tmp_path / "x").touch()
    else:
        (tmp_path / "x").symlink_to("empty")
    with pytest.raises(NotADirectoryError):
        remove_empty_directory("x", dir_fd=here)
    assert sorted(os.listdir(tmp_path)) == ["empty", "x"]


@pytest.mark.parametrize("name", NAMES_OF_NO_ENTRY)
def test_a_path_names_no_entry(name: str, tmp_path: Path, here: int) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    with pytest.raises(ValueError, match="not the name of an entry"):
        unlink_file(name, dir_fd=here)
    with pytest.raises(ValueError, match="not the name of an entry"):
        remove_empty_directory(name, dir_fd=here)
    assert (tmp_path / "a/b").is_dir()
