"""Merchants: their accounts at providers, their orders and the commission on these.

Revision: 0013, after 0012.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OWNED = (
    "tenants_payment_integrations",
    "orders",
    "order_invoices",
    "order_disputes",
    "order_refunds",
    "commission_logs",
)
_KINDS = ("charge", "refund", "dispute", "dispute_won", "credit", "credit_settled", "unearned")
_ACCOUNTS = ("cash", "revenue", "refunds", "disputes", "credits")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "orders",
        sa.Column("amount", sa.Numeric(), nullable=False),
        sa.Column("currency", sa.String(length=10), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "pending",
                "processing",
                "paid",
                "underpaid",
                "expired",
                "failed",
                "disputed",
                "partially_refunded",
                "refunded",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("items", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("external_reference", sa.String(length=255), nullable=True),
        sa.Column("paid", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("fk_orders_created_by_users"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_orders_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index("ix_orders_tenant_id", "orders", ["tenant_id", "created_at"], unique=False)
    op.create_index(
        "uq_orders_external_reference",
        "orders",
        ["tenant_id", "external_reference"],
        unique=True,
        postgresql_where=sa.text("external_reference IS NOT NULL"),
    )
    op.create_table(
        "tenants_payment_integrations",
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("hint", sa.String(length=16), nullable=False),
        sa.Column("account", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("return_url", sa.Text(), nullable=True),
        sa.Column("account_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("chosen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenants.id"],
            name=op.f("fk_tenants_payment_integrations_tenant_id_tenants"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants_payment_integrations")),
        sa.UniqueConstraint("tenant_id", "provider", name=op.f("uq_tenants_payment_integrations_tenant_id_provider")),
    )
    op.create_index(
        op.f("ix_tenants_payment_integrations_key_id"), "tenants_payment_integrations", ["key_id"], unique=False
    )
    op.create_table(
        "commission_logs",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("commission_percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column("commission_amount", sa.Numeric(), nullable=False),
        sa.Column("kept_amount", sa.Numeric(), nullable=False),
        sa.Column("currency", sa.String(length=10), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_commission_logs_order_id_orders"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_commission_logs_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commission_logs")),
        sa.UniqueConstraint("order_id", "number", name=op.f("uq_commission_logs_order_id_number")),
    )
    op.create_index("ix_commission_logs_tenant_id", "commission_logs", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "order_invoices",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("integration_id", sa.Uuid(), nullable=True),
        sa.Column("twin_of", sa.Uuid(), nullable=True),
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("session_id", sa.String(length=255), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("amount", sa.Numeric(), nullable=False),
        sa.Column("currency", sa.String(length=10), nullable=False),
        sa.Column("commission_percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "approved",
                "processing",
                "paid",
                "underpaid",
                "expired",
                "failed",
                "cancelled",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("opening_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("overpaid", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("refunded", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("is_late", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("facts_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refunds_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looks", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["integration_id"],
            ["tenants_payment_integrations.id"],
            name=op.f("fk_order_invoices_integration_id_tenants_payment_integrations"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_order_invoices_order_id_orders"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_order_invoices_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["twin_of"],
            ["order_invoices.id"],
            name=op.f("fk_order_invoices_twin_of_order_invoices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_invoices")),
        sa.UniqueConstraint(
            "tenant_id", "provider", "session_id", name=op.f("uq_order_invoices_tenant_id_provider_session_id")
        ),
    )
    op.create_index(
        "ix_order_invoices_look_at",
        "order_invoices",
        ["look_at"],
        unique=False,
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_order_invoices_integration_id"), "order_invoices", ["integration_id"], unique=False)
    op.create_index(op.f("ix_order_invoices_order_id"), "order_invoices", ["order_id"], unique=False)
    op.create_index(op.f("ix_order_invoices_tenant_id"), "order_invoices", ["tenant_id"], unique=False)
    op.create_table(
        "order_disputes",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("dispute_ref", sa.String(length=255), nullable=False),
        sa.Column("amount", sa.Numeric(), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["order_invoices.id"],
            name=op.f("fk_order_disputes_invoice_id_order_invoices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_order_disputes_order_id_orders"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_order_disputes_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_disputes")),
        sa.UniqueConstraint("invoice_id", "dispute_ref", name=op.f("uq_order_disputes_invoice_id_dispute_ref")),
    )
    op.create_index(op.f("ix_order_disputes_order_id"), "order_disputes", ["order_id"], unique=False)
    op.create_index(op.f("ix_order_disputes_tenant_id"), "order_disputes", ["tenant_id"], unique=False)
    op.create_table(
        "order_refunds",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.Numeric(), nullable=False),
        sa.Column("currency", sa.String(length=10), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "asked",
                "pending",
                "made",
                "failed",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("asking_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refund_ref", sa.String(length=255), nullable=True),
        sa.Column("claim_url", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["created_by"], ["users.id"], name=op.f("fk_order_refunds_created_by_users"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["order_invoices.id"],
            name=op.f("fk_order_refunds_invoice_id_order_invoices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name=op.f("fk_order_refunds_order_id_orders"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_order_refunds_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_refunds")),
    )
    op.create_index(op.f("ix_order_refunds_invoice_id"), "order_refunds", ["invoice_id"], unique=False)
    op.create_index(op.f("ix_order_refunds_order_id"), "order_refunds", ["order_id"], unique=False)
    op.create_index(op.f("ix_order_refunds_tenant_id"), "order_refunds", ["tenant_id"], unique=False)
    # Neither writes the table anew: one only lifts the limits of a number, the other of a text.
    op.alter_column("journal_entries", "amount", existing_type=sa.Numeric(14, 2), type_=sa.Numeric())
    op.alter_column("journal_entries", "currency", existing_type=sa.String(3), type_=sa.String(10))
    _allow_in_journal((*_KINDS, "commission"), (*_ACCOUNTS, "receivables", "commissions"))
    op.add_column("plans", sa.Column("commission_percent", sa.Numeric(precision=7, scale=4), nullable=True))
    op.add_column("provider_events", sa.Column("integration_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_provider_events_integration_id",
        "provider_events",
        ["integration_id"],
        unique=False,
        postgresql_where=sa.text("integration_id IS NOT NULL"),
    )
    op.create_foreign_key(
        op.f("fk_provider_events_integration_id_tenants_payment_integrations"),
        "provider_events",
        "tenants_payment_integrations",
        ["integration_id"],
        ["id"],
        ondelete="CASCADE",
    )
    for table in _OWNED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON {table}"
            " USING (current_setting('app.scope', true) IN ('platform', tenant_id::text))"
        )


def _allow_in_journal(kinds: Sequence[str], accounts: Sequence[str]) -> None:
    for column, values in (("kind", kinds), ("debit", accounts), ("credit", accounts)):
        name = op.f(f"ck_journal_entries_{column}")
        op.drop_constraint(name, "journal_entries", type_="check")
        listed = ", ".join(f"'{value}'" for value in values)
        op.create_check_constraint(name, "journal_entries", f"{column} IN ({listed})")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    # The older release knows neither merchants nor what is booked of them.
    op.execute("DELETE FROM provider_events WHERE integration_id IS NOT NULL")
    op.execute("DELETE FROM journal_entries WHERE kind = 'commission'")
    _allow_in_journal(_KINDS, _ACCOUNTS)
    op.drop_constraint(
        op.f("fk_provider_events_integration_id_tenants_payment_integrations"), "provider_events", type_="foreignkey"
    )
    op.drop_index(
        "ix_provider_events_integration_id",
        table_name="provider_events",
        postgresql_where=sa.text("integration_id IS NOT NULL"),
    )
    op.drop_column("provider_events", "integration_id")
    op.drop_column("plans", "commission_percent")
    op.alter_column("journal_entries", "amount", existing_type=sa.Numeric(), type_=sa.Numeric(14, 2))
    op.alter_column("journal_entries", "currency", existing_type=sa.String(10), type_=sa.String(3))
    op.drop_table("order_refunds")
    op.drop_table("order_disputes")
    op.drop_table("order_invoices")
    op.drop_table("commission_logs")
    op.drop_table("tenants_payment_integrations")
    op.drop_table("orders")
