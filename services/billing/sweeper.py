"""What the passing of time does to subscriptions: warnings, and the end of what nobody paid to continue."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from models.billing import Subscription, SubscriptionStatus
from providers.payments import PaymentProvider
from services.billing.announcer import Announcer
from services.billing.lookup import locked_subscription
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

WARN_DAYS = (7, 3, 1)
"""How many days before its end a tenant is warned, once each (contract.md 4.4)."""

RENEWAL_GRACE = timedelta(days=1)
"""How long news of a renewal may be late: Stripe collects an hour after the period's end and may be down."""

PAST_DUE_GRACE = timedelta(days=14)
"""How long an unpaid subscription keeps its service after its period."""

_LIMIT = 500
_SCOPE = PlatformScope("time passes for every tenant")

Condition = Callable[[datetime], ColumnElement[bool]]


class Sweeper:
    """Looks for subscriptions whose time has come. Running it twice, or in two processes, does everything once."""

    def __init__(
        self, units: UnitOfWorkFactory, *, providers: Mapping[str, PaymentProvider], announcer: Announcer
    ) -> None:
        self._units = units
        self._announcer = announcer
        self._charging = sorted(name for name, provider in providers.items() if provider.capabilities.recurring)

    async def sweep(self) -> None:
        """Warn of ends that are near, then end what is over; each subscription in its own transaction."""
        for subscription_id in await self._due(self._to_warn):
            await self._warn(subscription_id)
        for subscription_id in await self._due(self._over):
            await self._end(subscription_id)

    async def _due(self, condition: Condition) -> list[UUID]:
        async with self._units(_SCOPE) as uow:
            ids = await uow.session.scalars(
                select(Subscription.id)
                .where(condition(uow.now))
                .order_by(Subscription.current_period_end)
                .limit(_LIMIT)
            )
            return list(ids)

    async def _warn(self, subscription_id: UUID) -> None:
        async with self._units(_SCOPE) as uow:
            subscription = await self._held(uow, subscription_id, self._to_warn)
            days_left = None if subscription is None else subscription.warn_of_end(WARN_DAYS, now=uow.now)
            if subscription is not None and days_left is not None:
                await self._announcer.expiring(uow, subscription, days_left=days_left)

    async def _end(self, subscription_id: UUID) -> None:
        async with self._units(_SCOPE) as uow:
            subscription = await self._held(uow, subscription_id, self._over)
            if subscription is None:
                return
            if subscription.status is SubscriptionStatus.ACTIVE and self._renews(subscription):
                subscription.lapse(now=uow.now)
            else:
                subscription.expire(now=uow.now)
            uow.audit(
                f"subscription.{subscription.status.value}",
                actor_id=None,
                tenant_id=subscription.tenant_id,
                subject=("subscription", subscription.id),
            )
            self._announcer.subscription_updated(uow, subscription)
            if subscription.status is SubscriptionStatus.CANCELLED:
                await self._announcer.notify(uow, "subscription_cancelled", subscription)
            elif subscription.status is SubscriptionStatus.EXPIRED:
                await self._announcer.notify(uow, "subscription_expired", subscription)

    async def _held(self, uow: UnitOfWork, subscription_id: UUID, condition: Condition) -> Subscription | None:
        # The condition is asked again under the lock: another sweeper or a payment may have been faster.
        return await locked_subscription(uow, Subscription.id == subscription_id, condition(uow.now), skip_locked=True)

    def _renews(self, subscription: Subscription) -> bool:
        return not subscription.cancel_at_period_end and subscription.payment_provider in self._charging

    def _over(self, now: datetime) -> ColumnElement[bool]:
        """Select what must not stay as it is."""
        ended = Subscription.current_period_end <= now
        return or_(
            and_(Subscription.status == SubscriptionStatus.TRIAL, Subscription.trial_ends_at <= now),
            and_(Subscription.status == SubscriptionStatus.ACTIVE, ended, self._ends()),
            and_(
                Subscription.status == SubscriptionStatus.ACTIVE,
                Subscription.current_period_end <= now - RENEWAL_GRACE,
            ),
            and_(Subscription.status == SubscriptionStatus.PAST_DUE, ended, Subscription.cancel_at_period_end),
            and_(
                Subscription.status == SubscriptionStatus.PAST_DUE,
                Subscription.current_period_end <= now - PAST_DUE_GRACE,
            ),
        )

    def _to_warn(self, now: datetime) -> ColumnElement[bool]:
        """Select what will end within the next warning's days and has not been warned of it."""
        return or_(
            and_(
                Subscription.status == SubscriptionStatus.TRIAL,
                Subscription.trial_ends_at > now,
                _is_unwarned(Subscription.trial_ends_at, now),
            ),
            and_(
                Subscription.status == SubscriptionStatus.ACTIVE,
                self._ends(),
                Subscription.current_period_end > now,
                _is_unwarned(Subscription.current_period_end, now),
            ),
        )

    def _ends(self) -> ColumnElement[bool]:
        """Select what its provider will not renew."""
        return or_(
            Subscription.cancel_at_period_end,
            Subscription.payment_provider.is_(None),
            Subscription.payment_provider.not_in(self._charging),
        )


def _is_unwarned(
    end: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None], now: datetime
) -> ColumnElement[bool]:
    warned = Subscription.expiry_warned_days
    return or_(*(and_(end <= now + timedelta(days=days), or_(warned.is_(None), warned > days)) for days in WARN_DAYS))
