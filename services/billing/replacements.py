"""Periods of subscriptions that another purchase has replaced before they were over: what was left of them is owed."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

from sqlalchemy import select

from models.billing import CheckoutKind, CheckoutSession, CheckoutState, Subscription
from models.checkouts import changes_in_force, in_time
from models.plans import period_after
from models.proration import PaidPeriod
from providers.payments import InvoicePaid, PaymentProvider
from services.billing.announcer import Announcer
from services.billing.owed import keep_superseded
from services.unit_of_work import UnitOfWork


class Replacements:
    """Keeps credits for them, from all that is known, so that the order of the news does not matter.

    At a provider that charges by itself any other purchase replaces the one in force, which it is told to stop. At the
    others a further payment for the same adds a period.
    """

    def __init__(self, *, providers: Mapping[str, PaymentProvider], announcer: Announcer) -> None:
        self._charging = {name for name, provider in providers.items() if provider.capabilities.recurring}
        self._announcer = announcer

    async def settle(self, uow: UnitOfWork, subscription: Subscription) -> None:
        """Bring what is owed for a tenant's replaced periods to what it is; the subscription's lock is held."""
        paid = await _paid(uow, subscription)
        for purchase, begins, next_one in self._replaced(_periods(paid)):
            await self._owe(
                uow,
                subscription,
                purchase,
                payment_key=str(purchase.id),
                amount=_rest(purchase, paid, begins=begins, replaced_by=next_one),
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

    def _replaced(
        self, periods: Sequence[CheckoutSession]
    ) -> Iterator[tuple[CheckoutSession, datetime, CheckoutSession]]:
        """Tell of each purchase that was replaced when its period begins, and by what."""
        begins: list[tuple[CheckoutSession, datetime]] = []
        end: datetime | None = None
        for purchase, next_one in pairwise(periods):
            paid_at = purchase.place_in_time[0]
            start = paid_at if end is None else max(paid_at, end)
            begins.append((purchase, start))
            if purchase.provider not in self._charging and next_one.renews(purchase.offer, purchase.id):
                end = _end(purchase, start)
                continue
            for member, begun_at in begins:
                yield member, begun_at, next_one
            begins, end = [], None

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


def _end(purchase: CheckoutSession, start: datetime) -> datetime:
    return period_after(start, purchase.billing_period, anchor_day=start.astimezone(UTC).day)


def _rest(
    purchase: CheckoutSession, paid: Sequence[CheckoutSession], *, begins: datetime, replaced_by: CheckoutSession
) -> Decimal:
    """Return what was left of a purchase's own period at the price in force, when another one was paid."""
    if purchase.valid_until is not None and purchase.valid_until <= replaced_by.place_in_time[0]:
        # It had ended by then, and whoever ends it at once is given nothing back.
        return Decimal(0)
    changes = [row for row in paid if row.kind is CheckoutKind.CHANGE]
    in_force = [purchase, *changes_in_force(purchase, changes, replaced_by=replaced_by)]
    begun = [row for row in in_force if row is purchase or row.restarts][-1]
    start = begins if begun is purchase else begun.place_in_time[0]
    period = PaidPeriod(start=start, end=_end(begun, start), currency=purchase.currency)
    at = max(start, replaced_by.place_in_time[0])
    return -period.due_for_remainder(before=in_force[-1].price, after=Decimal(0), at=at)
