"""Facts about money that has come or gone: into the money book, the journal, our papers and the news."""

from dataclasses import replace

from models.billing import CheckoutSession, PaymentEvent, Subscription
from models.journal import EntryKind
from providers.payments import (
    CheckoutPaid,
    DisputeClosed,
    DisputeOpened,
    InvoicePaid,
    PaymentLinked,
    PaymentRefunded,
    RefundFailed,
)
from services.billing import journal, ledger
from services.billing.announcer import Announcer, News
from services.billing.errors import NotThereYet
from services.billing.journal import MoneyFact
from services.billing.lookup import locked_subscription
from services.billing.refund_totals import Refunded, book_refund, recount_refunds
from services.billing.sales import Period, sale_of
from services.billing.trail import audit
from services.documents import DocumentService
from services.unit_of_work import UnitOfWork

# By whether more has gone back than was known.
_REFUND_NEWS: dict[bool, tuple[str, News]] = {
    True: ("payment.refunded", "payment_refunded"),
    False: ("payment.refund_failed", "refund_failed"),
}


class MoneyFacts:
    """Applies them in the caller's transaction; raises NotThereYet for a payment that nobody has told of yet."""

    def __init__(self, announcer: Announcer, documents: DocumentService) -> None:
        self._announcer = announcer
        self._documents = documents

    async def link(self, uow: UnitOfWork, fact: PaymentLinked) -> None:
        """Note by which reference refunds and disputes will name a payment."""
        payment, subscription = await _paid(uow, fact.provider, fact.invoice_ref)
        payment.provider_payment_id = payment.provider_payment_id or fact.payment_ref
        await _post_fee(uow, subscription, fact, payment.fact_key)

    async def refund(self, uow: UnitOfWork, fact: PaymentRefunded | RefundFailed) -> None:
        """Book what has gone back of a payment, or what has not arrived of that."""
        if isinstance(fact, RefundFailed) and fact.refunded_total is None:
            raise NotThereYet("charge")
        invoice_ref = fact.invoice_ref if isinstance(fact, PaymentRefunded) else None
        payment, subscription = await _paid(uow, fact.provider, fact.payment_ref, fact.charge_ref, invoice_ref)
        refunded = await book_refund(uow, subscription, payment, fact)
        await _post_refund(uow, _money(subscription, fact, EntryKind.REFUND, payment.fact_key), refunded)
        if refunded.step:
            action, news = _REFUND_NEWS[refunded.step > 0]
            amount, currency = abs(refunded.step), payment.currency
            audit(uow, action, subscription, amount=amount, currency=currency)
            await self._announcer.notify(uow, news, subscription, amount=amount, currency=currency)
            self._documents.settle(uow, payment.id)

    async def dispute(self, uow: UnitOfWork, fact: DisputeOpened | DisputeClosed) -> None:
        """Book a disputed payment and how it was decided."""
        payment, subscription = await _paid(uow, fact.provider, fact.payment_ref, fact.charge_ref)
        if fact.inquiry:
            # It only asks; no money has moved.
            _audit_dispute(uow, subscription, fact)
            return
        dispute = await ledger.book_dispute(uow, subscription, payment, fact)
        amount = dispute.movement.amount
        taken = _money(subscription, fact, EntryKind.DISPUTE, fact.dispute_ref)
        await journal.post(uow, taken, amount, may_fall=True)
        # What was told with the decision is all that was taken; what was told before is no news then.
        if isinstance(fact, DisputeClosed) or not dispute.movement.event_metadata.get("fee_decided"):
            await _post_fee(uow, subscription, fact, f"dispute:{fact.dispute_ref}", may_fall=True)
        if dispute.movement.event_metadata.get("outcome") == "won":
            back = _money(subscription, fact, EntryKind.DISPUTE_WON, fact.dispute_ref)
            await journal.post(uow, back, amount, may_fall=True)
        # The dispute's row is what refunds are counted beside.
        await uow.session.flush()
        refunded = await recount_refunds(uow, payment, fact)
        await _post_refund(uow, _money(subscription, fact, EntryKind.REFUND, payment.fact_key), refunded)
        self._documents.settle(uow, payment.id)
        # A provider may tell of one decision by several events.
        if dispute.is_decided or (dispute.is_new and isinstance(fact, DisputeOpened)):
            _audit_dispute(uow, subscription, fact)
            news: News = "dispute_closed" if dispute.is_decided else "payment_disputed"
            await self._announcer.money_moved(uow, news, subscription, dispute.movement)

    async def book(
        self,
        uow: UnitOfWork,
        subscription: Subscription,
        fact: CheckoutPaid | InvoicePaid,
        *,
        purchase: CheckoutSession | None = None,
        renews: CheckoutSession | None = None,
        added: Period = None,
    ) -> bool:
        """Book a payment, with its purchase and the period that this has added; returns whether it is new."""
        booked = await ledger.book_payment(uow, subscription, fact, purchase=purchase, renews=renews)
        if booked is not None and isinstance(fact, CheckoutPaid):
            await _post_fee(uow, subscription, fact, fact.payment_key)
        if booked is None or not booked.is_new:
            return False
        await journal.post(uow, _money(subscription, fact, EntryKind.CHARGE, fact.payment_key), fact.amount)
        audit(uow, "payment.received", subscription, amount=fact.amount, currency=fact.currency)
        await self._announcer.payment_received(uow, subscription, booked.movement)
        sale = await sale_of(uow, subscription, fact, added=added)
        booked.movement.plan_id = sale.plan_id
        self._documents.settle(uow, booked.movement.id, sale=sale)
        return True


def _audit_dispute(uow: UnitOfWork, subscription: Subscription, fact: DisputeOpened | DisputeClosed) -> None:
    action = "payment.disputed" if isinstance(fact, DisputeOpened) else "payment.dispute_closed"
    audit(uow, action, subscription, dispute=fact.dispute_ref, inquiry=fact.inquiry)


async def _paid(uow: UnitOfWork, provider: str, *refs: str | None) -> tuple[PaymentEvent, Subscription]:
    """Return the payment that a fact names, with its subscription under lock."""
    payment = await ledger.payment_of(uow, provider, *refs)
    by_id = None if payment is None else Subscription.id == payment.subscription_id
    subscription = None if by_id is None else await locked_subscription(uow, by_id)
    if payment is None or subscription is None:
        raise NotThereYet("payment")
    # Read again under the lock, for another fact may just have changed it.
    await uow.session.refresh(payment)
    return payment, subscription


async def _post_refund(uow: UnitOfWork, money: MoneyFact, refunded: Refunded) -> None:
    """Post what has gone back by now, each part of it at its own time."""
    target = refunded.total - refunded.step
    for occurred_at, amount in refunded.moves:
        target += amount
        await journal.post(uow, replace(money, occurred_at=occurred_at), target, may_fall=True)


async def _post_fee(
    uow: UnitOfWork,
    subscription: Subscription,
    fact: CheckoutPaid | PaymentLinked | DisputeOpened | DisputeClosed,
    key: str,
    *,
    may_fall: bool = False,
) -> None:
    """Post what the provider kept, where it says so: once, whichever of several facts tells of it first."""
    if fact.fee is None:
        return
    money = MoneyFact(
        tenant_id=subscription.tenant_id,
        provider=fact.provider,
        kind=EntryKind.FEE,
        key=key,
        currency=fact.fee.currency,
        occurred_at=fact.occurred_at,
    )
    await journal.post(uow, money, fact.fee.amount, may_fall=may_fall)


def _money(
    subscription: Subscription,
    fact: CheckoutPaid | InvoicePaid | PaymentRefunded | RefundFailed | DisputeOpened | DisputeClosed,
    kind: EntryKind,
    key: str,
) -> MoneyFact:
    return MoneyFact(
        tenant_id=subscription.tenant_id,
        provider=fact.provider,
        kind=kind,
        key=key,
        currency=fact.currency,
        occurred_at=fact.occurred_at,
    )
