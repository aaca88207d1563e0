"""Merchants' accounts are reconciled too: their lists are read, and sweeps go through their invoices.

Revision: 0018, after 0017.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_STAGES = ("events", "purchases", "subscriptions")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL app.scope = 'platform'")
    op.add_column("provider_feeds", sa.Column("integration_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_provider_feeds_integration_id_tenants_payment_integrations"),
        "provider_feeds",
        "tenants_payment_integrations",
        ["integration_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_unique_constraint(op.f("uq_provider_feeds_integration_id"), "provider_feeds", ["integration_id"])
    op.drop_constraint(op.f("uq_provider_feeds_provider"), "provider_feeds", type_="unique")
    op.create_index(
        "uq_provider_feeds_provider",
        "provider_feeds",
        ["provider"],
        unique=True,
        postgresql_where=sa.text("integration_id IS NULL"),
    )
    _allow_stages(*_STAGES, "merchants")


def _allow_stages(*stages: str) -> None:
    op.drop_constraint(op.f("ck_reconciliations_stage"), "reconciliations", type_="check")
    op.create_check_constraint(op.f("ck_reconciliations_stage"), "reconciliations", f"stage IN {stages}")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL app.scope = 'platform'")
    # The older release knows nothing after subscriptions: a sweep that has come further is over.
    op.execute(
        "UPDATE reconciliations SET state = 'done', finished_at = now() WHERE stage = 'merchants' AND state = 'running'"
    )
    op.execute("UPDATE reconciliations SET stage = 'subscriptions', cursor = NULL WHERE stage = 'merchants'")
    _allow_stages(*_STAGES)
    op.execute("DELETE FROM provider_feeds WHERE integration_id IS NOT NULL")
    op.drop_index("uq_provider_feeds_provider", table_name="provider_feeds")
    op.create_unique_constraint(op.f("uq_provider_feeds_provider"), "provider_feeds", ["provider"])
    op.drop_column("provider_feeds", "integration_id")
