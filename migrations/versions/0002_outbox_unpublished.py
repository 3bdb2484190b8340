"""Find unpublished outbox rows by index."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
phase = "expand"


def upgrade() -> None:
    # CONCURRENTLY lets writers go on; it cannot run in a transaction, so it stands alone here.
    with op.get_context().autocommit_block():
        op.create_index(
            "outbox_unpublished",
            "outbox",
            ["id"],
            postgresql_where=sa.text("published_at IS NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
