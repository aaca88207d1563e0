"""Who did what to what: written in the same transaction as the deed, never changed, each entry sealing the one before.

The entries of a tenant form a chain, and so do those of a person outside any tenant, and those of the platform. The
database numbers them and computes the seals, so that no writer can forget to, and refuses to change them.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    ColumnElement,
    Identity,
    Index,
    LargeBinary,
    String,
    Text,
    cast,
    event,
    extract,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, JsonObject


class AuditEntry(Base):
    """One deed. `action` follows `subject.verb`; `actor_id` is empty when the system itself acted.

    `tenant_id` and `actor_id` point nowhere: an entry outlives both, word for word. `seq` counts from 1 within the
    chain; `seal` is the SHA-256 of the seal before it and the entry's own text.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_tenant_id", "tenant_id", "id"),
        Index("uq_audit_entries_chain_id_seq", "chain_id", "seq", unique=True),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    tenant_id: Mapped[UUID | None]
    actor_id: Mapped[UUID | None]
    source: Mapped[str] = mapped_column(String(20), server_default="system")
    action: Mapped[str] = mapped_column(String(100))
    subject_type: Mapped[str] = mapped_column(String(50))
    subject_id: Mapped[str] = mapped_column(String(100))
    details: Mapped[JsonObject] = mapped_column(default=dict)
    request_id: Mapped[str | None] = mapped_column(String(128))
    ip: Mapped[str | None] = mapped_column(String(64))
    user_agent: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime]
    chain_id: Mapped[UUID]
    seq: Mapped[int] = mapped_column(BigInteger)
    seal: Mapped[bytes] = mapped_column(LargeBinary)

    @classmethod
    def sealed_text(cls) -> ColumnElement[str]:
        """Return the SQL expression of what an entry's seal covers besides the seal before it, as `SEAL` has it."""
        microseconds = cast(extract("epoch", cls.created_at) * 1_000_000, BigInteger)
        parts = (
            *(cls.chain_id, cls.seq, cls.tenant_id, cls.actor_id, cls.source, cls.action, cls.subject_type),
            *(cls.subject_id, cls.details, cls.request_id, cls.ip, cls.user_agent, microseconds),
        )
        return cast(func.jsonb_build_array(*parts), Text)


class AuditChain(Base):
    """How long a chain is and the seal of its last entry: whoever cuts entries off its end is found out."""

    __tablename__ = "audit_chains"

    chain_id: Mapped[UUID] = mapped_column(primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)
    head: Mapped[bytes] = mapped_column(LargeBinary)


# The same as in migration 0007; tests/migrations hold them together.
SEAL = """
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
KEEP = """
CREATE FUNCTION audit_entry_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are never changed' USING ERRCODE = 'insufficient_privilege';
END $$
"""
TRIGGERS = (
    "CREATE TRIGGER seal BEFORE INSERT ON audit_entries FOR EACH ROW EXECUTE FUNCTION audit_entry_seal()",
    "CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON audit_entries FOR EACH ROW EXECUTE FUNCTION audit_entry_keep()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON audit_entries EXECUTE FUNCTION audit_entry_keep()",
)
for _statement in (SEAL, KEEP, *TRIGGERS):
    event.listen(AuditEntry.__table__, "after_create", DDL(_statement.replace("%", "%%")))  # type: ignore[no-untyped-call]
