"""The schema as Alembic makes it, and as it was."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from ledger.database import MIGRATIONS, VERSION_TABLE, Database


def alembic_on(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    return config


def to_first_schema(database: Database) -> None:
    """What the second migration has made is taken back."""
    with database.engine.begin() as connection:
        for statement in (
            "DROP TABLE coatcheck_count",
            "DROP INDEX coatcheck_session_live",
            "ALTER TABLE coatcheck_sweep DROP COLUMN trash_bytes",
        ):
            connection.execute(text(statement))
        command.stamp(alembic_on(connection), "0001")
