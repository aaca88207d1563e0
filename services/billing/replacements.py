"""Periods of subscriptions that another purchase has replaced before they were over: what was left of them is owed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import select

from models.billing import CheckoutKind, CheckoutSession, CheckoutState, Subscription
from models.checkouts import Placed, in_time, placed
from models.proration import PaidPeriod
from providers.payments import InvoicePaid, PaymentProvider
from services.billing.announcer import Announcer
from services.billing.owed import keep_superseded
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one purchase has bought, and what a whole period of it costs by now."""

    purchase: CheckoutSession
    period: PaidPeriod
    price: Decimal


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
        """Bring what is owed for a tenant's replaced periods to what it is; the subscription's lock is held."""
        paid = await _paid(uow, subscription)
        for part, next_one in self._replaced(paid):
            await self._owe(
                uow,
                subscription,
                part.purchase,
                payment_key=str(part.purchase.id),
                amount=_rest(part, replaced_by=next_one),
                occurred_at=next_one.place_in_time[0],
            )

    async def owe_renewal(
        self, uow: UnitOfWork, subscription: Subscription, purchase: CheckoutSession, fact: InvoicePaid
    ) -> None:
        """Keep a credit for what a provider has charged for a subscription that was no more."""
        later = [row for row in _periods(await _paid(uow, subscription)) if row.place_in_time > purchase.place_in_time]
        if later and fact.occurred_at <= later[0].place_in_time[0]:
            # It renewed what was in force then, and is only heard of late.
            return
        await self._owe(
            uow, subscription, purchase, payment_key=fact.payment_key, amount=fact.amount, occurred_at=fact.occurred_at
        )

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
        *,
        payment_key: str,
        amount: Decimal,
        occurred_at: datetime,
    ) -> None:
        owed = await keep_superseded(uow, purchase, payment_key=payment_key, amount=amount, occurred_at=occurred_at)
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


def _periods(paid: Sequence[CheckoutSession]) -> list[CheckoutSession]:
    return [purchase for purchase in paid if purchase.kind is CheckoutKind.PERIOD]


def _part(purchase: CheckoutSession, step: Placed) -> _Part:
    period = PaidPeriod(start=step.start, end=step.period.end, currency=purchase.currency)
    return _Part(purchase=purchase, period=period, price=step.purchase.price)


def _changed(parts: Sequence[_Part], step: Placed) -> list[_Part]:
    """Return what is paid after a change: at another price, or a new period that the rest was counted towards."""
    change = step.purchase
    if change.restarts:
        return [_part(part.purchase, step) for part in parts if part.purchase.id == change.root_id]
    return [replace(part, price=change.price) for part in parts]


def _rest(part: _Part, *, replaced_by: CheckoutSession) -> Decimal:
    """Return what was left of a part at the price in force, when another purchase was paid."""
    at = replaced_by.place_in_time[0]
    if part.purchase.valid_until is not None and part.purchase.valid_until <= at:
        # It had ended by then, and whoever ends it at once is given nothing back.
        return Decimal(0)
    return -part.period.due_for_remainder(before=part.price, after=Decimal(0), at=max(part.period.start, at))
