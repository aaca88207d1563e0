"""What the passing of time does to subscriptions: warnings, changes that were to come, dunning, and ends."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, and_, false, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from models.billing import Invoice, InvoiceStatus, PastDuePolicy, Subscription, SubscriptionStatus
from models.dunning import patience
from providers.payments import PaymentProvider
from services.billing.announcer import Announcer, News
from services.billing.instructions import Instructions, addressee_of
from services.billing.lookup import locked_subscription
from services.billing.trail import audit
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

WARN_DAYS = (7, 3, 1)
"""How many days before its end a tenant is warned, once each (contract.md 4.4)."""

RENEWAL_GRACE = timedelta(days=1)
"""How long news of a renewal may be late: Stripe collects an hour after the period's end and may be down."""

DUNNING: Final = tuple(timedelta(days=days) for days in (2, 5, 7, 7))
"""The pauses before and between the attempts to collect what is overdue, where no setting says otherwise."""

_LIMIT = 500
_SCOPE = PlatformScope("time passes for every tenant")

_NEWS_OF_END: Final[Mapping[SubscriptionStatus, News]] = {
    SubscriptionStatus.PAST_DUE: "payment_overdue",
    SubscriptionStatus.CANCELLED: "subscription_cancelled",
    SubscriptionStatus.EXPIRED: "subscription_expired",
}

logger = structlog.get_logger(__name__)

Condition = Callable[[datetime], ColumnElement[bool]]


class Sweeper:
    """Looks for subscriptions whose time has come. Running it twice, or in two processes, does everything once."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        announcer: Announcer,
        instructions: Instructions,
        dunning: Sequence[timedelta],
    ) -> None:
        self._units = units
        self._announcer = announcer
        self._instructions = instructions
        self._dunning = tuple(dunning)
        self._charging = sorted(name for name, provider in providers.items() if provider.capabilities.recurring)

    async def sweep(self) -> None:
        """Warn of ends that are near, turn, end and dun what is due; each subscription in its own transaction."""
        for condition, step in (
            (self._to_warn, self._warn),
            (_to_turn, self._turn),
            (self._over, self._end),
            (self._to_dun, self._dun),
        ):
            for subscription_id in await self._due(condition):
                try:
                    await step(subscription_id)
                except Exception:
                    # Whatever is wrong with one subscription must not stop the clock of all the others.
                    logger.exception("subscription not swept", subscription=str(subscription_id), step=step.__name__)

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

    async def _turn(self, subscription_id: UUID) -> None:
        async with self._units(_SCOPE) as uow:
            subscription = await self._held(uow, subscription_id, _to_turn)
            if subscription is None or not subscription.turn(now=uow.now):
                return
            audit(uow, "subscription.plan_changed", subscription, plan=subscription.plan.slug)
            self._announcer.subscription_updated(uow, subscription)
            await self._announcer.notify(uow, "plan_changed", subscription)

    async def _end(self, subscription_id: UUID) -> None:
        async with self._units(_SCOPE) as uow:
            subscription = await self._held(uow, subscription_id, self._over)
            if subscription is None:
                return
            if subscription.status is SubscriptionStatus.ACTIVE and _is_to_be_paid(subscription):
                subscription.lapse(now=uow.now)
            else:
                await self._expire(uow, subscription)
            audit(uow, f"subscription.{subscription.status.value}", subscription)
            self._announcer.subscription_updated(uow, subscription)
            news = _NEWS_OF_END.get(subscription.status)
            if news is not None:
                ends_at = (subscription.overdue_since or uow.now) + patience(self._dunning)
                await self._announcer.notify(uow, news, subscription, date=ends_at)

    async def _expire(self, uow: UnitOfWork, subscription: Subscription) -> None:
        unpaid = subscription.status is SubscriptionStatus.PAST_DUE and not subscription.cancel_at_period_end
        for_good = unpaid and subscription.plan.past_due_policy is PastDuePolicy.CANCEL
        subscription.expire(now=uow.now, for_good=for_good)
        addressee = addressee_of(subscription)
        if for_good and addressee is not None:
            # Carried out by the sweep that follows: what is over for us must not be charged by a provider any more.
            await self._instructions.cancel(uow, addressee, at_period_end=False)

    async def _dun(self, subscription_id: UUID) -> None:
        """Try once more to collect what is overdue, and tell the tenant's people when it ends."""
        async with self._units(_SCOPE) as uow:
            subscription = await self._held(uow, subscription_id, self._to_dun)
            if subscription is None or not subscription.dun(self._dunning, now=uow.now):
                return
            audit(uow, "subscription.dunned", subscription, attempt=subscription.dunned)
            ends_at = (subscription.overdue_since or uow.now) + patience(self._dunning)
            await self._announcer.notify(uow, "payment_overdue", subscription, date=ends_at)
            addressee, invoice_ref = addressee_of(subscription), await _unpaid_bill(uow, subscription)
            if addressee is not None and invoice_ref is not None and addressee.provider in self._charging:
                await self._instructions.collect(uow, addressee, invoice_ref=invoice_ref)

    async def _held(self, uow: UnitOfWork, subscription_id: UUID, condition: Condition) -> Subscription | None:
        # The condition is asked again under the lock: another sweeper or a payment may have been faster.
        return await locked_subscription(uow, Subscription.id == subscription_id, condition(uow.now), skip_locked=True)

    def _over(self, now: datetime) -> ColumnElement[bool]:
        """Select what must not stay as it is."""
        status = Subscription.status
        ended = Subscription.current_period_end <= now
        late = Subscription.current_period_end <= now - RENEWAL_GRACE
        given_up = and_(
            Subscription.overdue_since <= now - patience(self._dunning), Subscription.dunned >= len(self._dunning)
        )
        return or_(
            and_(status == SubscriptionStatus.TRIAL, Subscription.trial_ends_at <= now),
            and_(status == SubscriptionStatus.ACTIVE, or_(and_(ended, self._ends()), late)),
            and_(status == SubscriptionStatus.PAST_DUE, or_(and_(ended, Subscription.cancel_at_period_end), given_up)),
        )

    def _to_dun(self, now: datetime) -> ColumnElement[bool]:
        """Select what is overdue for so long that the next attempt is due."""
        waited = timedelta()
        due = []
        for made, pause in enumerate(self._dunning):
            waited += pause
            due.append(and_(Subscription.dunned <= made, Subscription.overdue_since <= now - waited))
        return and_(Subscription.status == SubscriptionStatus.PAST_DUE, or_(false(), *due))

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


def _to_turn(now: datetime) -> ColumnElement[bool]:
    """Select what is to become another plan by now."""
    return and_(
        Subscription.next_at <= now,
        Subscription.status.in_((SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)),
        Subscription.cancel_at_period_end.is_(False),
    )


def _is_to_be_paid(subscription: Subscription) -> bool:
    """Tell whether somebody pays for it period by period, rather than that it was given or is to end."""
    return not subscription.cancel_at_period_end and subscription.payment_provider is not None


async def _unpaid_bill(uow: UnitOfWork, subscription: Subscription) -> str | None:
    found: str | None = await uow.session.scalar(
        select(Invoice.provider_invoice_id)
        .where(
            Invoice.subscription_id == subscription.id,
            Invoice.provider == subscription.payment_provider,
            Invoice.status == InvoiceStatus.FAILED,
        )
        .order_by(Invoice.created_at.desc())
        .limit(1)
    )
    return found
