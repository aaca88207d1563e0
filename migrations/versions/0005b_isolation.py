"""Row-level security on every tenant-owned table.

Revision: 0005b, after 0005.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0005b"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SCOPE = "current_setting('app.scope', true)"
_OWNED = (
    "audit_entries",
    "checkout_sessions",
    "invitations",
    "invoices",
    "notifications",
    "payment_events",
    "provider_cancellations",
    "provisioning_jobs",
    "provisioning_log_lines",
    "provisioning_steps",
    "sso_tokens",
    "subscriptions",
    "user_tenants",
)
_MINE = f"{_SCOPE} IN ('platform', tenant_id::text)"
_STREAM = f"{_MINE} OR ({_SCOPE} <> '' AND tenant_id = '00000000-0000-0000-0000-000000000000')"
_CONDITIONS = {
    **dict.fromkeys(_OWNED, _MINE),
    "events": _STREAM,
    "event_streams": _STREAM,
    "tenants": f"{_SCOPE} IN ('platform', id::text)",
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, condition in _CONDITIONS.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON {table} USING ({condition})")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in _CONDITIONS:
        op.execute(f"DROP POLICY tenant_isolation ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
