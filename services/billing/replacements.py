"""Periods of subscriptions that another purchase has replaced before they were over: what was left of them is owed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from sqlalchemy import and_, select

from models.billing import (
    CheckoutKind,
    CheckoutSession,
    CheckoutState,
    Invoice,
    PaymentEvent,
    PaymentEventType,
    Subscription,
)
from models.checkouts import Placed, changes_in_force, in_time, placed
from models.proration import PaidPeriod
from providers.payments import InvoicePaid, PaymentProvider
from services.billing.announcer import Announcer
from services.billing.ledger import RENEWS
from services.billing.owed import keep_superseded
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one purchase has bought, and what a whole period of it costs by now."""

    purchase: CheckoutSession
    period: PaidPeriod
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Renewal:
    """A further period that a provider has charged for by itself; `period` is None where it does not tell it."""

    purchase_id: UUID
    key: str
    paid_at: datetime
    amount: Decimal
    currency: str
    period: PaidPeriod | None


class Replacements:
    """Keeps credits for them, from all that is known, so that the order of the news does not matter.

    At a provider that charges by itself any other purchase replaces the one in force, which it is told to stop. At the
    others a further payment for the same adds a period. `served_for` is how long an unpaid subscription is served.
    """

    def __init__(
        self, *, providers: Mapping[str, PaymentProvider], announcer: Announcer, served_for: timedelta
    ) -> None:
        self._charging = {name for name, provider in providers.items() if provider.capabilities.recurring}
        self._announcer = announcer
        self._served_for = served_for

    async def settle(self, uow: UnitOfWork, subscription: Subscription) -> None:
        """Bring what is owed for a tenant's replaced periods to what it is; the subscription's lock is held.

        That is what was left of each, and all that was charged for it afterwards.
        """
        paid = await _paid(uow, subscription)
        for part, next_one in self._replaced(paid):
            at = next_one.place_in_time[0]
            key, currency = str(part.purchase.id), part.purchase.currency
            await self._owe(uow, subscription, part.purchase, key, amount=_rest(part, at), currency=currency, at=at)
        periods = [purchase for purchase in paid if purchase.kind is CheckoutKind.PERIOD]
        changes = [purchase for purchase in paid if purchase.kind is CheckoutKind.CHANGE]
        replaced = {one.id: (one, next_one) for one, next_one in pairwise(periods) if one.provider in self._charging}
        for renewal in await _renewals(uow, subscription, replaced):
            purchase, next_one = replaced[renewal.purchase_id]
            chain = changes_in_force(purchase, changes, replaced_by=next_one)
            at = next_one.place_in_time[0]
            left = _rest_of_renewal(renewal, purchase, chain, at)
            last = max(at, renewal.paid_at)
            await self._owe(uow, subscription, purchase, renewal.key, amount=left, currency=renewal.currency, at=last)

    async def owe_renewal(
        self, uow: UnitOfWork, subscription: Subscription, purchase: CheckoutSession, fact: InvoicePaid
    ) -> None:
        """Keep a credit for what a provider has charged for a subscription that we had ended."""
        key, at = fact.payment_key, fact.occurred_at
        await self._owe(uow, subscription, purchase, key, amount=fact.amount, currency=fact.currency, at=at)

    def _replaced(self, paid: Sequence[CheckoutSession]) -> Iterator[tuple[_Part, CheckoutSession]]:
        """Tell of all that was in force or paid ahead when another purchase replaced it, and by which."""
        parts: list[_Part] = []
        for step in placed(paid, served_for=self._served_for, charging=self._charging):
            if step.purchase.kind is CheckoutKind.CHANGE:
                parts = _changed(parts, step)
                continue
            if not step.continues:
                for part in parts:
                    yield part, step.purchase
                parts = []
            parts.append(_part(step.purchase, step))

    async def _owe(
        self,
        uow: UnitOfWork,
        subscription: Subscription,
        purchase: CheckoutSession,
        payment_key: str,
        *,
        amount: Decimal,
        currency: str,
        at: datetime,
    ) -> None:
        owed = await keep_superseded(
            uow, purchase, payment_key=payment_key, amount=amount, currency=currency, occurred_at=at
        )
        if owed is not None:
            await self._announcer.notify(
                uow, "purchase_replaced", subscription, amount=owed.amount, currency=owed.currency
            )


async def _paid(uow: UnitOfWork, subscription: Subscription) -> list[CheckoutSession]:
    """Return all that a tenant has paid, in its order."""
    await uow.session.flush()
    rows = await uow.session.scalars(
        select(CheckoutSession).where(
            CheckoutSession.tenant_id == subscription.tenant_id, CheckoutSession.state == CheckoutState.PAID
        )
    )
    return in_time(rows)


async def _renewals(uow: UnitOfWork, subscription: Subscription, purchase_ids: Collection[UUID]) -> list[_Renewal]:
    """Return what providers have charged for further periods of a tenant's purchases."""
    if not purchase_ids:
        return []
    renewed = PaymentEvent.event_metadata[RENEWS].astext
    rows = await uow.session.execute(
        select(PaymentEvent, Invoice.period_start, Invoice.period_end)
        .outerjoin(
            Invoice,
            and_(Invoice.provider == PaymentEvent.provider, Invoice.provider_invoice_id == PaymentEvent.fact_key),
        )
        .where(
            PaymentEvent.tenant_id == subscription.tenant_id,
            PaymentEvent.event_type == PaymentEventType.PAYMENT_SUCCESS,
            renewed.in_([str(purchase_id) for purchase_id in purchase_ids]),
        )
        .order_by(PaymentEvent.created_at, PaymentEvent.id)
    )
    return [_renewal(payment, start, end) for payment, start, end in rows]


def _renewal(payment: PaymentEvent, start: datetime | None, end: datetime | None) -> _Renewal:
    return _Renewal(
        purchase_id=UUID(payment.event_metadata[RENEWS]),
        key=payment.fact_key,
        paid_at=payment.created_at,
        amount=payment.amount,
        currency=payment.currency,
        period=PaidPeriod(start=start, end=end, currency=payment.currency) if start and end else None,
    )


def _part(purchase: CheckoutSession, step: Placed) -> _Part:
    period = PaidPeriod(start=step.start, end=step.period.end, currency=purchase.currency)
    return _Part(purchase=purchase, period=period, price=step.purchase.price)


def _changed(parts: Sequence[_Part], step: Placed) -> list[_Part]:
    """Return what is paid after a change: at another price, or a new period that the rest was counted towards."""
    change = step.purchase
    if change.restarts:
        return [_part(part.purchase, step) for part in parts if part.purchase.id == change.root_id]
    return [replace(part, price=change.price) for part in parts]


def _rest(part: _Part, at: datetime) -> Decimal:
    """Return what was left of a part at the price in force, when another purchase was paid at a moment."""
    if _had_ended(part.purchase, at):
        return Decimal(0)
    return _worth(part.period, part.price, at)


def _rest_of_renewal(
    renewal: _Renewal, purchase: CheckoutSession, changes: Sequence[CheckoutSession], at: datetime
) -> Decimal:
    """Return what was left of a renewed period likewise: all of it, where it was charged for only afterwards.

    `changes` are those of its purchase that count. One that began a new period was priced for the rest of this one.
    """
    if renewal.paid_at > at:
        return renewal.amount
    if renewal.period is None or _had_ended(purchase, at):
        return Decimal(0)
    within = [change for change in changes if change.place_in_time[0] >= renewal.period.start]
    if any(change.restarts for change in within):
        return Decimal(0)
    return _worth(renewal.period, within[-1].price if within else renewal.amount, at)


def _had_ended(purchase: CheckoutSession, at: datetime) -> bool:
    """Tell whether a purchase's subscription had ended: whoever ends it at once is given nothing back."""
    return purchase.valid_until is not None and purchase.valid_until <= at


def _worth(period: PaidPeriod, price: Decimal, at: datetime) -> Decimal:
    return -period.due_for_remainder(before=price, after=Decimal(0), at=max(period.start, at))
