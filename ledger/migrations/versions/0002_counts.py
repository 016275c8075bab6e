"""Counts are kept; a sweep tells what the trash holds; the oldest live session is found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LIVE = sa.text("state = 'active'")


def upgrade() -> None:
    op.create_table(
        "coatcheck_count",
        sa.Column("root_id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("labels", sa.String(), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    op.execute(
        "INSERT INTO coatcheck_count (root_id, name, labels, value) "
        "SELECT root_id, 'sessions', state, count(*) FROM coatcheck_session GROUP BY root_id, state"
    )
    op.add_column("coatcheck_sweep", sa.Column("trash_bytes", sa.BigInteger(), nullable=True))
    op.create_index(
        "coatcheck_session_live",
        "coatcheck_session",
        ["root_id", "created_at"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
