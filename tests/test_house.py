"""Which way imports point, and who may rename and unlink: read from the sources, not from hope."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
SOURCES = [
    *sorted(HOUSE.glob("coatcheck*.py")),
    *sorted(path for place in ("ledger", "web", "tui") for path in (HOUSE / place).rglob("*.py")),
]

MAY_IMPORT = {
    "coatcheck": {"coatcheck_screen", "web", "tui", "ledger"},
    "coatcheck_screen": {"ledger"},
    "coatcheck_start": {"coatcheck"},  # once its version is not all that is asked for
    "web": {"ledger"},
    "tui": {"ledger", "web"},
    "ledger": set[str](),
}
# From what acts down to what is; a file imports only files below its own. `plan` and `report` hold
# the frozen values that looking and acting hand each other, and so they stand low.
ORDER = [
    *("__init__", "demo", "props", "doctor", "checks_ledger", "checks", "views", "sessions"),
    *("adoption", "dry_runs", "health", "incoming", "publishing", "restoring", "files"),
    *("life", "sweep"),
    *(
        "aside",
        "sharing",
        "listing",
        "runs",
        "remover",
        "upkeep",
        "pruning",
        "pairing",
        "guards",
        "survey",
    ),
    *("place", "claims", "states", "pages", "queries", "moves", "counts", "bulk"),
    *("disk", "walk", "removal", "report", "plan", "migrations", "database", "postgresql"),
    *("models", "reserve"),
    *("settings", "system", "cursors", "errors"),
]
REMOVES = {"unlink", "rmdir", "rmtree", "removedirs"}
RENAMES = {"rename", "renames", "rename_noreplace"}
MAY_REMOVE = {"ledger/removal.py"}
MAY_RENAME = {"ledger/moves.py", "ledger/removal.py", "ledger/system.py"}
CLOCKS_AND_IO = {
    *("asyncio", "fcntl", "glob", "io", "os", "pathlib", "random", "secrets", "shutil", "socket"),
    *("sqlite3", "subprocess", "tempfile", "threading", "time", "uuid"),
    *("ledger.database", "ledger.disk", "ledger.moves", "ledger.queries", "ledger.removal"),
    *("ledger.states", "ledger.system"),
}
READS_A_CLOCK = {"now", "utcnow", "today", "open", "print", "input"}


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE))


# -- What a source says


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of modules, of names taken out of them as well: `ledger`, `ledger.plan`, …"""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that this test can read them"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def changes_of_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What unlinks ("remove") and what renames ("rename"), called or only mentioned, by line."""
    for node in ast.walk(tree):
        for name in mentioned(node):
            if name in REMOVES or name == "os.remove":
                yield "remove", node.lineno  # type: ignore[attr-defined]
            elif name in RENAMES or name in {"os.replace", "shutil.move", "Path.replace"}:
                yield "rename", node.lineno  # type: ignore[attr-defined]


def mentioned(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Attribute(value=ast.Name(id="os" | "shutil" as module), attr=name):
            yield from (name, f"{module}.{name}")
        case ast.Attribute(attr=name):
            yield name
        case ast.ImportFrom(module=module, names=names):
            for alias in names:
                yield from (alias.name, f"{module}.{alias.name}")
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
            yield from (name, f"os.{name}")
        # A string's takes two arguments, a date's or a dataclass's takes keywords.
        case ast.Call(func=ast.Attribute(attr="replace"), args=[_], keywords=[]):
            yield "Path.replace"


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


# -- The reading itself


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("import os; os.unlink(x)", ["remove"]),
        ("import os; os.remove(x)", ["remove"]),
        ("pool.map(os.rmdir, names)", ["remove"]),
        ("path.unlink(missing_ok=True)", ["remove"]),
        ("from shutil import rmtree", ["remove"]),
        ("from os import remove as tidy", ["remove"]),
        ("getattr(os, 'unlink')(x)", ["remove"]),
        ("path.rename(other)", ["rename"]),
        ("path.replace(other)", ["rename"]),
        ("os.replace(a, b)", ["rename"]),
        ("from shutil import move", ["rename"]),
        ("system.rename_noreplace('a', 'b', src_dir_fd=1, dst_dir_fd=1)", ["rename"]),
        ("from ledger.system import rename_noreplace", ["rename"]),
        ("names.remove(x)", []),
        ("'text'.replace('a', 'b')", []),
        ("moment.replace(tzinfo=None); dataclasses.replace(row, state=1)", []),
        ("removal.unlink_file('a', dir_fd=1)", []),
    ],
)
def test_the_scan_knows_what_removes_and_what_renames(source: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in changes_of_names(ast.parse(source))] == kinds


def test_the_scan_reads_the_sources() -> None:
    assert {"ledger/removal.py", "ledger/system.py", "coatcheck.py"} <= {*map(name_of, SOURCES)}
    kinds = {kind for kind, _ in changes_of_names(tree_of(HOUSE / "ledger/removal.py"))}
    assert kinds == {"remove", "rename"}


# -- What holds


def test_only_removal_unlinks_and_only_moves_renames() -> None:
    for path in SOURCES:
        found = [(kind, line) for kind, line in changes_of_names(tree_of(path))]
        if name_of(path) in MAY_REMOVE:
            found = [(kind, line) for kind, line in found if kind != "remove"]
        if name_of(path) in MAY_RENAME:
            found = [(kind, line) for kind, line in found if kind != "rename"]
        assert found == [], path


def test_imports_point_one_way() -> None:
    for path in SOURCES:
        own = path.relative_to(HOUSE).parts[0].removesuffix(".py")
        tops = {name.split(".")[0] for name in imported(tree_of(path))}
        assert tops & MAY_IMPORT.keys() - {own} <= MAY_IMPORT[own], path


def test_of_the_service_the_dashboard_knows_the_client_alone() -> None:
    for path in (path for path in SOURCES if "tui/" in name_of(path)):
        of_web = {name for name in imported(tree_of(path)) if name.split(".")[0] == "web"}
        assert all(name.startswith(("web.client", "web.asking")) for name in of_web), path


FOR_SERVICES = {"fastapi", "starlette", "uvicorn"}


@pytest.mark.parametrize(
    "one_after_the_other",
    [
        {
            "ledger": FOR_SERVICES | {"httpx", "textual", "web", "tui"},
            "coatcheck": FOR_SERVICES | {"httpx", "textual"},
            "web.asking, tui.local": FOR_SERVICES | {"httpx"},
            "web.client, tui.remote": FOR_SERVICES,
        },
        {"web.uploads": {"httpx"}},
    ],
    ids=["the dashboard", "the service"],
)
def test_what_is_imported_brings_nothing_that_it_does_not_need(
    one_after_the_other: dict[str, set[str]],
) -> None:
    code = "; ".join(f"import sys, {each}; print(*sys.modules)" for each in one_after_the_other)
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=True)
    for never, loaded in zip(one_after_the_other.values(), ran.stdout.splitlines(), strict=True):
        assert never.isdisjoint(name.split(".")[0] for name in loaded.split())


def test_a_report_on_a_new_ledger_needs_no_service_no_migrations_and_no_other_database(
    tmp_path: Path,
) -> None:
    code = "import sys, coatcheck; coatcheck.run(['report']); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ran.stderr.split())
    assert "ledger.database" in loaded
    never = {"httpx", "fastapi", "textual", "alembic", "sqlalchemy.dialects.postgresql"}
    assert never.isdisjoint(loaded)


def test_within_the_ledger_a_file_imports_only_what_stands_below_it() -> None:
    for path in (path for path in SOURCES if "ledger" in name_of(path)):
        own = path.relative_to(HOUSE / "ledger").parts[0].removesuffix(".py")
        assert own in ORDER, f"give ledger/{own}.py its place in ORDER"
        below = ORDER[ORDER.index(own) + 1 :]
        names = {name for name in imported(tree_of(path)) if name.startswith("ledger.")}
        named = {name.split(".")[1] for name in names}
        siblings = {
            each for each in named if each in ORDER or (HOUSE / f"ledger/{each}.py").exists()
        }
        assert siblings - {own} <= set(below), path


@pytest.mark.skipif(not (HOUSE / "ledger/plan.py").exists(), reason="there is no plan yet")
def test_the_plan_does_no_io_and_reads_no_clock() -> None:
    tree = tree_of(HOUSE / "ledger/plan.py")
    assert CLOCKS_AND_IO.isdisjoint(imported(tree))
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    assert READS_A_CLOCK.isdisjoint(called)
