"""One page of a sweep: what a provider holds, asked outside any unit of work, against what we hold."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy import exists, or_, select

from models.billing import CheckoutSession, PaymentEvent, PaymentEventType, Subscription, SubscriptionStatus
from models.journal import EntryKind, JournalEntry
from models.reconciliations import Reconciliation
from providers.payments import PaymentProvider, ProviderRejected, VerifiedEvent, saw_fee, saw_state, saw_subscription
from services.billing.reconciling.feeds import in_order
from services.billing.reconciling.known import knows_payment, knows_subscription
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

T = TypeVar("T")

# How far back events are listed (Stripe keeps its own for so long) and fees are asked for, and how old a purchase or an
# end may be.
_EVENTS_OF = timedelta(days=30)
_ROWS_OF = timedelta(days=90)
_PAGE = 20
_AT_ONCE = 4
_SCOPE = PlatformScope("a sweep compares what every tenant has bought")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What was compared: what is to be taken in, of how much, and where to go on (None at the end).

    `integration_id` names the merchant's account that was compared, None for the platform's own.
    """

    events: Sequence[VerifiedEvent]
    checked: int
    cursor: str | None
    integration_id: UUID | None = None


async def compare_events(provider: PaymentProvider, row: Reconciliation) -> Part:
    """List what happened of late; whether we were told of it is for the inbox to know."""
    page = await provider.list_events(since=row.started_at - _EVENTS_OF, until=row.started_at, cursor=row.cursor)
    return Part(events=in_order(page.events), checked=len(page.events), cursor=page.next_cursor)


async def compare_purchases(units: UnitOfWorkFactory, provider: PaymentProvider, row: Reconciliation) -> Part:
    """Ask for the payments of our purchases."""
    asked = select(CheckoutSession).where(
        CheckoutSession.provider == provider.name,
        CheckoutSession.session_id.is_not(None),
        CheckoutSession.created_at > row.started_at - _ROWS_OF,
    )
    if row.cursor is not None:
        asked = asked.where(CheckoutSession.id > UUID(row.cursor))
    async with units(_SCOPE) as uow:
        checkouts = list(await uow.session.scalars(asked.order_by(CheckoutSession.id).limit(_PAGE)))
    states = await _ask_all(provider.fetch_payment, [checkout.session_id or "" for checkout in checkouts])
    async with units(_SCOPE) as uow:
        events = [
            saw_state(state)
            for checkout, state in zip(checkouts, states, strict=True)
            if state is not None and not await knows_payment(uow, provider, checkout, state)
        ]
    return Part(events=events, checked=len(checkouts), cursor=_next(checkouts))


async def compare_subscriptions(units: UnitOfWorkFactory, provider: PaymentProvider, row: Reconciliation) -> Part:
    """Ask for the subscriptions that are in force, or ended of late: what is over must not be charged any more."""
    is_served = Subscription.status.in_(
        (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.TRIAL)
    )
    is_over = Subscription.status.in_((SubscriptionStatus.EXPIRED, SubscriptionStatus.CANCELLED))
    is_recent = Subscription.current_period_end > row.started_at - _ROWS_OF
    asked = select(Subscription).where(
        Subscription.payment_provider == provider.name,
        Subscription.external_subscription_id.is_not(None),
        or_(is_served, is_over & is_recent),
    )
    if row.cursor is not None:
        asked = asked.where(Subscription.id > UUID(row.cursor))
    async with units(_SCOPE) as uow:
        held = list(await uow.session.scalars(asked.order_by(Subscription.id).limit(_PAGE)))
        now = uow.now
    refs = [subscription.external_subscription_id or "" for subscription in held]
    states = await _ask_all(provider.fetch_subscription, refs)
    events = [
        # Providers count whole seconds; what happens within this one must not look older.
        saw_subscription(state, by=row.id, at=now.replace(microsecond=0))
        for subscription, state in zip(held, states, strict=True)
        if state is not None and not knows_subscription(subscription, state)
    ]
    return Part(events=events, checked=len(held), cursor=_next(held))


async def compare_fees(units: UnitOfWorkFactory, provider: PaymentProvider, row: Reconciliation) -> Part:
    """Ask what was kept of payments of which that is not known yet; of purchases their own comparison asks.

    A provider may book it some time after the payment, and tells of it by no event.
    """
    is_posted = exists().where(
        JournalEntry.provider == PaymentEvent.provider,
        JournalEntry.kind == EntryKind.FEE,
        JournalEntry.fact_key == PaymentEvent.fact_key,
    )
    asked = select(PaymentEvent).where(
        PaymentEvent.provider == provider.name,
        PaymentEvent.event_type == PaymentEventType.PAYMENT_SUCCESS,
        PaymentEvent.provider_payment_id.is_not(None),
        PaymentEvent.checkout_id.is_(None),
        PaymentEvent.created_at > row.started_at - _EVENTS_OF,
        ~is_posted,
    )
    if row.cursor is not None:
        asked = asked.where(PaymentEvent.id > UUID(row.cursor))
    async with units(_SCOPE) as uow:
        payments = list(await uow.session.scalars(asked.order_by(PaymentEvent.id).limit(_PAGE)))
    fees = await _ask_all(provider.fetch_fee, [payment.provider_payment_id or "" for payment in payments])
    events = [
        saw_fee(payment.provider_payment_id or "", fee, at=payment.created_at)
        for payment, fee in zip(payments, fees, strict=True)
        if fee is not None
    ]
    return Part(events=events, checked=len(payments), cursor=_next(payments))


async def _ask_all(ask: Callable[[str], Awaitable[T | None]], references: Sequence[str]) -> list[T | None]:
    """Ask for each, a few at a time; raises the first failure once those asked with it have answered.

    One that the provider refuses to tell of is as one that it does not know: the others are compared all the same.
    """
    answers: list[T | None] = []
    for place in range(0, len(references), _AT_ONCE):
        told = await asyncio.gather(
            *(ask(reference) for reference in references[place : place + _AT_ONCE]), return_exceptions=True
        )
        for answer in told:
            if isinstance(answer, ProviderRejected):
                logger.warning("comparison refused", reason=answer.text)
                answers.append(None)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answers.append(answer)
    return answers


def _next(rows: Sequence[CheckoutSession] | Sequence[Subscription] | Sequence[PaymentEvent]) -> str | None:
    return str(rows[-1].id) if len(rows) == _PAGE else None
