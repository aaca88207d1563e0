"""From a provider's facts to our state (contract.md 4.4, providers.md 1.2).

Facts arrive twice, late and out of order, and every order must end in the same state. Money is booked once per key
(ledger.py), what a fact tells counts from the moment it happened (models/subscriptions.py), and what cannot be applied
yet waits (NotThereYet). Nothing is activated before the money asked for has arrived.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, assert_never
from uuid import UUID

from core.json import decimal_text
from models.billing import (
    CheckoutKind,
    CheckoutSession,
    CheckoutState,
    CreditReason,
    Subscription,
    SubscriptionStatus,
)
from providers.payments import (
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutPending,
    DisputeClosed,
    DisputeOpened,
    Fact,
    InvoicePaid,
    InvoicePaymentFailed,
    InvoiceVoided,
    PaymentLinked,
    PaymentProvider,
    PaymentRefunded,
    PaymentState,
    RefundFailed,
    SubscriptionChanged,
    SubscriptionEnded,
)
from services.billing import ledger
from services.billing.agreed import agreed_prices, differs
from services.billing.announcer import Announcer, News
from services.billing.change_facts import ChangeFacts, close_changes
from services.billing.errors import FactRefused, NotThereYet
from services.billing.fulfilment import Fulfilment
from services.billing.instructions import Instructions, addressee_of
from services.billing.lookup import (
    Begun,
    Standing,
    Target,
    by_session,
    by_subscription,
)
from services.billing.measures import measure_payment
from services.billing.money import MoneyFacts
from services.billing.replacements import Replacements
from services.billing.trail import audit
from services.documents import DocumentService
from services.unit_of_work import UnitOfWork

_NEWS_OF_CREDIT: Final[Mapping[CreditReason, News]] = {
    CreditReason.UNDERPAID: "payment_underpaid",
    CreditReason.OVERPAID: "payment_overpaid",
    CreditReason.DUPLICATE: "payment_duplicate",
}


class FactApplier:
    """Applies one fact in the caller's transaction; returns the instructions to providers that it gave rise to.

    `served_for` is how long an unpaid subscription goes on being served. Every method raises NotThereYet when the fact
    has overtaken what it speaks of, and FactRefused when it contradicts what we know.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, PaymentProvider],
        announcer: Announcer,
        instructions: Instructions,
        served_for: timedelta,
        documents: DocumentService,
    ) -> None:
        self._announcer = announcer
        self._money = MoneyFacts(announcer, documents)
        self._changes = ChangeFacts(providers=providers, announcer=announcer, instructions=instructions)
        self._replacements = Replacements(providers=providers, announcer=announcer, served_for=served_for)
        self._instructions = instructions
        self._fulfilment = Fulfilment(providers=providers, instructions=instructions, served_for=served_for)

    async def measure(self, uow: UnitOfWork, provider: str, payment: PaymentState) -> bool:
        """Take in what a payment amounts to; returns whether its facts are to be applied: those of the purchase's own.

        An underpaid, overpaid or second payment becomes a credit, and the tenant's people are told.
        """
        measured = await measure_payment(uow, provider, payment)
        if measured is None:
            return False
        owed = measured.owed
        if owed is not None:
            await self._announcer.notify(
                uow,
                _NEWS_OF_CREDIT[owed.reason],
                measured.begun.subscription,
                amount=owed.amount,
                currency=owed.currency,
            )
        # Facts read what this has changed.
        await uow.session.flush()
        return measured.buys

    async def apply(self, uow: UnitOfWork, fact: Fact) -> list[UUID]:  # noqa: C901, PLR0912 - one branch per fact
        """Apply a fact."""
        match fact:
            case CheckoutPaid():
                return await self._checkout_paid(uow, fact)
            case InvoicePaid():
                return await self._invoice_paid(uow, fact)
            case CheckoutPending():
                await self._checkout_pending(uow, fact)
            case CheckoutFailed():
                await self._checkout_failed(uow, fact)
            case CheckoutExpired():
                await self._checkout_expired(uow, fact)
            case InvoicePaymentFailed():
                await self._invoice_failed(uow, fact)
            case InvoiceVoided():
                await self._invoice_voided(uow, fact)
            case SubscriptionChanged():
                return await self._changed(uow, fact)
            case SubscriptionEnded():
                await self._ended(uow, fact)
            case PaymentLinked():
                await self._money.link(uow, fact)
            case PaymentRefunded() | RefundFailed():
                await self._money.refund(uow, fact)
            case DisputeOpened() | DisputeClosed():
                await self._money.dispute(uow, fact)
            case _:
                assert_never(fact)
        return []

    async def _checkout_paid(self, uow: UnitOfWork, fact: CheckoutPaid) -> list[UUID]:
        begun = await _begun(uow, fact)
        subscription, checkout = begun.subscription, begun.checkout
        _refuse_other_price(checkout, fact.amount, fact.currency)
        if checkout.kind is CheckoutKind.CHANGE:
            checkout.mark_paid(fact.occurred_at)
            await self._money.book(uow, subscription, fact, purchase=checkout)
            orders = await self._changes.settle(uow, subscription)
            await self._replacements.settle(uow, subscription)
            return orders + await self._withdraw_others(uow, begun)
        checkout.subscription_ref = checkout.subscription_ref or fact.subscription_ref
        orders, added = await self._fulfilment.complete(
            uow, subscription, checkout, paid_at=fact.occurred_at, customer_ref=fact.customer_ref
        )
        if fact.invoice_ref is not None:
            await ledger.note_paid_invoice(uow, subscription, fact, fact.invoice_ref)
        await self._money.book(uow, subscription, fact, purchase=checkout, added=added)
        orders += await self._changes.settle(uow, subscription)
        await self._replacements.settle(uow, subscription)
        orders += await self._withdraw_others(uow, begun)
        if begun.standing is Standing.UNPAID:
            self._announcer.subscription_updated(uow, subscription)
        return orders

    async def _withdraw_others(self, uow: UnitOfWork, paid: Begun | Target) -> list[UUID]:
        """Close the tenant's other pages once one is paid: what they offer was priced before, or would come twice."""
        if paid.standing is not Standing.UNPAID:
            return []
        return await self._instructions.withdraw_pages(uow, paid.subscription.tenant_id)

    async def _checkout_pending(self, uow: UnitOfWork, fact: CheckoutPending) -> None:
        checkout = (await _begun(uow, fact)).checkout
        checkout.tell(CheckoutState.PROCESSING, at=fact.occurred_at)
        checkout.subscription_ref = checkout.subscription_ref or fact.subscription_ref

    async def _checkout_failed(self, uow: UnitOfWork, fact: CheckoutFailed) -> None:
        begun = await _begun(uow, fact)
        begun.checkout.tell(CheckoutState.FAILED, at=fact.occurred_at)
        failure = await ledger.book_failure(uow, begun.subscription, fact)
        if failure.is_new:
            await self._announcer.payment_failed(uow, begun.subscription, failure.movement)

    async def _checkout_expired(self, uow: UnitOfWork, fact: CheckoutExpired) -> None:
        (await _begun(uow, fact)).checkout.tell(CheckoutState.EXPIRED, at=fact.occurred_at)

    async def _invoice_paid(self, uow: UnitOfWork, fact: InvoicePaid) -> list[UUID]:
        target = await _target(uow, fact)
        subscription, checkout = target.subscription, target.checkout
        period = _period(fact.period_start, fact.period_end)
        if target.standing is Standing.UNPAID and period is None:
            # Only the checkout itself can tell from when the purchase counts.
            raise NotThereYet("checkout")
        if target.standing is Standing.UNPAID and fact.billing_reason == "renewal" and _has_other_price(checkout, fact):
            # It may differ, and is taken as it came once the purchase that it renews is paid.
            raise NotThereYet("payment")
        agreed = await agreed_prices(uow, target, fact)
        orders: list[UUID] = []
        if checkout is not None and (fact.billing_reason == "start" or target.standing is Standing.UNPAID):
            _refuse_other_price(checkout, fact.amount, fact.currency)
            orders, _ = await self._fulfilment.complete(
                uow, subscription, checkout, paid_at=fact.occurred_at, customer_ref=fact.customer_ref
            )
            await self._replacements.settle(uow, subscription)
            orders += await self._withdraw_others(uow, target)
        is_first = await ledger.note_paid_invoice(uow, subscription, fact, fact.invoice_ref)
        renews = _renewed(target, fact)
        is_new = await self._money.book(uow, subscription, fact, renews=renews)
        if is_first and fact.billing_reason == "renewal" and differs(fact, agreed):
            await self._tell_difference(uow, subscription, fact, agreed)
        changed = target.standing is Standing.UNPAID
        # A renewal that does not say what it bought adds one period, so it must count only once.
        bought = (period is not None and not _is_of_waiting(fact)) or (fact.billing_reason == "renewal" and is_new)
        if bought and _is_in_force(target):
            changed |= subscription.renew(at=fact.occurred_at, period=period, now=uow.now)
        if changed:
            self._announcer.subscription_updated(uow, subscription)
        elif is_new and (target.standing is Standing.REPLACED or subscription.was_closed_before(fact.occurred_at)):
            audit(uow, "payment.for_replaced_subscription", subscription, invoice=fact.invoice_ref)
            if renews is not None:
                await self._replacements.settle(uow, subscription)
            elif checkout is not None and fact.billing_reason == "renewal":
                await self._replacements.owe_renewal(uow, subscription, checkout, fact)
        return orders

    async def _tell_difference(
        self, uow: UnitOfWork, subscription: Subscription, fact: InvoicePaid, agreed: Collection[tuple[Decimal, str]]
    ) -> None:
        """Have people look at a renewal of another amount: the money is there, and what it pays for is served."""
        expected = ", ".join(sorted(f"{decimal_text(amount)} {currency}" for amount, currency in agreed))
        paid = f"{decimal_text(fact.amount)} {fact.currency}"
        audit(uow, "payment.differs", subscription, invoice=fact.invoice_ref, paid=paid, agreed=expected)
        await self._announcer.payment_differs(uow, subscription, fact, paid=paid, agreed=expected)

    async def _invoice_failed(self, uow: UnitOfWork, fact: InvoicePaymentFailed) -> None:
        target = await _target(uow, fact)
        subscription = target.subscription
        if target.standing is Standing.UNPAID and fact.billing_reason != "start":
            # What falls due has been paid for before, which is yet to be told.
            raise NotThereYet("payment")
        await ledger.note_failed_invoice(uow, subscription, fact)
        if fact.billing_reason == "start":
            # It belongs to a checkout, which tells of it by itself, and must not touch what is in force.
            return
        failure = await ledger.book_failure(uow, subscription, fact)
        if not _is_in_force(target):
            return
        if failure.is_new:
            await self._announcer.payment_failed(uow, subscription, failure.movement)
        if subscription.mark_past_due(at=fact.occurred_at, now=uow.now):
            audit(uow, "subscription.past_due", subscription)
            self._announcer.subscription_updated(uow, subscription)

    async def _invoice_voided(self, uow: UnitOfWork, fact: InvoiceVoided) -> None:
        target = await _target(uow, fact)
        await ledger.note_void_invoice(uow, target.subscription, fact)

    async def _changed(self, uow: UnitOfWork, fact: SubscriptionChanged) -> list[UUID]:
        state = fact.state
        target = await by_subscription(
            uow,
            provider=fact.provider,
            subscription_ref=state.subscription_ref,
            customer_ref=state.customer_ref,
            purchase=state.purchase,
        )
        if target.standing is Standing.UNPAID:
            raise NotThereYet("payment")
        if target.standing is Standing.REPLACED:
            return []
        subscription = target.subscription
        was_over = subscription.is_over
        status = SubscriptionStatus(state.status)
        is_waiting = subscription.waits_for_charge(status)
        changed = subscription.follow(
            at=fact.occurred_at,
            status=SubscriptionStatus.ACTIVE if is_waiting else status,
            period=_end(state.period_end) if is_waiting else _period(state.period_start, state.period_end),
            cancel_at_period_end=await self._is_ending(uow, fact),
            cancelled_at=state.cancelled_at,
            now=uow.now,
        )
        if state.status == "cancelled":
            ended_at = state.ended_at or fact.occurred_at
            changed |= subscription.end(at=fact.occurred_at, ended_at=ended_at, now=uow.now)
        subscription.external_customer_id = subscription.external_customer_id or state.customer_ref
        if not changed:
            return await self._stop_closed(uow, subscription, fact)
        audit(uow, "subscription.synced", subscription, status=subscription.status)
        self._announcer.subscription_updated(uow, subscription)
        if subscription.is_over and not was_over:
            await self._announcer.notify(uow, "subscription_expired", subscription)
        if subscription.ended_at is not None:
            await self._owe_changes(uow, subscription)
        return []

    async def _stop_closed(self, uow: UnitOfWork, subscription: Subscription, fact: SubscriptionChanged) -> list[UUID]:
        """Instruct to stop what goes on at the provider though we have ended it, unless it is being told already."""
        addressee = addressee_of(subscription)
        if addressee is None or not subscription.is_closed or await self._is_ending(uow, fact):
            return []
        if fact.state.status == SubscriptionStatus.CANCELLED.value:
            return []
        return [await self._instructions.cancel(uow, addressee, at_period_end=False)]

    async def _is_ending(self, uow: UnitOfWork, fact: SubscriptionChanged) -> bool:
        """Tell whether it ends with its period: the provider's view of that is out of date until it has heard ours."""
        decided = await self._instructions.will_stop(
            uow, provider=fact.provider, subscription_ref=fact.state.subscription_ref
        )
        return fact.state.cancel_at_period_end if decided is None else decided

    async def _ended(self, uow: UnitOfWork, fact: SubscriptionEnded) -> None:
        target = await _target(uow, fact)
        if target.standing is Standing.UNPAID:
            raise NotThereYet("payment")
        subscription = target.subscription
        if target.standing is Standing.REPLACED:
            return
        if subscription.end(at=fact.occurred_at, ended_at=fact.ended_at, now=uow.now):
            audit(uow, "subscription.ended", subscription)
            self._announcer.subscription_updated(uow, subscription)
            await self._announcer.notify(uow, "subscription_cancelled", subscription)
        await self._owe_changes(uow, subscription)

    async def _owe_changes(self, uow: UnitOfWork, subscription: Subscription) -> None:
        """Owe the changes that were paid after the subscription's end, when they were heard of before it."""
        await close_changes(uow, subscription)
        await self._changes.settle(uow, subscription)


async def _begun(uow: UnitOfWork, fact: CheckoutPaid | CheckoutPending | CheckoutFailed | CheckoutExpired) -> Begun:
    """Return the purchase that a checkout's fact speaks of, under lock."""
    begun = await by_session(uow, provider=fact.provider, session_id=fact.session_id, purchase=fact.purchase)
    # The fact may have overtaken the answer to our own request for the session.
    begun.checkout.session_id = fact.session_id
    return begun


async def _target(
    uow: UnitOfWork, fact: InvoicePaid | InvoicePaymentFailed | InvoiceVoided | SubscriptionEnded
) -> Target:
    """Return the subscription that a fact speaks of, under lock."""
    return await by_subscription(
        uow,
        provider=fact.provider,
        subscription_ref=fact.subscription_ref,
        customer_ref=fact.customer_ref,
        purchase=fact.purchase,
    )


def _is_in_force(target: Target) -> bool:
    """Whether the provider's subscription is the tenant's own, possibly since this very fact."""
    checkout = target.checkout
    return target.standing is Standing.CURRENT or target.subscription.checkout is checkout


def _renewed(target: Target, fact: InvoicePaid) -> CheckoutSession | None:
    """Return the purchase that a payment has renewed; what is charged after we have ended it renews nothing."""
    is_over = target.standing is Standing.CURRENT and target.subscription.was_closed_before(fact.occurred_at)
    return target.checkout if fact.billing_reason == "renewal" and not is_over else None


def _is_of_waiting(fact: InvoicePaid) -> bool:
    """Whether a bill buys nothing: Stripe writes one when it begins to wait with a charge, for the time until then."""
    return fact.amount == 0 and fact.billing_reason == "change"


def _has_other_price(checkout: CheckoutSession | None, fact: InvoicePaid) -> bool:
    return checkout is not None and (fact.amount, fact.currency.upper()) != (checkout.amount, checkout.currency.upper())


def _refuse_other_price(checkout: CheckoutSession, amount: Decimal, currency: str) -> None:
    asked = (checkout.amount, checkout.currency.upper())
    if (amount, currency.upper()) != asked:
        raise FactRefused(f"paid {amount} {currency}, asked {asked[0]} {asked[1]}", tenant_id=checkout.tenant_id)


def _end(end: datetime | None) -> tuple[None, datetime] | None:
    return None if end is None else (None, end)


def _period(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime] | None:
    return None if start is None or end is None else (start, end)
