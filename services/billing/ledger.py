"""The money book: every movement once, however often and in whatever order it is told.

Callers hold the subscription's lock (services/billing/lookup.py), so looking first and writing then is safe; the
unique constraints of the tables are the second wall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
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
    PaymentRefunded,
    ProviderFact,
    RefundFailed,
)
from services.unit_of_work import UnitOfWork

RENEWS = "renews"
"""In the metadata of a payment: the id of the purchase that it renewed, at a provider that charges by itself."""

# In the metadata of a payment: the newest failure of a refund; in a refund's: when its total was told last.
_FELL = "refund_failed"
_AGAIN = "told_again_at"
# In a dispute's: that its money was taken beside what was refunded, and what came back of it though it was lost.
_BESIDE = "beside_refunds"
_RETURNED = "returned"
# In a refund's, too: which refunds had failed when its total was read, and that the provider took it back, for which a
# dispute may be the reason.
_KNOWING = "read_knowing_failed"
_REVERSAL = "is_reversal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """A movement of money in the book; `is_new` tells whether this fact brought it there, `is_decided` its outcome."""

    movement: PaymentEvent
    is_new: bool
    is_decided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """What has gone back of a payment, and how much more that is than was known; less when a refund has failed.

    `moves` are what the step is made of: how much of it happened when. A total that is told late takes from the higher
    ones what was thought to be theirs.
    """

    total: Decimal
    step: Decimal
    moves: Sequence[tuple[datetime, Decimal]]


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
        payment.invoice_url, payment.checkout_id = url, checkout_id
        if renews is not None:
            payment.event_metadata = {RENEWS: str(renews.id)}
        uow.session.add(payment)
        return Booked(movement=payment, is_new=True)
    known.provider_payment_id = known.provider_payment_id or fact.payment_ref
    known.invoice_url = known.invoice_url or url
    if purchase is not None:
        known.checkout_id, known.plan_id = purchase.id, purchase.plan_id
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
    """Book what the running total of what was refunded of `payment` is by now; returns what counts of it.

    Every total is a row of its own that holds what it adds to the one below it. A refund that failed lowers the total
    to what its fact tells, which stays until a newer fact, by the provider's clock, tells of more; rows beyond it
    then hold nothing. Of a failure and a total of one second the failure is the newer one, for what has gone back is
    asked for once it is told; but a total that was read by somebody who knew of the failure counts beside it. So facts
    that come in the wrong order end as the same rows as in the right one.
    """
    steps = await _refunds_of(uow, payment)
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
        refund.event_metadata = {
            "refunded_total": str(fact.refunded_total),
            _KNOWING: sorted(fact.refunds_failed),
            _REVERSAL: fact.is_reversal,
        }
        # Nothing counts of it yet.
        refund.amount = Decimal(0)
        uow.session.add(refund)
    return await _count_refunds(uow, payment, steps, fact)


async def recount_refunds(uow: UnitOfWork, payment: PaymentEvent, fact: DisputeOpened | DisputeClosed) -> Refunded:
    """Book what counts as refunded of `payment` beside its disputes, one of which was just told of."""
    return await _count_refunds(uow, payment, await _refunds_of(uow, payment), fact)


async def refunded_of(uow: UnitOfWork, provider: str, payment_key: str) -> Decimal:
    """Return what a provider has told to have gone back of a payment; disputes may have taken some of that."""
    payment = await _known(uow, provider, PaymentEventType.PAYMENT_SUCCESS, payment_key)
    return Decimal(0) if payment is None else _total_now(payment, await _refunds_of(uow, payment))


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
        outcome[_BESIDE] = True
    returned = fact.returned if isinstance(fact, DisputeClosed) else Decimal(0)
    known = await _known(uow, fact.provider, PaymentEventType.CHARGEBACK, fact.dispute_ref)
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


async def _refunds_of(uow: UnitOfWork, payment: PaymentEvent) -> dict[Decimal, PaymentEvent]:
    rows = await _movements_of(uow, payment, PaymentEventType.REFUND)
    return {Decimal(row.event_metadata["refunded_total"]): row for row in rows}


async def _movements_of(uow: UnitOfWork, payment: PaymentEvent, kind: PaymentEventType) -> list[PaymentEvent]:
    rows = await uow.session.scalars(
        select(PaymentEvent).where(PaymentEvent.payment_id == payment.id, PaymentEvent.event_type == kind)
    )
    return list(rows)


async def _count_refunds(
    uow: UnitOfWork, payment: PaymentEvent, steps: Mapping[Decimal, PaymentEvent], fact: ProviderFact
) -> Refunded:
    """Bring each total's row to what it adds: no more than was paid is refunded.

    What a dispute took is no refund as well, unless it was taken beside what was refunded (`DisputeOpened`).
    """
    disputes = await _movements_of(uow, payment, PaymentEventType.CHARGEBACK)
    counted = {
        total: row for total, row in steps.items() if not (disputes and row.event_metadata.get(_REVERSAL, False))
    }
    taken = (
        row.amount
        for row in disputes
        if row.event_metadata.get("outcome") != "won" and not row.event_metadata.get(_BESIDE, False)
    )
    now = min(_total_now(payment, counted), max(payment.amount - sum(taken, Decimal(0)), Decimal(0)))
    below = Decimal(0)
    moves = []
    for total, row in sorted(steps.items()):
        amount = max(min(total, now) - below, Decimal(0))
        if amount != row.amount:
            moves.append((_moved_at(row, fact, is_more=amount > row.amount), amount - row.amount))
        row.amount, below = amount, total
    return Refunded(total=now, step=sum((amount for _, amount in moves), Decimal(0)), moves=moves)


def _moved_at(refund: PaymentEvent, fact: ProviderFact, *, is_more: bool) -> datetime:
    """Return when a refund has come to count for more or less, the same whatever was heard of first."""
    if not isinstance(fact, PaymentRefunded):
        return max(fact.occurred_at, refund.created_at)
    # A lower total that is told late was a part of this one all along.
    return fact.occurred_at if is_more else refund.created_at


def _total_now(payment: PaymentEvent, steps: Mapping[Decimal, PaymentEvent]) -> Decimal:
    """Return the highest total that was told, of those that are newer than the newest failure of a refund."""
    fell = payment.event_metadata.get(_FELL)
    if fell is None:
        return max(steps, default=Decimal(0))
    since = [total for total, row in steps.items() if _is_since(row, fell)]
    # What failed may be heard of before what it is a part of.
    return min(max([Decimal(fell["total"]), *since]), max(steps, default=Decimal(0)))


def _is_since(refund: PaymentEvent, fell: Mapping[str, Any]) -> bool:
    """Tell whether a total was read after a refund failed: later, or in that second but knowing of it."""
    told_at, fell_at = _told_at(refund), datetime.fromisoformat(fell["at"])
    failed = set(fell.get("refs", ()))
    knew = bool(failed) and failed <= set(refund.event_metadata.get(_KNOWING, ()))
    return told_at > fell_at or (told_at == fell_at and knew)


def _note_failed_refund(payment: PaymentEvent, fact: RefundFailed) -> None:
    total, refs = fact.refunded_total or Decimal(0), {fact.refund_ref}
    fell = payment.event_metadata.get(_FELL)
    if fell is not None:
        fell_at = datetime.fromisoformat(fell["at"])
        if fact.occurred_at < fell_at:
            return
        if fact.occurred_at == fell_at:
            # Several failed in this second, or one is told again.
            total, refs = min(total, Decimal(fell["total"])), refs | set(fell.get("refs", ()))
    noted = {"total": str(total), "at": fact.occurred_at.isoformat(), "refs": sorted(refs)}
    payment.event_metadata = {**payment.event_metadata, _FELL: noted}


def _told_at(refund: PaymentEvent) -> datetime:
    """Return when a total was told last: the same one comes again when a refund failed and is repeated."""
    again = refund.event_metadata.get(_AGAIN)
    return refund.created_at if again is None else datetime.fromisoformat(again)


def _tell_again(refund: PaymentEvent, fact: PaymentRefunded) -> None:
    if not fact.is_reversal:
        refund.event_metadata = {**refund.event_metadata, _REVERSAL: False}
    last = max(_told_at(refund), fact.occurred_at)
    knowing = {*refund.event_metadata.get(_KNOWING, ()), *fact.refunds_failed}
    refund.event_metadata = {**refund.event_metadata, _KNOWING: sorted(knowing)}
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
