"""What a payment amounts to, as its provider holds it now: how much has come, and what of it bought nothing.

The six cases of crypto payments (providers.md 1.2) are told apart here, by amounts alone.
"""

from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, delete, select

from models.billing import CheckoutSession, CheckoutState, Credit, CreditReason
from models.journal import EntryKind
from providers.payments import PaymentState, PaymentStatus
from services.billing.journal import MoneyFact, post, posted
from services.billing.lookup import Begun, by_purchase
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A purchase's own payment, and the credit that it has just given rise to.

    `buys` is False where what the provider holds for paid buys nothing all the same.
    """

    begun: Begun
    owed: Credit | None
    buys: bool = True


async def measure_payment(uow: UnitOfWork, provider: str, payment: PaymentState) -> Measured | None:
    """Take in a payment of a purchase of ours; returns None when it is not the purchase's own payment.

    That it is paid is told by its facts, which activate what was bought; here it only counts what came. Whichever
    payment of a purchase is paid first is its own; a second one becomes a credit.

    Raises:
        NotThereYet: we have no such purchase.
        FactRefused: the payment contradicts the purchase.
    """
    purchase = None if payment.tags is None else payment.tags.purchase
    if purchase is None:
        return None
    begun = await by_purchase(uow, provider=provider, session_id=payment.session_id, purchase=purchase)
    checkout = begun.checkout
    if checkout.session_id not in (None, payment.session_id):
        if payment.status is not PaymentStatus.PAID:
            return None
        if checkout.state is CheckoutState.PAID:
            owed = await _owe(uow, checkout, payment, CreditReason.DUPLICATE, payment.received)
            return Measured(begun=begun, owed=owed, buys=False)
    checkout.session_id = payment.session_id
    checkout.measure(received=payment.received, overpaid=payment.overpaid, is_late=payment.is_late)
    if payment.status is not PaymentStatus.PAID:
        checkout.tell(CheckoutState(payment.status.value), at=payment.changed_at)
    elif checkout.state is not CheckoutState.PAID and await _was_given_back(uow, checkout, payment):
        # The provider counts what has left us again: the rest alone buys nothing, and is owed as well.
        owed = await _owe(uow, checkout, payment, CreditReason.UNDERPAID, payment.received)
        return Measured(begun=begun, owed=owed, buys=False)
    return Measured(begun=begun, owed=await _settle(uow, checkout, payment))


async def _settle(uow: UnitOfWork, checkout: CheckoutSession, payment: PaymentState) -> Credit | None:
    """Make the credits of a payment what follows from its amounts, whatever was thought of it before."""
    is_short = checkout.state is CheckoutState.UNDERPAID and payment.status is not PaymentStatus.PAID
    if not is_short:
        await _owe_no_more(uow, checkout, payment, CreditReason.UNDERPAID)
    if payment.overpaid > 0:
        return await _owe(uow, checkout, payment, CreditReason.OVERPAID, checkout.overpaid)
    if is_short and payment.status is PaymentStatus.UNDERPAID:
        return await _owe(uow, checkout, payment, CreditReason.UNDERPAID, checkout.received)
    return None


async def _was_given_back(uow: UnitOfWork, checkout: CheckoutSession, payment: PaymentState) -> bool:
    known = await uow.session.scalar(select(Credit).where(_is_of(checkout, payment, CreditReason.UNDERPAID)))
    return known is not None and await _settled(uow, known) > 0


async def _owe(
    uow: UnitOfWork, checkout: CheckoutSession, payment: PaymentState, reason: CreditReason, amount: Decimal
) -> Credit | None:
    """Keep a credit, or its new amount; returns it when it is new. The subscription's lock is held.

    Where it was settled before, what has come since is owed anew.
    """
    known = await uow.session.scalar(select(Credit).where(_is_of(checkout, payment, reason)))
    settled = Decimal(0) if known is None else await _settled(uow, known)
    if known is not None and known.settled_at is not None and amount <= settled:
        return None
    await post(uow, _money(checkout, payment, reason), max(amount, settled), may_fall=True)
    if known is None:
        known = _new_credit(checkout, payment, reason)
        uow.session.add(known)
    elif known.settled_at is None:
        known.amount, known.occurred_at = max(amount - settled, Decimal(0)), payment.paid_at or payment.changed_at
        return None
    known.amount, known.settled_at = amount - settled, None
    known.occurred_at = payment.paid_at or payment.changed_at
    uow.audit(
        "payment.owed",
        actor_id=None,
        tenant_id=checkout.tenant_id,
        subject=("checkout", checkout.id),
        details={"reason": reason.value, "amount": str(known.amount), "currency": payment.currency},
    )
    return known


async def _settled(uow: UnitOfWork, credit: Credit) -> Decimal:
    """Return how much of a credit was given back, in one time or in several."""
    told = await posted(uow, provider=credit.provider, kind=EntryKind.CREDIT_SETTLED, key=str(credit.id))
    # What was settled before there was a journal is not in it.
    return told if credit.settled_at is None else max(told, credit.amount)


def _new_credit(checkout: CheckoutSession, payment: PaymentState, reason: CreditReason) -> Credit:
    return Credit(
        id=uuid4(),
        tenant_id=checkout.tenant_id,
        checkout_id=checkout.id,
        provider=checkout.provider,
        payment_key=payment.payment_key,
        reason=reason,
        currency=payment.currency,
    )


async def _owe_no_more(uow: UnitOfWork, checkout: CheckoutSession, payment: PaymentState, reason: CreditReason) -> None:
    dropped = await uow.session.execute(
        delete(Credit).where(_is_of(checkout, payment, reason), Credit.settled_at.is_(None)).returning(Credit.id)
    )
    if dropped.scalar_one_or_none() is not None:
        await post(uow, _money(checkout, payment, reason), Decimal(0), may_fall=True)


def _money(checkout: CheckoutSession, payment: PaymentState, reason: CreditReason) -> MoneyFact:
    return MoneyFact(
        tenant_id=checkout.tenant_id,
        provider=checkout.provider,
        kind=EntryKind.CREDIT,
        key=f"{payment.payment_key}:{reason.value}",
        currency=payment.currency,
        occurred_at=payment.paid_at or payment.changed_at,
    )


def _is_of(checkout: CheckoutSession, payment: PaymentState, reason: CreditReason) -> ColumnElement[bool]:
    return and_(
        Credit.provider == checkout.provider, Credit.payment_key == payment.payment_key, Credit.reason == reason
    )
