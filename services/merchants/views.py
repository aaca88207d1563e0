"""Merchants' accounts and orders as clients see them: bare, in camel case, amounts as texts (contract.md 4.6)."""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from core.money import plain_amount
from models.credits import CreditReason
from models.merchants import CommissionLog, PaymentIntegration
from models.orders import OrderInvoice, OrderRefund, OrderStatus, RefundState
from models.payment_progress import CheckoutState
from services.merchants.reckoning import Book

_STATUSES: dict[CheckoutState, Literal["pending", "paid", "expired", "failed"]] = {
    CheckoutState.PENDING: "pending",
    CheckoutState.APPROVED: "pending",
    CheckoutState.PROCESSING: "pending",
    CheckoutState.PAID: "paid",
    CheckoutState.UNDERPAID: "expired",
    CheckoutState.EXPIRED: "expired",
    CheckoutState.CANCELLED: "expired",
    CheckoutState.FAILED: "failed",
}


class CamelView(BaseModel):
    """A shape of the wire; it never changes after it was made."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    def plain(self) -> dict[str, Any]:
        """Return the view as it goes over the wire."""
        return self.model_dump(by_alias=True)


class UrlView(CamelView):
    """Where to send the payer."""

    url: str


class IntegrationView(CamelView):
    """A merchant's account, without its keys: `hint` are the last characters of the one that tells it from others.

    `webhook_url` is what the merchant gives to the provider. `is_current` tells that orders are paid there.
    """

    id: UUID
    provider: str
    webhook_url: str
    hint: str
    account: dict[str, Any]
    return_url: str | None
    is_current: bool
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: PaymentIntegration, *, webhook_url: str, is_current: bool) -> Self:
        return cls(
            id=row.id,
            provider=row.provider,
            webhook_url=webhook_url,
            hint=row.hint,
            account={to_camel(name): value for name, value in row.account.items()},
            return_url=row.return_url,
            is_current=is_current,
            created_at=row.created_at,
            updated_at=row.chosen_at,
        )


class IntegrationsView(IntegrationView):
    """The account that orders are paid at, and all that the merchant has."""

    integrations: list[IntegrationView]


class OrderInvoiceView(CamelView):
    """One invoice of an order; `status` is one of four words for simple clients, `state` the finer one."""

    id: UUID
    provider: str
    provider_invoice_id: str | None
    status: Literal["pending", "paid", "expired", "failed"]
    state: CheckoutState
    amount: str
    currency: str
    received: str
    overpaid: str
    refunded: str
    is_late: bool
    url: str | None
    created_at: datetime
    expires_at: datetime | None
    paid_at: datetime | None

    @classmethod
    def of(cls, row: OrderInvoice, book: Book) -> Self:
        def text(amount: Any) -> str:
            return plain_amount(amount, row.currency)

        return cls(
            id=row.id,
            provider=row.provider,
            provider_invoice_id=row.session_id,
            status=_STATUSES[row.state],
            state=row.state,
            amount=text(row.amount),
            currency=row.currency,
            received=text(row.received),
            overpaid=text(row.overpaid),
            refunded=text(book.given_back(row)),
            is_late=row.is_late,
            url=row.url,
            created_at=row.created_at,
            expires_at=row.expires_at,
            paid_at=row.completed_at,
        )


class OwedView(CamelView):
    """Money that bought nothing and that the merchant is to give back."""

    invoice_id: UUID
    reason: CreditReason
    amount: str
    currency: str


class RefundView(CamelView):
    """Money given back through us; at `claim_url` the customer says where to send it.

    `state` is `asked` until the provider has answered, which it is asked for until it has; `pending` once it has taken
    the refund on, which counts as given back; `made` when it tells that the money arrived; `failed` when it refused, or
    tells that the money did not arrive.
    """

    id: UUID
    invoice_id: UUID
    amount: str
    currency: str
    state: RefundState
    claim_url: str | None
    created_at: datetime

    @classmethod
    def of(cls, row: OrderRefund) -> Self:
        return cls(
            id=row.id,
            invoice_id=row.invoice_id,
            amount=plain_amount(row.amount, row.currency),
            currency=row.currency,
            state=row.state,
            claim_url=row.claim_url,
            created_at=row.created_at,
        )


class OrderView(CamelView):
    """An order with all that is known of its payment; `commission` is what is the platform's of it."""

    id: UUID
    tenant_id: UUID
    amount: str
    currency: str
    status: OrderStatus
    paid: bool
    paid_at: datetime | None
    is_late: bool
    refunded: str
    commission: str
    items: list[dict[str, Any]]
    note: str | None
    external_reference: str | None
    owed: list[OwedView]
    invoices: list[OrderInvoiceView]
    refunds: list[RefundView]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, book: Book) -> Self:
        order, paying = book.order, book.paying

        def text(amount: Any) -> str:
            return plain_amount(amount, order.currency)

        return cls(
            id=order.id,
            tenant_id=order.tenant_id,
            amount=text(order.amount),
            currency=order.currency,
            status=order.status,
            paid=order.paid,
            paid_at=order.paid_at,
            is_late=paying is not None and paying.is_late,
            refunded=text(book.gone),
            commission=text(book.commission),
            items=order.items,
            note=order.note,
            external_reference=order.external_reference,
            owed=[
                OwedView(
                    invoice_id=owed.invoice_id, reason=owed.reason, amount=text(owed.amount), currency=order.currency
                )
                for owed in book.owed
            ],
            invoices=[OrderInvoiceView.of(row, book) for row in book.invoices],
            refunds=[RefundView.of(row) for row in book.refunds],
            created_at=order.created_at,
            updated_at=order.updated_at,
        )


class OrderListView(CamelView):
    """A page of orders, newest first; `total` counts all of them."""

    items: list[OrderView]
    total: int
    page: int
    size: int


class CommissionView(CamelView):
    """A step of the platform's commission on an order; what goes back is negative."""

    id: UUID
    tenant_id: UUID
    order_id: UUID
    commission_percent: str
    commission_amount: str
    currency: str
    created_at: datetime

    @classmethod
    def of(cls, row: CommissionLog) -> Self:
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            order_id=row.order_id,
            commission_percent=f"{row.commission_percent.normalize():f}",
            commission_amount=plain_amount(row.commission_amount, row.currency),
            currency=row.currency,
            created_at=row.created_at,
        )


class CommissionListView(CamelView):
    """A page of commission steps, newest first; `total` counts all of them."""

    items: list[CommissionView]
    total: int
    page: int
    size: int
