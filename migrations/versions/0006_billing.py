"""Prices by provider, a second chance for dead events, and what payments amount to.

Revision: 0006, after 0005b.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005b"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_PERIODS = ("monthly", "yearly")
_REASONS = ("overpaid", "underpaid", "duplicate")
_KINDS = ("charge", "refund", "dispute", "dispute_won", "credit", "credit_settled")
_ACCOUNTS = ("cash", "revenue", "refunds", "disputes", "credits")
_STATES_BEFORE = ("pending", "paid", "expired", "failed")
_STATES = ("pending", "approved", "processing", "paid", "underpaid", "expired", "failed", "cancelled")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.create_table(
        "plan_prices",
        sa.Column("plan_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column(
            "billing_period",
            sa.Enum(*_PERIODS, name="billing_period", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("amount", sa.Numeric(precision=10, scale=2), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["plans.id"], name=op.f("fk_plan_prices_plan_id_plans"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_prices")),
        sa.UniqueConstraint(
            "plan_id", "provider", "billing_period", name=op.f("uq_plan_prices_plan_id_provider_billing_period")
        ),
    )
    op.add_column("provider_events", sa.Column("resent_at", _TIME, nullable=True))
    op.create_index(
        "ix_provider_events_dead", "provider_events", ["received_at"], postgresql_where=sa.text("state = 'dead'")
    )
    for name in ("failed_until", "cancel_decided_at", "ended_at"):
        op.add_column("subscriptions", sa.Column(name, _TIME, nullable=True))
    op.execute("UPDATE subscriptions SET cancel_decided_at = cancelled_at WHERE cancel_at_period_end")
    for name in ("failed_until", "voided_at"):
        op.add_column("invoices", sa.Column(name, _TIME, nullable=True))
    _measure_checkouts()
    _make_credits()
    _make_journal()
    # One event may tell of a payment and of its refund.
    op.drop_constraint("uq_payment_events_provider_provider_event_id", "payment_events", type_="unique")
    op.create_index("ix_payment_events_provider_event_id", "payment_events", ["provider", "provider_event_id"])
    op.execute(
        "UPDATE payment_events SET event_metadata = event_metadata"
        " || jsonb_build_object('refunded_total', substring(fact_key FROM '[^:]*$')) WHERE event_type = 'refund'"
    )


def _measure_checkouts() -> None:
    for name in ("received", "overpaid"):
        column = sa.Column(name, sa.Numeric(precision=12, scale=2), server_default=sa.text("0"), nullable=False)
        op.add_column("checkout_sessions", column)
    op.add_column("checkout_sessions", sa.Column("is_late", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("checkout_sessions", sa.Column("facts_until", _TIME, nullable=True))
    op.execute("UPDATE checkout_sessions SET received = amount WHERE state = 'paid'")
    _allow_states(_STATES)


def _allow_states(states: Sequence[str]) -> None:
    op.drop_constraint(op.f("ck_checkout_sessions_state"), "checkout_sessions", type_="check")
    allowed = ", ".join(f"'{state}'" for state in states)
    op.create_check_constraint(op.f("ck_checkout_sessions_state"), "checkout_sessions", f"state IN ({allowed})")


def _make_credits() -> None:
    op.create_table(
        "credits",
        sa.Column("checkout_id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("payment_key", sa.String(length=255), nullable=False),
        sa.Column(
            "reason",
            sa.Enum(*_REASONS, name="reason", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("amount", sa.Numeric(precision=12, scale=2), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("occurred_at", _TIME, nullable=False),
        sa.Column("settled_at", _TIME, nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkout_id"],
            ["checkout_sessions.id"],
            name=op.f("fk_credits_checkout_id_checkout_sessions"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_credits_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credits")),
        sa.UniqueConstraint("provider", "payment_key", "reason", name=op.f("uq_credits_provider_payment_key_reason")),
    )
    op.create_index(op.f("ix_credits_checkout_id"), "credits", ["checkout_id"])
    op.create_index("ix_credits_tenant_id", "credits", ["tenant_id", "occurred_at"])
    _isolate("credits")
    op.create_index("ix_credits_open", "credits", ["occurred_at"], postgresql_where=sa.text("settled_at IS NULL"))


def _choice(*values: str, name: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _make_journal() -> None:
    op.create_table(
        "journal_entries",
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("kind", _choice(*_KINDS, name="kind"), nullable=False),
        sa.Column("fact_key", sa.String(length=300), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("debit", _choice(*_ACCOUNTS, name="debit"), nullable=False),
        sa.Column("credit", _choice(*_ACCOUNTS, name="credit"), nullable=False),
        sa.Column("amount", sa.Numeric(precision=14, scale=2), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("occurred_at", _TIME, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_journal_entries_amount")),
        sa.CheckConstraint("debit <> credit", name=op.f("ck_journal_entries_sides")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_journal_entries_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_entries")),
        sa.UniqueConstraint(
            "provider", "kind", "fact_key", "number", name=op.f("uq_journal_entries_provider_kind_fact_key_number")
        ),
    )
    op.create_index("ix_journal_entries_tenant_id", "journal_entries", ["tenant_id", "occurred_at"])
    _isolate("journal_entries")
    for statement in _MOVEMENTS_OF_BEFORE:
        op.execute(statement)


def _isolate(table: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant_isolation ON {table}"
        " USING (current_setting('app.scope', true) IN ('platform', tenant_id::text))"
    )


_POST = (
    "INSERT INTO journal_entries"
    " (id, tenant_id, provider, kind, fact_key, number, debit, credit, amount, currency, occurred_at) SELECT"
    " gen_random_uuid(), moved.tenant_id, moved.provider, "
)
_MOVEMENTS_OF_BEFORE = (
    _POST + "'charge', moved.fact_key, 1, 'cash', 'revenue', moved.amount, moved.currency, moved.created_at"
    " FROM payment_events moved WHERE moved.event_type = 'payment_success' AND moved.amount > 0",
    # A refund is posted under the payment that it is of, as one of its steps.
    _POST + "'refund', paid.fact_key, row_number() OVER (PARTITION BY paid.id ORDER BY moved.created_at, moved.id),"
    " 'refunds', 'cash', moved.amount, moved.currency, moved.created_at FROM payment_events moved"
    " JOIN payment_events paid ON paid.id = moved.payment_id WHERE moved.event_type = 'refund' AND moved.amount > 0",
    _POST + "'dispute', moved.fact_key, 1, 'disputes', 'cash', moved.amount, moved.currency, moved.created_at"
    " FROM payment_events moved WHERE moved.event_type = 'chargeback' AND moved.amount > 0",
    _POST + "'dispute_won', moved.fact_key, 1, 'cash', 'disputes', moved.amount, moved.currency, moved.created_at"
    " FROM payment_events moved WHERE moved.event_type = 'chargeback' AND moved.amount > 0"
    " AND moved.event_metadata ->> 'outcome' = 'won'",
)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    # The release before wants one event for each movement, so the second movement of an event gets a name of its own.
    op.execute(
        "UPDATE payment_events later SET provider_event_id = left(later.provider_event_id, 200) || ':' || later.id"
        " FROM payment_events first WHERE later.provider = first.provider"
        " AND later.provider_event_id = first.provider_event_id"
        " AND (later.created_at, later.id) > (first.created_at, first.id)"
    )
    op.drop_index("ix_payment_events_provider_event_id", table_name="payment_events")
    op.create_unique_constraint(
        "uq_payment_events_provider_provider_event_id", "payment_events", ["provider", "provider_event_id"]
    )
    op.drop_table("journal_entries")
    op.drop_table("credits")
    op.execute("UPDATE checkout_sessions SET state = 'pending' WHERE state IN ('approved', 'processing')")
    op.execute("UPDATE checkout_sessions SET state = 'expired' WHERE state IN ('underpaid', 'cancelled')")
    _allow_states(_STATES_BEFORE)
    for name in ("facts_until", "is_late", "overpaid", "received"):
        op.drop_column("checkout_sessions", name)
    for name in ("voided_at", "failed_until"):
        op.drop_column("invoices", name)
    for name in ("ended_at", "cancel_decided_at", "failed_until"):
        op.drop_column("subscriptions", name)
    op.drop_index("ix_provider_events_dead", table_name="provider_events")
    op.drop_column("provider_events", "resent_at")
    op.drop_table("plan_prices")
