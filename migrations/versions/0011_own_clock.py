"""Changes of plan, dunning, and instructions to providers in place of mere cancellations.

Revision: 0011, after 0010.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_PERIODS = ("monthly", "yearly")
_REASONS = ("overpaid", "underpaid", "duplicate")
_KINDS = ("charge", "refund", "dispute", "dispute_won", "credit", "credit_settled")
_INSTRUCTIONS = ("cancel_now", "cancel_later", "resume", "reprice", "collect")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.add_column(
        "plans",
        sa.Column(
            "past_due_policy",
            _choice("expire", "cancel", name="past_due_policy"),
            server_default="expire",
            nullable=False,
        ),
    )
    _check("plans", "past_due_policy", ("expire", "cancel"))
    _allow("credits", "reason", (*_REASONS, "superseded"))
    _allow("journal_entries", "kind", (*_KINDS, "unearned"))
    _tell_purchases_apart()
    _add_terms()
    _instruct()


def _tell_purchases_apart() -> None:
    table = "checkout_sessions"
    op.add_column(
        table, sa.Column("kind", _choice("period", "change", name="kind"), server_default="period", nullable=False)
    )
    _check(table, "kind", ("period", "change"))
    op.add_column(table, sa.Column("price", sa.Numeric(precision=10, scale=2), nullable=True))
    op.execute("UPDATE checkout_sessions SET price = amount")
    op.alter_column(table, "price", nullable=False)
    for name in ("root_id", "base_id"):
        op.add_column(table, sa.Column(name, sa.Uuid(), nullable=True))
        op.create_foreign_key(
            op.f(f"fk_checkout_sessions_{name}_checkout_sessions"), table, table, [name], ["id"], ondelete="CASCADE"
        )
    op.create_index(op.f("ix_checkout_sessions_root_id"), table, ["root_id"])
    op.add_column(table, sa.Column("price_before", sa.Numeric(precision=10, scale=2), nullable=True))
    op.add_column(table, sa.Column("valid_until", _TIME, nullable=True))
    op.add_column(table, sa.Column("restarts", sa.Boolean(), server_default=sa.false(), nullable=False))


def _add_terms() -> None:
    table = "subscriptions"
    op.add_column(table, sa.Column("price", sa.Numeric(precision=10, scale=2), nullable=True))
    op.add_column(table, sa.Column("currency", sa.String(length=3), nullable=True))
    op.execute(
        "UPDATE subscriptions SET price = bought.amount, currency = bought.currency"
        " FROM checkout_sessions bought WHERE bought.id = subscriptions.checkout_id"
    )
    op.add_column(table, sa.Column("next_plan_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("fk_subscriptions_next_plan_id_plans"), table, "plans", ["next_plan_id"], ["id"])
    op.add_column(
        table, sa.Column("next_billing_period", _choice(*_PERIODS, name="next_billing_period"), nullable=True)
    )
    _check(table, "next_billing_period", _PERIODS)
    op.add_column(table, sa.Column("next_price", sa.Numeric(precision=10, scale=2), nullable=True))
    op.add_column(table, sa.Column("next_at", _TIME, nullable=True))
    op.add_column(table, sa.Column("overdue_since", _TIME, nullable=True))
    op.add_column(table, sa.Column("dunned", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.execute("UPDATE subscriptions SET overdue_since = now() WHERE status = 'past_due'")
    op.create_index(
        "ix_subscriptions_overdue_since",
        table,
        ["overdue_since"],
        postgresql_where=sa.text("overdue_since IS NOT NULL"),
    )
    op.create_index("ix_subscriptions_next_at", table, ["next_at"], postgresql_where=sa.text("next_at IS NOT NULL"))


def _instruct() -> None:
    _rename("provider_cancellations", "provider_instructions")
    table = "provider_instructions"
    op.add_column(table, sa.Column("number", sa.Integer(), nullable=True))
    op.add_column(table, sa.Column("kind", _choice(*_INSTRUCTIONS, name="kind"), nullable=True))
    op.execute(
        "UPDATE provider_instructions SET number = counted.number,"
        " kind = CASE WHEN at_period_end THEN 'cancel_later' ELSE 'cancel_now' END FROM ("
        " SELECT id, row_number() OVER (PARTITION BY provider, subscription_ref ORDER BY created_at, id) AS number"
        " FROM provider_instructions) counted WHERE counted.id = provider_instructions.id"
    )
    op.alter_column(table, "number", nullable=False)
    op.alter_column(table, "kind", nullable=False)
    _check(table, "kind", _INSTRUCTIONS)
    op.drop_column(table, "at_period_end")
    op.add_column(table, sa.Column("amount", sa.Numeric(precision=10, scale=2), nullable=True))
    op.add_column(table, sa.Column("currency", sa.String(length=3), nullable=True))
    op.add_column(table, sa.Column("billing_period", _choice(*_PERIODS, name="billing_period"), nullable=True))
    _check(table, "billing_period", _PERIODS)
    op.add_column(table, sa.Column("charge_from", _TIME, nullable=True))
    op.add_column(table, sa.Column("invoice_ref", sa.String(length=255), nullable=True))
    op.drop_index("ix_provider_instructions_subscription_ref", table_name=table)
    op.create_index("ix_provider_instructions_subscription_ref", table, ["provider", "subscription_ref", "number"])


def _rename(before: str, after: str) -> None:
    op.rename_table(before, after)
    for name in ("pk_{}", "ix_{}_waiting", "ix_{}_subscription_ref"):
        op.execute(f"ALTER INDEX {name.format(before)} RENAME TO {name.format(after)}")
    # From PostgreSQL 18 on, what must not be null is a constraint with a name.
    named = "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:table) AND contype = 'n'"
    for name in op.get_bind().execute(sa.text(named), {"table": after}).scalars().all():
        op.execute(f"ALTER TABLE {after} RENAME CONSTRAINT {name} TO {name.replace(before, after)}")
    op.execute(f"ALTER TABLE {after} RENAME CONSTRAINT fk_{before}_tenant_id_tenants TO fk_{after}_tenant_id_tenants")


def _choice(*values: str, name: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=False, length=32)


def _check(table: str, column: str, values: Sequence[str]) -> None:
    allowed = ", ".join(f"'{value}'" for value in values)
    op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, f"{column} IN ({allowed})")


def _allow(table: str, column: str, values: Sequence[str]) -> None:
    op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
    _check(table, column, values)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    _mere_cancellations()
    table = "subscriptions"
    # The release before takes the price from the purchase in force, which must be one of a period.
    op.execute(
        "UPDATE subscriptions SET checkout_id = changed.root_id FROM checkout_sessions changed"
        " WHERE changed.id = subscriptions.checkout_id AND changed.kind = 'change'"
    )
    for name in ("dunned", "overdue_since", "next_at", "next_price", "next_billing_period", "next_plan_id"):
        op.drop_column(table, name)
    op.drop_column(table, "currency")
    op.drop_column(table, "price")
    op.execute("DELETE FROM journal_entries WHERE kind = 'unearned'")
    op.execute("DELETE FROM credits WHERE reason = 'superseded'")
    op.execute("DELETE FROM checkout_sessions WHERE kind = 'change'")
    table = "checkout_sessions"
    for name in ("restarts", "valid_until", "price_before", "base_id", "root_id", "price", "kind"):
        op.drop_column(table, name)
    _allow("journal_entries", "kind", _KINDS)
    _allow("credits", "reason", _REASONS)
    op.drop_column("plans", "past_due_policy")


def _mere_cancellations() -> None:
    table = "provider_instructions"
    op.execute("DELETE FROM provider_instructions WHERE kind NOT IN ('cancel_now', 'cancel_later')")
    op.add_column(table, sa.Column("at_period_end", sa.Boolean(), nullable=True))
    op.execute("UPDATE provider_instructions SET at_period_end = (kind = 'cancel_later')")
    op.alter_column(table, "at_period_end", nullable=False)
    op.drop_index("ix_provider_instructions_subscription_ref", table_name=table)
    for name in ("invoice_ref", "charge_from", "billing_period", "currency", "amount", "kind", "number"):
        op.drop_column(table, name)
    op.create_index("ix_provider_instructions_subscription_ref", table, ["provider", "subscription_ref"])
    _rename(table, "provider_cancellations")
