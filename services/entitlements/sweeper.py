"""Telling tenants of what they may have when nothing but time, or an operator at a plan, has changed it."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select

from models.billing import Plan, Subscription, SubscriptionStatus
from models.overrides import EntitlementOverride
from services.billing.announcer import Announcer
from services.billing.lookup import locked_subscription
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

_LIMIT = 500
_OVER = (SubscriptionStatus.CANCELLED, SubscriptionStatus.EXPIRED)
_SCOPE = PlatformScope("time passes for every tenant")


class Sweeper:
    """Finds whom a change has not been told to yet; running it twice, or in two processes, tells everybody once.

    A subscription remembers up to when its tenant has been told (`entitlements_told_at`); whatever has changed between
    that moment and now, by itself or all together, is one piece of news.
    """

    def __init__(self, units: UnitOfWorkFactory, *, announcer: Announcer, grace: timedelta) -> None:
        self._units = units
        self._announcer = announcer
        self._grace = grace

    async def sweep(self) -> int:
        """Tell whoever is to be told, each in a transaction of its own; returns how many."""
        async with self._units(_SCOPE) as uow:
            due = await uow.session.scalars(
                select(Subscription.id).where(self._is_due(uow.now)).order_by(Subscription.id).limit(_LIMIT)
            )
            subscription_ids = list(due)
        return sum([await self._tell(subscription_id) for subscription_id in subscription_ids])

    async def _tell(self, subscription_id: UUID) -> bool:
        async with self._units(_SCOPE) as uow:
            # Asked again under the lock: another sweeper or a payment may have been faster.
            subscription = await locked_subscription(
                uow, Subscription.id == subscription_id, self._is_due(uow.now), skip_locked=True
            )
            if subscription is None:
                return False
            subscription.updated_at = uow.now
            self._announcer.subscription_updated(uow, subscription)
            return True

    def _is_due(self, now: datetime) -> ColumnElement[bool]:
        told_at = func.coalesce(Subscription.entitlements_told_at, Subscription.created_at)
        override_ended = (
            select(EntitlementOverride.id)
            .where(
                EntitlementOverride.tenant_id == Subscription.tenant_id,
                EntitlementOverride.until <= now,
                EntitlementOverride.until > told_at,
            )
            .exists()
        )
        plan_changed = (
            select(Plan.id).where(Plan.id == Subscription.plan_id, Plan.entitlements_changed_at > told_at).exists()
        )
        return or_(
            and_(
                Subscription.status.in_(_OVER),
                Subscription.current_period_end <= now - self._grace,
                Subscription.current_period_end > told_at - self._grace,
            ),
            override_ended,
            plan_changed,
        )
