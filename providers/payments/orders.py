"""What the providers without subscriptions are asked for: one payment, whether it buys a plan or anything else."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from core.money import exponent
from providers.payments.contract import CheckoutRequest, InvoiceRequest
from providers.payments.errors import BadPayload, ProviderRejected
from providers.payments.facts import BillingPeriod, Purchase
from providers.payments.payment_state import OrderTags
from providers.payments.reading import Node

_PERIODS: Final[dict[str, BillingPeriod]] = {"monthly": "monthly", "yearly": "yearly"}
_COMPACT: Final = "o1"
_SHORT_PERIODS: Final[dict[str, BillingPeriod]] = {"m": "monthly", "y": "yearly"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One payment to open, first asked for at `begun_at`. `title` is what the payer reads, `currency` is upper case."""

    tags: OrderTags
    begun_at: datetime
    title: str
    amount: Decimal
    currency: str
    customer_email: str | None
    success_url: str
    cancel_url: str


def order_of_checkout(request: CheckoutRequest) -> Order:
    purchase = Purchase(
        checkout_id=request.checkout_id,
        tenant_id=request.tenant_id,
        plan_id=request.plan_id,
        billing_period=request.billing_period,
    )
    return Order(
        tags=OrderTags(order_id=request.checkout_id, tenant_id=request.tenant_id, purchase=purchase),
        begun_at=request.begun_at,
        title=request.plan_name,
        amount=request.amount,
        currency=request.currency.upper(),
        customer_email=request.customer_email,
        success_url=request.success_url,
        cancel_url=request.cancel_url,
    )


def order_of_invoice(request: InvoiceRequest) -> Order:
    return Order(
        tags=OrderTags(order_id=request.invoice_id, tenant_id=request.tenant_id, purchase=None),
        begun_at=request.begun_at,
        title=request.description,
        amount=request.amount,
        currency=request.currency.upper(),
        customer_email=request.customer_email,
        success_url=request.success_url,
        cancel_url=request.cancel_url,
    )


def amount_text(
    amount: Decimal, currency: str, *, currencies: frozenset[str] | None, decimals: int | None = None
) -> str:
    """Write an amount with exactly its currency's decimals, `decimals` where the provider has its own mind of them.

    Raises:
        ProviderRejected: the currency is not the provider's, or the amount is not above zero or finer than the
            currency; nothing is rounded silently, because the price asked must be the price shown.
    """
    if currencies is not None and currency not in currencies:
        raise ProviderRejected(f"{currency} cannot be charged", details={"reason": "currency_not_supported"})
    step = Decimal(1).scaleb(-(exponent(currency) if decimals is None else decimals))
    if not amount.is_finite() or not 0 < amount < Decimal(10) ** 12 or amount % step != 0:
        raise ProviderRejected(f"{amount} {currency} cannot be charged", details={"reason": "amount_not_payable"})
    return f"{amount.quantize(step):f}"


def refuse_refund_beyond(amount: Decimal, left: Decimal) -> None:
    """Refuse to give back nothing, or more than is `left`.

    Raises:
        ProviderRejected: it cannot be given back.
    """
    if not amount.is_finite() or not 0 < amount <= left:
        raise ProviderRejected("The refund is not possible", details={"reason": "refund_not_possible"})


def tags_as_metadata(tags: OrderTags) -> dict[str, str]:
    """Write our ids as the key-value pairs that most providers keep with a payment."""
    metadata = {"order_id": str(tags.order_id), "tenant_id": str(tags.tenant_id)}
    if tags.purchase is not None:
        metadata |= {"plan_id": str(tags.purchase.plan_id), "billing_period": tags.purchase.billing_period}
    return metadata


def read_tags(metadata: Node) -> OrderTags:
    """Read what `tags_as_metadata` wrote.

    Raises:
        BadPayload: one of our ids is missing or garbled.
    """
    order_id, tenant_id = metadata.uuid("order_id"), metadata.uuid("tenant_id")
    if "plan_id" not in metadata:
        return OrderTags(order_id=order_id, tenant_id=tenant_id, purchase=None)
    period = _PERIODS.get(metadata.text("billing_period"))
    if period is None:
        metadata.refuse("billing_period", "is neither monthly nor yearly")
    return _with_plan(order_id, tenant_id, metadata.uuid("plan_id"), period)


def tags_of_metadata(metadata: Node | None) -> OrderTags | None:
    """Read our ids; None for a payment that somebody else began in the provider's account."""
    try:
        return None if metadata is None else read_tags(metadata)
    except BadPayload:
        return None


def compact_tags(tags: OrderTags) -> str:
    """Write our ids as one text of at most 104 letters, digits and dashes, where a provider keeps no pairs."""
    parts = [_COMPACT, tags.order_id.hex, tags.tenant_id.hex]
    if tags.purchase is not None:
        parts += [tags.purchase.plan_id.hex, tags.purchase.billing_period[0]]
    return "-".join(parts)


def read_compact_tags(text: str | None) -> OrderTags | None:
    """Read what `compact_tags` wrote; None for anything else."""
    match (text or "").split("-"):
        case [kind, order, tenant] if kind == _COMPACT:
            ids, period = _uuids(order, tenant), None
        case [kind, order, tenant, plan, letter] if kind == _COMPACT:
            ids, period = _uuids(order, tenant, plan), _SHORT_PERIODS.get(letter)
        case _:
            return None
    if ids is None:
        return None
    order_id, tenant_id, *plans = ids
    if not plans:
        return OrderTags(order_id=order_id, tenant_id=tenant_id, purchase=None)
    return None if period is None else _with_plan(order_id, tenant_id, plans[0], period)


def _with_plan(order_id: UUID, tenant_id: UUID, plan_id: UUID, period: BillingPeriod) -> OrderTags:
    purchase = Purchase(checkout_id=order_id, tenant_id=tenant_id, plan_id=plan_id, billing_period=period)
    return OrderTags(order_id=order_id, tenant_id=tenant_id, purchase=purchase)


def _uuids(*texts: str) -> list[UUID] | None:
    try:
        return [UUID(text) for text in texts]
    except ValueError:
        return None
