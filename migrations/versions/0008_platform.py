"""The platform: its content, its masters, and sessions that its people open in somebody's name.

Revision: 0008, after 0007.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "platform_content",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["updated_by"], ["users.id"], name=op.f("fk_platform_content_updated_by_users"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_platform_content")),
    )
    op.add_column("users", sa.Column("is_platform_master", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("user_sessions", sa.Column("impersonated_by", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_user_sessions_impersonated_by_users"),
        "user_sessions",
        "users",
        ["impersonated_by"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_index(
        op.f("ix_user_sessions_impersonated_by"),
        "user_sessions",
        ["impersonated_by"],
        postgresql_where=sa.text("impersonated_by IS NOT NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # The older release would take them for sessions of the people themselves.
    op.execute("DELETE FROM user_sessions WHERE impersonated_by IS NOT NULL")
    op.drop_column("user_sessions", "impersonated_by")
    op.drop_column("users", "is_platform_master")
    op.drop_table("platform_content")
