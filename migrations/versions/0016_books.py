"""Books that outlive their tenant, and which purchase a payment has made.

Revision: 0016, after 0015.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BOOKS = ("journal_entries", "recurring_revenue", "commission_logs")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in _BOOKS:
        op.drop_constraint(op.f(f"fk_{table}_tenant_id_tenants"), table, type_="foreignkey")
    op.drop_constraint(op.f("fk_commission_logs_order_id_orders"), "commission_logs", type_="foreignkey")
    op.add_column("journal_entries", sa.Column("plan_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("fk_journal_entries_plan_id_plans"), "journal_entries", "plans", ["plan_id"], ["id"])
    op.add_column("payment_events", sa.Column("checkout_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_payment_events_checkout_id_checkout_sessions"),
        "payment_events",
        "checkout_sessions",
        ["checkout_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_index("ix_payment_events_checkout_id", "payment_events", ["checkout_id"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.drop_column("payment_events", "checkout_id")
    op.drop_column("journal_entries", "plan_id")
    for table in _BOOKS:
        # The release before has no rows without a tenant.
        op.execute(f"DELETE FROM {table} WHERE tenant_id NOT IN (SELECT id FROM tenants)")  # noqa: S608 - names of ours
        op.create_foreign_key(
            op.f(f"fk_{table}_tenant_id_tenants"), table, "tenants", ["tenant_id"], ["id"], ondelete="CASCADE"
        )
    table = "commission_logs"
    op.create_foreign_key(
        op.f(f"fk_{table}_order_id_orders"), table, "orders", ["order_id"], ["id"], ondelete="CASCADE"
    )
