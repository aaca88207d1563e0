"""Tenants keep an owner, and are deleted after a while.

Revision: 0005, after 0004.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("tenants", sa.Column("deletion_due_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_tenants_deletion_due_at",
        "tenants",
        ["deletion_due_at"],
        postgresql_where=sa.text("deletion_due_at IS NOT NULL"),
    )
    op.execute("""
        CREATE FUNCTION keep_an_owner() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM 1 FROM tenants WHERE id = OLD.tenant_id FOR NO KEY UPDATE;
            IF FOUND AND NOT EXISTS (
                SELECT 1 FROM user_tenants WHERE tenant_id = OLD.tenant_id AND role = 'owner'
            ) THEN
                RAISE EXCEPTION 'tenant % would have no owner', OLD.tenant_id
                    USING ERRCODE = 'check_violation', CONSTRAINT = 'ck_user_tenants_owner_left',
                          TABLE = 'user_tenants';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE CONSTRAINT TRIGGER keep_an_owner AFTER DELETE OR UPDATE OF role, tenant_id ON user_tenants
        DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW WHEN (OLD.role = 'owner') EXECUTE FUNCTION keep_an_owner()
    """)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER keep_an_owner ON user_tenants")
    op.execute("DROP FUNCTION keep_an_owner()")
    op.drop_index(
        "ix_tenants_deletion_due_at",
        table_name="tenants",
        postgresql_where=sa.text("deletion_due_at IS NOT NULL"),
    )
    op.drop_column("tenants", "deletion_due_at")
