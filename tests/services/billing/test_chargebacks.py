"""What a payer's bank takes back is booked once, by whichever of refund and dispute it is told."""

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

import pytest

from models.billing import PaymentEventType
from models.journal import Account
from services.billing.journal import balances
from tests.services.billing.test_every_provider import PRICE
from tests.services.billing.test_permutations import assert_one, end_states, told_by_stripe
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.stalls import Stall, open_stall

pytestmark = pytest.mark.embedded

FEE = Decimal("1.74")


@pytest.fixture
async def paypal(till: Till) -> AsyncIterator[Stall]:
    async with open_stall(till, "paypal") as opened:
        yield opened


async def bought(shop: Shop, paypal: Stall) -> str:
    created = await paypal.begin(shop)
    await paypal.take(paypal.harness.paid(created))
    return created.session_id


async def tell(paypal: Stall, events: Sequence[object]) -> None:
    await paypal.take([paypal.fake.encode(event) for event in events])


async def gone(till: Till, shop: Shop) -> dict[str, Decimal]:
    """Return what has gone back as a refund and by a dispute, and what is left."""
    async with till.units(PLATFORM) as uow:
        held = await balances(uow, shop.tenant_id)
    accounts = (Account.REFUNDS, Account.DISPUTES, Account.CASH)
    return {account.value: held.get((account, "USD"), Decimal(0)) for account in accounts}


@pytest.mark.parametrize("first", ["reversal", "dispute"])
@pytest.mark.parametrize("outcome", [None, "RESOLVED_BUYER_FAVOUR"])
async def test_a_reversal_and_its_dispute_are_one_loss(
    till: Till, shop: Shop, paypal: Stall, first: str, outcome: str | None
) -> None:
    order_id = await bought(shop, paypal)
    reversed_, disputed = paypal.fake.reverse(order_id), paypal.fake.dispute(order_id)
    decided = [] if outcome is None else paypal.fake.dispute(order_id, outcome=outcome)
    told = [*reversed_, *disputed] if first == "reversal" else [*disputed, *reversed_]
    await tell(paypal, [*told, *decided])
    assert await gone(till, shop) == {"refunds": 0, "disputes": PRICE, "cash": -FEE}
    rows = {row.event_type: row.amount for row in await till.payments(shop)}
    assert (rows[PaymentEventType.REFUND], rows[PaymentEventType.CHARGEBACK]) == (Decimal(0), PRICE)
    # The papers of a payment never take back more than it was.
    assert sum(paper.total for paper in await till.papers(shop)) == 0


async def test_a_dispute_that_is_won_leaves_the_money(till: Till, shop: Shop, paypal: Stall) -> None:
    order_id = await bought(shop, paypal)
    await tell(paypal, [*paypal.fake.reverse(order_id), *paypal.fake.dispute(order_id)])
    await tell(paypal, paypal.fake.dispute(order_id, outcome="RESOLVED_SELLER_FAVOUR"))
    assert await gone(till, shop) == {"refunds": 0, "disputes": 0, "cash": PRICE - FEE}
    assert sum(paper.total for paper in await till.papers(shop)) == PRICE


async def test_a_reversal_without_a_dispute_is_a_refund(till: Till, shop: Shop, paypal: Stall) -> None:
    order_id = await bought(shop, paypal)
    await tell(paypal, paypal.fake.reverse(order_id))
    assert await gone(till, shop) == {"refunds": PRICE, "disputes": 0, "cash": -FEE}


@pytest.mark.parametrize("outcome", ["RESOLVED_BUYER_FAVOUR", "RESOLVED_SELLER_FAVOUR"])
async def test_every_order_of_a_reversal_and_its_dispute(till: Till, shop: Shop, paypal: Stall, outcome: str) -> None:
    created = await paypal.begin(shop)
    order_id, readings = created.session_id, []
    stories = (
        lambda: paypal.fake.approve(order_id),
        lambda: paypal.fake.dispute(order_id),
        lambda: paypal.fake.reverse(order_id),
        lambda: paypal.fake.dispute(order_id, outcome=outcome),
    )
    for happens in stories:
        (event,) = happens()
        readings.append(await paypal.read(paypal.fake.encode(event)))
        till.travel(seconds=7)
    assert_one(await end_states(till, shop, "paypal", readings), count=24)


@pytest.mark.parametrize("outcome", [None, "lost", "won"])
async def test_an_inquiry_that_becomes_a_dispute_takes_the_money(till: Till, shop: Shop, outcome: str | None) -> None:
    charge = till.stripe.charge_of(await till.buy(shop))
    await till.take(*till.stripe.open_dispute(charge["id"], inquiry=True))
    (dispute_id,) = till.stripe.disputes
    assert (await gone(till, shop))["disputes"] == 0
    till.travel(days=3)
    await till.take(*till.stripe.escalate_dispute(dispute_id))
    # 2.9 % and 30 cents of the payment, and 15 for the dispute.
    assert await gone(till, shop) == {"refunds": 0, "disputes": PRICE, "cash": -Decimal("16.75")}
    told = [note.title for note in await till.notifications(shop)]
    assert told.count("Payment disputed") == 2
    if outcome is not None:
        await till.take(*till.stripe.close_dispute(dispute_id, outcome))
        assert (await gone(till, shop))["disputes"] == (0 if outcome == "won" else PRICE)
    rows = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.CHARGEBACK]
    assert [row.amount for row in rows] == [PRICE]


@pytest.mark.parametrize("outcome", ["lost", "won"])
async def test_every_order_of_an_inquiry_that_becomes_a_dispute(till: Till, shop: Shop, outcome: str) -> None:
    charge = till.stripe.charge_of(await till.buy(shop))
    events = till.stripe.open_dispute(charge["id"], inquiry=True)
    (dispute_id,) = till.stripe.disputes
    for happens in (till.stripe.escalate_dispute, lambda known: till.stripe.close_dispute(known, outcome)):
        till.travel(seconds=7)
        events += happens(dispute_id)
    readings = [await told_by_stripe(till, event) for event in events if event["type"] != "charge.dispute.updated"]
    assert_one(await end_states(till, shop, "stripe", readings), count=6)


@pytest.mark.parametrize("outcome", [None, "lost", "won"])
async def test_stripe_withdraws_all_of_a_payment_that_was_refunded_in_part(
    till: Till, shop: Shop, outcome: str | None
) -> None:
    charge = till.stripe.charge_of(await till.buy(shop))
    await till.take(*till.stripe.refund(charge["id"], 2000))
    till.travel(days=3)
    await till.take(*till.stripe.open_dispute(charge["id"]))
    refund, fees = Decimal(20), Decimal("16.75")
    if outcome is None:
        assert await gone(till, shop) == {"refunds": refund, "disputes": PRICE, "cash": -refund - fees}
        # The price cannot fall below nothing, whatever the bank has taken beside it.
        assert sum(paper.total for paper in await till.papers(shop)) == 0
        return
    (dispute_id,) = till.stripe.disputes
    await till.take(*till.stripe.close_dispute(dispute_id, outcome))
    if outcome == "won":
        assert await gone(till, shop) == {"refunds": refund, "disputes": 0, "cash": PRICE - refund - fees + 15}
        assert sum(paper.total for paper in await till.papers(shop)) == PRICE - refund
        return
    await till.take(*till.stripe.return_refunded(dispute_id))
    assert await gone(till, shop) == {"refunds": refund, "disputes": PRICE - refund, "cash": -fees}
    assert sum(paper.total for paper in await till.papers(shop)) == 0


async def test_every_order_of_a_refund_and_a_dispute_that_gives_it_back(till: Till, shop: Shop) -> None:
    charge = till.stripe.charge_of(await till.buy(shop))
    events = till.stripe.refund(charge["id"], 2000)
    till.travel(days=3)
    events += till.stripe.open_dispute(charge["id"])
    (dispute_id,) = till.stripe.disputes
    for happens in (lambda known: till.stripe.close_dispute(known, "lost"), till.stripe.return_refunded):
        till.travel(seconds=7)
        events += happens(dispute_id)
    readings = [await told_by_stripe(till, event) for event in events]
    assert_one(await end_states(till, shop, "stripe", readings), count=24)
