"""The guide, the README and the code say the same: commands, options, exit codes, settings,
calls and routes."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import coatcheck
from ledger import SessionLedger, Settings
from tests.cli import HOUSE, cc
from web.app import create_app

GUIDE = (HOUSE / "docs/guide.md").read_text()
DOCS = [HOUSE / "README.md", *sorted((HOUSE / "docs").glob("*.md"))]
UNIVERSAL = {"--help", "-h", "-y"}


def table(head: str) -> list[list[str]]:
    """The rows of the guide's table whose first column is headed so."""
    text = GUIDE.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines()[2:]]
    assert rows, f"the guide has no table of {head}"
    return [[cell.strip() for cell in row] for row in rows]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def group() -> Any:
    return typer.main.get_command(coatcheck.app)


def options(command: Any) -> set[str]:
    found = {name for each in command.params for name in each.opts if name.startswith("-")}
    return found - UNIVERSAL


def arguments(command: Any) -> list[str]:
    return [each.metavar for each in command.params if each.param_type_name == "argument"]


def test_the_guide_has_every_command_with_its_arguments_and_options() -> None:
    told = {row[0].strip("`"): set(quoted(row[1])) for row in table("command")}
    real = {
        " ".join([name, *arguments(command)]): options(command)
        for name, command in group().commands.items()
    }
    assert told == real


def test_the_guide_has_every_exit_code() -> None:
    codes = {code for _, code in coatcheck.EXIT_CODES} | {coatcheck.DONE, coatcheck.INTERRUPTED}
    assert {int(row[0]) for row in table("exit code")} == codes


def test_the_guide_has_every_setting_with_its_default() -> None:
    told = {row[0].strip("`"): row[1].strip("`") for row in table("name")}
    assert list(told) == [name.upper() for name in Settings.model_fields]
    defaults = Settings()
    for name, default in told.items():
        value = getattr(defaults, name.lower())
        if default == "none":
            assert value in (None, ()), name
        elif default in ("true", "false"):
            assert value is (default == "true"), name
        elif default.isdecimal():
            assert value == int(default), name
    assert Path(told["ROOT"]) == defaults.root
    assert defaults.max_session_bytes == 1 << 30


def test_the_guide_has_every_call() -> None:
    calls = {name for row in table("call") for name in re.findall(r"`(\w+)\(", row[0])}
    public = {
        name
        for name, value in inspect.getmembers(SessionLedger, inspect.isroutine)
        if not name.startswith("_")
    }
    assert calls == public


def test_the_guide_has_every_route_with_its_answers() -> None:
    app = create_app(Settings())
    real: dict[str, set[str]] = {}
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            real[f"{method.upper()} {path}"] = set(operation["responses"])
    told = {row[0].strip("`"): set(re.findall(r"\b[2345]\d\d\b", row[2])) for row in table("route")}
    assert told.keys() == real.keys()
    general = {code for row in table("status") for code in re.findall(r"\d{3}", row[0])}
    for route, answers in told.items():
        assert answers <= real[route], route
        assert real[route] <= answers | general, route


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_command_line_in_the_docs_can_be_typed(path: Path) -> None:
    commands = group().commands
    for line in re.findall(r"coatcheck ((?:[a-z]+)(?: [^\n`|#]*)?)", path.read_text()):
        name, *rest = line.split()
        if name not in commands:
            continue  # a sentence about coatcheck
        unknown = {word.rstrip(',.;:)"') for word in rest if word.startswith("--")}
        assert unknown <= options(commands[name]), line


def test_the_readme_names_only_commands_that_there_are() -> None:
    named = re.findall(r"`coatcheck ([a-z]+)", "".join(path.read_text() for path in DOCS))
    assert named
    assert set(named) <= set(group().commands)


def test_help_tells_the_same_exit_codes() -> None:
    said = " ".join(cc("--help").out.split())
    for code in (0, 1, 2, 3, 4):
        assert f" {code} " in said
