"""What providers, strangers and accidents may bring: nothing is bought unpaid, nothing twice, and nothing is lost.

Where each kind of bad input is tried. "Each" is every provider; files without a folder are in
`tests/providers/payments/`.

| what | where |
|---|---|
| bad, missing, garbled signatures | each, `test_contract_webhooks.py` |
| expired and future-dated signatures | each that signs the time, `test_contract_webhooks.py`, `TestSignedTime` |
| several signatures, rolled secrets | each that has them, `TestStampedHeader` and `TestRolledSecrets` there |
| signed bodies that are no events, garbled events | each, `TestVerify` there, and `test_malformed.py` |
| the known vectors | each, `test_<provider>.py` |
| another amount, currency, plan, period, tenant | each, here |
| purchases we do not know | each, here |
| plans and prices that changed since | each, here |
| unknown plans, prices that are not sold | `tests/services/billing/test_checkout.py` |
| provider down, slow, 429, nonsense, lost answers | each call of each, `test_contract_failures.py` |
| the same while somebody buys, and while an event is applied | each, here |
| several deliveries at once | each, `tests/e2e/test_deliveries.py` |
| processes killed | `tests/e2e/test_payment_crashes.py`, `test_merchant_crashes.py`, `test_instruction_crashes.py` |
| the same of merchants' accounts | each, `tests/services/merchants/test_inbound.py` |
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from models.billing import CheckoutSession, CheckoutState, PaymentEventType, SubscriptionStatus
from models.inbox import InboxState, ProviderEvent
from models.journal import Account
from models.plans import BillingPeriod, Plan
from providers.payments import ProviderRejected, ProviderUnavailable
from services.billing.journal import balances
from tests.fakes.server import Fault
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.stalls import ALL_PROVIDERS, Stall, open_stall

pytestmark = pytest.mark.embedded

PRICE = Decimal("49.99")
FAULTS = {
    "down": Fault(status=503),
    "too many requests": Fault(status=429, body='{"error": {"code": "rate_limit"}}', headers={"Retry-After": "77"}),
    "nonsense": Fault(status=200, body="<html>Login to the wifi</html>"),
    "an empty object": Fault(status=200, body="{}"),
    "cut off": Fault(cut="before"),
    "a lost answer": Fault(cut="after"),
    "half an answer": Fault(cut="middle"),
    "not our key": Fault(status=401, body="{}"),
    "refused": Fault(status=400, body='{"code": "x"}'),
}


@pytest.fixture(params=ALL_PROVIDERS)
async def stall(request: pytest.FixtureRequest, till: Till) -> AsyncIterator[Stall]:
    """Each provider in turn."""
    async with open_stall(till, request.param) as opened:
        yield opened


@pytest.fixture(params=[name for name in ALL_PROVIDERS if name != "sandbox"])
async def network(request: pytest.FixtureRequest, till: Till) -> AsyncIterator[Stall]:
    """Each provider that is reached over the network."""
    async with open_stall(till, request.param) as opened:
        yield opened


async def events(till: Till) -> list[ProviderEvent]:
    """Return the events of this test."""
    rung = [task.row_id for task in till.ears.tasks if task.name == "billing.apply"]
    async with till.units(PLATFORM) as uow:
        return list(await uow.session.scalars(select(ProviderEvent).where(ProviderEvent.id.in_(rung))))


async def try_again(till: Till, shop: Shop) -> None:
    """Have an operator resend what is dead, and let the time of everything else come, until all is in."""
    operator = replace(shop.owner, is_superuser=True)
    for _ in range(3):
        for row in await events(till):
            if row.state is InboxState.DEAD:
                async with till.units(PLATFORM) as uow:
                    await till.billing.resend(uow, operator, row_id=row.id)
            await till.billing.apply(row.id)
    assert {row.state for row in await events(till)} == {InboxState.HANDLED}


async def assert_nothing_happened(till: Till, *shops: Shop) -> None:
    for shop in shops:
        subscription = await till.subscription(shop)
        assert (subscription.status, subscription.checkout_id) == (SubscriptionStatus.TRIAL, None)
        assert [row for row in await till.payments(shop) if row.event_type is PaymentEventType.PAYMENT_SUCCESS] == []
        assert till.heard(shop, "payment:received") == []
        async with till.units(PLATFORM) as uow:
            assert await balances(uow, shop.tenant_id) == {}


async def assert_bought_once(till: Till, shop: Shop) -> None:
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE
    booked = [row.amount for row in await till.payments(shop) if row.event_type is PaymentEventType.PAYMENT_SUCCESS]
    assert booked == [PRICE]
    assert len(till.heard(shop, "payment:received")) == 1
    async with till.units(PLATFORM) as uow:
        held = await balances(uow, shop.tenant_id)
    # What the provider keeps for itself is taken from what it holds for us.
    assert held[Account.REVENUE, "USD"] == -PRICE
    assert sum(held.values()) == 0


async def contradiction(till: Till, kind: str, *, tenant_id: UUID) -> dict[str, Any]:
    """Return what a purchase shall say in place of what the provider will tell of it."""
    table: Mapping[str, dict[str, Any]] = {
        "more was asked": {"amount": PRICE + Decimal("0.01")},
        "less was asked": {"amount": PRICE - Decimal("0.01")},
        "another currency": {"currency": "EUR"},
        "another plan": {"plan_id": (await till.plan("starter")).id},
        "another period": {"billing_period": BillingPeriod.YEARLY},
        "another tenant": {"tenant_id": tenant_id},
    }
    return table[kind]


@pytest.mark.parametrize(
    "kind", ["more was asked", "less was asked", "another currency", "another plan", "another period", "another tenant"]
)
async def test_what_contradicts_the_purchase_buys_nothing_and_is_kept(
    till: Till, shop: Shop, stall: Stall, kind: str
) -> None:
    other = await till.shop()
    contents = stall.harness.paid(await stall.begin(shop))
    (checkout,) = await till.checkouts(shop)
    wrong = await contradiction(till, kind, tenant_id=other.tenant_id)
    right = {name: getattr(checkout, name) for name in wrong}
    await till.change(CheckoutSession, checkout.id, **wrong)
    await stall.take(contents)

    await assert_nothing_happened(till, shop, other)
    dead = [row for row in await events(till) if row.state is InboxState.DEAD]
    assert dead, "an operator has to look at it"
    assert {row.last_error for row in dead} <= {
        "another purchase than the checkout's",
        f"paid 49.99 USD, asked {wrong.get('amount', PRICE)} {wrong.get('currency', 'USD')}",
    }

    await till.change(CheckoutSession, checkout.id, **right)
    await try_again(till, shop)
    await assert_bought_once(till, shop)


async def test_a_purchase_that_nobody_knows_waits(till: Till, shop: Shop, stall: Stall) -> None:
    contents = stall.harness.paid(await stall.begin(shop))
    (checkout,) = await till.checkouts(shop)
    # Nothing is found below another provider's name.
    await till.change(CheckoutSession, checkout.id, provider="nobody")
    await stall.take(contents)
    await assert_nothing_happened(till, shop)
    assert {row.state for row in await events(till)} <= {InboxState.RECEIVED, InboxState.HANDLED}
    await till.change(CheckoutSession, checkout.id, provider=stall.name)
    await try_again(till, shop)
    await assert_bought_once(till, shop)


async def test_a_plan_that_was_retired_meanwhile_is_what_was_agreed(till: Till, shop: Shop, stall: Stall) -> None:
    plan = await till.plan()
    created = await stall.begin(shop)
    await till.change(Plan, plan.id, is_active=False, price_monthly=Decimal("99.00"))
    try:
        await stall.take(stall.harness.paid(created))
        await try_again(till, shop)
        await assert_bought_once(till, shop)
        view = await till.view(shop.owner)
        assert (view.plan.slug, view.amount) == ("professional", PRICE)
    finally:
        await till.change(Plan, plan.id, is_active=True, price_monthly=plan.price_monthly)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_while_an_event_is_applied_delays_it(till: Till, shop: Shop, network: Stall, fault: str) -> None:
    for content in network.harness.paid(await network.begin(shop)):
        await network.bring(content)
    network.fake.always = FAULTS[fault]
    await till.work()
    assert InboxState.DEAD not in {row.state for row in await events(till)}
    delayed = [row for row in await events(till) if row.attempts]
    if fault == "too many requests":
        assert all(row.next_attempt_at - row.received_at >= timedelta(seconds=77) for row in delayed)
    assert delayed or network.name == "stripe", "Stripe's events say all by themselves"
    network.fake.always = None
    await try_again(till, shop)
    await assert_bought_once(till, shop)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_while_somebody_buys_is_told_and_charges_nobody(
    till: Till, shop: Shop, network: Stall, fault: str
) -> None:
    network.fake.always = FAULTS[fault]
    if network.name == "liqpay":
        # Its page is an address, for which nobody is asked.
        await network.begin(shop)
    else:
        with pytest.raises((ProviderUnavailable, ProviderRejected)):
            await network.begin(shop)
        assert [checkout.state for checkout in await till.checkouts(shop)] == [CheckoutState.FAILED]
    network.fake.always = None
    await assert_nothing_happened(till, shop)
    await network.take(network.harness.paid(await network.begin(shop)))
    await try_again(till, shop)
    await assert_bought_once(till, shop)
