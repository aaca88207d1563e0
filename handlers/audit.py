"""The audit over REST: for owners and admins their tenant's, for the platform's people everybody's."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import AwareDatetime, Field

from handlers.envelope import ListEnvelope
from handlers.rest import Access, Call, PageQuery, Router
from services.audit import AuditEntryView, AuditFilter
from services.identity import RoleRequired, SuperuserRequired
from services.permissions import KeyScope
from services.unit_of_work import PlatformScope

router = Router(tag="audit", prefix="/api/v1")


# No entry is older; far years would not survive the way through another time zone.
Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC))]


class AuditQuery(PageQuery):
    """Which entries to list. `action` is a whole one (`member.removed`) or its subject (`member`)."""

    action: Annotated[str | None, Field(max_length=100)] = None
    actor_id: UUID | None = None
    subject_type: Annotated[str | None, Field(max_length=50)] = None
    subject_id: Annotated[str | None, Field(max_length=100)] = None
    since: Moment | None = None
    until: Moment | None = None

    def wanted(self) -> AuditFilter:
        return AuditFilter(
            action=self.action,
            actor_id=self.actor_id,
            subject_type=self.subject_type,
            subject_id=self.subject_id,
            since=self.since,
            until=self.until,
        )


class PlatformAuditQuery(AuditQuery):
    """The same, of one tenant or of all."""

    tenant_id: UUID | None = None


@router.get("/audit", answer=ListEnvelope[AuditEntryView], errors=(RoleRequired,), scope=KeyScope.AUDIT_READ)
async def list_audit(call: Call, query: AuditQuery) -> web.Response:
    """List who did what in the tenant, newest first; for its owner and admins."""
    async with call.tenant_uow() as uow:
        page = await call.context.services.audit.list(uow, call.actor, query.wanted(), query.request())
    return call.page(page)


@router.get("/super-admin/audit", answer=ListEnvelope[AuditEntryView], access=Access.USER, errors=(SuperuserRequired,))
async def list_platform_audit(call: Call, query: PlatformAuditQuery) -> web.Response:
    """List who did what on the whole platform, newest first; for its own people."""
    async with call.uow(PlatformScope("the platform's people look across tenants")) as uow:
        page = await call.context.services.audit.list_all(
            uow, call.actor, query.wanted(), query.request(), tenant_id=query.tenant_id
        )
    return call.page(page)
