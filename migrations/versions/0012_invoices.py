"""Papers that we issue ourselves: documents, their numbers, and whom they name.

Revision: 0012, after 0011.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_MINE = "current_setting('app.scope', true) IN ('platform', tenant_id::text)"
_KEEP = """
CREATE FUNCTION document_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'issued documents are never changed' USING ERRCODE = 'insufficient_privilege';
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "document_series",
        sa.Column("series", sa.String(length=20), nullable=False),
        sa.Column("year", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("series", "year", name=op.f("pk_document_series")),
    )
    op.create_table(
        "billing_details",
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("tax_id", sa.String(length=50), nullable=True),
        sa.Column("country", sa.String(length=2), nullable=True),
        sa.Column("email", sa.String(length=255), nullable=True),
        sa.Column("locale", sa.String(length=8), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_billing_details_tenant_id_tenants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_billing_details")),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_billing_details_tenant_id")),
    )
    op.create_table(
        "documents",
        sa.Column(
            "kind",
            sa.Enum(
                "invoice",
                "credit_note",
                "cancellation",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "reason",
            sa.Enum(
                "payment",
                "refund",
                "dispute",
                "dispute_won",
                name="reason",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("number", sa.String(length=40), nullable=False),
        sa.Column("series", sa.String(length=20), nullable=False),
        sa.Column("year", sa.SmallInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("movement_id", sa.Uuid(), nullable=False),
        sa.Column("part", sa.SmallInteger(), nullable=False),
        sa.Column("corrects_id", sa.Uuid(), nullable=True),
        sa.Column("locale", sa.String(length=8), nullable=False),
        sa.Column("issuer", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("buyer", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("lines", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("tax_rate", sa.Numeric(precision=6, scale=3), nullable=False),
        sa.Column("net", sa.Numeric(precision=14, scale=3), nullable=False),
        sa.Column("tax", sa.Numeric(precision=14, scale=3), nullable=False),
        sa.Column("total", sa.Numeric(precision=14, scale=3), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("net + tax = total", name=op.f("ck_documents_sums")),
        sa.ForeignKeyConstraint(
            ["corrects_id"], ["documents.id"], name=op.f("fk_documents_corrects_id_documents"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
        sa.UniqueConstraint("movement_id", "reason", "part", name=op.f("uq_documents_movement_id_reason_part")),
        sa.UniqueConstraint("number", name=op.f("uq_documents_number")),
        sa.UniqueConstraint("series", "year", "place", name=op.f("uq_documents_series_year_place")),
    )
    op.create_index(op.f("ix_documents_corrects_id"), "documents", ["corrects_id"], unique=False)
    op.create_index("ix_documents_issued_at", "documents", ["issued_at"], unique=False)
    op.create_index("ix_documents_payment_id", "documents", ["payment_id"], unique=False)
    op.create_index("ix_documents_tenant_id", "documents", ["tenant_id", "issued_at"], unique=False)
    op.execute(_KEEP)
    op.execute("CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON documents FOR EACH ROW EXECUTE FUNCTION document_keep()")
    op.execute("CREATE TRIGGER keep_all BEFORE TRUNCATE ON documents EXECUTE FUNCTION document_keep()")
    for table in ("documents", "billing_details"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON {table} USING ({_MINE})")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_documents_tenant_id", table_name="documents")
    op.drop_index("ix_documents_payment_id", table_name="documents")
    op.drop_index("ix_documents_issued_at", table_name="documents")
    op.drop_index(op.f("ix_documents_corrects_id"), table_name="documents")
    op.drop_table("documents")
    op.execute("DROP FUNCTION document_keep")
    op.drop_table("billing_details")
    op.drop_table("document_series")
