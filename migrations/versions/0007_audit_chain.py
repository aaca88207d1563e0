"""Audit entries form chains, are never changed, and outlive whom they name.

Revision: 0007, after 0006.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Read the entry's text in models/audit.py, `sealed_text`, with the same order of parts.
_SEAL = """
CREATE FUNCTION audit_entry_seal() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    previous bytea;
BEGIN
    NEW.chain_id := coalesce(NEW.tenant_id, NEW.actor_id, '00000000-0000-0000-0000-000000000000');
    INSERT INTO audit_chains AS chain (chain_id, length, head) VALUES (NEW.chain_id, 1, '')
        ON CONFLICT (chain_id) DO UPDATE SET length = chain.length + 1
        RETURNING chain.length, chain.head INTO NEW.seq, previous;
    NEW.seal := sha256(previous || convert_to(jsonb_build_array(
        NEW.chain_id, NEW.seq, NEW.tenant_id, NEW.actor_id, NEW.source, NEW.action, NEW.subject_type,
        NEW.subject_id, NEW.details, NEW.request_id, NEW.ip, NEW.user_agent,
        (extract(epoch FROM NEW.created_at) * 1000000)::bigint)::text, 'UTF8'));
    UPDATE audit_chains SET head = NEW.seal WHERE audit_chains.chain_id = NEW.chain_id;
    RETURN NEW;
END $$
"""
_KEEP = """
CREATE FUNCTION audit_entry_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are never changed' USING ERRCODE = 'insufficient_privilege';
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Its policy binds the owner of the table too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    op.create_table(
        "audit_chains",
        sa.Column("chain_id", sa.Uuid(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", name=op.f("pk_audit_chains")),
    )
    op.drop_constraint("fk_audit_entries_tenant_id_tenants", "audit_entries", type_="foreignkey")
    op.drop_constraint("fk_audit_entries_actor_id_users", "audit_entries", type_="foreignkey")
    op.add_column("audit_entries", sa.Column("source", sa.String(20), server_default="system", nullable=False))
    op.add_column("audit_entries", sa.Column("user_agent", sa.String(255), nullable=True))
    op.alter_column("audit_entries", "created_at", server_default=None)
    for name, kind in (("chain_id", sa.Uuid()), ("seq", sa.BigInteger()), ("seal", sa.LargeBinary())):
        op.add_column("audit_entries", sa.Column(name, kind, nullable=True))
    op.execute(_SEAL)
    op.execute(_KEEP)
    _seal_what_is_there()
    for name in ("chain_id", "seq", "seal"):
        op.alter_column("audit_entries", name, nullable=False)
    op.create_index("uq_audit_entries_chain_id_seq", "audit_entries", ["chain_id", "seq"], unique=True)
    op.execute("CREATE TRIGGER seal BEFORE INSERT ON audit_entries FOR EACH ROW EXECUTE FUNCTION audit_entry_seal()")
    op.execute(
        "CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON audit_entries FOR EACH ROW EXECUTE FUNCTION audit_entry_keep()"
    )
    op.execute("CREATE TRIGGER keep_all BEFORE TRUNCATE ON audit_entries EXECUTE FUNCTION audit_entry_keep()")


def _seal_what_is_there() -> None:
    """Seal the entries of earlier releases in their order, by the same function that seals new ones."""
    op.execute(
        "CREATE TRIGGER seal_old BEFORE UPDATE ON audit_entries FOR EACH ROW EXECUTE FUNCTION audit_entry_seal()"
    )
    op.execute("""
        DO $$
        DECLARE
            entry bigint;
        BEGIN
            FOR entry IN SELECT id FROM audit_entries ORDER BY id LOOP
                UPDATE audit_entries SET source = 'system' WHERE id = entry;
            END LOOP;
        END $$
    """)
    op.execute("DROP TRIGGER seal_old ON audit_entries")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Its policy binds the owner of the table too (0005b).
    op.execute("SET LOCAL app.scope = 'platform'")
    for trigger in ("seal", "keep", "keep_all"):
        op.execute(f"DROP TRIGGER {trigger} ON audit_entries")
    op.execute("DROP FUNCTION audit_entry_seal")
    op.execute("DROP FUNCTION audit_entry_keep")
    # The older schema knows living tenants and people only.
    op.execute(
        "DELETE FROM audit_entries a WHERE NOT EXISTS (SELECT FROM tenants t WHERE t.id = a.tenant_id) "
        "AND a.tenant_id IS NOT NULL"
    )
    op.execute(
        "UPDATE audit_entries a SET actor_id = NULL WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = a.actor_id)"
    )
    op.drop_index("uq_audit_entries_chain_id_seq", table_name="audit_entries")
    for name in ("seal", "seq", "chain_id", "user_agent", "source"):
        op.drop_column("audit_entries", name)
    op.alter_column("audit_entries", "created_at", server_default=sa.text("now()"))
    op.create_foreign_key(
        op.f("fk_audit_entries_actor_id_users"), "audit_entries", "users", ["actor_id"], ["id"], ondelete="SET NULL"
    )
    op.create_foreign_key(
        op.f("fk_audit_entries_tenant_id_tenants"),
        "audit_entries",
        "tenants",
        ["tenant_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.drop_table("audit_chains")
