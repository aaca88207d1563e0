"""The money book: every movement once, however often and in whatever order it is told.

Callers hold the subscription's lock (services/billing/lookup.py), so looking first and writing then is safe; the
unique constraints of the tables are the second wall.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import or_, select

from models.billing import CheckoutSession, Invoice, InvoiceStatus, PaymentEvent, PaymentEventType, Subscription
from providers.payments import (
    CheckoutFailed,
    CheckoutPaid,
    DisputeClosed,
    DisputeOpened,
    InvoicePaid,
    InvoicePaymentFailed,
    InvoiceVoided,
    ProviderFact,
)
from services.unit_of_work import UnitOfWork

RENEWS = "renews"
"""In the metadata of a payment: the id of the purchase that it renewed, at a provider that charges by itself."""

# In the metadata of a dispute: that its money was taken beside what was refunded, and what came back of it though it
# was lost.
BESIDE = "beside_refunds"
_RETURNED = "returned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A movement of money in the book; `is_new` tells whether this fact brought it there, `is_decided` its outcome."""

    movement: PaymentEvent
    is_new: bool
    is_decided: bool = False


async def book_payment(
    uow: UnitOfWork,
    subscription: Subscription,
    fact: CheckoutPaid | InvoicePaid,
    *,
    purchase: CheckoutSession | None = None,
    renews: CheckoutSession | None = None,
) -> Booked | None:
    """Book money that has arrived, once per `payment_key`, for its purchase if it is one; None when the amount is zero.

    `renews` is the purchase of which it paid a further period.

    A first payment is told by its checkout and by its invoice: whichever comes second adds what it knows, and the
    one that happened first gives the moment, so that the result does not depend on who came first.
    """
    if fact.amount == 0:
        return None
    url = fact.hosted_invoice_url if isinstance(fact, InvoicePaid) else None
    checkout_id = purchase.id if purchase is not None else None
    known = await known_movement(uow, fact.provider, PaymentEventType.PAYMENT_SUCCESS, fact.payment_key)
    if known is None:
        payment = movement_of(
            subscription,
            fact,
            PaymentEventType.PAYMENT_SUCCESS,
            key=fact.payment_key,
            amount=fact.amount,
            currency=fact.currency,
            payment_ref=fact.payment_ref,
        )
        payment.invoice_url, payment.checkout_id = url, checkout_id
        if renews is not None:
            payment.event_metadata = {RENEWS: str(renews.id)}
        uow.session.add(payment)
        return Booked(movement=payment, is_new=True)
    known.provider_payment_id = known.provider_payment_id or fact.payment_ref
    known.invoice_url = known.invoice_url or url
    if purchase is not None:
        known.checkout_id, known.plan_id = purchase.id, purchase.plan_id
    known.created_at, known.provider_event_id = earlier(known, fact)
    return Booked(movement=known, is_new=False)


async def book_failure(
    uow: UnitOfWork, subscription: Subscription, fact: CheckoutFailed | InvoicePaymentFailed
) -> Booked:
    """Book an attempt to pay that failed: each of an invoice, and of a checkout the one that there is."""
    key = fact.event_id if isinstance(fact, InvoicePaymentFailed) else fact.session_id
    known = await known_movement(uow, fact.provider, PaymentEventType.PAYMENT_FAILED, key)
    if known is not None:
        known.created_at, known.provider_event_id = earlier(known, fact)
        return Booked(movement=known, is_new=False)
    failure = movement_of(
        subscription,
        fact,
        PaymentEventType.PAYMENT_FAILED,
        key=key,
        amount=fact.amount,
        currency=fact.currency,
        payment_ref=None,
    )
    failure.invoice_url = fact.hosted_invoice_url if isinstance(fact, InvoicePaymentFailed) else None
    uow.session.add(failure)
    return Booked(movement=failure, is_new=True)


async def book_dispute(
    uow: UnitOfWork, subscription: Subscription, payment: PaymentEvent, fact: DisputeOpened | DisputeClosed
) -> Booked:
    """Book a disputed payment, once per dispute, less what came back of one that was lost.

    The metadata's `outcome` tells how it was decided.
    """
    outcome: dict[str, object] = {"outcome": fact.outcome} if isinstance(fact, DisputeClosed) else {}
    if isinstance(fact, DisputeClosed) and fact.fee is not None:
        outcome["fee_decided"] = True
    if fact.beside_refunds:
        outcome[BESIDE] = True
    returned = fact.returned if isinstance(fact, DisputeClosed) else Decimal(0)
    known = await known_movement(uow, fact.provider, PaymentEventType.CHARGEBACK, fact.dispute_ref)
    before = None if known is None else known.event_metadata.get("outcome")
    is_decided = isinstance(fact, DisputeClosed) and fact.outcome != before
    if known is not None:
        returned_before = Decimal(known.event_metadata.get(_RETURNED, 0))
        known.amount += returned_before
        if (fact.occurred_at, fact.event_id) < (known.created_at, known.provider_event_id):
            known.amount, known.currency = fact.amount, fact.currency
        known.event_metadata = {**known.event_metadata, **outcome}
        # Nothing that came back is taken again, so of several tellings the one that knows of most is right.
        _give_back(known, max(returned, returned_before))
        known.created_at, known.provider_event_id = earlier(known, fact)
        return Booked(movement=known, is_new=False, is_decided=is_decided)
    chargeback = movement_of(
        subscription,
        fact,
        PaymentEventType.CHARGEBACK,
        key=fact.dispute_ref,
        amount=fact.amount,
        currency=fact.currency,
        payment_ref=fact.payment_ref,
    )
    chargeback.payment_id = payment.id
    chargeback.event_metadata = dict(outcome)
    _give_back(chargeback, returned)
    uow.session.add(chargeback)
    return Booked(movement=chargeback, is_new=True, is_decided=is_decided)


def _give_back(dispute: PaymentEvent, returned: Decimal) -> None:
    if returned:
        dispute.amount -= returned
        dispute.event_metadata = {**dispute.event_metadata, _RETURNED: str(returned)}


async def payment_of(uow: UnitOfWork, provider: str, *refs: str | None) -> PaymentEvent | None:
    """Return the payment that any of a provider's references names."""
    given = [ref for ref in refs if ref is not None]
    payment: PaymentEvent | None = await uow.session.scalar(
        select(PaymentEvent)
        .where(
            PaymentEvent.provider == provider,
            PaymentEvent.event_type == PaymentEventType.PAYMENT_SUCCESS,
            or_(PaymentEvent.provider_payment_id.in_(given), PaymentEvent.fact_key.in_(given)),
        )
        .execution_options(populate_existing=True)
    )
    return payment


async def note_paid_invoice(
    uow: UnitOfWork, subscription: Subscription, fact: CheckoutPaid | InvoicePaid, invoice_ref: str
) -> bool:
    """Keep the bill as paid, and tell whether that is news; its checkout knows less of it than its own event does."""
    invoice = await _invoice(uow, subscription, fact, invoice_ref)
    is_news = invoice.status is not InvoiceStatus.PAID
    invoice.tell_paid(at=fact.occurred_at, amount=fact.amount, currency=fact.currency)
    if isinstance(fact, InvoicePaid):
        invoice.tell_bought((fact.period_start, fact.period_end), hosted_url=fact.hosted_invoice_url)
    return is_news


async def note_failed_invoice(uow: UnitOfWork, subscription: Subscription, fact: InvoicePaymentFailed) -> None:
    """Keep the bill as failed, unless it was paid or withdrawn."""
    invoice = await _invoice(uow, subscription, fact, fact.invoice_ref)
    invoice.tell_failed(
        at=fact.occurred_at, amount=fact.amount, currency=fact.currency, hosted_url=fact.hosted_invoice_url
    )


async def note_void_invoice(uow: UnitOfWork, subscription: Subscription, fact: InvoiceVoided) -> None:
    """Keep the bill as withdrawn, unless it was paid."""
    invoice = await _invoice(uow, subscription, fact, fact.invoice_ref)
    invoice.tell_void(at=fact.occurred_at, amount=fact.amount, currency=fact.currency)


def earlier(known: PaymentEvent, fact: ProviderFact) -> tuple[datetime, str]:
    """Return when a movement happened and which event told of it first, by the provider's clock."""
    return min((known.created_at, known.provider_event_id), (fact.occurred_at, fact.event_id))


async def known_movement(uow: UnitOfWork, provider: str, kind: PaymentEventType, key: str) -> PaymentEvent | None:
    """Return what is booked of a provider's fact, if anything is."""
    movement: PaymentEvent | None = await uow.session.scalar(
        select(PaymentEvent).where(
            PaymentEvent.provider == provider, PaymentEvent.event_type == kind, PaymentEvent.fact_key == key
        )
    )
    return movement


async def _invoice(uow: UnitOfWork, subscription: Subscription, fact: ProviderFact, invoice_ref: str) -> Invoice:
    invoice: Invoice | None = await uow.session.scalar(
        select(Invoice).where(Invoice.provider == fact.provider, Invoice.provider_invoice_id == invoice_ref)
    )
    if invoice is None:
        invoice = Invoice(
            id=uuid4(),
            tenant_id=subscription.tenant_id,
            subscription_id=subscription.id,
            provider=fact.provider,
            provider_invoice_id=invoice_ref,
            status=InvoiceStatus.OPEN,
            created_at=fact.occurred_at,
        )
        uow.session.add(invoice)
    return invoice


def movement_of(
    subscription: Subscription,
    fact: ProviderFact,
    kind: PaymentEventType,
    *,
    key: str,
    amount: Decimal,
    currency: str,
    payment_ref: str | None,
) -> PaymentEvent:
    """Make a movement of which a fact has told, for the caller to add to the session."""
    return PaymentEvent(
        id=uuid4(),
        tenant_id=subscription.tenant_id,
        subscription_id=subscription.id,
        event_type=kind,
        amount=amount,
        currency=currency,
        provider=fact.provider,
        provider_event_id=fact.event_id,
        fact_key=key,
        provider_payment_id=payment_ref,
        event_metadata={},
        created_at=fact.occurred_at,
    )
