"""Giving the platform's own payments back where the provider never tells of it (BTCPay Server, Coinbase Commerce).

Everywhere else a refund is made at the provider, whose word of it books it. Here nobody else knows of it, so what we
have asked for is what is booked; where the provider cannot even be asked, what an operator has given back by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID, uuid4, uuid5

from sqlalchemy import select

from core.errors import InvalidInput
from core.money import Money, is_payable
from models.billing import PaymentEvent, PaymentEventType, Subscription
from models.journal import EntryKind
from providers.payments import PaymentProvider, PaymentRefunded, RefundRequest, RefundStatus
from services.billing.errors import NothingLeftToRefund, PaymentNotFound, RefundIsTold
from services.billing.journal import posted
from services.billing.lookup import locked_subscription
from services.billing.money import MoneyFacts
from services.billing.views import View
from services.identity import Principal, require_superuser
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("an operator gives a tenant's payment back")


class PaymentRefundView(View):
    """What has gone back: `amount` now and `refunded` of the payment in all.

    `claim_url` is where the payer says where to send the money, None where an operator has sent it.
    """

    payment_id: UUID
    amount: Money
    currency: str
    refunded: Money
    claim_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    payment: PaymentEvent
    refund_id: UUID
    amount: Decimal
    before: Decimal


class Refunds:
    """Refunds of the platform's payments. The provider is asked outside any unit of work, and then it is booked."""

    def __init__(
        self, units: UnitOfWorkFactory, *, providers: Mapping[str, PaymentProvider], money: MoneyFacts
    ) -> None:
        self._units = units
        self._providers = providers
        self._money = money

    async def refund(
        self, actor: Principal, payment_id: UUID, amount: Decimal | None, *, trace: RequestTrace
    ) -> PaymentRefundView:
        """Give `amount` of a payment back, None for all that is left; for superusers.

        Whoever asks for the same again because no answer came gets the same refund.

        Raises:
            PaymentNotFound: there is no such payment.
            RefundIsTold: its provider tells of refunds, so it must be given back there.
            NothingLeftToRefund, InvalidInput: the amount cannot be given back.
            ProviderRejected, ProviderUnavailable: the provider did not give it back.
        """
        require_superuser(actor)
        async with self._units(_SCOPE, trace=trace) as uow:
            payment, _ = await _held(uow, payment_id)
            provider = self._providers.get(payment.provider or "")
            if provider is not None and provider.capabilities.tells_refunds:
                raise RefundIsTold
            wanted = await _wanted(uow, payment, amount, is_asked=_can_ask(provider))
        claim_url = None
        if provider is not None and _can_ask(provider):
            made = await provider.refund(_request(wanted))
            if made.status is RefundStatus.FAILED:
                raise NothingLeftToRefund
            claim_url = made.claim_url
        async with self._units(_SCOPE, trace=trace) as uow:
            refunded = await self._book(uow, actor, wanted)
        return PaymentRefundView(
            payment_id=payment.id,
            amount=wanted.amount,
            currency=payment.currency,
            refunded=refunded,
            claim_url=claim_url,
        )

    async def _book(self, uow: UnitOfWork, actor: Principal, wanted: _Wanted) -> Decimal:
        """Book a refund once; returns what has gone back of the payment in all."""
        payment, subscription = await _held(uow, wanted.payment.id)
        told = f"refund_{wanted.refund_id}"
        before = await _refunded(uow, payment)
        is_booked = await uow.session.scalar(
            select(PaymentEvent.id).where(PaymentEvent.payment_id == payment.id, PaymentEvent.provider_event_id == told)
        )
        if is_booked is not None:
            return before
        uow.audit(
            "payment.refund_made",
            actor_id=actor.user_id,
            tenant_id=payment.tenant_id,
            subject=("subscription", subscription.id),
            details={"payment": str(payment.id), "amount": str(wanted.amount), "currency": payment.currency},
        )
        fact = PaymentRefunded(
            provider=payment.provider or "",
            event_id=told,
            occurred_at=uow.now,
            payment_ref=payment.provider_payment_id,
            charge_ref=payment.fact_key,
            invoice_ref=None,
            customer_ref=None,
            charged=payment.amount,
            refunded_total=before + wanted.amount,
            currency=payment.currency,
        )
        await self._money.refund(uow, fact)
        return fact.refunded_total


async def _held(uow: UnitOfWork, payment_id: UUID) -> tuple[PaymentEvent, Subscription]:
    """Return a payment and its subscription under lock."""
    payment = await uow.session.get(PaymentEvent, payment_id)
    if payment is None or payment.event_type is not PaymentEventType.PAYMENT_SUCCESS:
        raise PaymentNotFound
    subscription = await locked_subscription(uow, Subscription.id == payment.subscription_id)
    if subscription is None:
        raise PaymentNotFound
    return payment, subscription


async def _wanted(uow: UnitOfWork, payment: PaymentEvent, amount: Decimal | None, *, is_asked: bool) -> _Wanted:
    before = await _refunded(uow, payment)
    left = payment.amount - before
    wanted = left if amount is None else amount
    if wanted <= 0 or wanted > left:
        raise NothingLeftToRefund
    if not is_payable(wanted, payment.currency):
        problem = {"field": "body -> amount", "message": f"is no amount of {payment.currency}", "type": "value_error"}
        raise InvalidInput(details={"errors": [problem]})
    # The same as long as it is not booked, so that the provider gives back once what is asked for twice.
    refund_id = uuid5(payment.id, f"{before}+{wanted}") if is_asked else uuid4()
    return _Wanted(payment=payment, refund_id=refund_id, amount=wanted, before=before)


async def _refunded(uow: UnitOfWork, payment: PaymentEvent) -> Decimal:
    return await posted(uow, provider=payment.provider or "", kind=EntryKind.REFUND, key=payment.fact_key)


def _can_ask(provider: PaymentProvider | None) -> bool:
    return provider is not None and provider.capabilities.refund


def _request(wanted: _Wanted) -> RefundRequest:
    # At the provider that can be asked, a payment's key is its session's id.
    return RefundRequest(
        refund_id=wanted.refund_id,
        session_id=wanted.payment.fact_key,
        payment_ref=wanted.payment.provider_payment_id,
        amount=wanted.amount,
        currency=wanted.payment.currency,
        refunded_before=wanted.before,
    )
