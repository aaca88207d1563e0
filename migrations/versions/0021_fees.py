"""Sweeps ask for fees that were not known when their payment came.

Revision: 0021, after 0020.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = ("events", "purchases", "subscriptions")
_AFTER = ("merchants",)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _allow(*_BEFORE, "fees", *_AFTER)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Whoever goes back begins this sweep anew, or waits for the night's.
    op.execute("UPDATE reconciliations SET stage = 'subscriptions', cursor = NULL WHERE stage = 'fees'")
    _allow(*_BEFORE, *_AFTER)


def _allow(*stages: str) -> None:
    op.drop_constraint(op.f("ck_reconciliations_stage"), "reconciliations", type_="check")
    allowed = ", ".join(f"'{stage}'" for stage in stages)
    op.create_check_constraint(op.f("ck_reconciliations_stage"), "reconciliations", f"stage IN ({allowed})")
