"""Refunds at the merchant's own provider: once, no more than there is, and our commission goes back with them."""

import asyncio
from decimal import Decimal
from typing import NoReturn
from uuid import UUID

import pytest

from models.journal import Account
from models.orders import OrderInvoice, OrderStatus, RefundState
from providers.payments import ProviderRejected, ProviderUnavailable
from providers.payments.btcpay import BtcPayProvider
from services.billing.inbox import Told
from services.identity import RoleRequired
from services.merchants import RefundInput
from services.merchants.errors import NothingToRefund, RefundUnderWay
from services.merchants.views import OrderView
from services.unit_of_work import RequestTrace, TenantScope
from tests.fakes.server import Fault
from tests.support.billing import Shop
from tests.support.merchants import Bazaar


async def paid(bazaar: Bazaar, shop: Shop, part: str = "1") -> OrderView:
    order = await bazaar.order(shop)
    await bazaar.take(shop, bazaar.btcpay.pay(await bazaar.begin(shop, order), part))
    return order


async def refund(
    bazaar: Bazaar, shop: Shop, order: OrderView, amount: str | None = None, invoice: UUID | None = None
) -> OrderView:
    wanted = RefundInput(amount=None if amount is None else Decimal(amount), invoice_id=invoice)
    return await bazaar.merchants.refunds.refund(shop.owner, order.id, wanted, trace=RequestTrace())


async def test_commission_goes_back_in_proportion_and_to_nothing(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop)
    partly = await refund(bazaar, shop, order, "16.63")
    assert (partly.status, partly.paid, partly.refunded) == (OrderStatus.PARTIALLY_REFUNDED, True, "16.63")
    assert partly.refunds[0].claim_url is not None
    assert partly.commission == "1.66"
    again = await refund(bazaar, shop, order, "16.63")
    assert (again.commission, again.refunded) == ("0.83", "33.26")
    whole = await refund(bazaar, shop, order)
    assert (whole.status, whole.refunded, whole.commission) == (OrderStatus.REFUNDED, "49.90", "0.00")
    steps = await bazaar.commissions(shop)
    assert (await bazaar.till.audit(shop)).count("order.refund_asked") == 3
    assert steps == [Decimal("2.50"), Decimal("-0.84"), Decimal("-0.83"), Decimal("-0.83")]
    assert await bazaar.journal(shop) == {Account.RECEIVABLES: 0, Account.COMMISSIONS: 0}
    with pytest.raises(NothingToRefund):
        await refund(bazaar, shop, order, "0.01")
    assert [event.payload["status"] for event in bazaar.till.heard(shop, "order:updated")].count("refunded") == 1


async def test_what_nobody_asked_for_goes_back_first(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop, "1.5")
    assert [(row.reason, row.amount) for row in (await bazaar.look_at(shop, order)).owed] == [("overpaid", "24.95")]
    settled = await refund(bazaar, shop, order, "24.95")
    assert (settled.status, settled.owed, settled.commission) == (OrderStatus.PAID, [], "2.50")
    assert await bazaar.commissions(shop) == [Decimal("2.50")]


async def test_an_underpaid_invoice_is_given_back_by_its_id(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    events = bazaar.btcpay.pay(invoice, "0.4")
    bazaar.till.travel(hours=2)
    await bazaar.take(shop, [*events, *bazaar.btcpay.expire(invoice)])
    short = await bazaar.look_at(shop, order)
    settled = await refund(bazaar, shop, order, invoice=short.owed[0].invoice_id)
    assert settled.owed == []
    with pytest.raises(NothingToRefund):
        await refund(bazaar, shop, order)


async def test_two_who_ask_at_once_give_back_once(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop)
    bazaar.btcpay.faults.extend([Fault(delay_s=0.3), Fault(delay_s=0.3)])
    found = await asyncio.gather(*(refund(bazaar, shop, order, "10") for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(outcome, OrderView) for outcome in found) == 1
    assert sum(isinstance(outcome, RefundUnderWay) for outcome in found) == 2
    assert len(bazaar.btcpay.pull_payments) == 1


async def test_an_answer_that_was_lost_gives_back_once(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop)
    # The invoice, its payments and the refunds of before are read first.
    bazaar.btcpay.faults.extend([Fault(), Fault(), Fault(), Fault(cut="after")])
    with pytest.raises(ProviderUnavailable):
        await refund(bazaar, shop, order, "10")
    assert len(bazaar.btcpay.pull_payments) == 1
    unknown = await bazaar.look_at(shop, order)
    assert (unknown.refunds[0].state, unknown.refunded) == (RefundState.ASKED, "0.00")
    # Another amount could give back twice.
    with pytest.raises(RefundUnderWay):
        await refund(bazaar, shop, order, "11")
    known = await refund(bazaar, shop, order, "10")
    assert (known.refunds[0].state, known.refunded) == (RefundState.PENDING, "10.00")
    assert len(bazaar.btcpay.pull_payments) == 1


@pytest.mark.parametrize("has_heard", [True, False], ids=["the provider has heard it", "it has not"])
async def test_a_refund_whose_asker_dies_is_driven_on(bazaar: Bazaar, shop: Shop, *, has_heard: bool) -> None:
    order = await paid(bazaar, shop)
    (row,) = await bazaar.rows(shop)
    # However often it was looked at before.
    await bazaar.till.change(OrderInvoice, row.id, looks=32, look_at=None)
    await die_asking(bazaar, shop, order, has_heard=has_heard)
    assert len(bazaar.btcpay.pull_payments) == int(has_heard)
    left = await bazaar.look_at(shop, order)
    assert (left.refunds[0].state, left.refunded) == (RefundState.ASKED, "0.00")
    # Somebody may still be asking.
    bazaar.till.travel(seconds=50)
    await sweep(bazaar)
    assert (await bazaar.look_at(shop, order)).refunds[0].state is RefundState.ASKED
    bazaar.till.travel(seconds=11)
    await sweep(bazaar)
    booked = await bazaar.look_at(shop, order)
    assert [(one.state, one.amount) for one in booked.refunds] == [(RefundState.PENDING, "10.00")]
    assert (booked.refunded, booked.commission) == ("10.00", "2.00")
    assert booked.refunds[0].claim_url is not None
    assert len(bazaar.btcpay.pull_payments) == 1


async def test_a_refund_that_is_driven_on_may_be_refused(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop)
    await die_asking(bazaar, shop, order, has_heard=False)
    bazaar.till.travel(seconds=61)
    # The invoice, its payments and the refunds of before are read first.
    bazaar.btcpay.faults.extend([Fault(), Fault(), Fault(), Fault(status=422)])
    await sweep(bazaar)
    refused = await bazaar.look_at(shop, order)
    assert (refused.refunds[0].state, refused.refunded) == (RefundState.FAILED, "0.00")
    # The money is there to be given back once more.
    assert (await refund(bazaar, shop, order)).refunded == "49.90"


async def test_a_refund_is_driven_on_until_the_provider_answers(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop)
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, looks=32, look_at=None)
    await die_asking(bazaar, shop, order, has_heard=True)
    bazaar.till.travel(seconds=61)
    for _ in range(3):
        bazaar.btcpay.always = Fault(status=500)
        await sweep(bazaar)
        assert (await bazaar.look_at(shop, order)).refunds[0].state is RefundState.ASKED
        bazaar.btcpay.always = None
        bazaar.till.travel(minutes=59)
        await sweep(bazaar)
        assert (await bazaar.look_at(shop, order)).refunds[0].state is RefundState.ASKED
        bazaar.till.travel(minutes=2)
    await sweep(bazaar)
    assert (await bazaar.look_at(shop, order)).refunds[0].state is RefundState.PENDING
    assert len(bazaar.btcpay.pull_payments) == 1


async def test_two_sweepers_drive_a_refund_on_once(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop)
    await die_asking(bazaar, shop, order, has_heard=False)
    bazaar.till.travel(seconds=61)
    (row,) = await bazaar.rows(shop)
    bazaar.btcpay.always = Fault(delay_s=0.1)
    await asyncio.gather(*(bazaar.merchants.look(row.id) for _ in range(3)))
    assert (await bazaar.look_at(shop, order)).refunded == "10.00"
    assert len(bazaar.btcpay.pull_payments) == 1


async def die_asking(bazaar: Bazaar, shop: Shop, order: OrderView, *, has_heard: bool) -> None:
    """Ask for a refund of 10 in a process that is gone before it has booked the answer, as `kill -9` leaves it."""

    async def gone(*_: object) -> NoReturn:
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        if has_heard:
            patch.setattr(bazaar.merchants.refunds, "_record", gone)
        else:
            patch.setattr(BtcPayProvider, "refund", gone)
        with pytest.raises(asyncio.CancelledError):
            await refund(bazaar, shop, order, "10")


async def sweep(bazaar: Bazaar) -> None:
    await bazaar.merchants.sweep()
    await bazaar.work()


async def test_what_the_provider_refuses_is_not_given_back(bazaar: Bazaar) -> None:
    shop = await bazaar.merchant("coinbase_commerce")
    order = await bazaar.order(shop)
    await bazaar.take(shop, bazaar.fakes["coinbase_commerce"].pay(await bazaar.begin(shop, order)))
    with pytest.raises(ProviderRejected):
        await refund(bazaar, shop, order)
    refused = await bazaar.look_at(shop, order)
    assert (refused.status, refused.refunds[0].state) == (OrderStatus.PAID, RefundState.FAILED)
    assert await bazaar.commissions(shop) == [Decimal("2.50")]


async def test_refunds_that_the_provider_tells_and_ours_are_the_same_money(bazaar: Bazaar) -> None:
    shop = await bazaar.merchant("coinbase_business")
    fake = bazaar.fakes["coinbase_business"]
    order = await bazaar.order(shop)
    session = await bazaar.begin(shop, order)
    await bazaar.take(shop, fake.pay(session))
    asked = await refund(bazaar, shop, order, "10")
    assert (asked.refunded, asked.refunds[0].state) == ("10.00", RefundState.PENDING)
    await bazaar.take(shop, fake.complete_refunds(session, succeed=True))
    told = await bazaar.look_at(shop, order)
    assert (told.refunded, told.commission, told.refunds[0].state) == ("10.00", "2.00", RefundState.MADE)


@pytest.mark.parametrize("is_timed", [True, False])
async def test_a_refund_that_fails_later_is_undone(bazaar: Bazaar, is_timed: bool) -> None:
    shop = await bazaar.merchant("coinbase_business")
    fake = bazaar.fakes["coinbase_business"]
    order = await bazaar.order(shop)
    session = await bazaar.begin(shop, order)
    events = fake.pay(session)
    await bazaar.take(shop, events)
    assert (await refund(bazaar, shop, order, "10")).commission == "2.00"
    # A word of the refund while it is under way, which a slow worker may apply after the newest one.
    under_way = await bazaar.read(shop, events[-1])
    await apply(bazaar, shop, under_way)
    before = fake.checkouts[session]["updatedAt"]
    bazaar.till.travel(minutes=1)
    failed = fake.complete_refunds(session, succeed=False)
    if not is_timed:
        # Nobody promises that a failure is a change of the checkout.
        fake.checkouts[session]["updatedAt"] = before
    await bazaar.take(shop, failed)
    for _ in range(2):
        undone = await bazaar.look_at(shop, order)
        assert (undone.status, undone.refunded, undone.commission) == (OrderStatus.PAID, "0.00", "2.50")
        assert undone.refunds[0].state is RefundState.FAILED
        await apply(bazaar, shop, under_way)
    assert await bazaar.commissions(shop) == [Decimal("2.50"), Decimal("-0.50"), Decimal("0.50")]
    # The money is there to be given back once more.
    assert (await refund(bazaar, shop, order)).refunded == "49.90"
    await bazaar.take(shop, fake.complete_refunds(session, succeed=True))
    whole = await bazaar.look_at(shop, order)
    assert (whole.status, whole.commission) == (OrderStatus.REFUNDED, "0.00")


async def test_a_refund_whose_failure_was_told_too_early_is_found(bazaar: Bazaar) -> None:
    shop = await bazaar.merchant("coinbase_business")
    fake = bazaar.fakes["coinbase_business"]
    order = await bazaar.order(shop)
    session = await bazaar.begin(shop, order)
    await bazaar.take(shop, fake.pay(session))
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, looks=32, look_at=None)
    assert (await refund(bazaar, shop, order, "10")).commission == "2.00"
    fake.complete_refunds(session, succeed=False)
    bazaar.till.travel(minutes=6)
    await bazaar.merchants.sweep()
    await bazaar.work()
    undone = await bazaar.look_at(shop, order)
    assert (undone.status, undone.commission) == (OrderStatus.PAID, "2.50")


async def apply(bazaar: Bazaar, shop: Shop, told: Told) -> None:
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        await bazaar.merchants.inbox.apply(uow, told)


async def test_only_the_owner_gives_back(bazaar: Bazaar, shop: Shop) -> None:
    order = await paid(bazaar, shop)
    for actor in (shop.admin, shop.member):
        with pytest.raises(RoleRequired):
            await bazaar.merchants.refunds.refund(
                actor, order.id, RefundInput(amount=None, invoice_id=None), trace=RequestTrace()
            )
