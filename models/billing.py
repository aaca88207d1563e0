"""Plans, subscriptions, checkouts, payments and invoices (contract.md 4.1), with the subscription's transitions."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Self
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Identified, JsonObject, TenantOwned, Timestamped, enum_column


class SubscriptionStatus(StrEnum):
    """A subscription's wire states (contract.md 4.1)."""

    TRIAL = "trial"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class BillingPeriod(StrEnum):
    """How often a plan is paid."""

    MONTHLY = "monthly"
    YEARLY = "yearly"


class PaymentEventType(StrEnum):
    """What happened to money (contract.md 4.1)."""

    PAYMENT_SUCCESS = "payment_success"
    PAYMENT_FAILED = "payment_failed"
    REFUND = "refund"
    CHARGEBACK = "chargeback"


class CheckoutState(StrEnum):
    """Where a checkout stands; `paid` is final, and money that comes late still makes it paid."""

    PENDING = "pending"
    PAID = "paid"
    EXPIRED = "expired"
    FAILED = "failed"


class InvoiceStatus(StrEnum):
    """A provider's invoice as we know it; `paid` and `void` are final (providers.md 1.2)."""

    OPEN = "open"
    PAID = "paid"
    FAILED = "failed"
    VOID = "void"


def period_after(start: datetime, period: BillingPeriod, *, anchor_day: int) -> datetime:
    """Return when the period that begins at `start` ends.

    `anchor_day` is the day of the month of the first payment: a shorter month ends on its last day, and the next
    longer one returns to the anchor, so that 31 January is followed by 28 February and 31 March.
    """
    months = start.month if period is BillingPeriod.MONTHLY else start.month + 11
    year, month = start.year + months // 12, months % 12 + 1
    return start.replace(year=year, month=month, day=min(anchor_day, monthrange(year, month)[1]))


class Plan(Identified, Timestamped, Base):
    """Something a tenant can subscribe to; prices are in `currency`, limits of -1 mean unlimited."""

    __tablename__ = "plans"

    slug: Mapped[str] = mapped_column(String(50), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(Text, default="")
    price_monthly: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    price_yearly: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str] = mapped_column(String(3), default="USD")
    limits: Mapped[JsonObject] = mapped_column(default=dict)
    features: Mapped[list[str]] = mapped_column(default=list)
    feature_flags: Mapped[JsonObject] = mapped_column(default=dict)
    trial_days: Mapped[int] = mapped_column(default=14)
    is_active: Mapped[bool] = mapped_column(default=True)
    sort_order: Mapped[int] = mapped_column(default=0)

    def price(self, period: BillingPeriod) -> Decimal:
        """Return what one period costs."""
        return self.price_monthly if period is BillingPeriod.MONTHLY else self.price_yearly


class CheckoutSession(Identified, TenantOwned, Base):
    """A purchase that was begun: what was asked, at what price, and where the payer was sent."""

    __tablename__ = "checkout_sessions"
    __table_args__ = (
        UniqueConstraint("provider", "session_id"),
        Index("ix_checkout_sessions_tenant_id", "tenant_id", "created_at"),
        Index("ix_checkout_sessions_subscription_ref", "provider", "subscription_ref"),
    )

    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plans.id"))
    billing_period: Mapped[BillingPeriod] = mapped_column(enum_column(BillingPeriod, name="billing_period"))
    provider: Mapped[str] = mapped_column(String(50))
    session_id: Mapped[str | None] = mapped_column(String(255))
    url: Mapped[str | None] = mapped_column(Text)
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[CheckoutState] = mapped_column(
        enum_column(CheckoutState, name="state"), default=CheckoutState.PENDING
    )
    # The provider's subscription that this purchase began, known at the latest when it is paid.
    subscription_ref: Mapped[str | None] = mapped_column(String(255))
    success_url: Mapped[str] = mapped_column(Text)
    cancel_url: Mapped[str] = mapped_column(Text)
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    plan: Mapped[Plan] = relationship(lazy="raise")

    def mark_paid(self, at: datetime) -> bool:
        """Note that the money is there since `at` (the provider's clock); returns False when it was known."""
        # A payment is told by the checkout and by its invoice, in any order; the earlier moment is kept.
        self.completed_at = at if self.completed_at is None else min(at, self.completed_at)
        if self.state is CheckoutState.PAID:
            return False
        self.state = CheckoutState.PAID
        return True

    def give_up(self, state: CheckoutState) -> bool:
        """Note that the checkout expired or failed; returns False when it had already come to an end."""
        if self.state is not CheckoutState.PENDING:
            return False
        self.state = state
        return True


class Subscription(Identified, TenantOwned, Timestamped, Base):
    """A tenant's one subscription to the platform.

    Facts reach it late and out of order, so what they tell is kept in three registers of which each remembers the
    provider's time of its newest fact: the status (`facts_until`), the period (`period_facts_until`) and the
    scheduled cancellation (`cancel_facts_until`). An older fact changes nothing, whenever it arrives.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        UniqueConstraint("tenant_id"),
        Index("ix_subscriptions_external_subscription_id", "payment_provider", "external_subscription_id"),
        Index("ix_subscriptions_external_customer_id", "payment_provider", "external_customer_id"),
        Index("ix_subscriptions_current_period_end", "status", "current_period_end"),
    )

    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plans.id"))
    # The purchase in force: it tells the price that was agreed. Empty during a trial.
    checkout_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkout_sessions.id", ondelete="SET NULL"))
    status: Mapped[SubscriptionStatus] = mapped_column(enum_column(SubscriptionStatus, name="status"))
    billing_period: Mapped[BillingPeriod] = mapped_column(
        enum_column(BillingPeriod, name="billing_period"), default=BillingPeriod.MONTHLY
    )
    trial_ends_at: Mapped[datetime | None]
    current_period_start: Mapped[datetime]
    current_period_end: Mapped[datetime]
    # The day of the month that periods end on wherever the provider does not say.
    anchor_day: Mapped[int]
    cancel_at_period_end: Mapped[bool] = mapped_column(default=False)
    cancelled_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None] = mapped_column(String(500))
    payment_provider: Mapped[str | None] = mapped_column(String(50))
    external_subscription_id: Mapped[str | None] = mapped_column(String(255))
    external_customer_id: Mapped[str | None] = mapped_column(String(255))
    facts_until: Mapped[datetime | None]
    period_facts_until: Mapped[datetime | None]
    cancel_facts_until: Mapped[datetime | None]
    # The smallest number of days left of which the tenant was warned, for the present end.
    expiry_warned_days: Mapped[int | None]

    plan: Mapped[Plan] = relationship(lazy="raise")
    checkout: Mapped[CheckoutSession | None] = relationship(lazy="raise")

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

    def activate(
        self, checkout: CheckoutSession, *, paid_at: datetime, customer_ref: str | None, now: datetime
    ) -> None:
        """Put a paid checkout in force: plan, price and period are the checkout's, never the provider's.

        `checkout.plan` must be loaded. The period is counted from `paid_at` until the provider tells better.
        """
        self.checkout, self.checkout_id = checkout, checkout.id
        self.plan, self.plan_id = checkout.plan, checkout.plan_id
        self.billing_period = checkout.billing_period
        self.payment_provider = checkout.provider
        self.external_subscription_id = checkout.subscription_ref
        self.external_customer_id = customer_ref or self.external_customer_id
        self.status = SubscriptionStatus.ACTIVE
        self.trial_ends_at = None
        self.cancel_at_period_end, self.cancelled_at, self.cancel_reason = False, None, None
        # What was known of an earlier purchase says nothing about this one.
        self.facts_until, self.period_facts_until, self.cancel_facts_until = paid_at, None, None
        self.count_period(paid_at, now=now)

    def count_period(self, start: datetime, *, now: datetime) -> None:
        """Set one period from `start`, unless the provider has told the period itself."""
        if self.period_facts_until is not None:
            return
        self.anchor_day = start.astimezone(UTC).day
        self._set_period(start, period_after(start, self.billing_period, anchor_day=self.anchor_day))
        self.updated_at = now

    def renew(self, *, at: datetime, period: tuple[datetime, datetime] | None, now: datetime) -> bool:
        """Take a payment for service into account; returns whether anything changed.

        `period` is what the money bought where the provider tells; otherwise one more period is added. A cancelled
        subscription stays cancelled, because its end is final.
        """
        if self.status is SubscriptionStatus.CANCELLED:
            return False
        before = self._visible()
        if _is_news(at, self.facts_until):
            self.status, self.facts_until, self.trial_ends_at = SubscriptionStatus.ACTIVE, at, None
        if period is None:
            end = period_after(self.current_period_end, self.billing_period, anchor_day=self.anchor_day)
            self._set_period(self.current_period_end, end)
        elif _is_news(at, self.period_facts_until):
            self.period_facts_until = at
            self._set_period(*period)
        return self._changed_since(before, now)

    def mark_past_due(self, *, at: datetime, now: datetime) -> bool:
        """Take a failed renewal into account; what is over already cannot fall due."""
        before = self._visible()
        if not self.is_over and _is_news(at, self.facts_until):
            self.status, self.facts_until = SubscriptionStatus.PAST_DUE, at
        return self._changed_since(before, now)

    def follow(
        self,
        *,
        at: datetime,
        status: SubscriptionStatus,
        period: tuple[datetime, datetime] | None,
        cancel_at_period_end: bool,
        now: datetime,
    ) -> bool:
        """Take over the provider's own view of the subscription at `at`; returns whether anything changed."""
        if self.status is SubscriptionStatus.CANCELLED:
            return False
        before = self._visible()
        if period is not None and _is_news(at, self.period_facts_until):
            self.period_facts_until = at
            self._set_period(*period)
        if _is_news(at, self.cancel_facts_until):
            self.cancel_facts_until = at
            self._plan_cancellation(cancel_at_period_end, at)
        if _is_news(at, self.facts_until):
            self.status, self.facts_until = status, at
            self.trial_ends_at = self.current_period_end if status is SubscriptionStatus.TRIAL else None
            if status is SubscriptionStatus.CANCELLED:
                self.cancelled_at = self.cancelled_at or at
        return self._changed_since(before, now)

    def end(self, *, at: datetime, ended_at: datetime, now: datetime) -> bool:
        """Take over that the provider has ended the subscription for good at `ended_at`."""
        if self.status is SubscriptionStatus.CANCELLED:
            return False
        self.status = SubscriptionStatus.CANCELLED
        self.cancelled_at = self.cancelled_at or ended_at
        self.facts_until = self.period_facts_until = self.cancel_facts_until = at
        self._set_period(min(self.current_period_start, ended_at), ended_at)
        self.updated_at = now
        return True

    def cancel_later(self, *, reason: str | None, now: datetime) -> bool:
        """Let the subscription end with its period (contract.md 4.4); returns False when that is so already."""
        if self.cancel_at_period_end:
            return False
        self.cancel_reason = reason
        # The provider counts whole seconds: its echo of this very decision must not look older than it.
        self.cancel_facts_until = now.replace(microsecond=0)
        self._plan_cancellation(True, now)
        self.updated_at = now
        return True

    def cancel_now(self, *, reason: str | None, now: datetime) -> None:
        """End the subscription at once (contract.md 4.4)."""
        self.cancel_reason = reason or self.cancel_reason
        self.cancelled_at = now
        self._finish(SubscriptionStatus.CANCELLED, now)
        self._set_period(min(self.current_period_start, now), now)

    def expire(self, *, now: datetime) -> None:
        """End a trial or a period that nobody paid to continue, or that was cancelled before."""
        cancelled = self.cancel_at_period_end
        self.cancelled_at = (self.cancelled_at or now) if cancelled else self.cancelled_at
        self._finish(SubscriptionStatus.CANCELLED if cancelled else SubscriptionStatus.EXPIRED, now)

    def warn_of_end(self, thresholds: tuple[int, ...], *, now: datetime) -> int | None:
        """Return the days left (rounded up) when a warning is due, once for each of `thresholds` and end."""
        days_left = -((now - self.ends_at) // timedelta(days=1))
        due = min((days for days in thresholds if days_left <= days), default=None)
        warned = self.expiry_warned_days
        if due is None or days_left < 1 or (warned is not None and warned <= due):
            return None
        self.expiry_warned_days = due
        return days_left

    def _finish(self, status: SubscriptionStatus, now: datetime) -> None:
        self.status = status
        self.updated_at = now

    def _plan_cancellation(self, planned: bool, at: datetime) -> None:  # noqa: FBT001 - a value, not a mode
        if planned == self.cancel_at_period_end:
            return
        self.cancel_at_period_end = planned
        self.cancelled_at = at if planned else None
        self.cancel_reason = self.cancel_reason if planned else None
        # An end that was not coming before deserves its own warnings.
        self.expiry_warned_days = None

    def _set_period(self, start: datetime, end: datetime) -> None:
        if end != self.current_period_end:
            self.expiry_warned_days = None
        self.current_period_start, self.current_period_end = start, end

    def _visible(self) -> tuple[object, ...]:
        return self.status, self.current_period_start, self.current_period_end, self.cancel_at_period_end

    def _changed_since(self, before: tuple[object, ...], now: datetime) -> bool:
        if self._visible() == before:
            return False
        self.updated_at = now
        return True


def _is_news(at: datetime, known_until: datetime | None) -> bool:
    return known_until is None or at >= known_until
