"""A refund that was under way and never arrived is taken back at providers that tell only how a payment stands."""

from collections.abc import AsyncIterator
from decimal import Decimal
from math import factorial

import pytest

from core import json
from models.billing import PaymentEventType
from models.journal import Account
from services.billing.journal import balances
from tests.services.billing.test_permutations import assert_one, end_states, refund
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.reconciling import open_watch
from tests.support.stalls import Stall, open_stall

pytestmark = pytest.mark.embedded


@pytest.fixture
async def paypal(till: Till) -> AsyncIterator[Stall]:
    async with open_stall(till, "paypal") as opened:
        yield opened


@pytest.fixture
async def business(till: Till) -> AsyncIterator[Stall]:
    async with open_stall(till, "coinbase_business") as opened:
        yield opened


async def refunded(till: Till, shop: Shop) -> Decimal:
    """Return what is booked as refunded: by the journal, by the money book and by our papers alike."""
    async with till.units(PLATFORM) as uow:
        posted = (await balances(uow, shop.tenant_id)).get((Account.REFUNDS, "USD"), Decimal(0))
    rows = [row.amount for row in await till.payments(shop) if row.event_type is PaymentEventType.REFUND]
    papers = [paper.total for paper in await till.papers(shop) if paper.kind.value != "invoice"]
    assert sum(rows, Decimal(0)) == posted == -sum(papers, Decimal(0))
    return posted


async def test_paypal_is_asked_every_night(till: Till, shop: Shop, paypal: Stall) -> None:
    watch = await open_watch(till)
    created = await paypal.begin(shop)
    await paypal.take(paypal.harness.paid(created))
    till.travel(days=1)
    await refund(paypal, created, "10.00", "0")
    refund_id = paypal.fake.events[-1]["resource"]["id"]
    await paypal.take([paypal.fake.encode(paypal.fake.events[-1])])
    assert await refunded(till, shop) == Decimal("10.00")
    till.travel(days=1)
    paypal.fake.fail_refund(refund_id)
    view = await watch.swept("paypal")
    assert view.changed == 1
    assert await refunded(till, shop) == 0
    assert "payment.refund_failed" in await till.audit(shop)
    # It is given back once more, to the same total as before.
    till.travel(days=1)
    await refund(paypal, created, "10.00", "0")
    await watch.swept("paypal")
    assert await refunded(till, shop) == Decimal("10.00")
    again = await watch.swept("paypal")
    assert (again.found, again.changed) == (0, 0)


async def test_coinbase_business_tells_it_itself(till: Till, shop: Shop, business: Stall) -> None:
    created = await business.begin(shop)
    await business.take(business.harness.paid(created))
    watch = await open_watch(till)
    till.travel(hours=1)
    await refund(business, created, "10.00", "0")
    await watch.swept("coinbase_business")
    assert await refunded(till, shop) == Decimal("10.00")
    till.travel(hours=1)
    (failed,) = business.fake.complete_refunds(created.session_id, succeed=False)
    await business.take([json.dumps(failed)])
    assert await refunded(till, shop) == 0


@pytest.mark.parametrize("is_repeated", [False, True])
async def test_every_order_of_a_refund_that_fails(till: Till, shop: Shop, paypal: Stall, *, is_repeated: bool) -> None:
    created = await paypal.begin(shop)
    (approved,) = paypal.fake.approve(created.session_id)
    readings = [await paypal.read(paypal.fake.encode(approved))]
    for does_fail in (False, True, False)[: 3 if is_repeated else 2]:
        till.travel(seconds=7)
        if does_fail:
            paypal.fake.fail_refund(paypal.fake.events[-1]["resource"]["id"])
        else:
            await refund(paypal, created, "10.00", "0")
        readings.append(await paypal.read(paypal.fake.encode(paypal.fake.events[-1])))
    states = await end_states(till, shop, "paypal", readings)
    assert_one(states, count=factorial(len(readings)))
    is_refunded = any((table, row[:8]) == ("balances", "refunds ") for table, row in states[0])
    assert is_refunded is is_repeated
