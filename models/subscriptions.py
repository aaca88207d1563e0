"""A tenant's subscription to the platform and its transitions, without I/O (contract.md 4.1)."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Self
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship

from models.base import Base, Identified, TenantOwned, enum_column
from models.checkouts import CheckoutSession, Prepaid
from models.dunning import Dunning
from models.overrides import EntitlementOverride
from models.paid_periods import PaidPeriod
from models.plan_changes import PendingChange
from models.plans import BillingPeriod, Plan, period_after

# A provider counts a period from a moment of its own, which need not be the one from which we have counted.
_SAME_END = timedelta(days=1)


class SubscriptionStatus(StrEnum):
    """A subscription's wire states (contract.md 4.1)."""

    TRIAL = "trial"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Subscription(Identified, TenantOwned, PendingChange, Dunning, PaidPeriod, Base):
    """A tenant's one subscription to the platform.

    Facts reach it late and out of order, so what they tell is kept in registers of which each remembers the provider's
    time of its newest fact: the status (`facts_until`), failed renewals (`failed_until`), the period
    (`period_facts_until`), the scheduled cancellation (`cancel_facts_until`) and the end (`ended_at`). An older fact
    changes nothing, whenever it arrives, so every order of the same facts ends in the same state.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        UniqueConstraint("tenant_id"),
        Index("ix_subscriptions_external_subscription_id", "payment_provider", "external_subscription_id"),
        Index("ix_subscriptions_external_customer_id", "payment_provider", "external_customer_id"),
        Index("ix_subscriptions_current_period_end", "status", "current_period_end"),
        Index("ix_subscriptions_trial_ends_at", "trial_ends_at", postgresql_where=text("status = 'trial'")),
        Index("ix_subscriptions_overdue_since", "overdue_since", postgresql_where=text("overdue_since IS NOT NULL")),
        Index("ix_subscriptions_next_at", "next_at", postgresql_where=text("next_at IS NOT NULL")),
    )

    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plans.id"))
    # What one period costs as agreed, where somebody has paid; `Plan.price` is for those who have yet to.
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    currency: Mapped[str | None] = mapped_column(String(3))
    # The purchase in force, a period's or a change's. Empty during a trial.
    checkout_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkout_sessions.id", ondelete="SET NULL"))
    status: Mapped[SubscriptionStatus] = mapped_column(enum_column(SubscriptionStatus, name="status"))
    billing_period: Mapped[BillingPeriod] = mapped_column(
        enum_column(BillingPeriod, name="billing_period"), default=BillingPeriod.MONTHLY
    )
    trial_ends_at: Mapped[datetime | None]
    payment_provider: Mapped[str | None] = mapped_column(String(50))
    external_subscription_id: Mapped[str | None] = mapped_column(String(255))
    external_customer_id: Mapped[str | None] = mapped_column(String(255))
    facts_until: Mapped[datetime | None]
    failed_until: Mapped[datetime | None]
    # Up to when the tenant has been told of what it may have; None for what it began with.
    entitlements_told_at: Mapped[datetime | None]

    plan: Mapped[Plan] = relationship(lazy="raise", foreign_keys=[plan_id])
    checkout: Mapped[CheckoutSession | None] = relationship(lazy="raise")
    overrides: Mapped[list[EntitlementOverride]] = relationship(
        primaryjoin=lambda: Subscription.tenant_id == foreign(EntitlementOverride.tenant_id),
        lazy="raise",
        viewonly=True,
    )

    @classmethod
    def trial(cls, tenant_id: UUID, plan: Plan, *, now: datetime) -> Self:
        """Begin a trial of `plan` for as many days as it grants."""
        ends_at = now + timedelta(days=plan.trial_days)
        return cls(
            tenant_id=tenant_id,
            plan_id=plan.id,
            plan=plan,
            checkout=None,
            status=SubscriptionStatus.TRIAL,
            billing_period=BillingPeriod.MONTHLY,
            trial_ends_at=ends_at,
            current_period_start=now,
            current_period_end=ends_at,
            anchor_day=now.astimezone(UTC).day,
            cancel_at_period_end=False,
            created_at=now,
            updated_at=now,
        )

    @property
    def is_over(self) -> bool:
        """Whether the tenant has no service by this subscription any more."""
        return self.status in (SubscriptionStatus.CANCELLED, SubscriptionStatus.EXPIRED)

    @property
    def ends_at(self) -> datetime:
        """When the trial or the paid period ends."""
        if self.status is SubscriptionStatus.TRIAL and self.trial_ends_at is not None:
            return self.trial_ends_at
        return self.current_period_end

    def waits_for_charge(self, told: SubscriptionStatus) -> bool:
        """Tell whether what a provider calls a trial is its way to wait with the first charge of other terms.

        What was bought is never a trial. The period that is told with it begins when the waiting did, not when what was
        bought began.
        """
        return told is SubscriptionStatus.TRIAL and self.checkout_id is not None

    def activate(
        self, checkout: CheckoutSession, *, paid_at: datetime, customer_ref: str | None, now: datetime
    ) -> None:
        """Put a paid checkout in force: plan, price and period are the checkout's, never the provider's.

        `checkout.plan` must be loaded. The period is counted from `paid_at` until the provider tells better.
        Whatever the subscription was before, a trial or another purchase, is replaced.
        """
        self._take_terms(checkout)
        # A customer of another provider would be nobody there.
        known_customer = self.external_customer_id if self.payment_provider == checkout.provider else None
        self.payment_provider = checkout.provider
        self.external_subscription_id = checkout.subscription_ref
        self.external_customer_id = customer_ref or known_customer
        self.status = SubscriptionStatus.ACTIVE
        self.trial_ends_at = None
        self.cancel_at_period_end, self.cancelled_at, self.cancel_reason = False, None, None
        self.expiry_warned_days = None
        # What was known of an earlier purchase says nothing about this one.
        self.facts_until, self.period_facts_until, self.cancel_facts_until = paid_at, None, None
        self.failed_until, self.cancel_decided_at, self.ended_at = None, None, None
        self.anchor_day = paid_at.astimezone(UTC).day
        self._set_period(paid_at, period_after(paid_at, self.billing_period, anchor_day=self.anchor_day))
        self.note_overdue(is_overdue=False, now=now)
        self.updated_at = now

    def change(self, checkout: CheckoutSession, *, paid_at: datetime, now: datetime) -> None:
        """Put a paid change of plan in force: at once, for the rest of the period or for a new one.

        `checkout.plan` must be loaded. The provider's subscription, if there is one, stays the same. A new period is
        the one that was bought, whatever the provider has told of the one before it.
        """
        self._take_terms(checkout)
        end = checkout.bought_until
        if checkout.restarts and end is not None:
            if self.current_period_end < end:
                # What the provider has told since, not having heard of it, counts no more.
                self.period_facts_until = None
            self._take_period((paid_at, end), paid_at)
        self.updated_at = now

    def switch_trial(self, plan: Plan, *, now: datetime) -> None:
        """Go on trying another plan: for the days that it grants, counted from the trial's start."""
        self.plan, self.plan_id = plan, plan.id
        self.trial_ends_at = self.current_period_start + timedelta(days=plan.trial_days)
        self._set_period(self.current_period_start, self.trial_ends_at)
        self.updated_at = now

    def turn(self, *, now: datetime) -> bool:
        """Become what was to come once its time is there; returns whether it was."""
        if self.next_plan is None or self.next_billing_period is None or self.next_at is None or now < self.next_at:
            return False
        self.plan, self.plan_id = self.next_plan, self.next_plan.id
        self.billing_period, self.price = self.next_billing_period, self.next_price
        self.unschedule()
        self.updated_at = now
        return True

    def grant(self, plan: Plan, *, until: datetime, now: datetime) -> bool:
        """Turn a trial into a plan without a payment, until a day; returns False when it is no trial any more."""
        if self.status is not SubscriptionStatus.TRIAL:
            return False
        self.plan_id = plan.id
        self.status = SubscriptionStatus.ACTIVE
        self.trial_ends_at = None
        self._set_period(now, until)
        return True

    def prolong(self, checkout: CheckoutSession, *, paid_at: datetime, now: datetime) -> None:
        """Add the period of one more payment for the plan in force.

        It begins where the paid one ends, so that no day is lost of what was paid early, and none is given away to
        who was served and paid late.
        """
        start, end = self.current_period_start, self.current_period_end
        anchor_day = self.anchor_day
        self.activate(checkout, paid_at=paid_at, customer_ref=None, now=now)
        self.anchor_day = anchor_day
        after = period_after(end, self.billing_period, anchor_day=anchor_day)
        self._set_period(start if paid_at < end else end, after)

    def prepay(self, period: Prepaid, *, now: datetime) -> None:
        """Take the period that all payments for the plan in force have bought, when one was heard of too late."""
        if self.status is SubscriptionStatus.ACTIVE:
            self.anchor_day = period.anchor_day
            self._set_period(period.start, period.end)
            self.updated_at = now

    def renew(self, *, at: datetime, period: tuple[datetime, datetime] | None, now: datetime) -> bool:
        """Take a payment for service into account; returns whether anything changed.

        `period` is what the money bought where the provider tells; otherwise one more period is added. What we have
        ended ourselves stays so.
        """
        if self.is_closed:
            return False
        before = self._visible()
        # Of the same moment the provider's own view says more; and what was known before our clock let it lapse, or
        # expire, pays for nothing since.
        if self.facts_until is None or at > self.facts_until:
            self._take_status(SubscriptionStatus.ACTIVE, at)
        if period is None:
            end = period_after(self.current_period_end, self.billing_period, anchor_day=self.anchor_day)
            self._set_period(self.current_period_end, end)
        else:
            self._take_period(period, at)
        return self._changed_since(before, now)

    def hear_again(self, *, at: datetime) -> None:
        """Note how far facts reach by a payment that is known: it pays for nothing that has fallen due since."""
        if not self.is_closed and _is_news(at, self.facts_until):
            self.facts_until = at

    def mark_past_due(self, *, at: datetime, now: datetime) -> bool:
        """Take a failed renewal into account; what is over already cannot fall due."""
        if self.is_closed:
            return False
        before = self._visible()
        self.failed_until = at if self.failed_until is None else max(self.failed_until, at)
        if not self.is_over and self._is_failing():
            self.status, self.trial_ends_at = SubscriptionStatus.PAST_DUE, None
        return self._changed_since(before, now)

    def follow(
        self,
        *,
        at: datetime,
        status: SubscriptionStatus,
        period: tuple[datetime | None, datetime] | None,
        cancel_at_period_end: bool,
        now: datetime,
        cancelled_at: datetime | None = None,
    ) -> bool:
        """Take over the provider's own view of the subscription at `at`; returns whether anything changed.

        That it is cancelled is told by `end`, for only that is final. What is over already cannot fall due.
        A period without a start is the one in force, of which only the end is told.
        """
        if self.is_closed:
            return False
        before = self._visible()
        if period is not None:
            self._take_period(period, at)
        if _is_news(at, self.cancel_facts_until):
            self.cancel_facts_until = at
            self.plan_cancellation(cancelled_at or at, planned=cancel_at_period_end)
        if status is not SubscriptionStatus.CANCELLED and _is_news(at, self.facts_until):
            self._take_status(status, at)
        return self._changed_since(before, now)

    def end(self, *, at: datetime, ended_at: datetime, now: datetime) -> bool:
        """Take over that the provider has ended the subscription for good at `ended_at`.

        Older facts that come later still tell of the time before.
        """
        if self.is_closed:
            return False
        is_first = self.ended_at is None
        self.ended_at = ended_at if self.ended_at is None else min(self.ended_at, ended_at)
        self.status, self.trial_ends_at = SubscriptionStatus.CANCELLED, None
        self.facts_until = at if self.facts_until is None else max(self.facts_until, at)
        if not self.cancel_at_period_end:
            self.cancelled_at = self.ended_at
        self._set_period(self.current_period_start, self.ended_at)
        self._rest(now)
        if is_first:
            self.updated_at = now
        return is_first

    def cancel_now(self, *, reason: str | None, now: datetime) -> None:
        """End the subscription at once (contract.md 4.4)."""
        self.cancel_reason = reason or self.cancel_reason
        self.cancelled_at = now
        self.status = SubscriptionStatus.CANCELLED
        self._set_period(min(self.current_period_start, now), now)
        self._rest(now)
        self.updated_at = now

    def lapse(self, *, now: datetime) -> None:
        """Give a renewal that was not heard of some more time; the next payment decides."""
        self.status = SubscriptionStatus.PAST_DUE
        self.note_overdue(is_overdue=True, now=now)
        self.updated_at = now

    def expire(self, *, now: datetime, for_good: bool = False) -> None:
        """End a trial or a period that nobody paid to continue, or that was cancelled before.

        `for_good` makes it as if the tenant had cancelled it: nothing that a provider tells brings it back.
        """
        if self.cancel_at_period_end or for_good:
            self.status = SubscriptionStatus.CANCELLED
            self.cancelled_at = self.cancelled_at or now
        else:
            self.status = SubscriptionStatus.EXPIRED
        self._rest(now)
        self.updated_at = now

    @property
    def is_closed(self) -> bool:
        """Whether we have ended it ourselves, after which nothing that a provider tells changes it."""
        return self.status is SubscriptionStatus.CANCELLED and self.ended_at is None

    def was_closed_before(self, at: datetime) -> bool:
        """Tell whether we had ended it ourselves by a moment of the provider's."""
        return self.is_closed and self.current_period_end < at

    def _rest(self, now: datetime) -> None:
        """Leave nothing to do for a subscription that is over."""
        self.note_overdue(is_overdue=False, now=now)
        self.unschedule()

    def _take_terms(self, checkout: CheckoutSession) -> None:
        self.checkout, self.checkout_id = checkout, checkout.id
        self.plan, self.plan_id = checkout.plan, checkout.plan_id
        self.billing_period = checkout.billing_period
        self.price, self.currency = checkout.price, checkout.currency
        self.unschedule()

    def _is_failing(self) -> bool:
        return self.failed_until is not None and (self.facts_until is None or self.failed_until > self.facts_until)

    def _take_status(self, status: SubscriptionStatus, at: datetime) -> None:
        self.facts_until = at
        if self.ended_at is not None:
            return
        is_alive = status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.TRIAL)
        taken = SubscriptionStatus.PAST_DUE if is_alive and self._is_failing() else status
        if self.is_over and taken is SubscriptionStatus.PAST_DUE:
            # A provider goes on collecting after we have given up, and that begins no dunning anew.
            return
        self.status = taken
        self.trial_ends_at = self.current_period_end if self.status is SubscriptionStatus.TRIAL else None

    def _take_period(self, period: tuple[datetime | None, datetime], at: datetime) -> None:
        bought_until = None if self.checkout is None else self.checkout.bought_until
        # Else the provider tells of the time before a change that it has not heard of.
        if bought_until is None or period[1] >= bought_until - _SAME_END:
            super()._take_period(period, at)

    def _set_period(self, start: datetime, end: datetime) -> None:
        super()._set_period(start, end)
        if self.status is SubscriptionStatus.TRIAL and self.facts_until is not None:
            self.trial_ends_at = self.current_period_end

    def _visible(self) -> tuple[object, ...]:
        return self.status, self.current_period_start, self.current_period_end, self.cancel_at_period_end

    def _changed_since(self, before: tuple[object, ...], now: datetime) -> bool:
        self.note_overdue(is_overdue=self.status is SubscriptionStatus.PAST_DUE, now=now)
        if self._visible() == before:
            return False
        self.updated_at = now
        return True


def _is_news(at: datetime, known_until: datetime | None) -> bool:
    return known_until is None or at >= known_until
