"""The money book: every movement once, however often and in whatever order it is told.

Callers hold the subscription's lock (services/billing/lookup.py), so looking first and writing then is safe; the
unique constraints of the tables are the second wall.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import or_, select

from models.billing import Invoice, InvoiceStatus, PaymentEvent, PaymentEventType, Subscription
from providers.payments import (
    CheckoutFailed,
    CheckoutPaid,
    DisputeClosed,
    DisputeOpened,
    InvoicePaid,
    InvoicePaymentFailed,
    InvoiceVoided,
    PaymentRefunded,
    ProviderFact,
    RefundFailed,
)
from services.unit_of_work import UnitOfWork

# In the metadata of a payment: the newest failure of a refund; in a refund's: when its total was told last.
_FELL = "refund_failed"
_AGAIN = "told_again_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A movement of money in the book; `is_new` tells whether this fact brought it there, `is_decided` its outcome."""

    movement: PaymentEvent
    is_new: bool
    is_decided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """What has gone back of a payment, and how much more that is than was known; less when a refund has failed."""

    total: Decimal
    step: Decimal


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
    known.created_at, known.provider_event_id = _earlier(known, fact)
    return Booked(movement=known, is_new=False)


async def book_failure(
    uow: UnitOfWork, subscription: Subscription, fact: CheckoutFailed | InvoicePaymentFailed
) -> Booked:
    """Book an attempt to pay that failed: each of an invoice, and of a checkout the one that there is."""
    key = fact.event_id if isinstance(fact, InvoicePaymentFailed) else fact.session_id
    known = await _known(uow, fact.provider, PaymentEventType.PAYMENT_FAILED, key)
    if known is not None:
        known.created_at, known.provider_event_id = _earlier(known, fact)
        return Booked(movement=known, is_new=False)
    failure = _movement(
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


async def book_refund(
    uow: UnitOfWork, subscription: Subscription, payment: PaymentEvent, fact: PaymentRefunded | RefundFailed
) -> Refunded:
    """Book what the running total of what was refunded of `payment` is by now; returns it.

    Every total is a row of its own that holds what it adds to the one below it. A refund that failed lowers the total
    to what its fact tells, which stays until a newer fact, by the provider's clock, tells of more; rows beyond it
    then hold nothing. So facts that come in the wrong order end as the same rows as in the right one.
    """
    rows = await uow.session.scalars(
        select(PaymentEvent).where(
            PaymentEvent.payment_id == payment.id, PaymentEvent.event_type == PaymentEventType.REFUND
        )
    )
    steps = {Decimal(row.event_metadata["refunded_total"]): row for row in rows}
    before = _total_now(payment, steps)
    if isinstance(fact, RefundFailed):
        _note_failed_refund(payment, fact)
    elif fact.refunded_total in steps:
        _tell_again(steps[fact.refunded_total], fact)
    elif fact.refunded_total > 0:
        steps[fact.refunded_total] = refund = _movement(
            subscription,
            fact,
            PaymentEventType.REFUND,
            key=f"{fact.charge_ref}:{fact.refunded_total}",
            amount=fact.refunded_total,
            currency=fact.currency,
            payment_ref=fact.payment_ref,
        )
        refund.payment_id = payment.id
        refund.event_metadata = {"refunded_total": str(fact.refunded_total)}
        uow.session.add(refund)
    now = _total_now(payment, steps)
    below = Decimal(0)
    for total, row in sorted(steps.items()):
        row.amount = max(min(total, now) - below, Decimal(0))
        below = total
    return Refunded(total=now, step=now - before)


async def book_dispute(
    uow: UnitOfWork, subscription: Subscription, payment: PaymentEvent, fact: DisputeOpened | DisputeClosed
) -> Booked:
    """Book a disputed payment, once per dispute; the metadata's `outcome` tells how it was decided."""
    outcome: dict[str, object] = {"outcome": fact.outcome} if isinstance(fact, DisputeClosed) else {}
    if isinstance(fact, DisputeClosed) and fact.fee is not None:
        outcome["fee_decided"] = True
    known = await _known(uow, fact.provider, PaymentEventType.CHARGEBACK, fact.dispute_ref)
    before = None if known is None else known.event_metadata.get("outcome")
    is_decided = isinstance(fact, DisputeClosed) and fact.outcome != before
    if known is not None:
        known.event_metadata = {**known.event_metadata, **outcome}
        if (fact.occurred_at, fact.event_id) < (known.created_at, known.provider_event_id):
            known.amount, known.currency = fact.amount, fact.currency
        known.created_at, known.provider_event_id = _earlier(known, fact)
        return Booked(movement=known, is_new=False, is_decided=is_decided)
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
    return Booked(movement=chargeback, is_new=True, is_decided=is_decided)


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
    invoice.tell_paid(at=fact.occurred_at, amount=fact.amount, currency=fact.currency)
    if isinstance(fact, InvoicePaid):
        invoice.tell_bought((fact.period_start, fact.period_end), hosted_url=fact.hosted_invoice_url)


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


def _total_now(payment: PaymentEvent, steps: Mapping[Decimal, PaymentEvent]) -> Decimal:
    """Return the highest total that was told, of those that are newer than the newest failure of a refund."""
    fell = payment.event_metadata.get(_FELL)
    if fell is None:
        return max(steps, default=Decimal(0))
    fell_at = datetime.fromisoformat(fell["at"])
    since = [total for total, row in steps.items() if _told_at(row) > fell_at]
    # What failed may be heard of before what it is a part of.
    return min(max([Decimal(fell["total"]), *since]), max(steps, default=Decimal(0)))


def _note_failed_refund(payment: PaymentEvent, fact: RefundFailed) -> None:
    told = (fact.occurred_at, -(fact.refunded_total or Decimal(0)))
    fell = payment.event_metadata.get(_FELL)
    if fell is None or told > (datetime.fromisoformat(fell["at"]), -Decimal(fell["total"])):
        noted = {"total": str(-told[1]), "at": fact.occurred_at.isoformat()}
        payment.event_metadata = {**payment.event_metadata, _FELL: noted}


def _told_at(refund: PaymentEvent) -> datetime:
    """Return when a total was told last: the same one comes again when a refund failed and is repeated."""
    again = refund.event_metadata.get(_AGAIN)
    return refund.created_at if again is None else datetime.fromisoformat(again)


def _tell_again(refund: PaymentEvent, fact: PaymentRefunded) -> None:
    last = max(_told_at(refund), fact.occurred_at)
    refund.created_at, refund.provider_event_id = _earlier(refund, fact)
    if last > refund.created_at:
        refund.event_metadata = {**refund.event_metadata, _AGAIN: last.isoformat()}


def _earlier(known: PaymentEvent, fact: ProviderFact) -> tuple[datetime, str]:
    """Return when a movement happened and which event told of it first, by the provider's clock."""
    return min((known.created_at, known.provider_event_id), (fact.occurred_at, fact.event_id))


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
