"""The schema: made by one of many processes, as the models say it is; and how history goes."""

import itertools
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, update
from sqlmodel import SQLModel

from ledger import LedgerDamaged, LedgerTooNew, SessionLedger, Settings
from ledger.database import HEAD, VERSION_TABLE, Database
from ledger.models import EVENTS, SESSIONS, SWEEPS
from tests.hostile.worlds import fork
from tests.ledger.schemas import alembic_on, to_first_schema
from tests.ledger.world import World, after_transactions, around
from tests.ledgers import BOTH, Databases

DAY_HOURS = 24


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "temp")


def file_of(settings: Settings) -> Path:
    file = settings.ledger_file
    assert file is not None
    return file


def revision_in(file: Path) -> list[tuple[str]]:
    with sqlite3.connect(file) as connection:
        found = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall()
    connection.close()
    return found


def test_twelve_processes_open_a_new_ledger_at_once_and_all_succeed(settings: Settings) -> None:
    def open_it() -> None:
        with SessionLedger.open(settings) as sessions:
            sessions.create()

    children = [fork(lambda: _or_fail(open_it)) for _ in range(12)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 12
    with SessionLedger.open(settings) as sessions:
        assert len(sessions.page(most=100)) == 12
        assert sessions.report().settled
    assert revision_in(file_of(settings)) == [(HEAD,)]


def _or_fail(act: Callable[[], None]) -> None:
    try:
        act()
    except BaseException:
        os._exit(1)


def test_a_ledger_that_is_killed_as_it_is_made_is_no_half_ledger(settings: Settings) -> None:
    def killed() -> None:
        with around("database.Database._make", after=lambda: os._exit(9)):
            SessionLedger.open(settings)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(killed), 0)[1]) == 9
    assert names_in(file_of(settings)) == set()
    with SessionLedger.open(settings) as sessions:
        assert sessions.create().state == "active"


def test_an_upgrade_that_is_killed_half_way_leaves_no_half_schema(settings: Settings) -> None:
    with SessionLedger.open(settings) as sessions:
        sessions.create()
        to_first_schema(sessions.place.database)
        sessions.place.tally.take()
    before = names_in(file_of(settings))

    def killed() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("alembic.op.create_index", lambda *_, **__: os._exit(9))
            SessionLedger.open(settings)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(killed), 0)[1]) == 9
    assert names_in(file_of(settings)) == before
    assert revision_in(file_of(settings)) == [("0001",)]
    with SessionLedger.open(settings) as sessions:
        assert sessions.create().state == "active"
    assert names_in(file_of(settings)) > before


def names_in(file: Path) -> set[str]:
    """Of its tables and indexes."""
    with closing(sqlite3.connect(file)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_an_empty_file_is_a_new_ledger(settings: Settings) -> None:
    file_of(settings).touch()
    SessionLedger.open(settings).close()
    assert revision_in(file_of(settings)) == [(HEAD,)]


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(settings: Settings) -> None:
    SessionLedger.open(settings).close()
    file = file_of(settings)
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(LedgerTooNew) as refused:
        SessionLedger.open(settings)
    said = str(refused.value)
    assert str(file) in said
    assert "9999" in said
    assert HEAD in said
    assert "Install that version" in said
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "wrong", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 9000]
)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(
    settings: Settings, wrong: bytes
) -> None:
    file_of(settings).write_bytes(wrong)
    with pytest.raises(LedgerDamaged, match="put a copy back"):
        SessionLedger.open(settings)
    assert file_of(settings).read_bytes() == wrong
    assert not (settings.root / ".coatcheck").exists()


@pytest.fixture(params=BOTH)
def two_new_ones(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The URLs of two databases with nothing in them, not even a schema."""
    if request.param == "sqlite":
        return [f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other")]
    databases: Databases = request.getfixturevalue("databases")
    return [databases.server.url(databases.new()) for _ in range(2)]


def test_a_new_ledger_is_what_the_migrations_make_of_nothing(
    two_new_ones: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def schema(url: str) -> dict[str, object]:
        database = Database(Settings(ledger=url))
        with database.engine.connect() as connection:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, SQLModel.metadata) == []
            found = described(connection)
        database.close()
        return found

    made = schema(two_new_ones[0])

    def migrated(_: Database, connection: Connection) -> None:
        command.upgrade(alembic_on(connection), "head")

    monkeypatch.setattr(Database, "_make", migrated)
    assert schema(two_new_ones[1]) == made
    assert {"coatcheck_schema", "coatcheck_session", "coatcheck_count"} <= made.keys()


def described(connection: Connection) -> dict[str, object]:
    """All that can be told of each table; in which order its columns stand is no matter."""
    looking = inspect(connection)

    def told(of: object) -> str:
        if isinstance(of, dict):
            return str({key: told(of[key]) for key in sorted(of)})
        return str(of)

    def all_told(found: Iterable[Mapping[str, Any]]) -> list[str]:
        return [told(dict(each)) for each in found]

    return {
        name: (
            sorted(all_told(looking.get_columns(name))),
            looking.get_pk_constraint(name)["constrained_columns"],
            all_told(looking.get_indexes(name)),  # in their order, too: see `models.creation`
            looking.get_unique_constraints(name),
        )
        for name in looking.get_table_names()
    }


def test_the_migrations_are_one_line_that_ends_at_the_head() -> None:
    scripts = ScriptDirectory.from_config(alembic_on())
    assert scripts.get_heads() == [HEAD]
    assert scripts.get_bases() == ["0001"]
    assert [script.is_merge_point for script in scripts.walk_revisions()].count(True) == 0


def test_a_ledger_of_today_is_opened_without_a_migration(settings: Settings) -> None:
    SessionLedger.open(settings).close()
    with around("database.Database._upgrade", before=lambda: pytest.fail("upgraded")):
        SessionLedger.open(settings).close()


@pytest.mark.sqlite
def test_a_ledger_is_in_wal_mode_and_a_claim_is_durable(world: World) -> None:
    database = world.sessions.place.database
    pragmas: list[tuple[str, int]] = []
    with database.write() as connection:
        pragmas.append(_pragmas(connection))
    with database.write(durable=True) as connection:
        pragmas.append(_pragmas(connection))
    assert pragmas == [("wal", 1), ("wal", 2)]


def _pragmas(connection: object) -> tuple[str, int]:
    run = connection.exec_driver_sql  # type: ignore[attr-defined]
    return run("PRAGMA journal_mode").scalar(), run("PRAGMA synchronous").scalar()


# -- History


def counts(world: World) -> tuple[int, int, int]:
    with world.sessions.place.database.read() as connection:
        tables = (SESSIONS, EVENTS, SWEEPS)
        return tuple(len(connection.execute(table.select()).all()) for table in tables)  # type: ignore[return-value]


def test_history_goes_after_its_days_and_what_lives_stays(any_world: World) -> None:
    world = any_world
    ended = [world.create() for _ in range(3)]
    world.sessions.delete_session(ended[0])
    world.sessions.claim(ended[1], into="spring")
    (world.root / ended[2]).rename(world.folder / "gone")
    world.sessions.sweep()
    world.clock.passes(29 * DAY_HOURS)
    live = world.create()
    world.sessions.sweep()
    assert {world.state(name) for name in ended} == {"deleted", "claimed", "missing"}
    events = len(world.all_events())
    world.clock.passes(1.1 * DAY_HOURS)
    world.sessions.touch(live)
    world.sessions.sweep()
    assert [world.row(name) for name in ended] == [None] * 3
    assert world.state(live) == "active"
    assert len(world.all_events()) == 1 < events
    assert counts(world) == (1, 1, 2)
    assert (world.claims / "spring/photo.jpg").exists()


def test_a_session_that_lives_for_ever_keeps_its_row(world: World) -> None:
    session_id = world.create()
    for _ in range(40):
        world.clock.passes(20)
        world.sessions.touch(session_id)
    world.sessions.sweep()
    assert world.state(session_id) == "active"


def test_how_long_history_is_kept_is_a_setting(world: World) -> None:
    world.reopen(keep_history_days=0.5)
    session_id = world.create()
    world.sessions.delete_session(session_id)
    world.clock.passes(13)
    world.sessions.sweep()
    assert world.row(session_id) is None


def test_history_goes_in_small_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a short transaction: whoever wants to write meanwhile can."""
    monkeypatch.setattr("ledger.pruning._PRUNED_AT_ONCE", 5)
    for _ in range(12):
        world.sessions.delete_session(world.create())
    world.clock.passes(31 * DAY_HOURS)
    gone: list[tuple[int, int, int]] = [counts(world)]
    with after_transactions(lambda: gone.append(counts(world))):
        world.sessions.sweep()
    steps = [pair for table in zip(*gone, strict=True) for pair in itertools.pairwise(table)]
    assert max(before - after for before, after in steps) == 5
    assert (gone[0], gone[-1]) == ((12, 36, 0), (0, 0, 1))


def test_a_dry_runs_list_is_kept_an_hour(world: World) -> None:
    reports = world.root / ".coatcheck/reports"
    for name, age in [("1.json", 0.9), ("2.json", 1.1)]:
        (reports / name).write_text("{}")
        world.date(reports / name, age)
        os.utime(reports / name, ns=(world.hours_ago(age) * 1000,) * 2)
    world.sessions.sweep()
    assert os.listdir(reports) == ["1.json"]


def test_an_old_row_is_read_whatever_the_version_counts(world: World) -> None:
    """Versions only ever grow, and may be large."""
    session_id = world.create(age=30)
    with world.sessions.place.database.write() as connection:
        connection.execute(update(SESSIONS).values(version=2**62))
    assert world.sessions.sweep().removed == 1
    assert world.state(session_id) == "expired"


@pytest.mark.parametrize("name", ["what?mode=memory", "100%41", "a#b", "at@host:1"])
def test_the_ledger_lies_where_it_is_said_whatever_is_in_the_name(
    name: str, tmp_path: Path
) -> None:
    settings = Settings(root=tmp_path / name / "temp")
    with SessionLedger.open(settings) as sessions:
        sessions.create()
    assert os.listdir(tmp_path) == [name]
    assert "ledger.db" in os.listdir(tmp_path / name)
