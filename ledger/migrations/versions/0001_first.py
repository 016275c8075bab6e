"""The first schema: roots, sessions, events, sweeps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "coatcheck_root",
        sa.Column("root_id", sa.String(), primary_key=True),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("accepted_max_age_us", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_boot_id", sa.String(), nullable=False),
        sa.Column("heartbeat_boottime_us", sa.BigInteger(), nullable=False),
        sa.Column("distrusted_why", sa.String(), nullable=True),
        sa.Column("steady_boot_id", sa.String(), nullable=True),
        sa.Column("steady_since_us", sa.BigInteger(), nullable=True),
    )
    op.create_table(
        "coatcheck_session",
        sa.Column("pk", KEY, primary_key=True),
        sa.Column("root_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("touched", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_touch_at", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("inode", sa.String(), nullable=True),
        sa.Column("remover", sa.String(), nullable=True),
        sa.Column("trash", sa.String(), nullable=True),
        sa.Column("destination", sa.String(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.Column("ended_why", sa.String(), nullable=True),
    )
    op.create_index(
        "coatcheck_session_by_id", "coatcheck_session", ["root_id", "session_id"], unique=True
    )
    op.create_index("coatcheck_session_by_name", "coatcheck_session", ["session_id"])
    op.create_index(
        "coatcheck_session_by_state",
        "coatcheck_session",
        ["root_id", "state", "last_touch_at", "pk", "bytes"],
    )
    op.create_index(
        "coatcheck_session_by_created", "coatcheck_session", ["root_id", "created_at", "pk"]
    )
    op.create_index(
        "coatcheck_session_by_touch", "coatcheck_session", ["root_id", "last_touch_at", "pk"]
    )
    op.create_index("coatcheck_session_by_bytes", "coatcheck_session", ["root_id", "bytes", "pk"])
    op.create_index("coatcheck_session_by_files", "coatcheck_session", ["root_id", "files", "pk"])
    op.create_index("coatcheck_session_by_end", "coatcheck_session", ["root_id", "ended_at"])
    op.create_table(
        "coatcheck_event",
        sa.Column("event_id", KEY, primary_key=True),
        sa.Column("root_id", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("session_pk", sa.BigInteger(), nullable=True),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("from_state", sa.String(), nullable=True),
        sa.Column("to_state", sa.String(), nullable=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
    )
    op.create_index("coatcheck_event_by_session", "coatcheck_event", ["session_pk", "event_id"])
    op.create_table(
        "coatcheck_sweep",
        sa.Column("sweep_id", KEY, primary_key=True),
        sa.Column("root_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("max_age_us", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        sa.Column("waiting", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Text(), nullable=False),
        sa.Column("failures", sa.Text(), nullable=False),
        sa.Column("stopped_by", sa.String(), nullable=True),
        sa.Column("why", sa.String(), nullable=True),
        sa.Column("live_sessions", sa.BigInteger(), nullable=True),
        sa.Column("live_bytes", sa.BigInteger(), nullable=True),
        sa.Column("carried_out_at", sa.BigInteger(), nullable=True),
    )
    op.create_index("coatcheck_sweep_by_root", "coatcheck_sweep", ["root_id", "sweep_id"])
