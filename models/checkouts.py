"""Purchases that were begun at a provider, and how they came out (contract.md 4.4)."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, Text, UniqueConstraint, false, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Identified, TenantOwned, enum_column
from models.payment_progress import CheckoutState, PaymentProgress
from models.plans import BillingPeriod, Plan, period_after


class CheckoutKind(StrEnum):
    """What a purchase buys: a period of a plan, or the change of a period that is paid already."""

    PERIOD = "period"
    CHANGE = "change"


# How long after its beginning, and then after each other, a purchase's provider is asked for it (issue 5, part 9).
_POLLS = (timedelta(minutes=5), timedelta(hours=1), timedelta(days=1))
_SOON = timedelta(minutes=5)
# For a purchase whose provider never told how long its page is open, and for coins that come late.
_LIFETIME = timedelta(days=1)
_WATCHED = timedelta(days=3)


def poll_after(polls: int) -> timedelta:
    """Return how long to wait before asking about a purchase that was asked about `polls` times."""
    return _POLLS[min(polls, len(_POLLS) - 1)]


class CheckoutSession(PaymentProgress, Identified, TenantOwned, Base):
    """A purchase that was begun: what was asked, at what price, and where the payer was sent.

    `amount` is to be paid now, `price` is what each period costs from then on. A change also tells on what it builds:
    `root_id` is the period's purchase, `base_id` the purchase that was in force, `price_before` what a period cost,
    `valid_until` the end of the period that is changed, and `restarts` whether a new one begins instead. A period's
    purchase has a `base_id` when it was begun to continue another one, and a `valid_until` once it has been ended.
    """

    __tablename__ = "checkout_sessions"
    __table_args__ = (
        UniqueConstraint("provider", "session_id"),
        Index("ix_checkout_sessions_tenant_id", "tenant_id", "created_at"),
        Index("ix_checkout_sessions_subscription_ref", "provider", "subscription_ref"),
        Index("ix_checkout_sessions_next_poll_at", "next_poll_at", postgresql_where=text("next_poll_at IS NOT NULL")),
    )

    kind: Mapped[CheckoutKind] = mapped_column(
        enum_column(CheckoutKind, name="kind"), default=CheckoutKind.PERIOD, server_default="period"
    )
    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plans.id"))
    billing_period: Mapped[BillingPeriod] = mapped_column(enum_column(BillingPeriod, name="billing_period"))
    provider: Mapped[str] = mapped_column(String(50))
    session_id: Mapped[str | None] = mapped_column(String(255))
    url: Mapped[str | None] = mapped_column(Text)
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str] = mapped_column(String(3))
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    root_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkout_sessions.id", ondelete="CASCADE"), index=True)
    base_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkout_sessions.id", ondelete="CASCADE"))
    price_before: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    valid_until: Mapped[datetime | None]
    restarts: Mapped[bool] = mapped_column(default=False, server_default=false())
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
    # Until when whoever asks the provider for the page has it to themselves.
    opening_until: Mapped[datetime | None]
    # What has come for certain or not, and how much of it nobody asked for; in `currency`.
    received: Mapped[Decimal] = mapped_column(Numeric(12, 2), default=Decimal(0), server_default=text("0"))
    overpaid: Mapped[Decimal] = mapped_column(Numeric(12, 2), default=Decimal(0), server_default=text("0"))
    is_late: Mapped[bool] = mapped_column(default=False, server_default=false())
    # The provider's time of the newest word about the payment.
    facts_until: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    # How often the provider was asked about it, and when it is asked again; None once nothing more can come of it.
    polls: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    next_poll_at: Mapped[datetime | None]

    plan: Mapped[Plan] = relationship(lazy="raise")

    @property
    def period_purchase_id(self) -> UUID:
        """The purchase of the period: this one, or the one that it changes."""
        return self.root_id or self.id

    @property
    def offer(self) -> tuple[object, ...]:
        """What is bought, and where: two purchases of one offer continue each other."""
        return self.provider, self.plan_id, self.billing_period

    @property
    def is_in_time(self) -> bool:
        """Whether a change was paid within the period that it changes."""
        return self.completed_at is not None and self.valid_until is not None and self.completed_at < self.valid_until

    @property
    def bought_until(self) -> datetime | None:
        """Up to when a paid change has bought its terms: the end of the period that it begins, or that it changes."""
        if not self.restarts or self.completed_at is None:
            return self.valid_until
        return _begun(self, self.completed_at).end

    def renews(self, offer: tuple[object, ...], current: UUID | None) -> bool:
        """Tell whether it continues what is in force: the same offer, or what it was begun to continue."""
        return self.offer == offer or (current is not None and self.base_id == current)

    @property
    def place_in_time(self) -> tuple[datetime, datetime, UUID]:
        """When it was paid; of two in one second, for providers count whole ones, when it was begun."""
        return self.completed_at or self.created_at, self.created_at, self.id

    @property
    def watched_until(self) -> datetime:
        """Until when the provider is asked about it: money may still come for a while after its time."""
        return (self.expires_at or self.created_at + _LIFETIME) + _WATCHED

    def lease(self, *, now: datetime, until: datetime) -> bool:
        """Take it on to ask the provider for the page; returns False where it is there, or somebody else asks now."""
        if self.session_id is not None or (self.opening_until is not None and self.opening_until > now):
            return False
        self.opening_until = until
        return True

    def polled(self, now: datetime) -> None:
        """Note that the provider has been asked, and decide when it is asked again."""
        self.polls += 1
        if self.state is CheckoutState.PAID or now >= self.watched_until:
            self.next_poll_at = None
            return
        # The last look is after the time has run out, so that the end is seen by somebody.
        self.next_poll_at = min(now + poll_after(self.polls), max(self.watched_until, now + _SOON))


def changes_in_force(
    root: CheckoutSession, changes: Iterable[CheckoutSession], *, replaced_by: CheckoutSession | None
) -> list[CheckoutSession]:
    """Return those of the paid changes of a period's purchase that count, in their order.

    Each must build on the one before it and have been paid within the period that it changes, and before another
    purchase took the place of its root. What was begun beside another change, or paid too late, was priced for
    something that is no more, and is owed to the tenant. The answer depends on the providers' times alone, never on the
    order in which payments were heard of.
    """
    chain: list[CheckoutSession] = []
    base = root.id
    for change in in_time(changes):
        is_over = replaced_by is not None and change.place_in_time > replaced_by.place_in_time
        if change.base_id == base and change.is_in_time and not is_over:
            chain.append(change)
            base = change.id
    return chain


def in_time(purchases: Iterable[CheckoutSession]) -> list[CheckoutSession]:
    """Put purchases in the order in which they were paid."""
    return sorted(purchases, key=lambda purchase: purchase.place_in_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepaid:
    """The period that payments have bought at a provider that does not charge by itself."""

    start: datetime
    end: datetime
    anchor_day: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a payment has put what it bought: from `start` to the end of `period`, all that is paid by then.

    `continues` is False where it began anew and so replaced whatever was paid before. A change that does not restart
    the period adds nothing to it.
    """

    purchase: CheckoutSession
    start: datetime
    period: Prepaid
    continues: bool


def placed(
    paid: Iterable[CheckoutSession], *, served_for: timedelta, charging: Collection[str] = ()
) -> Iterator[Placed]:
    """Place what payments have bought one behind the other, in the order in which they were paid.

    A payment for what is in force adds a period to what is paid already; one for anything else, that came when the last
    period had been over for `served_for`, or at one of the providers that charge by themselves (`charging`), begins
    anew. Changes that do not build on what was in force then, or were paid too late, are left out.
    """
    period: Prepaid | None = None
    offer: tuple[object, ...] = ()
    current: UUID | None = None
    for purchase in in_time(paid):
        paid_at = purchase.place_in_time[0]
        start, continues = paid_at, False
        if purchase.kind is CheckoutKind.CHANGE:
            if period is None or purchase.base_id != current or not purchase.is_in_time:
                continue
            continues = True
            period = _begun(purchase, paid_at) if purchase.restarts else period
        elif (
            period is not None
            and purchase.provider not in charging
            and paid_at < period.end + served_for
            and purchase.renews(offer, current)
        ):
            start, continues = period.end, True
            end = period_after(period.end, purchase.billing_period, anchor_day=period.anchor_day)
            begins = period.start if paid_at < period.end else period.end
            period = Prepaid(start=begins, end=end, anchor_day=period.anchor_day)
        else:
            period = _begun(purchase, paid_at)
        offer, current = purchase.offer, purchase.id
        yield Placed(purchase=purchase, start=start, period=period, continues=continues)


def prepaid_period(paid: Iterable[CheckoutSession], *, served_for: timedelta) -> Prepaid | None:
    """Add up what payments have bought at a provider that does not charge by itself, as `placed` puts it."""
    period: Prepaid | None = None
    for step in placed(paid, served_for=served_for):
        period = step.period
    return period


def _begun(purchase: CheckoutSession, paid_at: datetime) -> Prepaid:
    anchor_day = paid_at.astimezone(UTC).day
    end = period_after(paid_at, purchase.billing_period, anchor_day=anchor_day)
    return Prepaid(start=paid_at, end=end, anchor_day=anchor_day)
