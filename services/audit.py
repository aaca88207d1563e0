"""The audit: read by owners and admins for their tenant, by the platform's people for all, verified by operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, LargeBinary, Select, and_, func, literal, or_, select

from core.pagination import Page, PageRequest
from models.audit import AuditChain, AuditEntry
from services.identity import Principal, require_may, require_superuser, require_tenant
from services.permissions import Permission
from services.unit_of_work import UnitOfWork

# How many broken places one look reports; the first is what matters.
_REPORTED = 20


class AuditEntryView(BaseModel):
    """One deed. `event` is `source.subject.verb`; `seal` is that of this entry and all before it in its chain."""

    model_config = ConfigDict(frozen=True)

    id: int
    event: str
    source: str
    action: str
    tenant_id: UUID | None
    actor_id: UUID | None
    subject_type: str
    subject_id: str
    details: dict[str, Any]
    ip: str | None
    user_agent: str | None
    request_id: str | None
    created_at: datetime
    seq: int
    seal: str

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        return cls(
            id=entry.id,
            event=f"{entry.source}.{entry.action}",
            source=entry.source,
            action=entry.action,
            tenant_id=entry.tenant_id,
            actor_id=entry.actor_id,
            subject_type=entry.subject_type,
            subject_id=entry.subject_id,
            details=entry.details,
            ip=entry.ip,
            user_agent=entry.user_agent,
            request_id=entry.request_id,
            created_at=entry.created_at,
            seq=entry.seq,
            seal=entry.seal.hex(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries are wanted; `action` is a whole one or its subject, such as `member`; `until` is exclusive."""

    action: str | None = None
    actor_id: UUID | None = None
    subject_type: str | None = None
    subject_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.action is not None:
            found.append(
                or_(AuditEntry.action == self.action, AuditEntry.action.startswith(f"{self.action}.", autoescape=True))
            )
        if self.actor_id is not None:
            found.append(AuditEntry.actor_id == self.actor_id)
        if self.subject_type is not None:
            found.append(AuditEntry.subject_type == self.subject_type)
        if self.subject_id is not None:
            found.append(AuditEntry.subject_id == self.subject_id)
        if self.since is not None:
            found.append(AuditEntry.created_at >= self.since)
        if self.until is not None:
            found.append(AuditEntry.created_at < self.until)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a look at all chains found: how much there is, one digest of all their ends, and what does not fit."""

    chains: int
    entries: int
    digest: str
    faults: Sequence[str]


class AuditService:
    """Shows the audit and tells whether somebody has tampered with it."""

    async def list(
        self, uow: UnitOfWork, actor: Principal, wanted: AuditFilter, page: PageRequest
    ) -> Page[AuditEntryView]:
        """Show the tenant's entries to its owner or an admin, the newest first; raises RoleRequired."""
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.AUDIT_READ)
        return await _page(uow, [AuditEntry.tenant_id == tenant_id, *wanted.conditions()], page)

    async def list_all(
        self, uow: UnitOfWork, actor: Principal, wanted: AuditFilter, page: PageRequest, *, tenant_id: UUID | None
    ) -> Page[AuditEntryView]:
        """Show entries of every tenant, or of one, and of none, to the platform's people; raises SuperuserRequired."""
        require_superuser(actor)
        narrowed = [] if tenant_id is None else [AuditEntry.tenant_id == tenant_id]
        return await _page(uow, [*narrowed, *wanted.conditions()], page)

    async def verify(self, uow: UnitOfWork) -> Verdict:
        """Compute every seal anew, in the database, and compare; it reads the whole table."""
        broken = (await uow.session.execute(_broken_seals())).all()
        cut = (await uow.session.execute(_cut_chains())).all()
        faults = [f"chain {row.chain_id}: entry {row.seq} does not fit the one before it" for row in broken]
        faults += [f"chain {row.chain_id}: {row.length} entries were written, {row.kept} are there" for row in cut]
        heads = func.string_agg(AuditChain.head, literal(b"", LargeBinary)).aggregate_order_by(AuditChain.chain_id)
        ends = (
            await uow.session.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(AuditChain.length), 0),
                    func.encode(func.sha256(func.coalesce(heads, b"")), "hex"),
                ).select_from(AuditChain)
            )
        ).one()
        return Verdict(chains=ends[0], entries=int(ends[1]), digest=ends[2], faults=faults[:_REPORTED])


async def _page(
    uow: UnitOfWork, conditions: Sequence[ColumnElement[bool]], request: PageRequest
) -> Page[AuditEntryView]:
    total = await uow.session.scalar(select(func.count()).select_from(AuditEntry).where(*conditions))
    entries = await uow.session.scalars(
        select(AuditEntry).where(*conditions).order_by(AuditEntry.id.desc()).offset(request.offset).limit(request.size)
    )
    return Page([AuditEntryView.of(entry) for entry in entries], total or 0, request)


def _broken_seals() -> Select[UUID, int]:
    before = func.lag(AuditEntry.seal).over(partition_by=AuditEntry.chain_id, order_by=AuditEntry.seq)
    place = func.row_number().over(partition_by=AuditEntry.chain_id, order_by=AuditEntry.seq)
    previous = func.coalesce(before, literal(b"", LargeBinary))
    sealed = func.sha256(previous.op("||")(func.convert_to(AuditEntry.sealed_text(), "UTF8")))
    entries = select(
        AuditEntry.chain_id,
        AuditEntry.seq,
        and_(AuditEntry.seal == sealed, AuditEntry.seq == place).label("fits"),
    ).subquery()
    return (
        select(entries.c.chain_id, entries.c.seq)
        .where(~entries.c.fits)
        .order_by(entries.c.chain_id, entries.c.seq)
        .limit(_REPORTED)
    )


def _cut_chains() -> Select[UUID, int, int]:
    kept = (
        select(
            AuditEntry.chain_id,
            func.count().label("kept"),
            func.max(AuditEntry.seq).label("last"),
        )
        .group_by(AuditEntry.chain_id)
        .subquery()
    )
    return (
        select(
            func.coalesce(AuditChain.chain_id, kept.c.chain_id).label("chain_id"),
            func.coalesce(AuditChain.length, 0).label("length"),
            func.coalesce(kept.c.kept, 0).label("kept"),
        )
        .select_from(AuditChain)
        .join(kept, kept.c.chain_id == AuditChain.chain_id, full=True)
        .where(AuditChain.length.is_distinct_from(kept.c.kept))
        .limit(_REPORTED)
    )
