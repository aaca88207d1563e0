"""Payments tell which plan they were for.

Revision: 0020, after 0019.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.add_column("payment_events", sa.Column("plan_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("fk_payment_events_plan_id_plans"), "payment_events", "plans", ["plan_id"], ["id"])
    # What reports took payments of before to be for: their own purchase, or the last one at the provider before them.
    op.execute(
        """
        UPDATE payment_events paid SET plan_id = (
            SELECT bought.plan_id FROM checkout_sessions bought
            WHERE bought.id = paid.checkout_id OR (
                paid.checkout_id IS NULL AND bought.tenant_id = paid.tenant_id AND bought.provider = paid.provider
                AND bought.state = 'paid' AND bought.completed_at <= paid.created_at
            )
            ORDER BY bought.completed_at DESC, bought.created_at DESC, bought.id LIMIT 1
        ) WHERE paid.event_type = 'payment_success'
        """
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("payment_events", "plan_id")
