"""Telling providers what to do with subscriptions and open pages: decided in one transaction, carried out after it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import assert_never
from uuid import UUID, uuid4

import structlog
from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, aliased

from core.backoff import full_jitter_s
from models.billing import (
    BillingPeriod,
    CheckoutSession,
    CheckoutState,
    InstructionKind,
    ProviderInstruction,
    Subscription,
)
from providers.payments import PaymentProvider, ProviderRejected, ProviderUnavailable, Terms
from services.billing.announcer import Announcer
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

# How long a provider is given to do one thing, all the calls that it takes together.
_PATIENCE_S = 40.0
# Longer than that, so that two workers do not tell at once; short enough that one whose process died is told again
# within a minute.
_LEASE = timedelta(seconds=45)
_SWEEP_LIMIT = 50
_SCOPE = PlatformScope("instructions to providers outlive the request that gave them")
_STOPS = (InstructionKind.CANCEL_NOW, InstructionKind.CANCEL_LATER)
# What a provider refuses goes on charging somebody too much, so it is told again until it does it.
_INSISTED_ON = (*_STOPS, InstructionKind.REPRICE)
_INSIST_EVERY = timedelta(days=1)
# What is given makes earlier ones of these kinds pointless.
_OUTDATES = {
    InstructionKind.CANCEL_NOW: _INSISTED_ON,
    InstructionKind.CANCEL_LATER: _STOPS,
    InstructionKind.RESUME: _STOPS,
    InstructionKind.REPRICE: (InstructionKind.REPRICE,),
}

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressee:
    """A provider's subscription of a tenant, or the session of one of its purchases."""

    tenant_id: UUID
    provider: str
    subscription_ref: str


def addressee_of(subscription: Subscription) -> Addressee | None:
    """Return whom to tell about a tenant's subscription; None where no provider keeps one."""
    provider, ref = subscription.payment_provider, subscription.external_subscription_id
    if provider is None or ref is None:
        return None
    return Addressee(tenant_id=subscription.tenant_id, provider=provider, subscription_ref=ref)


def is_withdrawn() -> ColumnElement[bool]:
    """Select purchases whose page the provider has been told to close, or will be."""
    return exists().where(
        _is_about(CheckoutSession.provider, CheckoutSession.session_id),
        ProviderInstruction.kind == InstructionKind.WITHDRAW,
    )


class Instructions:
    """Instructions to providers. To tell one twice does no harm, so each is told at least once.

    Those of one subscription are told in the order in which they were given, the next when the one before is done: a
    cancellation that was taken back must not overtake its being taken back. One that was refused holds up no other; a
    stop or a price is told again every day, until it is done or another one takes its place.
    """

    def __init__(
        self, units: UnitOfWorkFactory, providers: Mapping[str, PaymentProvider], announcer: Announcer
    ) -> None:
        self._units = units
        self._providers = providers
        self._announcer = announcer

    async def cancel(self, uow: UnitOfWork, addressee: Addressee, *, at_period_end: bool) -> UUID:
        """Instruct to stop charging; returns the id for `carry_out` once the caller's transaction has committed."""
        kind = InstructionKind.CANCEL_LATER if at_period_end else InstructionKind.CANCEL_NOW
        return await self._give(uow, addressee, kind)

    async def resume(self, uow: UnitOfWork, addressee: Addressee) -> UUID:
        """Instruct to charge on after a cancellation that was taken back."""
        return await self._give(uow, addressee, InstructionKind.RESUME)

    async def collect(self, uow: UnitOfWork, addressee: Addressee, *, invoice_ref: str) -> UUID:
        """Instruct to try once more to collect a bill."""
        return await self._give(uow, addressee, InstructionKind.COLLECT, invoice_ref=invoice_ref)

    async def reprice(
        self,
        uow: UnitOfWork,
        addressee: Addressee,
        *,
        amount: Decimal,
        currency: str,
        period: BillingPeriod,
        charge_from: datetime,
    ) -> UUID:
        """Instruct to charge other terms from a moment on."""
        return await self._give(
            uow,
            addressee,
            InstructionKind.REPRICE,
            amount=amount,
            currency=currency,
            billing_period=period,
            charge_from=charge_from,
        )

    async def withdraw_pages(self, uow: UnitOfWork, tenant_id: UUID) -> list[UUID]:
        """Instruct to close the pages at which a tenant could still pay for what it needs no more.

        One where money has come already, or is on its way, is left: what it buys, or is owed for it, is told then. The
        subscription's lock is held.
        """
        # What has just been paid is no open page any more.
        await uow.session.flush()
        closing = [name for name, provider in self._providers.items() if provider.capabilities.withdraw]
        rows = await uow.session.scalars(
            select(CheckoutSession)
            .where(
                CheckoutSession.tenant_id == tenant_id,
                CheckoutSession.state == CheckoutState.PENDING,
                CheckoutSession.received == 0,
                CheckoutSession.provider.in_(closing),
                CheckoutSession.session_id.is_not(None),
                or_(CheckoutSession.expires_at.is_(None), CheckoutSession.expires_at > uow.now),
                ~is_withdrawn(),
            )
            .order_by(CheckoutSession.created_at, CheckoutSession.id)
        )
        pages = [
            Addressee(tenant_id=tenant_id, provider=row.provider, subscription_ref=row.session_id or "") for row in rows
        ]
        return [await self._give(uow, page, InstructionKind.WITHDRAW) for page in pages]

    async def will_stop(self, uow: UnitOfWork, *, provider: str, subscription_ref: str) -> bool | None:
        """Tell what the provider has yet to hear: that it shall stop, or charge on; None where it has heard all."""
        newest = await uow.session.scalar(
            select(ProviderInstruction.kind)
            .where(
                _is_about(provider, subscription_ref),
                ProviderInstruction.done_at.is_(None),
                ProviderInstruction.kind.in_((*_STOPS, InstructionKind.RESUME)),
            )
            .order_by(ProviderInstruction.number.desc())
            .limit(1)
        )
        return None if newest is None else newest in _STOPS

    async def carry_out(self, instruction_id: UUID) -> None:
        """Tell the provider, outside any unit of work; when it is away, the sweeper tells it again."""
        claimed = await self._claim(instruction_id)
        if claimed is None:
            return
        instruction, attempt = claimed
        try:
            provider = self._providers.get(instruction.provider)
            if provider is None:
                # Its keys were taken away; an operator who puts them back wants the order carried out.
                raise ProviderUnavailable(retryable=False)
            async with asyncio.timeout(_PATIENCE_S):
                await _tell(provider, instruction)
        except (ProviderUnavailable, TimeoutError):
            await self._postpone(instruction_id, attempt, "provider unavailable")
        except ProviderRejected as refusal:
            await self._note_refusal(instruction_id, refusal)
        except Exception as error:
            # Whatever is wrong with one instruction must not stop those of all the others.
            logger.exception("instruction broke", provider=instruction.provider, instruction=str(instruction_id))
            await self._postpone(instruction_id, attempt, type(error).__name__)
        else:
            await self._finish(instruction_id)

    async def sweep(self) -> None:
        """Carry out what is due: retries, and those whose process died before it could tell."""
        async with self._units(_SCOPE) as uow:
            due = await uow.session.scalars(
                select(ProviderInstruction.id)
                .where(
                    ProviderInstruction.done_at.is_(None), ProviderInstruction.next_attempt_at <= uow.now, _is_first()
                )
                .order_by(ProviderInstruction.next_attempt_at)
                .limit(_SWEEP_LIMIT)
            )
            instruction_ids = list(due)
        for instruction_id in instruction_ids:
            await self.carry_out(instruction_id)

    async def _give(
        self, uow: UnitOfWork, addressee: Addressee, kind: InstructionKind, **terms: Decimal | str | datetime
    ) -> UUID:
        """Record an instruction; the lock of the tenant's subscription, which all callers hold, keeps the count."""
        newest = await uow.session.scalar(
            select(func.max(ProviderInstruction.number)).where(
                _is_about(addressee.provider, addressee.subscription_ref)
            )
        )
        given = ProviderInstruction(
            id=uuid4(),
            tenant_id=addressee.tenant_id,
            provider=addressee.provider,
            subscription_ref=addressee.subscription_ref,
            number=(newest or 0) + 1,
            kind=kind,
            attempts=0,
            created_at=uow.now,
            next_attempt_at=uow.now,
            **terms,
        )
        uow.session.add(given)
        await uow.session.execute(
            update(ProviderInstruction)
            .where(
                _is_about(addressee.provider, addressee.subscription_ref),
                ProviderInstruction.kind.in_(_OUTDATES.get(kind, ())),
                ProviderInstruction.refused_at.is_not(None),
                ProviderInstruction.done_at.is_(None),
            )
            .values(done_at=uow.now)
        )
        # The next of the same unit of work counts on.
        await uow.session.flush()
        return given.id

    async def _claim(self, instruction_id: UUID) -> tuple[ProviderInstruction, int] | None:
        async with self._units(_SCOPE) as uow:
            instruction = await uow.session.scalar(
                select(ProviderInstruction)
                .where(
                    ProviderInstruction.id == instruction_id,
                    ProviderInstruction.done_at.is_(None),
                    or_(ProviderInstruction.next_attempt_at <= uow.now, ProviderInstruction.attempts == 0),
                    _is_first(),
                )
                .with_for_update(skip_locked=True)
            )
            return None if instruction is None else (instruction, instruction.claim(now=uow.now, lease=_LEASE))

    async def _postpone(self, instruction_id: UUID, attempt: int, reason: str) -> None:
        async with self._units(_SCOPE) as uow:
            instruction = await self._held(uow, instruction_id)
            wait = timedelta(seconds=full_jitter_s(attempt, base_s=30.0, cap_s=3600.0))
            instruction.next_attempt_at = uow.now + wait
            instruction.last_error = reason
            logger.warning(
                "instruction postponed", provider=instruction.provider, instruction=str(instruction_id), attempt=attempt
            )

    async def _finish(self, instruction_id: UUID) -> None:
        async with self._units(_SCOPE) as uow:
            instruction = await self._held(uow, instruction_id)
            instruction.done_at, instruction.last_error = uow.now, None
            _audit(uow, "provider_instruction.done", instruction)

    async def _note_refusal(self, instruction_id: UUID, refusal: ProviderRejected) -> None:
        async with self._units(_SCOPE) as uow:
            instruction = await self._held(uow, instruction_id)
            instruction.last_error = refusal.text
            is_first = instruction.refused_at is None
            instruction.refused_at = instruction.refused_at or uow.now
            if await self._is_insisted_on(uow, instruction):
                instruction.next_attempt_at = uow.now + _INSIST_EVERY
            else:
                instruction.done_at = uow.now
            if is_first:
                _audit(uow, "provider_instruction.refused", instruction)
                if instruction.done_at is None:
                    await self._announcer.instruction_refused(uow, instruction)
        logger.error("instruction refused", provider=instruction.provider, instruction=str(instruction_id))

    async def _is_insisted_on(self, uow: UnitOfWork, instruction: ProviderInstruction) -> bool:
        """Tell whether a refused instruction must be carried out all the same: nothing given since outdates it."""
        outdating = [kind for kind, outdated in _OUTDATES.items() if instruction.kind in outdated]
        newer = await uow.session.scalar(
            select(ProviderInstruction.id)
            .where(
                _is_about(instruction.provider, instruction.subscription_ref),
                ProviderInstruction.number > instruction.number,
                ProviderInstruction.kind.in_(outdating),
            )
            .limit(1)
        )
        return instruction.kind in _INSISTED_ON and newer is None

    async def _held(self, uow: UnitOfWork, instruction_id: UUID) -> ProviderInstruction:
        rows = await uow.session.scalars(
            select(ProviderInstruction).where(ProviderInstruction.id == instruction_id).with_for_update()
        )
        return rows.one()


def _audit(uow: UnitOfWork, action: str, instruction: ProviderInstruction) -> None:
    uow.audit(
        action,
        actor_id=None,
        tenant_id=instruction.tenant_id,
        subject=("provider_instruction", instruction.id),
        details={"provider": instruction.provider, "kind": instruction.kind.value},
    )


async def _tell(provider: PaymentProvider, instruction: ProviderInstruction) -> None:
    ref = instruction.subscription_ref
    match instruction.kind:
        case InstructionKind.CANCEL_NOW:
            await provider.cancel(ref, at_period_end=False)
        case InstructionKind.CANCEL_LATER:
            await provider.cancel(ref, at_period_end=True)
        case InstructionKind.RESUME:
            await provider.resume(ref)
        case InstructionKind.COLLECT:
            await provider.collect(instruction.invoice_ref or "")
        case InstructionKind.REPRICE:
            await provider.reprice(ref, _terms(instruction))
        case InstructionKind.WITHDRAW:
            await provider.withdraw(ref)
        case _:
            assert_never(instruction.kind)


def _terms(instruction: ProviderInstruction) -> Terms:
    amount, currency = instruction.amount, instruction.currency
    period, charge_from = instruction.billing_period, instruction.charge_from
    if amount is None or currency is None or period is None or charge_from is None:
        raise ProviderRejected(details={"reason": "no_terms"})
    return Terms(amount=amount, currency=currency, billing_period=period.value, charge_from=charge_from)


def _is_about(
    provider: str | InstrumentedAttribute[str], subscription_ref: str | InstrumentedAttribute[str | None]
) -> ColumnElement[bool]:
    return and_(ProviderInstruction.provider == provider, ProviderInstruction.subscription_ref == subscription_ref)


def _is_first() -> ColumnElement[bool]:
    """Select those before which nothing waits for the same subscription, but for what its provider refuses."""
    earlier = aliased(ProviderInstruction)
    waits = exists().where(
        earlier.provider == ProviderInstruction.provider,
        earlier.subscription_ref == ProviderInstruction.subscription_ref,
        earlier.number < ProviderInstruction.number,
        earlier.done_at.is_(None),
        earlier.refused_at.is_(None),
    )
    return ~waits
