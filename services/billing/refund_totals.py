"""What has gone back of a payment: counted from running totals that are told in any order, and that may fall again.

Callers hold the subscription's lock, as those of the money book do (ledger.py), of which these movements are a part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from models.billing import PaymentEvent, PaymentEventType, Subscription
from providers.payments import DisputeClosed, DisputeOpened, PaymentRefunded, ProviderFact, RefundFailed
from services.billing.ledger import BESIDE, earlier, known_movement, movement_of
from services.unit_of_work import UnitOfWork

# In the metadata of a payment: the newest failure of a refund; in a refund's: when its total was told last.
_FELL = "refund_failed"
_AGAIN = "told_again_at"
# In a refund's, too: which refunds had failed when its total was read, and that the provider took it back, for which a
# dispute may be the reason.
_KNOWING = "read_knowing_failed"
_REVERSAL = "is_reversal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """What has gone back of a payment, and how much more that is than was known; less when a refund has failed.

    `moves` are what the step is made of: how much of it happened when. A total that is told late takes from the higher
    ones what was thought to be theirs.
    """

    total: Decimal
    step: Decimal
    moves: Sequence[tuple[datetime, Decimal]]


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
        steps[fact.refunded_total] = refund = movement_of(
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
    payment = await known_movement(uow, provider, PaymentEventType.PAYMENT_SUCCESS, payment_key)
    return Decimal(0) if payment is None else _total_now(payment, await _refunds_of(uow, payment))


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
        if row.event_metadata.get("outcome") != "won" and not row.event_metadata.get(BESIDE, False)
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
    refund.created_at, refund.provider_event_id = earlier(refund, fact)
    if last > refund.created_at:
        refund.event_metadata = {**refund.event_metadata, _AGAIN: last.isoformat()}
