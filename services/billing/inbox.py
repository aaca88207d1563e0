"""The provider inbox (providers.md 1.3): verify, store once, answer; apply afterwards until settled."""

import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from core.backoff import full_jitter_s
from core.errors import DomainError
from models.inbox import InboxState, ProviderEvent
from providers.payments import BadPayload, BadSignature, PaymentProvider, SignatureFault, VerifiedEvent
from services.billing.apply import FactApplier
from services.billing.cancellations import Cancellations
from services.billing.errors import FactRefused, NotThereYet, WebhookUnknown
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

TASK = "billing.apply"

# How often an event that breaks is tried, and how long one waits for what it speaks of.
MAX_ATTEMPTS = 10
PATIENCE = timedelta(hours=24)

_STRIPE = "stripe"
# A ring is repeated when nothing came of it for so long.
_RING_AGAIN = timedelta(seconds=30)
_SWEEP_LIMIT = 200
_SCOPE = PlatformScope("an event names its tenant only once it is read")

logger = structlog.get_logger(__name__)


class Inbox:
    """Takes events from providers and sees to it that each takes effect exactly once."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        applier: FactApplier,
        cancellations: Cancellations,
    ) -> None:
        self._units = units
        self._providers = providers
        self._applier = applier
        self._cancellations = cancellations

    async def receive(self, uow: UnitOfWork, provider_name: str, *, body: bytes, headers: Mapping[str, str]) -> bool:
        """Store a signed event; returns False for one that was stored before.

        Raises WebhookUnknown, BadSignature and BadPayload.
        """
        event = self._provider(provider_name).verify(body=body, headers=headers, now=uow.now)
        row_id: UUID | None = await uow.session.scalar(
            insert(ProviderEvent)
            .values(
                id=uuid4(),
                provider=provider_name.lower(),
                account=event.account,
                event_id=event.event_id,
                type=event.type,
                payload=event.payload,
                occurred_at=event.occurred_at,
                received_at=uow.now,
                state=InboxState.RECEIVED,
                attempts=0,
                next_attempt_at=uow.now + _RING_AGAIN,
            )
            .on_conflict_do_nothing(
                index_elements=[ProviderEvent.provider, ProviderEvent.account, ProviderEvent.event_id]
            )
            .returning(ProviderEvent.id)
        )
        if row_id is not None:
            uow.ring(TASK, row_id)
        status = "stored" if row_id else "repeated"
        logger.info("provider event", event_id=event.event_id, type=event.type, status=status)
        return row_id is not None

    async def apply(self, row_id: UUID) -> None:
        """Put a stored event into effect: all of it in one transaction, or none of it and another try later.

        Harmless for an event that is settled or that another worker holds.
        """
        try:
            orders = await self._apply(row_id)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one event must not stop the others
            await self._record_failure(row_id, error)
            return
        for order_id in orders:
            await self._cancellations.carry_out(order_id)

    async def sweep(self) -> None:
        """Ring again for events whose time has come: retries, lost rings, and workers that died on one."""
        async with self._units(_SCOPE) as uow:
            due = (
                select(ProviderEvent.id)
                .where(ProviderEvent.state == InboxState.RECEIVED, ProviderEvent.next_attempt_at <= uow.now)
                .order_by(ProviderEvent.next_attempt_at)
                .limit(_SWEEP_LIMIT)
                .with_for_update(skip_locked=True)
            )
            # Moved on at once, so that a queue without workers does not fill with the same rings.
            claimed = await uow.session.scalars(
                update(ProviderEvent)
                .where(ProviderEvent.id.in_(due.scalar_subquery()))
                .values(next_attempt_at=uow.now + _RING_AGAIN)
                .returning(ProviderEvent.id)
            )
            for row_id in claimed:
                uow.ring(TASK, row_id)

    def _provider(self, name: str) -> PaymentProvider:
        provider = self._providers.get(name.lower())
        if provider is not None:
            return provider
        if name.lower() == _STRIPE:
            raise BadSignature(SignatureFault.NOT_CONFIGURED, "Stripe webhook secret is not configured")
        raise WebhookUnknown

    async def _apply(self, row_id: UUID) -> list[UUID]:
        orders: list[UUID] = []
        async with self._units(_SCOPE) as uow:
            row = await _held(uow, row_id)
            if row is None:
                return orders
            provider = self._providers.get(row.provider)
            if provider is None:
                raise NotThereYet("provider")
            # What another account of the provider does is none of our business, whatever its metadata claims.
            for fact in () if row.account else provider.interpret(_event(row)):
                orders += await self._applier.apply(uow, fact)
                # The next fact of the same event reads what this one has changed.
                await uow.session.flush()
            row.mark_handled(uow.now)
            logger.info("provider event", event_id=row.event_id, type=row.type, status="handled")
        return orders

    async def _record_failure(self, row_id: UUID, error: Exception) -> None:
        async with self._units(_SCOPE) as uow:
            row = await _held(uow, row_id)
            if row is None:
                return
            reason = _reason(error)
            if _is_hopeless(row, error, uow):
                row.bury(reason)
                uow.audit(
                    "provider_event.dead",
                    actor_id=None,
                    tenant_id=error.tenant_id if isinstance(error, FactRefused) else None,
                    subject=("provider_event", row.id),
                    details={"event_id": row.event_id, "type": row.type, "reason": reason},
                )
                logger.error("provider event", event_id=row.event_id, type=row.type, status="dead", reason=reason)
                return
            wait = full_jitter_s(row.attempts + 1, base_s=4.0, cap_s=900.0)
            row.postpone(reason, now=uow.now, wait=timedelta(seconds=wait))
            status = "waiting" if isinstance(error, NotThereYet) else "postponed"
            logger.warning("provider event", event_id=row.event_id, type=row.type, status=status, reason=reason)


async def _held(uow: UnitOfWork, row_id: UUID) -> ProviderEvent | None:
    row: ProviderEvent | None = await uow.session.scalar(
        select(ProviderEvent)
        .where(ProviderEvent.id == row_id, ProviderEvent.state == InboxState.RECEIVED)
        .with_for_update(skip_locked=True)
    )
    return row


def _event(row: ProviderEvent) -> VerifiedEvent:
    return VerifiedEvent(
        event_id=row.event_id,
        account=row.account,
        type=row.type,
        occurred_at=row.occurred_at,
        payload=row.payload,
    )


def _is_hopeless(row: ProviderEvent, error: Exception, uow: UnitOfWork) -> bool:
    if isinstance(error, FactRefused | BadPayload):
        return True
    if isinstance(error, NotThereYet):
        return uow.now - row.received_at > PATIENCE
    return row.attempts + 1 >= MAX_ATTEMPTS


def _reason(error: Exception) -> str:
    """Say what went wrong without a word of the payload, which foreign exceptions may quote."""
    if isinstance(error, NotThereYet):
        return f"unknown {error}"
    if isinstance(error, FactRefused | DomainError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place
