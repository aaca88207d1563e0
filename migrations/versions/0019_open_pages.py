"""Pages of purchases: until when one is being opened, and orders to close them; orders refused, and events that broke.

Revision: 0019, after 0018.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_KINDS = ("cancel_now", "cancel_later", "resume", "reprice", "collect")
_TABLE = "provider_instructions"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("checkout_sessions", sa.Column("opening_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("provider_events", sa.Column("faults", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column(_TABLE, sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True))
    _allow_kinds(*_KINDS, "withdraw")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Policies bind the owner of the tables too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.execute("DELETE FROM provider_instructions WHERE kind = 'withdraw'")
    # The older release knows what was refused as done.
    op.execute("UPDATE provider_instructions SET done_at = refused_at WHERE done_at IS NULL AND refused_at IS NOT NULL")
    op.drop_column(_TABLE, "refused_at")
    op.drop_column("provider_events", "faults")
    _allow_kinds(*_KINDS)
    op.drop_column("checkout_sessions", "opening_until")


def _allow_kinds(*kinds: str) -> None:
    op.drop_constraint(op.f("ck_provider_instructions_kind"), _TABLE, type_="check")
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.create_check_constraint(op.f("ck_provider_instructions_kind"), _TABLE, f"kind IN ({listed})")
