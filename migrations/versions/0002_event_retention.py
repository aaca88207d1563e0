"""The event log forgets what is old, and carries a stream that is no tenant's.

Revision: 0002, after 0001.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("event_streams", sa.Column("floor", sa.BigInteger(), server_default="0", nullable=False))
    op.drop_constraint("fk_event_streams_tenant_id_tenants", "event_streams", type_="foreignkey")
    op.drop_constraint("fk_events_tenant_id_tenants", "events", type_="foreignkey")
    # The platform's stream is there from the start, so that its first event needs no look for the epoch.
    op.execute(
        "INSERT INTO event_streams (tenant_id, epoch, head) "
        "VALUES ('00000000-0000-0000-0000-000000000000', left(md5(random()::text), 8), 0) ON CONFLICT DO NOTHING"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # The older schema knows streams of living tenants only.
    op.execute("DELETE FROM events WHERE NOT EXISTS (SELECT FROM tenants WHERE tenants.id = events.tenant_id)")
    op.execute(
        "DELETE FROM event_streams WHERE NOT EXISTS (SELECT FROM tenants WHERE tenants.id = event_streams.tenant_id)"
    )
    op.create_foreign_key("fk_events_tenant_id_tenants", "events", "tenants", ["tenant_id"], ["id"], ondelete="CASCADE")
    op.create_foreign_key(
        "fk_event_streams_tenant_id_tenants", "event_streams", "tenants", ["tenant_id"], ["id"], ondelete="CASCADE"
    )
    op.drop_column("event_streams", "floor")
