"""Telling the tenant's people what happened to their subscription and their money."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm.attributes import flag_modified

from core import json
from core.i18n import TEXTS
from models.billing import PaymentEvent, ProviderInstruction, Subscription
from models.entitlements import entitlements_of
from models.inbox import ProviderEvent
from models.notifications import NotificationType
from models.recurring import RecurringRevenue, monthly_revenue
from models.tenants import Membership, Role
from models.users import User
from providers.payments import InvoicePaid
from services.billing.views import EntitlementsView, SubscriptionView
from services.events import PaymentFailed, PaymentReceived, SubscriptionExpiring, SubscriptionUpdated
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import UnitOfWork

News = Literal[
    "payment_received",
    "payment_failed",
    "payment_refunded",
    "refund_failed",
    "payment_underpaid",
    "payment_overpaid",
    "payment_duplicate",
    "payment_disputed",
    "dispute_closed",
    "subscription_ending",
    "subscription_cancelled",
    "subscription_expired",
    "subscription_expiring",
    "subscription_reinstated",
    "payment_overdue",
    "payment_superseded",
    "purchase_replaced",
    "plan_changed",
]

_TYPES: dict[News, NotificationType] = {
    "payment_received": NotificationType.SUCCESS,
    "payment_failed": NotificationType.ERROR,
    "payment_refunded": NotificationType.INFO,
    "refund_failed": NotificationType.WARNING,
    "payment_underpaid": NotificationType.WARNING,
    "payment_overpaid": NotificationType.INFO,
    "payment_duplicate": NotificationType.INFO,
    "payment_disputed": NotificationType.WARNING,
    "dispute_closed": NotificationType.INFO,
    "subscription_ending": NotificationType.INFO,
    "subscription_cancelled": NotificationType.WARNING,
    "subscription_expired": NotificationType.ERROR,
    "subscription_expiring": NotificationType.WARNING,
    "subscription_reinstated": NotificationType.SUCCESS,
    "payment_overdue": NotificationType.ERROR,
    "payment_superseded": NotificationType.WARNING,
    "purchase_replaced": NotificationType.WARNING,
    "plan_changed": NotificationType.SUCCESS,
}
_LINK = "/billing"


class Announcer:
    """Records the events of billing, and the notifications that stay after them.

    `grace` is how long a subscription's entitlements outlive it.
    """

    def __init__(self, notifications: NotificationService, *, mail: MailService, grace: timedelta) -> None:
        self._notifications = notifications
        self._mail = mail
        self._grace = grace

    def subscription_updated(self, uow: UnitOfWork, subscription: Subscription) -> None:
        """Tell the tenant that its subscription has changed, and note what it brings from now on.

        The subscription is one that `locked_subscription` has returned.
        """
        view = SubscriptionView.of(subscription)
        granted = entitlements_of(subscription, subscription.overrides, grace=self._grace, now=uow.now)
        subscription.entitlements_told_at = uow.now
        # Written as it was told, or noting this would make it the database's own time.
        flag_modified(subscription, "updated_at")
        self._note_revenue(uow, subscription)
        uow.record(
            SubscriptionUpdated(
                tenant_id=subscription.tenant_id,
                subscription_id=subscription.id,
                status=subscription.status.value,
                plan=subscription.plan.slug,
                updated_at=subscription.updated_at,
                subscription=json.loads_exact(json.dumps(view.model_dump())),
                entitlements=json.loads_exact(json.dumps(EntitlementsView.of(granted).model_dump())),
            )
        )

    def _note_revenue(self, uow: UnitOfWork, subscription: Subscription) -> None:
        amount, currency = monthly_revenue(subscription)
        uow.session.add(
            RecurringRevenue(
                tenant_id=subscription.tenant_id,
                plan_id=subscription.plan_id,
                amount=amount,
                currency=currency,
                since=uow.now,
            )
        )

    async def payment_received(self, uow: UnitOfWork, subscription: Subscription, payment: PaymentEvent) -> None:
        """Tell the tenant that money has arrived."""
        uow.record(
            PaymentReceived(
                tenant_id=payment.tenant_id,
                payment_id=payment.id,
                amount=payment.amount,
                currency=payment.currency,
                created_at=payment.created_at,
            )
        )
        await self.money_moved(uow, "payment_received", subscription, payment)

    async def payment_failed(self, uow: UnitOfWork, subscription: Subscription, attempt: PaymentEvent) -> None:
        """Tell the tenant that an attempt to pay was declined."""
        uow.record(
            PaymentFailed(
                tenant_id=attempt.tenant_id,
                payment_id=attempt.id,
                amount=attempt.amount,
                currency=attempt.currency,
                invoice_url=attempt.invoice_url,
                created_at=attempt.created_at,
            )
        )
        await self.money_moved(uow, "payment_failed", subscription, attempt)

    async def money_moved(self, uow: UnitOfWork, news: News, subscription: Subscription, payment: PaymentEvent) -> None:
        """Notify of a payment, a refund or a dispute."""
        await self.notify(uow, news, subscription, amount=payment.amount, currency=payment.currency)

    async def expiring(self, uow: UnitOfWork, subscription: Subscription, *, days_left: int) -> None:
        """Warn that the trial or the period ends in `days_left` days."""
        uow.record(
            SubscriptionExpiring(
                tenant_id=subscription.tenant_id,
                subscription_id=subscription.id,
                days_left=days_left,
                ends_at=subscription.ends_at,
            )
        )
        await self.notify(uow, "subscription_expiring", subscription, date=subscription.ends_at, days=days_left)

    async def alert_operators(self, uow: UnitOfWork, event: ProviderEvent) -> None:
        """Tell every superuser that a provider's event was given up."""
        shown = {"provider": event.provider, "type": event.type, "id": event.event_id}
        await self._alert(uow, "event_dead", shown, data={"provider_event_id": str(event.id)})

    async def instruction_refused(self, uow: UnitOfWork, instruction: ProviderInstruction) -> None:
        """Tell every superuser that a provider does not do what it is told."""
        shown = {
            "provider": instruction.provider,
            "type": instruction.kind.value,
            "id": instruction.subscription_ref,
        }
        await self._alert(uow, "instruction_refused", shown, data={"instruction_id": str(instruction.id)})

    async def payment_differs(
        self, uow: UnitOfWork, subscription: Subscription, fact: InvoicePaid, *, paid: str, agreed: str
    ) -> None:
        """Tell every superuser that a renewal came to something else than was agreed."""
        shown = {"provider": fact.provider, "id": fact.subscription_ref, "paid": paid, "agreed": agreed}
        data = {"subscription_id": str(subscription.id), "invoice": fact.invoice_ref}
        await self._alert(uow, "payment_differs", shown, data=data)

    async def _alert(self, uow: UnitOfWork, news: str, shown: Mapping[str, str], *, data: Mapping[str, str]) -> None:
        """Tell superusers by letter, and where they are members."""
        # Notifications belong to tenants, and superusers may be members of none.
        people = await uow.session.execute(
            select(User.email, User.locale).where(User.is_superuser, User.is_active).order_by(User.id)
        )
        for email, language in people:
            if email is None:
                continue
            self._mail.enqueue_letter(uow, news, recipient=email, locale=language, **shown)
        rows = await uow.session.execute(
            select(Membership.tenant_id, User.locale, User.id)
            .join(User, Membership.user_id == User.id)
            .where(User.is_superuser, User.is_active)
            .order_by(Membership.tenant_id, User.id)
        )
        for tenant_id, locale, user_id in rows:
            await self._notifications.notify(
                uow,
                tenant_id=tenant_id,
                user_ids=[user_id],
                type=NotificationType.ERROR,
                title=TEXTS.text(f"billing.{news}.title", locale),
                message=TEXTS.text(f"billing.{news}.message", locale, **shown),
                data={**data, "news": news},
            )

    async def notify(
        self, uow: UnitOfWork, news: News, subscription: Subscription, **values: Decimal | datetime | str | int
    ) -> None:
        """Notify the tenant's owners and admins, each in their language; `values` fill the text's places."""
        shown = {name: _shown(value) for name, value in values.items()}
        for locale, user_ids in (await managers_by_locale(uow, subscription.tenant_id)).items():
            await self._notifications.notify(
                uow,
                tenant_id=subscription.tenant_id,
                user_ids=user_ids,
                type=_TYPES[news],
                title=TEXTS.text(f"billing.{news}.title", locale),
                message=TEXTS.text(f"billing.{news}.message", locale, plan=subscription.plan.name, **shown),
                data={"subscription_id": str(subscription.id), "news": news},
                link=_LINK,
            )


async def managers_by_locale(uow: UnitOfWork, tenant_id: UUID) -> dict[str, list[UUID]]:
    """Return the ids of a tenant's active owners and admins by language."""
    rows = await uow.session.execute(
        select(User.locale, User.id)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.tenant_id == tenant_id, Membership.role.in_((Role.OWNER, Role.ADMIN)), User.is_active)
        .order_by(User.id)
    )
    by_locale: defaultdict[str, list[UUID]] = defaultdict(list)
    for locale, user_id in rows:
        by_locale[locale].append(user_id)
    return by_locale


def _shown(value: Decimal | datetime | str | int) -> str:
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, Decimal):
        return json.decimal_text(value)
    return str(value)
