"""The provider inbox (providers.md 1.3): verify, store once, answer; apply afterwards until settled."""

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID

from sqlalchemy import Select, or_, select, update

from core.backoff import full_jitter_s
from core.errors import DomainError, Unavailable
from models.inbox import EventSource, InboxState, ProviderEvent
from models.merchants import PaymentIntegration
from providers.payments import (
    BadPayload,
    PaymentProvider,
    ProviderUnavailable,
    Reading,
    read_event,
)
from services.billing.announcer import Announcer
from services.billing.apply import FactApplier
from services.billing.changes import note_reconciled, watching
from services.billing.errors import FactRefused, NotThereYet, WebhookUnknown
from services.billing.instructions import Instructions
from services.billing.stored import RING_AGAIN, event_of, log_event, log_stored, store_event, task_of, verified_event
from services.unit_of_work import PlatformScope, RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory

# How often an event that breaks is tried, and how long one waits for what it speaks of.
MAX_ATTEMPTS = 10
PATIENCE = timedelta(hours=24)

_STRIPE = "stripe"
# The longest pause between two tries, in seconds, and how long the shorter one is kept to.
_CAP_S = 900.0
_EARLY_CAP_S = 60.0
_EARLY = timedelta(hours=1)
_SWEEP_LIMIT = 200
# How many rings of a moment's outage are made up for at once, each of which was lost but once.
_LOST_LIMIT = 5_000
# When a provider shall deliver again what cannot be checked now, in seconds.
_COME_BACK_S = 30
_SCOPE = PlatformScope("an event names its tenant only once it is read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an event of a merchant's account means, and whose account it is."""

    tenant_id: UUID
    integration_id: UUID
    provider: str
    reading: Reading


class MerchantEvents(Protocol):
    """Opens merchants' accounts and understands their events (services/merchants)."""

    def opened(self, integration: PaymentIntegration) -> PaymentProvider:
        """Return an adapter for a merchant's account; raises Unavailable where its keys cannot be read now."""

    async def read(self, row: ProviderEvent) -> Told:
        """Tell what a stored event means, asking the merchant's provider; raises what `read_event` does."""

    async def apply(self, uow: UnitOfWork, told: Told) -> None:
        """Put it into effect, in the caller's transaction over the merchant's rows."""

    async def alert(self, uow: UnitOfWork, row: ProviderEvent) -> None:
        """Tell the merchant's people that an event was given up."""


class Inbox:
    """Takes events from providers and sees to it that each takes effect exactly once."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        known: Mapping[str, str | None],
        applier: FactApplier,
        announcer: Announcer,
        instructions: Instructions,
        merchants: MerchantEvents | None = None,
    ) -> None:
        self._units = units
        self._merchants = merchants
        self._providers = providers
        self._known = known
        self._applier = applier
        self._announcer = announcer
        self._instructions = instructions

    def sender(self, headers: Mapping[str, str]) -> str:
        """Name the provider whose signature a webhook carries, where its address does not, also one without keys.

        Without any signature that we know of it is Stripe: the first ancestor had one address for webhooks, and Stripe
        alone sent to it.
        """
        sent = {name.lower() for name in headers}
        usable = {name: provider.capabilities.signature_header for name, provider in self._providers.items()}
        named = (name for name, header in {**usable, **self._known}.items() if (header or "").lower() in sent)
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
            event = verified_event(provider, body=body, headers=headers, now=uow.now)
            is_new = await store_event(uow, name, event)
        log_stored(event, is_new=is_new)
        return is_new

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
            lost = due.where(ProviderEvent.next_attempt_at == ProviderEvent.received_at + RING_AGAIN).limit(_LOST_LIMIT)
            # Moved on at once, so that a queue without workers does not fill with the same rings.
            claimed = await uow.session.execute(
                update(ProviderEvent)
                .where(or_(ProviderEvent.id.in_(due.scalar_subquery()), ProviderEvent.id.in_(lost.scalar_subquery())))
                .values(next_attempt_at=uow.now + RING_AGAIN)
                .returning(ProviderEvent.id, ProviderEvent.integration_id)
            )
            for row_id, integration_id in claimed:
                uow.ring(task_of(integration_id), row_id)

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
        if row.integration_id is not None:
            await self._apply_merchants(row)
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
        log_event(logging.INFO, row, "handled")
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

    async def _apply_merchants(self, row: ProviderEvent) -> None:
        if self._merchants is None:
            raise NotThereYet("merchants")
        told = await self._merchants.read(row)
        # What a merchant's account tells can reach nobody's rows but the merchant's.
        async with self._units(TenantScope(told.tenant_id)) as uow:
            held = await _held(uow, row.id)
            if held is None:
                return
            with watching(uow) as changes:
                await self._merchants.apply(uow, told)
                await uow.session.flush()
            if held.source is not EventSource.WEBHOOK:
                await note_reconciled(uow, held, changes)
            held.mark_handled(uow.now)
        log_event(logging.INFO, row, "handled")

    async def _read(self, row: ProviderEvent) -> Reading:
        provider = self._providers.get(row.provider)
        if provider is None:
            raise NotThereYet("provider")
        # What another account of the provider does is none of our business, whatever its metadata claims.
        if row.account:
            return Reading(facts=())
        reading = await read_event(provider, event_of(row))
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
                row.postpone(reason, now=uow.now, wait=_pause(row, error, uow), is_fault=not _is_patient(error))
        if is_hopeless:
            log_event(logging.ERROR, row, "dead")
        else:
            log_event(logging.WARNING, row, "waiting" if _is_patient(error) else "postponed")

    async def _raise_alarm(self, uow: UnitOfWork, row: ProviderEvent, error: Exception) -> None:
        uow.audit(
            "provider_event.dead",
            actor_id=None,
            tenant_id=error.tenant_id if isinstance(error, FactRefused) else None,
            subject=("provider_event", row.id),
            details={"event_id": row.event_id, "type": row.type, "reason": row.last_error},
        )
        if row.integration_id is not None and self._merchants is not None:
            await self._merchants.alert(uow, row)
        else:
            await self._announcer.alert_operators(uow, row)


def _waiting(row_id: UUID) -> Select[ProviderEvent]:
    return select(ProviderEvent).where(ProviderEvent.id == row_id, ProviderEvent.state == InboxState.RECEIVED)


async def _held(uow: UnitOfWork, row_id: UUID) -> ProviderEvent | None:
    row: ProviderEvent | None = await uow.session.scalar(_waiting(row_id).with_for_update(skip_locked=True))
    return row


def _is_hopeless(row: ProviderEvent, error: Exception, uow: UnitOfWork) -> bool:
    if isinstance(error, FactRefused | BadPayload):
        return True
    if _is_patient(error):
        return uow.now - _waits_since(row) > PATIENCE
    return row.faults + 1 >= MAX_ATTEMPTS


def _pause(row: ProviderEvent, error: Exception, uow: UnitOfWork) -> timedelta:
    """Return how long to wait; what only waits for others is tried every minute at first, as they are soon back."""
    is_early = _is_patient(error) and uow.now - _waits_since(row) < _EARLY
    asked_s = error.retry_after_s if isinstance(error, ProviderUnavailable) else None
    wait_s = full_jitter_s(row.attempts + 1, base_s=4.0, cap_s=_EARLY_CAP_S if is_early else _CAP_S)
    return timedelta(seconds=max(wait_s, min(asked_s or 0, _CAP_S)))


def _waits_since(row: ProviderEvent) -> datetime:
    return row.resent_at or row.received_at


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
