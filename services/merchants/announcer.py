"""Telling a merchant's people what happened to their orders and to their account."""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from core import json
from core.i18n import TEXTS
from core.money import plain_amount
from models.inbox import ProviderEvent
from models.notifications import NotificationType
from models.orders import Order
from services.billing.announcer import managers_by_locale
from services.events import OrderPaid, OrderUpdated
from services.merchants.reckoning import Book
from services.merchants.views import OrderView
from services.notifications import NotificationService
from services.unit_of_work import UnitOfWork

News = Literal[
    "order_paid",
    "order_underpaid",
    "order_overpaid",
    "order_duplicate",
    "order_refunded",
    "order_disputed",
    "provider_changed",
    "provider_removed",
    "event_dead",
]

_TYPES: Final[dict[News, NotificationType]] = {
    "order_paid": NotificationType.SUCCESS,
    "order_underpaid": NotificationType.WARNING,
    "order_overpaid": NotificationType.WARNING,
    "order_duplicate": NotificationType.WARNING,
    "order_refunded": NotificationType.INFO,
    "order_disputed": NotificationType.WARNING,
    "provider_changed": NotificationType.WARNING,
    "provider_removed": NotificationType.WARNING,
    "event_dead": NotificationType.ERROR,
}


class MerchantAnnouncer:
    """Records the events of orders, and the notifications that stay after them."""

    def __init__(self, notifications: NotificationService) -> None:
        self._notifications = notifications

    def order_updated(self, uow: UnitOfWork, book: Book) -> None:
        """Tell the tenant how an order stands now."""
        order = book.order
        uow.record(
            OrderUpdated(
                tenant_id=order.tenant_id,
                order_id=order.id,
                status=order.status.value,
                order=json.loads_exact(json.dumps(OrderView.of(book).plain())),
            )
        )

    async def order_paid(self, uow: UnitOfWork, order: Order, *, paid_at: datetime) -> None:
        """Tell the tenant that an order is paid."""
        uow.record(
            OrderPaid(
                tenant_id=order.tenant_id,
                order_id=order.id,
                amount=plain_amount(order.amount, order.currency),
                currency=order.currency,
                external_reference=order.external_reference,
                paid_at=paid_at,
            )
        )
        await self.order_news(uow, "order_paid", order, amount=plain_amount(order.amount, order.currency))

    async def order_news(self, uow: UnitOfWork, news: News, order: Order, *, amount: str) -> None:
        """Notify of an order's money."""
        await self.notify(
            uow,
            news,
            tenant_id=order.tenant_id,
            data={"order_id": str(order.id)},
            order=order.external_reference or str(order.id),
            amount=amount,
            currency=order.currency,
        )

    async def dead(self, uow: UnitOfWork, event: ProviderEvent, *, tenant_id: UUID) -> None:
        """Tell the merchant's people that an event of their account was given up."""
        await self.notify(
            uow,
            "event_dead",
            tenant_id=tenant_id,
            data={"provider_event_id": str(event.id)},
            provider=event.provider,
            type=event.type,
            id=event.event_id,
        )

    async def notify(
        self, uow: UnitOfWork, news: News, *, tenant_id: UUID, data: dict[str, str], **values: str
    ) -> None:
        """Notify the tenant's owners and admins, each in their language; `values` fill the text's places."""
        for locale, user_ids in (await managers_by_locale(uow, tenant_id)).items():
            await self._notifications.notify(
                uow,
                tenant_id=tenant_id,
                user_ids=user_ids,
                type=_TYPES[news],
                title=TEXTS.text(f"merchants.{news}.title", locale),
                message=TEXTS.text(f"merchants.{news}.message", locale, **values),
                data={**data, "news": news},
            )
