"""Add a note to the orders' write model."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
phase = "expand"


def upgrade() -> None:
    op.add_column("order_requests", sa.Column("note", sa.Text))
