"""The six ways in which the payment of an order may differ from what was asked (providers.md 1.2), at BTCPay Server."""

from decimal import Decimal

import pytest

from models.credits import CreditReason
from models.orders import OrderStatus
from models.payment_progress import CheckoutState
from services.merchants.errors import OrderPaidAlready
from services.merchants.views import OrderView
from tests.support.billing import Shop
from tests.support.merchants import Bazaar

FIVE_PERCENT = Decimal("2.50")


def owed(order: OrderView) -> list[tuple[CreditReason, str]]:
    return [(row.reason, row.amount) for row in order.owed]


async def test_topped_up_in_time(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    await bazaar.take(shop, bazaar.btcpay.pay(invoice, "0.4"))
    part = await bazaar.look_at(shop, order)
    assert (part.status, part.paid, part.invoices[0].received) == (OrderStatus.PENDING, False, "19.96")
    await bazaar.take(shop, bazaar.btcpay.pay(invoice, "0.6"))
    paid = await bazaar.look_at(shop, order)
    assert (paid.status, paid.paid, paid.is_late, owed(paid)) == (OrderStatus.PAID, True, False, [])
    assert await bazaar.commissions(shop) == [FIVE_PERCENT]


async def test_underpaid(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    events = bazaar.btcpay.pay(invoice, "0.4")
    bazaar.till.travel(hours=2)
    await bazaar.take(shop, [*events, *bazaar.btcpay.expire(invoice)])
    short = await bazaar.look_at(shop, order)
    assert (short.status, short.paid) == (OrderStatus.UNDERPAID, False)
    assert owed(short) == [(CreditReason.UNDERPAID, "19.96")]
    assert await bazaar.commissions(shop) == []
    titles = [note.title for note in await bazaar.till.notifications(shop)]
    assert titles.count("Order not paid in full") == 2
    assert bazaar.till.heard(shop, "order:paid") == []


async def test_paid_late(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    bazaar.till.travel(hours=2)
    await bazaar.take(shop, bazaar.btcpay.expire(invoice))
    assert (await bazaar.look_at(shop, order)).status is OrderStatus.EXPIRED
    bazaar.till.travel(hours=1)
    await bazaar.take(shop, bazaar.btcpay.pay(invoice))
    late = await bazaar.look_at(shop, order)
    # Money that came late is accepted, and told.
    assert (late.status, late.paid, late.is_late, owed(late)) == (OrderStatus.PAID, True, True, [])
    assert await bazaar.commissions(shop) == [FIVE_PERCENT]


async def test_overpaid(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    await bazaar.take(shop, bazaar.btcpay.pay(invoice, "1.5"))
    paid = await bazaar.look_at(shop, order)
    assert (paid.status, paid.paid) == (OrderStatus.PAID, True)
    assert owed(paid) == [(CreditReason.OVERPAID, "24.95")]
    # Our share is of the price, not of what nobody asked for.
    assert await bazaar.commissions(shop) == [FIVE_PERCENT]


async def test_replaced_or_never_confirmed(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    await bazaar.take(shop, bazaar.btcpay.pay(invoice, certain=False))
    assert (await bazaar.look_at(shop, order)).status is OrderStatus.PROCESSING
    await bazaar.take(shop, bazaar.btcpay.invalidate(invoice))
    failed = await bazaar.look_at(shop, order)
    assert (failed.status, failed.paid, owed(failed)) == (OrderStatus.FAILED, False, [])
    assert await bazaar.commissions(shop) == []


async def test_two_invoices_of_one_order_are_paid(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    first = await bazaar.begin(shop, order)
    bazaar.till.travel(hours=2)
    await bazaar.take(shop, bazaar.btcpay.expire(first))
    second = await bazaar.begin(shop, order)
    assert second != first
    await bazaar.take(shop, [*bazaar.btcpay.pay(second), *bazaar.btcpay.pay(first)])
    paid = await bazaar.look_at(shop, order)
    assert (paid.status, owed(paid)) == (OrderStatus.PAID, [(CreditReason.DUPLICATE, "49.90")])
    assert len(bazaar.till.heard(shop, "order:paid")) == 1
    assert await bazaar.commissions(shop) == [FIVE_PERCENT]
    with pytest.raises(OrderPaidAlready):
        await bazaar.pay(shop, order)


async def test_a_twin_that_a_lost_answer_has_left_is_owed_too(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    twin = {**bazaar.btcpay.invoices[invoice], "id": "TWIN"}
    bazaar.btcpay.invoices["TWIN"], bazaar.btcpay._payments["TWIN"] = twin, []
    await bazaar.take(shop, [*bazaar.btcpay.pay(invoice), *bazaar.btcpay.pay("TWIN", certain=False)])
    # What is not certain yet is owed to nobody.
    assert owed(await bazaar.look_at(shop, order)) == []
    await bazaar.take(shop, bazaar.btcpay.confirm("TWIN"))
    paid = await bazaar.look_at(shop, order)
    assert owed(paid) == [(CreditReason.DUPLICATE, "49.90")]
    assert [row.state for row in paid.invoices] == [CheckoutState.PAID, CheckoutState.PAID]
