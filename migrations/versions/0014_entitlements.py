"""Exceptions from plans, what tenants use, and what their subscriptions bring in a month.

Revision: 0014, after 0013.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OWNED = ("entitlement_overrides", "api_usage", "recurring_revenue")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL app.scope = 'platform'")
    op.add_column("plans", sa.Column("entitlements_changed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("subscriptions", sa.Column("entitlements_told_at", sa.DateTime(timezone=True), nullable=True))
    # What was over before is no news.
    op.execute("UPDATE subscriptions SET entitlements_told_at = now()")
    op.create_table(
        "entitlement_overrides",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("fk_entitlement_overrides_created_by_users"), ondelete="SET NULL"
        ),
        _of_tenant("entitlement_overrides"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entitlement_overrides")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_entitlement_overrides_tenant_id_name")),
    )
    op.create_index(
        "ix_entitlement_overrides_until",
        "entitlement_overrides",
        ["until"],
        postgresql_where=sa.text("until IS NOT NULL"),
    )
    op.create_table(
        "api_usage",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        _of_tenant("api_usage"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_usage")),
        sa.UniqueConstraint("tenant_id", "month", name=op.f("uq_api_usage_tenant_id_month")),
    )
    op.create_table(
        "recurring_revenue",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("plan_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=14, scale=2), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_recurring_revenue_plan_id_plans")),
        _of_tenant("recurring_revenue"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recurring_revenue")),
    )
    op.create_index("ix_recurring_revenue_tenant_id", "recurring_revenue", ["tenant_id", "since", "id"])
    for table in _OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            " USING (current_setting('app.scope', true) IN ('platform', tenant_id::text))"
        )
    op.execute(_WHAT_IS_PAID_NOW)


# The history begins with what is in force today; what was before it nobody wrote down.
_WHAT_IS_PAID_NOW = (
    "INSERT INTO recurring_revenue (tenant_id, plan_id, amount, currency, since)"
    " SELECT held.tenant_id, held.plan_id, round(coalesce(held.price,"
    " CASE held.billing_period WHEN 'yearly' THEN plans.price_yearly ELSE plans.price_monthly END)"
    " / CASE held.billing_period WHEN 'yearly' THEN 12 ELSE 1 END, 2),"
    " coalesce(held.currency, plans.currency), least(held.current_period_start, now())"
    " FROM subscriptions held JOIN plans ON plans.id = held.plan_id"
    " WHERE held.status IN ('active', 'past_due')"
    " AND (held.checkout_id IS NOT NULL OR held.external_subscription_id IS NOT NULL)"
)


def _of_tenant(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id"], ["tenants.id"], name=op.f(f"fk_{table}_tenant_id_tenants"), ondelete="CASCADE"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in _OWNED:
        op.drop_table(table)
    op.drop_column("subscriptions", "entitlements_told_at")
    op.drop_column("plans", "entitlements_changed_at")
