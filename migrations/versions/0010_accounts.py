"""Accounts: verified addresses, letters that prove one, and attempts counted without Redis.

Revision: 0010, after 0009.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PURPOSES = "ck_one_time_tokens_purpose"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Invitations belong to tenants, and nobody's are seen without saying so (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.add_column("users", sa.Column("email_verified_at", sa.DateTime(timezone=True), nullable=True))
    # Whoever has accepted an invitation came by the letter to their address. Of all others nothing is known.
    op.execute(
        """
        UPDATE users SET email_verified_at = accepted.at
        FROM (
            SELECT lower(email) AS email, min(accepted_at) AS at
            FROM invitations WHERE state = 'accepted' GROUP BY lower(email)
        ) AS accepted
        WHERE lower(users.email) = accepted.email
        """
    )
    op.add_column("one_time_tokens", sa.Column("email", sa.String(length=255), nullable=True))
    op.drop_constraint(op.f(_PURPOSES), "one_time_tokens", type_="check")
    op.create_check_constraint(
        op.f(_PURPOSES), "one_time_tokens", "purpose IN ('password_reset', 'email_verification', 'email_change')"
    )
    op.create_table(
        "attempt_windows",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("moments", postgresql.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_attempt_windows")),
        prefixes=["UNLOGGED"],
    )
    op.create_index(op.f("ix_attempt_windows_expires_at"), "attempt_windows", ["expires_at"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("attempt_windows")
    op.execute("DELETE FROM one_time_tokens WHERE purpose <> 'password_reset'")
    op.drop_constraint(op.f(_PURPOSES), "one_time_tokens", type_="check")
    op.create_check_constraint(op.f(_PURPOSES), "one_time_tokens", "purpose IN ('password_reset')")
    op.drop_column("one_time_tokens", "email")
    op.drop_column("users", "email_verified_at")
