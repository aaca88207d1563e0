"""The money book: every movement once, however often and in whatever order it is told.

Callers hold the subscription's lock (services/billing/lookup.py), so looking first and writing then is safe; the
unique constraints of the tables are the second wall.
"""

from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import func, or_, select

from models.billing import Invoice, InvoiceStatus, PaymentEvent, PaymentEventType, Subscription
from providers.payments import (
    CheckoutFailed,
    CheckoutPaid,
    DisputeClosed,
    DisputeOpened,
    InvoicePaid,
    InvoicePaymentFailed,
    PaymentRefunded,
    ProviderFact,
)
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A movement of money in the book; `is_new` tells whether this fact brought it there."""

    movement: PaymentEvent
    is_new: bool


async def book_payment(uow: UnitOfWork, subscription: Subscription, fact: CheckoutPaid | InvoicePaid) -> Booked | None:
    """Book money that has arrived, once per `payment_key`; None when the amount is zero.

    A first payment is told by its checkout and by its invoice: whichever comes second adds what it knows, and the
    one that happened first gives the moment, so that the result does not depend on who came first.
    """
    if fact.amount == 0:
        return None
    url = fact.hosted_invoice_url if isinstance(fact, InvoicePaid) else None
    known = await _known(uow, fact.provider, PaymentEventType.PAYMENT_SUCCESS, fact.payment_key)
    if known is None:
        payment = _movement(
            subscription,
            fact,
            PaymentEventType.PAYMENT_SUCCESS,
            key=fact.payment_key,
            amount=fact.amount,
            currency=fact.currency,
            payment_ref=fact.payment_ref,
        )
        payment.invoice_url = url
        uow.session.add(payment)
        return Booked(movement=payment, is_new=True)
    known.provider_payment_id = known.provider_payment_id or fact.payment_ref
    known.invoice_url = known.invoice_url or url
    known.created_at, known.provider_event_id = min(
        (known.created_at, known.provider_event_id), (fact.occurred_at, fact.event_id)
    )
    return Booked(movement=known, is_new=False)


def book_failure(
    uow: UnitOfWork, subscription: Subscription, fact: CheckoutFailed | InvoicePaymentFailed
) -> PaymentEvent:
    """Book an attempt to pay that failed; each is an event of its own, which the inbox applies once."""
    failure = _movement(
        subscription,
        fact,
        PaymentEventType.PAYMENT_FAILED,
        key=fact.event_id,
        amount=fact.amount,
        currency=fact.currency,
        payment_ref=None,
    )
    failure.invoice_url = fact.hosted_invoice_url if isinstance(fact, InvoicePaymentFailed) else None
    uow.session.add(failure)
    return failure


async def book_refund(
    uow: UnitOfWork, subscription: Subscription, payment: PaymentEvent, fact: PaymentRefunded
) -> PaymentEvent | None:
    """Book what the running total adds to the refunds of `payment` so far; None when it adds nothing."""
    booked = await uow.session.scalar(
        select(func.coalesce(func.sum(PaymentEvent.amount), 0)).where(
            PaymentEvent.payment_id == payment.id, PaymentEvent.event_type == PaymentEventType.REFUND
        )
    )
    added = fact.refunded_total - (booked or Decimal(0))
    if added <= 0:
        return None
    refund = _movement(
        subscription,
        fact,
        PaymentEventType.REFUND,
        key=f"{fact.charge_ref}:{fact.refunded_total}",
        amount=added,
        currency=fact.currency,
        payment_ref=fact.payment_ref,
    )
    refund.payment_id = payment.id
    uow.session.add(refund)
    return refund


async def book_dispute(
    uow: UnitOfWork, subscription: Subscription, payment: PaymentEvent, fact: DisputeOpened | DisputeClosed
) -> Booked:
    """Book a disputed payment, once per dispute; the metadata's `outcome` tells how it was decided."""
    outcome = {"outcome": fact.outcome} if isinstance(fact, DisputeClosed) else {}
    known = await _known(uow, fact.provider, PaymentEventType.CHARGEBACK, fact.dispute_ref)
    if known is not None:
        known.event_metadata = {**known.event_metadata, **outcome}
        return Booked(movement=known, is_new=False)
    chargeback = _movement(
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
    uow.session.add(chargeback)
    return Booked(movement=chargeback, is_new=True)


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
) -> None:
    """Keep the bill as paid; its checkout knows less of it than its own event does."""
    invoice = await _invoice(uow, subscription, fact, invoice_ref)
    invoice.status, invoice.amount, invoice.currency = InvoiceStatus.PAID, fact.amount, fact.currency
    invoice.paid_at = fact.occurred_at if invoice.paid_at is None else min(invoice.paid_at, fact.occurred_at)
    if isinstance(fact, InvoicePaid):
        invoice.hosted_url = fact.hosted_invoice_url
        invoice.period_start, invoice.period_end = fact.period_start, fact.period_end


async def note_failed_invoice(uow: UnitOfWork, subscription: Subscription, fact: InvoicePaymentFailed) -> None:
    """Keep the bill as failed, unless it was paid since."""
    invoice = await _invoice(uow, subscription, fact, fact.invoice_ref)
    if invoice.status in (InvoiceStatus.PAID, InvoiceStatus.VOID):
        return
    invoice.status, invoice.amount, invoice.currency = InvoiceStatus.FAILED, fact.amount, fact.currency
    invoice.hosted_url = fact.hosted_invoice_url


async def _known(uow: UnitOfWork, provider: str, kind: PaymentEventType, key: str) -> PaymentEvent | None:
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


def _movement(
    subscription: Subscription,
    fact: ProviderFact,
    kind: PaymentEventType,
    *,
    key: str,
    amount: Decimal,
    currency: str,
    payment_ref: str | None,
) -> PaymentEvent:
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
