"""Histories of purchases: what a provider tells of them, and what reports of money should say."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st

from models.billing import BillingPeriod, CheckoutSession, Plan
from providers.payments import (
    CheckoutPaid,
    DisputeClosed,
    DisputeOpened,
    Fact,
    InvoicePaid,
    PaymentRefunded,
    Purchase,
)
from services.unit_of_work import UnitOfWork
from tests.support.billing import Shop

BEGIN = datetime(2031, 1, 7, 23, 30, tzinfo=UTC)


@dataclass(slots=True)
class Bought:
    """A purchase of a history with what came after it: renewals by the day, and what went back of each payment."""

    day: int
    currency: str
    price: Decimal
    renewals: int
    refunds: list[Decimal]
    dispute: str | None
    # Whether its dispute takes no notice of refunds.
    beside: bool = False


@dataclass(slots=True)
class Expected:
    """What was charged and what went back, by month and plan, as the history itself says."""

    plans: set[str] = field(default_factory=set)
    charged: defaultdict[tuple[Any, ...], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    refunded: defaultdict[tuple[Any, ...], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    disputed: defaultdict[tuple[Any, ...], Decimal] = field(default_factory=lambda: defaultdict(Decimal))


prices = st.integers(1000, 9999).map(lambda cents: Decimal(cents) / 100)
histories = st.lists(
    st.builds(
        Bought,
        day=st.integers(0, 25),
        currency=st.sampled_from(["USD", "EUR"]),
        price=prices,
        renewals=st.integers(0, 2),
        refunds=st.lists(st.integers(1, 999).map(lambda cents: Decimal(cents) / 100), max_size=2),
        dispute=st.sampled_from([None, "open", "won", "lost"]),
        beside=st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


async def write(uow: UnitOfWork, shop: Shop, history: list[Bought]) -> tuple[list[Fact], Expected]:
    """Begin the purchases of a history; returns what the provider tells of it, and what reports should say."""
    told: list[Fact] = []
    expected = Expected()
    for number, bought in enumerate(history):
        plan = Plan(id=uuid4(), slug=f"told-{uuid4().hex[:8]}", name="Told", price_monthly=1, price_yearly=1)
        at = BEGIN + timedelta(days=100 * number + bought.day)
        checkout = CheckoutSession(
            id=uuid4(),
            tenant_id=shop.tenant_id,
            plan_id=plan.id,
            billing_period=BillingPeriod.MONTHLY,
            provider="stripe",
            session_id=f"cs_{uuid4().hex}",
            amount=bought.price,
            price=bought.price,
            currency=bought.currency,
            success_url="https://shop.example",
            cancel_url="https://shop.example",
            created_at=at - timedelta(minutes=1),
        )
        expected.plans.add(plan.slug)
        uow.session.add(plan)
        # Flushed because no relationship tells the mapper that the purchase needs the plan first.
        await uow.session.flush()
        uow.session.add(checkout)
        for renewal in range(bought.renewals + 1):
            paid_at = at + timedelta(days=30 * renewal)
            told += payment(checkout, bought, renewal, paid_at)
            expected.charged[key(paid_at, plan.slug, bought)] += bought.price
            told += gone(checkout, bought, renewal, (paid_at, plan.slug, expected))
    await uow.session.flush()
    return told, expected


def payment(checkout: CheckoutSession, bought: Bought, renewal: int, at: datetime) -> list[Fact]:
    about: Any = {
        "provider": "stripe",
        "event_id": f"evt_{checkout.id.hex}_{renewal}",
        "occurred_at": at,
        "purchase": Purchase(
            checkout_id=checkout.id,
            tenant_id=checkout.tenant_id,
            plan_id=checkout.plan_id,
            billing_period=checkout.billing_period.value,
        ),
        "customer_ref": None,
        "subscription_ref": f"sub_{checkout.id.hex}",
        "payment_ref": ref(checkout, renewal),
        "payment_key": ref(checkout, renewal),
        "amount": bought.price,
        "currency": bought.currency,
    }
    if renewal == 0:
        assert checkout.session_id is not None
        return [CheckoutPaid(**about, session_id=checkout.session_id, invoice_ref=None)]
    return [
        InvoicePaid(
            **about,
            invoice_ref=f"in_{checkout.id.hex}_{renewal}",
            period_start=at,
            period_end=at + timedelta(days=30),
            billing_reason="renewal",
            number=None,
            hosted_invoice_url=None,
        )
    ]


def gone(checkout: CheckoutSession, bought: Bought, renewal: int, sold: tuple[datetime, str, Expected]) -> list[Fact]:
    """Return the refunds and the dispute of one payment; of refunds the running total is told."""
    at, slug, expected = sold
    told: list[Fact] = []
    total = Decimal(0)
    # What a bank has taken back is no refund as well, unless its dispute takes no notice of refunds.
    left = Decimal(0) if bought.dispute in ("open", "lost") and not bought.beside else bought.price
    for number, part in enumerate(bought.refunds):
        when = at + timedelta(days=20 * (number + 1))
        expected.refunded[key(when, slug, bought)] += min(total + part, left) - min(total, left)
        total += part
        told.append(
            PaymentRefunded(
                provider="stripe", event_id=f"evt_{ref(checkout, renewal)}_r{number}", occurred_at=when,
                payment_ref=ref(checkout, renewal), charge_ref=f"ch_{ref(checkout, renewal)}", invoice_ref=None,
                customer_ref=None, charged=bought.price, refunded_total=total, currency=bought.currency,
            )
        )  # fmt: skip
    if bought.dispute is not None:
        about: Any = {
            "provider": "stripe", "dispute_ref": f"dp_{ref(checkout, renewal)}", "payment_ref": ref(checkout, renewal),
            "charge_ref": None, "amount": bought.price, "currency": bought.currency, "inquiry": False,
            "beside_refunds": bought.beside,
        }  # fmt: skip
        when = at + timedelta(days=11)
        told.append(DisputeOpened(**about, event_id=f"evt_{ref(checkout, renewal)}_o", occurred_at=when, reason=None))
        if bought.dispute != "won":
            expected.disputed[key(when, slug, bought)] += bought.price
        if bought.dispute != "open":
            decided: Any = bought.dispute
            told.append(
                DisputeClosed(**about, event_id=f"evt_{ref(checkout, renewal)}_c", occurred_at=when, outcome=decided)
            )
    return told


def ref(checkout: CheckoutSession, renewal: int) -> str:
    return f"pi_{checkout.id.hex}_{renewal}"


def key(at: datetime, slug: str, bought: Bought) -> tuple[Any, ...]:
    return at.date().replace(day=1), slug, bought.currency
