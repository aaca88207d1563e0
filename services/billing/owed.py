"""Credits for money that was overtaken: booked as revenue when it came, and owed since it bought nothing."""

from datetime import datetime
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import select

from models.billing import CheckoutSession, Credit, CreditReason
from models.journal import EntryKind
from services.billing.journal import MoneyFact, post
from services.unit_of_work import UnitOfWork


async def keep_superseded(
    uow: UnitOfWork,
    purchase: CheckoutSession,
    *,
    payment_key: str,
    amount: Decimal,
    currency: str,
    occurred_at: datetime,
) -> Credit | None:
    """Bring what is owed of a payment for a purchase to `amount` of `currency`, unless an operator has settled it.

    The subscription's lock is held. Zero drops the credit. Returns it when it is new, for its people to be told.
    """
    known = await uow.session.scalar(
        select(Credit).where(
            Credit.provider == purchase.provider,
            Credit.payment_key == payment_key,
            Credit.reason == CreditReason.SUPERSEDED,
        )
    )
    if (known is None and not amount) or (known is not None and known.settled_at is not None):
        return None
    moved = MoneyFact(
        tenant_id=purchase.tenant_id,
        provider=purchase.provider,
        kind=EntryKind.UNEARNED,
        key=payment_key,
        currency=currency,
        occurred_at=occurred_at,
    )
    await post(uow, moved, amount, may_fall=True)
    if known is not None:
        known.amount, known.occurred_at = amount, occurred_at
        if not amount:
            await uow.session.delete(known)
        return None
    credit = Credit(
        id=uuid4(),
        tenant_id=purchase.tenant_id,
        checkout_id=purchase.id,
        provider=purchase.provider,
        payment_key=payment_key,
        reason=CreditReason.SUPERSEDED,
        amount=amount,
        currency=currency,
        occurred_at=occurred_at,
    )
    uow.session.add(credit)
    uow.audit(
        "payment.owed",
        actor_id=None,
        tenant_id=purchase.tenant_id,
        subject=("checkout", purchase.id),
        details={"reason": credit.reason.value, "amount": str(amount), "currency": credit.currency},
    )
    return credit
