"""What was asked of providers and not told by them: polls of purchases, lists that were read, and sweeps.

Revision: 0015, after 0014.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TIME = sa.DateTime(timezone=True)
_SOURCES = ("webhook", "poll", "listing", "sweep")
_STATES = ("running", "done", "failed")
# Of the journal, before fees.
_KINDS = (
    *("charge", "refund", "dispute", "dispute_won", "credit", "credit_settled"),
    *("unearned", "commission"),
)
_ACCOUNTS = ("cash", "revenue", "refunds", "disputes", "credits", "receivables", "commissions")
_STAGES = ("events", "purchases", "subscriptions")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.create_table(
        "provider_feeds",
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("read_until", _TIME, nullable=True),
        sa.Column("next_at", _TIME, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_feeds")),
        sa.UniqueConstraint("provider", name=op.f("uq_provider_feeds_provider")),
    )
    _make_reconciliations()
    op.add_column(
        "provider_events",
        sa.Column("source", _choice(*_SOURCES, name="source"), server_default="webhook", nullable=False),
    )
    op.create_check_constraint(op.f("ck_provider_events_source"), "provider_events", f"source IN {_SOURCES}")
    op.add_column("provider_events", sa.Column("reconciliation_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_provider_events_reconciliation_id_reconciliations"),
        "provider_events",
        "reconciliations",
        ["reconciliation_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index(
        "ix_provider_events_reconciliation_id",
        "provider_events",
        ["reconciliation_id"],
        postgresql_where=sa.text("reconciliation_id IS NOT NULL"),
    )
    _allow_in_journal(kinds=(*_KINDS, "fee"), accounts=(*_ACCOUNTS, "fees"))
    op.add_column("checkout_sessions", sa.Column("polls", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("checkout_sessions", sa.Column("next_poll_at", _TIME, nullable=True))
    # Purchases under way are asked about from now on, over an hour, so that providers are not asked about all at once.
    op.execute(
        "UPDATE checkout_sessions SET next_poll_at = now() + random() * interval '1 hour'"
        " WHERE state <> 'paid' AND coalesce(expires_at, created_at + interval '1 day') > now() - interval '3 days'"
    )
    op.create_index(
        "ix_checkout_sessions_next_poll_at",
        "checkout_sessions",
        ["next_poll_at"],
        postgresql_where=sa.text("next_poll_at IS NOT NULL"),
    )


def _choice(*values: str, name: str, guarded: bool = False) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=guarded, length=32)


def _allow_in_journal(*, kinds: Sequence[str], accounts: Sequence[str]) -> None:
    for column, allowed in (("kind", kinds), ("debit", accounts), ("credit", accounts)):
        name = op.f(f"ck_journal_entries_{column}")
        listed = ", ".join(f"'{value}'" for value in allowed)
        op.drop_constraint(name, "journal_entries", type_="check")
        op.create_check_constraint(name, "journal_entries", f"{column} IN ({listed})")


def _make_reconciliations() -> None:
    op.create_table(
        "reconciliations",
        sa.Column("provider", sa.String(length=50), nullable=False),
        sa.Column("state", _choice(*_STATES, name="state", guarded=True), nullable=False),
        sa.Column("stage", _choice(*_STAGES, name="stage", guarded=True), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Uuid(), nullable=True),
        sa.Column("nightly_on", sa.Date(), nullable=True),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("checked", sa.Integer(), nullable=False),
        sa.Column("found", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", _TIME, nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["requested_by"], ["users.id"], name=op.f("fk_reconciliations_requested_by_users"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
        sa.UniqueConstraint("provider", "nightly_on", name=op.f("uq_reconciliations_provider_nightly_on")),
    )
    op.create_index("ix_reconciliations_started_at", "reconciliations", ["started_at"])
    op.create_index(
        "uq_reconciliations_running",
        "reconciliations",
        ["provider"],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.execute("DELETE FROM journal_entries WHERE kind = 'fee'")
    _allow_in_journal(kinds=_KINDS, accounts=_ACCOUNTS)
    op.drop_index("ix_checkout_sessions_next_poll_at", table_name="checkout_sessions")
    op.drop_column("checkout_sessions", "next_poll_at")
    op.drop_column("checkout_sessions", "polls")
    # The older release takes what it reads for something that a provider told, and would not know these.
    op.execute("DELETE FROM provider_events WHERE type LIKE 'reconciliation.%'")
    op.drop_column("provider_events", "reconciliation_id")
    op.drop_column("provider_events", "source")
    op.drop_table("reconciliations")
    op.drop_table("provider_feeds")
