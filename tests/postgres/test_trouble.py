"""A server in trouble: every error in words, no password in any of them, and nothing for ever."""

from __future__ import annotations

import select
import socket
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError
from sqlalchemy import text

from ledger import (
    LedgerFull,
    LedgerGone,
    LedgerTooNew,
    LedgerUnavailable,
    RootMismatch,
    SessionLedger,
    Settings,
    UsageError,
    states,
)
from ledger.database import HEAD, Database
from ledger.demo import SCENES
from tests.ledger.world import Clock, World, around
from tests.ledgers import Databases, Server
from tests.postgres.proxy import Proxy

pytestmark = pytest.mark.postgresql

PASSWORD = "s3cr3t%2Fpass%40word"
SECRETS = ("s3cr3t", "pass@word", "pass%40word")


@contextmanager
def another(server: Server, database: str) -> Iterator[psycopg.Connection[Any]]:
    """What somebody else does to the same database, in one transaction."""
    with psycopg.connect(host=str(server.data), user="postgres", dbname=database) as connection:
        yield connection
        connection.rollback()


def told(error: pytest.ExceptionInfo[BaseException]) -> str:
    """All that a log would have of it."""
    return "".join(traceback.format_exception(error.value)) + repr(error.value)


# Opening


def opened(url: str) -> None:
    Database(Settings(ledger=url)).close()


def test_a_password_opens_the_ledger_and_is_shown_nowhere(
    proxy: Proxy, database: str, postgres: Server
) -> None:
    settings = Settings(ledger=proxy.url(database, f"guarded:{PASSWORD}"))
    with_it = Database(settings)
    assert "guarded" in with_it.name
    assert not any(secret in f"{with_it.name}{settings!r}" for secret in SECRETS)
    with_it.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://guarded:wr0ng@{at}/{database}",
        "postgresql+psycopg://guarded@{at}/{database}?password=wr0ng",
        "postgresql+psycopg://guarded:wr0ng@{at}/nowhere",
        "postgresql+psycopg://guarded:wr0ng@127.0.0.1:1/{database}",
        "postgresql+psycopg://guarded:wr0ng@no.such.host.invalid/{database}",
    ],
)
def test_a_ledger_that_cannot_be_opened_says_why_but_not_the_password(
    url: str, proxy: Proxy, database: str, impatient: None
) -> None:
    at = proxy.url("").split("@")[1].strip("/")
    with pytest.raises(LedgerUnavailable, match="cannot be reached") as error:
        opened(url.format(at=at, database=database))
    assert "wr0ng" not in told(error)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://guarded:wr0ng@host:port/name",
        "postgresql+psycopg://guarded:wr0ng@wr0ng@host/name",
    ],
)
def test_a_url_that_cannot_be_read_is_a_wrong_setting_and_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="COATCHECK_LEDGER") as error:
        opened(url)
    assert "wr0ng" not in str(error.value)


def test_settings_that_are_refused_do_not_repeat_the_password() -> None:
    url = "postgresql://guarded:" + "wr0ng@host/name"
    with pytest.raises(ValidationError, match="LEDGER") as error:
        Settings(ledger=url)
    assert "wr0ng" not in told(error)


def test_a_silent_server_is_not_waited_for_for_ever(impatient: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(LedgerUnavailable, match="timeout"):
            opened(f"postgresql+psycopg://postgres@127.0.0.1:{port}/any")


def test_a_role_without_rights_is_told_so(postgres: Server, databases: Databases) -> None:
    name = databases.new()
    with pytest.raises(LedgerUnavailable, match="permission denied"):
        opened(postgres.url(name, "powerless"))


def test_a_ledger_of_a_newer_coatcheck_is_left_alone(
    postgres: Server, database: str, postgres_url: str
) -> None:
    postgres.do("UPDATE coatcheck_schema SET version_num = '9999'", database=database)
    try:
        with pytest.raises(LedgerTooNew, match="9999"):
            opened(postgres_url)
    finally:
        postgres.do(f"UPDATE coatcheck_schema SET version_num = '{HEAD}'", database=database)


# Locked


def lock_row(connection: psycopg.Connection[Any], session_id: str) -> None:
    query = "SELECT 1 FROM coatcheck_session WHERE session_id = %s FOR UPDATE"
    connection.execute(query, [session_id])


def test_a_row_that_somebody_keeps_locked_is_waited_for_only_so_long(
    near_world: World, postgres: Server, database: str
) -> None:
    its = near_world.create()
    with another(postgres, database) as other:
        lock_row(other, its)
        for act in (near_world.sessions.touch, near_world.sessions.delete_session):
            with pytest.raises(LedgerUnavailable, match="stayed locked"):
                act(its)
    assert near_world.sessions.delete_session(its)


def test_a_row_that_somebody_keeps_locked_holds_up_none_that_come_with_it(
    near_world: World, postgres: Server, database: str
) -> None:
    locked, *others = (near_world.create() for _ in range(3))
    sessions, before = near_world.sessions, near_world.known(locked)
    with another(postgres, database) as other:
        lock_row(other, locked)
        assert {each.id for each in sessions.touch_all([locked, *others])} == set(others)
        assert sessions.touch_all([locked]) == []  # at once: those of the next batch wait for it
        assert sessions.delete_all([locked, *others]) == set(others)
    assert near_world.known(locked) == before
    assert sessions.delete_all([locked]) == {locked}


def test_a_row_locked_in_the_middle_of_its_deletion_is_left_to_be_finished(
    near_world: World, postgres: Server, database: str
) -> None:
    locked, free = (near_world.create() for _ in range(2))
    with another(postgres, database) as other:
        ids = [locked, free]
        with around("life._into_trash", before=lambda: lock_row(other, locked)):
            assert near_world.sessions.delete_all(ids) == {free}
    assert near_world.sessions.delete_session(locked)
    assert near_world.state(locked) == "deleted"
    assert near_world.standing() == set()
    near_world.reopen()
    assert near_world.in_trash() == []


def test_a_row_locked_for_a_moment_in_the_middle_of_its_deletion_is_waited_for(
    near_world: World, postgres: Server, database: str
) -> None:
    """Else a sweep may finish it, and its DELETE be told that there was nothing to delete."""
    ids = [near_world.create() for _ in range(2)]
    with another(postgres, database) as other:
        steps = iter([lambda: None, lambda: lock_row(other, ids[0]), other.rollback])
        with around("states.move_all", before=lambda: next(steps)(), times=3) as moves:
            assert near_world.sessions.delete_all(ids) == set(ids)
    assert len(moves) == 3
    assert {near_world.state(name) for name in ids} == {"deleted"}


def test_two_that_wait_for_each_other_do_not_wait_for_ever(near_world: World) -> None:
    place = near_world.sessions.place
    its = (near_world.create(), near_world.create())
    both_have_one = threading.Barrier(2)

    def touch(session_ids: tuple[str, ...]) -> str:
        try:
            with place.database.write() as connection:
                connection.execute(text("SET LOCAL deadlock_timeout = 100"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                for session_id in session_ids:
                    states.touch(connection, place.root_id, session_id, near_world.clock())
                    if session_id == session_ids[0]:
                        both_have_one.wait(20)
        except LedgerUnavailable as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(2) as threads:
        told = set(threads.map(touch, [its, its[::-1]]))
    assert "done" in told
    assert [each for each in told if "stayed locked" in each]


def test_a_process_that_stands_still_in_a_transaction_holds_nobody_up_for_ever(
    near_world: World,
) -> None:
    its = near_world.create()
    place = near_world.sessions.place

    def stand_still() -> None:
        with place.database.write() as connection:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
            states.touch(connection, place.root_id, its, near_world.clock())
            ended = select.poll()
            driver: Any = connection.connection.driver_connection
            ended.register(driver.fileno(), select.POLLIN)
            assert ended.poll(20_000)
            states.touch(connection, place.root_id, its, near_world.clock())

    with pytest.raises(LedgerUnavailable, match="idle"):
        stand_still()
    assert near_world.sessions.touch(its).id == its


def test_a_server_that_defaults_to_serializable_changes_nothing(
    near_world: World, postgres: Server, database: str
) -> None:
    postgres.do(
        f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'",
        f"ALTER DATABASE {database} SET synchronous_commit = 'off'",
    )
    try:
        world = near_world.reopen()
        with world.place.database.write(durable=True) as connection:
            isolation = connection.execute(text("SHOW transaction_isolation")).scalar()
            durable = connection.execute(text("SHOW synchronous_commit")).scalar()
        assert (isolation, durable) == ("read committed", "on")
        with world.place.database.write() as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "off"
    finally:
        postgres.do(f"ALTER DATABASE {database} RESET ALL")


# Lost


def test_connections_lost_while_idle_are_noticed_by_nobody(
    near_world: World, postgres: Server, database: str
) -> None:
    its = near_world.create()
    for _ in range(3):
        postgres.cut_off(database)
        assert near_world.sessions.touch(its).id == its


def test_a_connection_lost_in_a_transaction_is_an_error_once(
    near_world: World, postgres: Server, database: str
) -> None:
    its = near_world.create()
    place = near_world.sessions.place
    version = near_world.known(its).version

    def read() -> None:
        with place.database.read() as connection:
            connection.execute(text("SELECT 1"))
            postgres.cut_off(database)
            connection.execute(text("SELECT 1"))

    def write() -> None:
        with place.database.write() as connection:
            states.touch(connection, place.root_id, its, near_world.clock())
            postgres.cut_off(database)

    for act in (read, write):
        with pytest.raises(LedgerUnavailable):
            act()
        assert near_world.known(its).version == version


def test_a_server_that_is_away_is_said_to_be_and_is_used_again_when_it_is_back(
    far_world: World, proxy: Proxy
) -> None:
    its = far_world.create()
    proxy.leave()
    for act in (
        lambda: far_world.sessions.get(its),
        lambda: far_world.sessions.touch(its),
        lambda: far_world.sessions.create(),
        lambda: far_world.sessions.delete_session(its),
        lambda: far_world.sessions.claim(its, into="spring"),
        lambda: far_world.sessions.sweep(),
        lambda: far_world.sessions.report(),
    ):
        with pytest.raises(LedgerUnavailable):
            act()
    assert far_world.sessions.health().ledger
    assert not far_world.sessions.health().ready
    proxy.mend()
    assert far_world.sessions.health().ready
    assert far_world.standing() == {its}
    assert far_world.sessions.touch(its).id == its
    assert far_world.sessions.sweep().settled


def test_a_server_that_only_reads_is_said_to(
    near_world: World, postgres: Server, database: str
) -> None:
    its = near_world.create()
    postgres.do(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    try:
        postgres.cut_off(database)
        with pytest.raises(LedgerUnavailable, match="read-only"):
            near_world.sessions.touch(its)
        assert near_world.sessions.get(its).id == its
    finally:
        postgres.do(f"ALTER DATABASE {database} RESET ALL")
        postgres.cut_off(database)
    assert near_world.sessions.touch(its).id == its


def test_a_full_server_is_said_to_be(near_world: World) -> None:
    with pytest.raises(LedgerFull, match="server"), near_world.sessions.place.database.write() as c:
        c.execute(text("DO $$ BEGIN RAISE disk_full; END $$"))


def test_too_many_connections_are_an_error_that_passes(
    near_world: World, postgres: Server, database: str
) -> None:
    url = postgres.url(database, "few")
    with (
        psycopg.connect(host=str(postgres.data), user="few", dbname=database),
        pytest.raises(LedgerUnavailable, match="too many connections"),
    ):
        opened(url)
    opened(url)


# Gone


def test_a_ledger_whose_tables_are_gone_is_gone(
    tmp_path: Path, clock: Clock, postgres: Server, databases: Databases
) -> None:
    name = databases.new()
    world = World(tmp_path, clock, postgres.url(name))
    its = world.create()
    postgres.do("DROP TABLE coatcheck_session", database=name)
    with pytest.raises(LedgerGone, match="coatcheck adopt"):
        world.sessions.touch(its)
    with pytest.raises(LedgerGone):
        world.sessions.sweep()
    postgres.do(f"DROP DATABASE {name} WITH (FORCE)")
    with pytest.raises(LedgerUnavailable, match="does not exist"):
        world.sessions.touch(its)
    assert world.standing() == {its}
    world.sessions.close()


def test_a_root_that_the_ledger_no_longer_has_is_not_swept(
    near_world: World, postgres: Server, database: str
) -> None:
    its = SCENES["stale"].build(near_world.sessions).session_id
    postgres.do("TRUNCATE coatcheck_root", database=database)
    with pytest.raises(RootMismatch, match="no longer has"):
        near_world.sessions.sweep()
    assert near_world.standing() == {its}
    assert near_world.sessions.health().root
    with pytest.raises(RootMismatch, match="coatcheck adopt"):
        near_world.reopen()
    near_world.sessions = near_world.open(adopt=True)
    assert near_world.standing() == {its}


# What a server does not take


@pytest.mark.parametrize("label", ["a\0b", "lone \ud800 surrogate"])
def test_a_label_that_no_server_can_hold_is_refused(label: str, ledger_url: str) -> None:
    with (
        SessionLedger.open(Settings(ledger=ledger_url)) as sessions,
        pytest.raises(UsageError, match="label"),
    ):
        sessions.create(label)


def test_labels_and_searches_in_any_script_work_on_either_ledger(ledger_url: str) -> None:
    with SessionLedger.open(Settings(ledger=ledger_url)) as sessions:
        label = "Größe 50% _bestellt_ 日本 🧥 'quoted' \\"
        its = sessions.create(label).id
        sessions.create("another")
        for part in ("BESTELLT", "50%", "_bestellt_", "日本", "🧥", "'quoted' \\", its[3:9]):
            assert [found.id for found in sessions.page(q=part)] == [its], part
        assert sessions.page(q="50_") == sessions.page(q="nowhere") == sessions.page(q="a\0b") == []
