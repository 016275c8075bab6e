"""A sweep of a pile: every session is stale, and goes, to its last byte."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measured import Row, Target, Trial, in_turn, timed
from benchmarks.plain import clean_up
from benchmarks.rivals import HERE
from benchmarks.subjects.live import by_tmpfiles
from benchmarks.trees import FILES, plain_tree, stale_in
from ledger import SessionLedger
from ledger.moves import new_id
from ledger.system import filesystem_of

SESSIONS = 100_000
THREADS = 2
OLD = dt.datetime.now() - dt.timedelta(days=2)  # noqa: DTZ005 - tuspyserver's own way
WAY = "iterdir, st_mtime, rmtree"


def measure(bench: Bench) -> Iterator[Row]:
    count = bench.sized(SESSIONS)
    rivals = _rivals(bench, count)
    trials: dict[str, Trial] = {"ours": lambda folder: _ours(folder, count)}
    trials |= {name: trial for name, (trial, _) in rivals.items() if trial}
    took = in_turn(trials, bench.place / "rounds", bench.rounds)
    work = f"sweep of {count:,} stale sessions of {FILES} files"
    for name, (trial, target) in rivals.items():
        if trial:
            yield Row(work, name, took["ours"], took[name], target)
        else:
            yield Row(work, name, note="is missing")


def _rivals(bench: Bench, count: int) -> dict[str, tuple[Trial | None, Target | None]]:
    """By their names, each with the target that is set against it; None: it is missing."""
    on_memory = filesystem_of(bench.place) == "tmpfs"
    return {
        WAY: (_removing(count, clean_up), Target(1.5 if on_memory else 0.9)),
        "the floor in C": (_by_floor(bench, count, 1), None),
        f"the floor in C, {THREADS} threads": (_by_floor(bench, count, THREADS), Target(1.3)),
        **{name: (trial, None) for name, trial in _others(bench, count).items()},
    }


def _by_floor(bench: Bench, count: int, threads: int) -> Trial | None:
    floor = bench.rivals.floor
    return _removing(count, lambda root: _run(floor, root, threads)) if floor else None


def _others(bench: Bench, count: int) -> dict[str, Trial | None]:
    python, node = bench.rivals.python, bench.rivals.node
    old = ("-mindepth", "1", "-maxdepth", "1", "-mmin", "+1440", "-exec", "rm", "-rf", "{}", "+")

    def by_program(name: str, act: Callable[[str, Path], None]) -> Trial | None:
        program = bench.rivals.program(name)
        return _removing(count, lambda root: act(program, root)) if program else None

    return {
        "systemd-tmpfiles --clean": by_program(
            "systemd-tmpfiles", lambda program, root: by_tmpfiles(program, root, root.parent)
        ),
        "tmpreaper": by_program(
            "tmpreaper",
            lambda program, root: _run(
                program, "--mtime", "--mtime-dir", "--runtime=0", "1d", root
            ),
        ),
        "find -exec rm -rf": by_program("find", lambda program, root: _run(program, root, *old)),
        "tuspyserver gc_files": _by_tuspyserver(python, count) if python else None,
        "@tus/server": _by_tus(node, count) if node else None,
    }


def _ours(folder: Path, count: int) -> float:
    settings = stale_in(folder, count)
    with SessionLedger.open(settings) as sessions:
        took = timed(lambda: sessions.sweep(keep_entries=False))
    left = [entry for entry in (folder / "temp").iterdir() if entry.name != ".coatcheck"]
    assert not left, f"{len(left)} stay"
    assert not list((folder / "temp/.coatcheck/trash").iterdir()), "bytes stay"
    return took


def _removing(count: int, act: Callable[[Path], object]) -> Trial:
    def trial(folder: Path) -> float:
        root = plain_tree(folder, count, stale=True)
        took = timed(lambda: act(root))
        assert not (left := list(root.iterdir())), f"{len(left)} stay"
        return took

    return trial


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


# Theirs are flat: a file and its description for each upload, so half as many uploads as files


def _by_tuspyserver(python: Path, count: int) -> Trial:
    at = OLD.isoformat()
    info = {"metadata": {}, "size": 100, "offset": 0, "created_at": at, "expires": at}

    def trial(folder: Path) -> float:
        root = _flat(folder, count, lambda name: (f"{name}.info", json.dumps(info)))
        return _self_timed(root, python, HERE / "tuspy.py", root)

    return trial


def _by_tus(node: Path, count: int) -> Trial:
    def described(name: str) -> tuple[str, str]:
        info = {"id": name, "size": 200, "offset": 0, "creation_date": OLD.isoformat()}
        return f"{name}.json", json.dumps(info)

    def trial(folder: Path) -> float:
        root = _flat(folder, count, described)
        return _self_timed(root, "node", node / "tus.mjs", root)

    return trial


def _flat(folder: Path, count: int, described: Callable[[str], tuple[str, str]]) -> Path:
    root = folder / "flat"
    root.mkdir()
    for _ in range(count * FILES // 2):
        name = new_id(32)
        (root / name).write_bytes(b"x" * 100)
        info, text = described(name)
        (root / info).write_text(text)
    return root


def _self_timed(root: Path, *command: object) -> float:
    """What it says of the work itself; its own start is not counted."""
    words = [str(word) for word in command]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert not list(root.iterdir()), "some stay"
    return float(said.split()[0])
