"""The provider inbox (providers.md 1.3): verify, store once, answer; apply afterwards until settled."""

import logging
import traceback
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Select, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from core.backoff import full_jitter_s
from core.errors import DomainError, Unavailable
from models.inbox import EventSource, InboxState, ProviderEvent
from providers.payments import (
    BadPayload,
    BadSignature,
    PaymentProvider,
    ProviderUnavailable,
    Reading,
    SignatureFault,
    VerifiedEvent,
    read_event,
)
from services.billing.announcer import Announcer
from services.billing.apply import FactApplier
from services.billing.changes import note_reconciled, watching
from services.billing.errors import FactRefused, NotThereYet, WebhookUnknown
from services.billing.instructions import Instructions
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

TASK = "billing.apply"

# How often an event that breaks is tried, and how long one waits for what it speaks of.
MAX_ATTEMPTS = 10
PATIENCE = timedelta(hours=24)

_STRIPE = "stripe"
# A ring is repeated when nothing came of it for so long.
_RING_AGAIN = timedelta(seconds=30)
_SWEEP_LIMIT = 200
# How many rings of a moment's outage are made up for at once, each of which was lost but once.
_LOST_LIMIT = 5_000
# When a provider shall deliver again what cannot be checked now, in seconds.
_COME_BACK_S = 30
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
        announcer: Announcer,
        instructions: Instructions,
    ) -> None:
        self._units = units
        self._providers = providers
        self._applier = applier
        self._announcer = announcer
        self._instructions = instructions

    def sender(self, headers: Mapping[str, str]) -> str:
        """Name the provider whose signature a webhook carries, where its address does not; Stripe when none is known.

        The first ancestor had one address for webhooks, and Stripe alone sent to it.
        """
        sent = {name.lower() for name in headers}
        named = (
            name
            for name, provider in self._providers.items()
            if (provider.capabilities.signature_header or "").lower() in sent
        )
        return next(named, _STRIPE)

    async def receive(
        self, provider_name: str, *, body: bytes, headers: Mapping[str, str], trace: RequestTrace | None = None
    ) -> bool:
        """Store a signed event; returns False for one that was stored before.

        Raises:
            WebhookUnknown: there is no such provider, or its webhook's secret is not set.
            BadSignature, BadPayload: it is not the provider's, or no event.
            ProviderUnavailable: what the signature is checked with cannot be had now.
        """
        name = provider_name.lower()
        provider = self._provider(name)
        try:
            await provider.prepare(headers)
        except ProviderUnavailable as away:
            raise ProviderUnavailable(retryable=True, retry_after_s=away.retry_after_s or _COME_BACK_S) from away
        async with self._units(_SCOPE, trace=trace) as uow:
            event = _verified(provider, body=body, headers=headers, now=uow.now)
            row_id = await store(uow, name, event)
        _log(logging.INFO, event, "stored" if row_id else "repeated")
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
            await self._instructions.carry_out(order_id)

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
            # Rung but once so far: however many these are, each is made up for in time, and none is rung for twice.
            lost = due.where(ProviderEvent.next_attempt_at == ProviderEvent.received_at + _RING_AGAIN).limit(
                _LOST_LIMIT
            )
            # Moved on at once, so that a queue without workers does not fill with the same rings.
            claimed = await uow.session.scalars(
                update(ProviderEvent)
                .where(or_(ProviderEvent.id.in_(due.scalar_subquery()), ProviderEvent.id.in_(lost.scalar_subquery())))
                .values(next_attempt_at=uow.now + _RING_AGAIN)
                .returning(ProviderEvent.id)
            )
            for row_id in claimed:
                uow.ring(TASK, row_id)

    def _provider(self, name: str) -> PaymentProvider:
        provider = self._providers.get(name)
        if provider is None:
            # The first ancestor's words for an address that was always there (contract.md 1.5).
            raise WebhookUnknown("Stripe webhook secret is not configured" if name == _STRIPE else None)
        return provider

    async def _apply(self, row_id: UUID) -> list[UUID]:
        async with self._units(_SCOPE) as uow:
            row: ProviderEvent | None = await uow.session.scalar(_waiting(row_id))
        if row is None:
            return []
        # Before the unit of work that changes something: this may ask the provider.
        reading = await self._read(row)
        async with self._units(_SCOPE) as uow:
            row = await _held(uow, row_id)
            if row is None:
                return []
            with watching(uow) as changes:
                orders = await self._take_in(uow, row, reading)
            if row.source is not EventSource.WEBHOOK:
                await note_reconciled(uow, row, changes)
            row.mark_handled(uow.now)
        _log(logging.INFO, row, "handled")
        return orders

    async def _take_in(self, uow: UnitOfWork, row: ProviderEvent, reading: Reading) -> list[UUID]:
        orders: list[UUID] = []
        payment = reading.payment
        is_own = payment is None or await self._applier.measure(uow, row.provider, payment)
        for fact in reading.facts if is_own else ():
            orders += await self._applier.apply(uow, fact)
            # The next fact of the same event reads what this one has changed.
            await uow.session.flush()
        return orders

    async def _read(self, row: ProviderEvent) -> Reading:
        provider = self._providers.get(row.provider)
        if provider is None:
            raise NotThereYet("provider")
        # What another account of the provider does is none of our business, whatever its metadata claims.
        if row.account:
            return Reading(facts=())
        reading = await read_event(provider, _event(row))
        if reading.is_missing:
            raise NotThereYet("payment at the provider")
        return reading

    async def _record_failure(self, row_id: UUID, error: Exception) -> None:
        async with self._units(_SCOPE) as uow:
            row = await _held(uow, row_id)
            if row is None:
                return
            reason = _reason(error)
            is_hopeless = _is_hopeless(row, error, uow)
            if is_hopeless:
                row.bury(reason)
                await self._raise_alarm(uow, row, error)
            else:
                asked_s = error.retry_after_s if isinstance(error, ProviderUnavailable) else None
                wait_s = max(full_jitter_s(row.attempts + 1, base_s=4.0, cap_s=900.0), min(asked_s or 0, 900))
                row.postpone(reason, now=uow.now, wait=timedelta(seconds=wait_s))
        if is_hopeless:
            _log(logging.ERROR, row, "dead")
        else:
            _log(logging.WARNING, row, "waiting" if _is_patient(error) else "postponed")

    async def _raise_alarm(self, uow: UnitOfWork, row: ProviderEvent, error: Exception) -> None:
        uow.audit(
            "provider_event.dead",
            actor_id=None,
            tenant_id=error.tenant_id if isinstance(error, FactRefused) else None,
            subject=("provider_event", row.id),
            details={"event_id": row.event_id, "type": row.type, "reason": row.last_error},
        )
        await self._announcer.alert_operators(uow, row)


def _verified(provider: PaymentProvider, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
    try:
        return provider.verify(body=body, headers=headers, now=now)
    except BadSignature as refusal:
        if refusal.fault is SignatureFault.NOT_CONFIGURED:
            raise WebhookUnknown(refusal.text) from refusal
        raise


async def store(
    uow: UnitOfWork,
    provider_name: str,
    event: VerifiedEvent,
    *,
    source: EventSource = EventSource.WEBHOOK,
    reconciliation_id: UUID | None = None,
) -> UUID | None:
    """Insert an event and ring for it; returns its row's id, None for one that is there already."""
    row_id: UUID | None = await uow.session.scalar(
        insert(ProviderEvent)
        .values(
            id=uuid4(),
            provider=provider_name,
            account=event.account,
            event_id=event.event_id,
            type=event.type,
            payload=event.payload,
            occurred_at=event.occurred_at,
            received_at=uow.now,
            state=InboxState.RECEIVED,
            attempts=0,
            next_attempt_at=uow.now + _RING_AGAIN,
            source=source,
            reconciliation_id=reconciliation_id,
        )
        .on_conflict_do_nothing(index_elements=[ProviderEvent.provider, ProviderEvent.account, ProviderEvent.event_id])
        .returning(ProviderEvent.id)
    )
    if row_id is not None:
        uow.ring(TASK, row_id)
    return row_id


def _log(level: int, event: VerifiedEvent | ProviderEvent, status: str) -> None:
    """Log what may be logged of an event: its id, its type and its state, nothing of its content."""
    logger.log(level, "provider event", event_id=event.event_id, type=event.type, status=status)


def _waiting(row_id: UUID) -> Select[ProviderEvent]:
    return select(ProviderEvent).where(ProviderEvent.id == row_id, ProviderEvent.state == InboxState.RECEIVED)


async def _held(uow: UnitOfWork, row_id: UUID) -> ProviderEvent | None:
    row: ProviderEvent | None = await uow.session.scalar(_waiting(row_id).with_for_update(skip_locked=True))
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
    if _is_patient(error):
        return uow.now - (row.resent_at or row.received_at) > PATIENCE
    return row.attempts + 1 >= MAX_ATTEMPTS


def _is_patient(error: Exception) -> bool:
    """Tell whether time alone may mend it, so that it is not counted how often it was tried."""
    return isinstance(error, NotThereYet | ProviderUnavailable | Unavailable)


def _reason(error: Exception) -> str:
    """Say what went wrong without a word of the payload, which foreign exceptions may quote."""
    if isinstance(error, NotThereYet):
        return f"unknown {error}"
    if isinstance(error, FactRefused | DomainError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place
