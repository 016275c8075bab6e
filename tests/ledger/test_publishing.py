"""The files of one upload come into a session that stands all at once, or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ledger import NameTaken, NoSpace, system
from ledger.incoming import Upload
from ledger.publishing import Received
from tests.ledger.world import World, content

A, B, C = ("a.txt", b"the new a"), ("b.txt", b"the new b"), ("c.txt", b"the new c")


def add(world: World, session_id: str, *files: tuple[str, bytes], put: str = "") -> list[Received]:
    """Publishes the files in one step; those named in `put` replace what has their name."""
    with world.sessions.upload(session_id) as upload:
        for name, its_bytes in files:
            upload.open_file(name, replace=name in put)
            upload.write(its_bytes)
        return upload.commit()[1]


def held(world: World, session_id: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (world.root / session_id).iterdir()}


def counted_as_it_is(world: World, session_id: str) -> bool:
    row, there = world.known(session_id), held(world, session_id)
    return (row.files, row.bytes) == (len(there), sum(map(len, there.values())))


@contextmanager
def refusing(
    *names: str, error: int = errno.ENOSPC, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """No file comes into a session under these names; before that is said, something is done."""
    rename, replace = system.rename_noreplace, os.rename

    def refuse(name: str) -> None:
        if name in names:
            meanwhile()
            raise OSError(error, os.strerror(error))

    def new(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if not os.path.exists(f"/proc/self/fd/{dst_dir_fd}/{dst}"):
            refuse(dst)
        rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def replacing(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        refuse(dst)
        replace(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.system.rename_noreplace", new)
        patch.setattr("os.rename", replacing)
        yield


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("refused", [A, B, C])
def test_of_several_new_files_none_stays_when_one_is_refused(
    world: World, refused: tuple[str, bytes], number: int
) -> None:
    session_id = world.create()
    before = content(world.root / session_id)
    kind = NoSpace if number == errno.ENOSPC else OSError
    with refusing(refused[0], error=number), pytest.raises(kind):
        add(world, session_id, A, B, C)
    assert content(world.root / session_id) == before
    assert counted_as_it_is(world, session_id)
    assert os.listdir(world.incoming) == []
    assert add(world, session_id, A, B, C) == [
        Received(name, len(its), False) for name, its in (A, B, C)
    ]
    assert counted_as_it_is(world, session_id)


def test_of_several_files_none_stays_when_one_finds_no_free_name(world: World) -> None:
    world.reopen(max_session_files=5000)
    session_id = world.create()
    for name in ("b.txt", *(f"b ({number}).txt" for number in range(2, 1001))):
        (world.root / session_id / name).touch()
    before, row = content(world.root / session_id), world.known(session_id)
    with pytest.raises(NameTaken, match="No free name is left"):
        add(world, session_id, A, B)
    assert content(world.root / session_id) == before
    after = world.known(session_id)
    assert (after.files, after.bytes) == (row.files, row.bytes)


@pytest.mark.parametrize("put_first", [True, False])
@pytest.mark.parametrize("refused", [A, B])
def test_a_refused_file_keeps_the_new_ones_out_and_the_old_one_as_it_was(
    world: World, refused: tuple[str, bytes], put_first: bool
) -> None:
    session_id = world.create(files={"a.txt": b"the old a"})
    files = (A, B) if put_first else (B, A)
    with refusing(refused[0]), pytest.raises(NoSpace):
        add(world, session_id, *files, put="a.txt")
    assert held(world, session_id) == {"a.txt": b"the old a"}
    assert counted_as_it_is(world, session_id)


def test_a_file_that_has_replaced_another_stays_and_is_counted(world: World) -> None:
    """It cannot be taken back: what it replaced is gone."""
    session_id = world.create(files={"a.txt": b"old", "b.txt": b"old"})
    with refusing("b.txt"), pytest.raises(NoSpace):
        add(world, session_id, C, A, B, put="a.txt b.txt")
    assert held(world, session_id) == {"a.txt": A[1], "b.txt": b"old"}
    assert counted_as_it_is(world, session_id)


def test_a_file_put_where_there_was_none_is_taken_back_as_well(world: World) -> None:
    session_id = world.create(files={"c.txt": b"old"})
    with refusing("c.txt"), pytest.raises(NoSpace):
        add(world, session_id, A, C, put="a.txt c.txt")
    assert held(world, session_id) == {"c.txt": b"old"}
    assert counted_as_it_is(world, session_id)


def test_a_new_file_does_not_take_the_name_of_one_that_is_to_be_put(world: World) -> None:
    session_id = world.create(files={"c.txt": b"old"})
    with world.sessions.upload(session_id) as upload:
        both(upload)
        _, received = upload.commit()
    assert [file.name for file in received] == ["a (2).txt", "a.txt"]
    assert held(world, session_id) == {"c.txt": b"old", "a.txt": b"put", "a (2).txt": b"added"}
    assert counted_as_it_is(world, session_id)


def both(upload: Upload) -> None:
    for replace, its_bytes in ((False, b"added"), (True, b"put")):
        upload.open_file("a.txt", replace=replace)
        upload.write(its_bytes)


def test_what_another_upload_put_in_place_of_a_file_is_not_taken_back_with_it(world: World) -> None:
    session_id = world.create(files={"z.txt": b"z"})

    def put() -> None:
        add(world, session_id, ("a.txt", b"another's, and longer"), put="a.txt")

    with refusing("b.txt", meanwhile=put), pytest.raises(NoSpace):
        add(world, session_id, A, B)
    assert held(world, session_id) == {"z.txt": b"z", "a.txt": b"another's, and longer"}
    assert counted_as_it_is(world, session_id)


def test_what_replaces_a_file_in_the_instant_it_is_taken_back_has_its_name_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = world.create(files={"z.txt": b"z"})
    rename = system.rename_noreplace
    taken: list[str] = []

    def put_first(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if dst == "b.txt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if src == "a.txt" and not taken:
            taken.append(src)
            add(world, session_id, ("a.txt", b"another's, and longer"), put="a.txt")
        rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr("ledger.system.rename_noreplace", put_first)
    with pytest.raises(NoSpace):
        add(world, session_id, A, B)
    assert taken
    assert held(world, session_id) == {"z.txt": b"z", "a.txt": b"another's, and longer"}
    assert counted_as_it_is(world, session_id)


def test_a_file_that_was_taken_out_meanwhile_is_counted_out_once(world: World) -> None:
    session_id = world.create(files={"z.txt": b"z"})
    taken: list[bool] = []

    def take_out() -> None:
        taken.append(world.sessions.delete_file(session_id, "a.txt"))

    with refusing("b.txt", meanwhile=take_out), pytest.raises(NoSpace):
        add(world, session_id, A, B)
    assert (taken, held(world, session_id)) == ([True], {"z.txt": b"z"})
    assert counted_as_it_is(world, session_id)


def test_a_file_that_cannot_be_taken_back_stays_and_is_counted(world: World) -> None:
    session_id = world.create(files={"z.txt": b"z"})
    with refusing("b.txt", "0", error=errno.EIO), pytest.raises(OSError, match="Input/output"):
        add(world, session_id, A, B)
    assert held(world, session_id) == {"z.txt": b"z", "a.txt": A[1]}
    assert counted_as_it_is(world, session_id)


def test_a_file_that_another_program_has_changed_is_not_taken_back(world: World) -> None:
    session_id = world.create(files={"z.txt": b"z"})

    def change() -> None:
        with (world.root / session_id / "a.txt").open("r+b") as file:
            file.write(b"THE")
        os.utime(world.root / session_id / "a.txt", ns=(1, 1))  # whatever the clock's grain

    with refusing("b.txt", meanwhile=change), pytest.raises(NoSpace):
        add(world, session_id, A, B)
    assert held(world, session_id) == {"z.txt": b"z", "a.txt": b"THE new a"}
    assert counted_as_it_is(world, session_id)
