"""Rows of the provider inbox: how an event becomes one, and which task of the worker sees to it."""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy.dialects.postgresql import insert

from models.inbox import EventSource, InboxState, ProviderEvent
from providers.payments import BadSignature, PaymentProvider, SignatureFault, VerifiedEvent
from services.billing.errors import WebhookUnknown
from services.unit_of_work import UnitOfWork

TASK = "billing.apply"
MERCHANT_TASK = "billing.apply_merchants"
"""A task of its own: a merchant's server may be slow on purpose, and must not hold up what the platform is paid."""

# A ring is repeated when nothing came of it for so long.
RING_AGAIN = timedelta(seconds=30)

logger = structlog.get_logger(__name__)


def verified_event(
    provider: PaymentProvider, *, body: bytes, headers: Mapping[str, str], now: datetime
) -> VerifiedEvent:
    """Prove and read an event; raises BadSignature, BadPayload, and WebhookUnknown where no secret is set."""
    try:
        return provider.verify(body=body, headers=headers, now=now)
    except BadSignature as refusal:
        if refusal.fault is SignatureFault.NOT_CONFIGURED:
            raise WebhookUnknown(refusal.text) from refusal
        raise


async def store_event(
    uow: UnitOfWork,
    provider_name: str,
    event: VerifiedEvent,
    *,
    integration_id: UUID | None = None,
    source: EventSource = EventSource.WEBHOOK,
    reconciliation_id: UUID | None = None,
) -> bool:
    """Insert an event and ring the worker; returns False, and does neither, for one that is there already.

    `integration_id` names the merchant's account that has told it; an event's id is unique within its account. `source`
    is where it was heard, `reconciliation_id` the sweep that has found it.
    """
    account = event.account if integration_id is None else str(integration_id)
    row_id: UUID | None = await uow.session.scalar(
        insert(ProviderEvent)
        .values(
            id=uuid4(),
            provider=provider_name,
            account=account,
            integration_id=integration_id,
            event_id=event.event_id,
            type=event.type,
            payload=event.payload,
            occurred_at=event.occurred_at,
            received_at=uow.now,
            state=InboxState.RECEIVED,
            attempts=0,
            next_attempt_at=uow.now + RING_AGAIN,
            source=source,
            reconciliation_id=reconciliation_id,
        )
        .on_conflict_do_nothing(index_elements=[ProviderEvent.provider, ProviderEvent.account, ProviderEvent.event_id])
        .returning(ProviderEvent.id)
    )
    if row_id is not None:
        uow.ring(task_of(integration_id), row_id)
    return row_id is not None


def task_of(integration_id: UUID | None) -> str:
    """Name the task that applies an event of the platform's own account, or of a merchant's."""
    return TASK if integration_id is None else MERCHANT_TASK


def log_event(level: int, event: VerifiedEvent | ProviderEvent, status: str) -> None:
    """Log what may be logged of an event: its id, its type and its state, nothing of its content."""
    logger.log(level, "provider event", event_id=event.event_id, type=event.type, status=status)


def log_stored(event: VerifiedEvent, *, is_new: bool) -> None:
    """Log that an event has arrived."""
    log_event(logging.INFO, event, "stored" if is_new else "repeated")


def event_of(row: ProviderEvent) -> VerifiedEvent:
    """Return the event that a row holds."""
    return VerifiedEvent(
        event_id=row.event_id,
        account=row.account,
        type=row.type,
        occurred_at=row.occurred_at,
        payload=row.payload,
    )
