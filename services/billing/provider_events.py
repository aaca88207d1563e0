"""What operators see of the inbox, and the second chance that they can give to an event that was given up."""

from datetime import datetime
from typing import Self
from uuid import UUID

from sqlalchemy import func, select

from core.pagination import Page, PageRequest
from models.inbox import EventSource, InboxState, ProviderEvent
from services.billing.errors import ProviderEventEmptied, ProviderEventNotDead, ProviderEventNotFound
from services.billing.stored import task_of
from services.billing.views import View
from services.identity import Principal, require_superuser
from services.unit_of_work import UnitOfWork


class ProviderEventView(View):
    """An event of a payment provider, without its content; `last_error` holds none of it either."""

    id: UUID
    provider: str
    event_id: str
    type: str
    source: EventSource
    state: InboxState
    attempts: int
    last_error: str | None
    occurred_at: datetime
    received_at: datetime
    resent_at: datetime | None
    handled_at: datetime | None

    @classmethod
    def of(cls, row: ProviderEvent) -> Self:
        return cls(
            id=row.id,
            provider=row.provider,
            event_id=row.event_id,
            type=row.type,
            source=row.source,
            state=row.state,
            attempts=row.attempts,
            last_error=row.last_error,
            occurred_at=row.occurred_at,
            received_at=row.received_at,
            resent_at=row.resent_at,
            handled_at=row.handled_at,
        )


async def list_provider_events(
    uow: UnitOfWork, actor: Principal, page: PageRequest, *, state: InboxState
) -> Page[ProviderEventView]:
    """Show the events in a state, newest first; for superusers."""
    require_superuser(actor)
    chosen = ProviderEvent.state == state
    total = await uow.session.scalar(select(func.count()).select_from(ProviderEvent).where(chosen))
    rows = await uow.session.scalars(
        select(ProviderEvent)
        .where(chosen)
        .order_by(ProviderEvent.received_at.desc(), ProviderEvent.id)
        .offset(page.offset)
        .limit(page.size)
    )
    return Page(items=[ProviderEventView.of(row) for row in rows], total=total or 0, request=page)


async def resend_provider_event(uow: UnitOfWork, actor: Principal, *, row_id: UUID) -> ProviderEventView:
    """Let a dead event be tried again, once whatever killed it is mended; for superusers.

    Raises ProviderEventNotFound, ProviderEventNotDead and ProviderEventEmptied.
    """
    require_superuser(actor)
    row = await uow.session.scalar(select(ProviderEvent).where(ProviderEvent.id == row_id).with_for_update())
    if row is None:
        raise ProviderEventNotFound
    if row.is_emptied:
        raise ProviderEventEmptied
    if not row.resend(uow.now):
        raise ProviderEventNotDead
    uow.audit(
        "provider_event.resent",
        actor_id=actor.user_id,
        tenant_id=None,
        subject=("provider_event", row.id),
        details={"event_id": row.event_id, "type": row.type},
    )
    uow.ring(task_of(row.integration_id), row.id)
    return ProviderEventView.of(row)
