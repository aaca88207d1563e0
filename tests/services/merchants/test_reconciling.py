"""Merchants' accounts in reconciliation: with every webhook lost, ten minutes later orders are what providers hold."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from models.inbox import EventSource, InboxState
from models.merchants import PaymentIntegration
from models.orders import OrderInvoice, OrderStatus, RefundState
from models.reconciliations import ProviderFeed, Reconciliation
from services.billing.errors import NothingToReconcile
from services.billing.reconciling import accounts, feeds, merchants
from services.merchants import RefundInput
from services.merchants.views import OrderView
from services.unit_of_work import RequestTrace
from tests.fakes.server import Fault, Reply
from tests.support.billing import PLATFORM, Shop
from tests.support.merchants import FAKES, Bazaar
from tests.support.reconciling import Watch, open_watch


@pytest.fixture
async def watch(bazaar: Bazaar) -> Watch:
    return await open_watch(bazaar.till, bazaar.merchants)


async def feed_of(watch: Watch, account: UUID) -> ProviderFeed:
    async with watch.till.units(PLATFORM) as uow:
        return (await uow.session.scalars(select(ProviderFeed).where(ProviderFeed.integration_id == account))).one()


async def month_old(bazaar: Bazaar, watch: Watch, provider: str) -> tuple[Shop, OrderView]:
    """Return an order that was paid a month ago, about which nobody asks any more by itself."""
    shop = await bazaar.merchant(provider)
    order = await bazaar.order(shop)
    bazaar.fakes[provider].pay(await bazaar.begin(shop, order))
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, look_at=None, looks=32)
    watch.till.travel(days=25)
    return shop, order


def given_back(bazaar: Bazaar, session_id: str, amount: str) -> None:
    """Give money back at Coinbase Business, behind our back."""
    fake = bazaar.fakes["coinbase_business"]
    fake._refund(fake.checkouts[session_id], {"amount": amount, "currency": "USD"})
    fake.complete_refunds(session_id)


async def assert_settled(bazaar: Bazaar, watch: Watch, shop: Shop, order: OrderView) -> None:
    """Look for another ten minutes, and at everything: nothing changes any more, and nobody audits anything."""
    till, provider = bazaar.till, bazaar.accounts_of[shop.tenant_id].provider

    async def now() -> tuple[Any, ...]:
        heard = [event.name for event in till.ears.events]
        return await bazaar.look_at(shop, order), await bazaar.commissions(shop), await till.audit(shop), heard

    before = await now()
    await watch.pass_minutes(10)
    await watch.swept(provider)
    again = await watch.swept(provider)
    assert (again.state, again.found, again.changed) == ("done", 0, 0)
    assert await now() == before


@pytest.mark.parametrize("provider", FAKES)
async def test_an_order_is_paid_and_audited_once(bazaar: Bazaar, watch: Watch, provider: str) -> None:
    shop = await bazaar.merchant(provider)
    order = await bazaar.order(shop)
    bazaar.fakes[provider].pay(await bazaar.begin(shop, order))
    await watch.pass_minutes(10)
    assert (await bazaar.look_at(shop, order)).status is OrderStatus.PAID
    assert await bazaar.commissions(shop) == [Decimal("2.50")]
    assert len(bazaar.till.heard(shop, "order:paid")) == 1
    assert (await bazaar.till.audit(shop)).count("payment.reconciled") == 1
    await assert_settled(bazaar, watch, shop, order)


@pytest.mark.parametrize("provider", FAKES)
async def test_the_list_tells_what_nobody_looks_at(bazaar: Bazaar, watch: Watch, provider: str) -> None:
    shop = await bazaar.merchant(provider)
    order = await bazaar.order(shop)
    session_id = await bazaar.begin(shop, order)
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, look_at=None)
    bazaar.fakes[provider].pay(session_id)
    await watch.pass_minutes(10)
    assert (await bazaar.look_at(shop, order)).paid
    assert {event.source for event in await bazaar.events(shop)} == {EventSource.LISTING}
    assert "payment.reconciled" in await bazaar.till.audit(shop)


async def test_a_refund_at_the_provider_is_heard_of_in_ten_minutes(bazaar: Bazaar, watch: Watch) -> None:
    shop = await bazaar.merchant("coinbase_business")
    order = await bazaar.order(shop)
    session_id = await bazaar.begin(shop, order)
    bazaar.fakes["coinbase_business"].pay(session_id)
    await watch.pass_minutes(10)
    watch.till.travel(days=7)
    await watch.look()
    given_back(bazaar, session_id, "10.00")
    await watch.pass_minutes(10)
    seen = await bazaar.look_at(shop, order)
    assert (seen.status, seen.refunded, seen.commission) == (OrderStatus.PARTIALLY_REFUNDED, "10.00", "2.00")
    assert len(bazaar.till.heard(shop, "order:paid")) == 1
    await assert_settled(bazaar, watch, shop, order)


async def test_how_our_own_refund_ended_is_found_by_the_sweep(bazaar: Bazaar, watch: Watch) -> None:
    shop = await bazaar.merchant("coinbase_business")
    fake = bazaar.fakes["coinbase_business"]
    order = await bazaar.order(shop)
    session_id = await bazaar.begin(shop, order)
    await bazaar.take(shop, fake.pay(session_id))
    wanted = RefundInput(amount=Decimal(10), invoice_id=None)
    await bazaar.merchants.refunds.refund(shop.owner, order.id, wanted, trace=RequestTrace())
    # Of a refund that nobody told of and that moved nothing, then of its end.
    await watch.swept("coinbase_business")
    assert (await bazaar.look_at(shop, order)).refunds[0].state is RefundState.PENDING
    fake.complete_refunds(session_id)
    view = await watch.swept("coinbase_business")
    assert (await bazaar.look_at(shop, order)).refunds[0].state is RefundState.MADE
    assert (view.found, view.changed) == (1, 1)
    await assert_settled(bazaar, watch, shop, order)


@pytest.mark.parametrize("provider", FAKES)
async def test_a_sweep_finds_what_nobody_told(bazaar: Bazaar, watch: Watch, provider: str) -> None:
    shop, order = await month_old(bazaar, watch, provider)
    view = await watch.swept(provider)
    assert (view.state, view.checked, view.found, view.changed) == ("done", 1, 1, 1)
    assert (await bazaar.look_at(shop, order)).paid
    (event,) = await bazaar.events(shop)
    assert (event.source, event.state, event.reconciliation_id) == (EventSource.SWEEP, InboxState.HANDLED, view.id)
    assert (await bazaar.till.audit(shop)).count("payment.reconciled") == 1
    await assert_settled(bazaar, watch, shop, order)


async def test_the_night_begins_it_by_itself(bazaar: Bazaar, watch: Watch) -> None:
    """For a provider at which merchants alone have accounts."""
    shop, order = await month_old(bazaar, watch, "btcpay")
    watch.till.billing.reconciling._sweeps._nightly_hour = 0
    await watch.look()
    await watch.look()
    assert (await bazaar.look_at(shop, order)).paid
    async with watch.till.units(PLATFORM) as uow:
        rows = (await uow.session.scalars(select(Reconciliation).where(Reconciliation.provider == "btcpay"))).all()
    assert [(row.nightly_on, row.found) for row in rows] == [(watch.till.now.date(), 1)]


async def test_an_account_that_is_away_delays_nobody(bazaar: Bazaar, watch: Watch) -> None:
    shops = [await month_old(bazaar, watch, "btcpay") for _ in range(3)]
    view = bazaar.accounts_of[shops[1][0].tenant_id]
    await bazaar.till.change(PaymentIntegration, view.id, key_id="of somebody else"[:16])
    swept = await watch.swept("btcpay")
    assert (swept.state, swept.checked, swept.found) == ("done", 2, 2)
    paid = [(await bazaar.look_at(shop, order)).paid for shop, order in shops]
    assert paid == [True, False, True]


async def test_an_account_that_is_slow_on_purpose_is_left(
    bazaar: Bazaar, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merchants, "_PATIENCE_S", 0.2)
    shop, order = await month_old(bazaar, watch, "btcpay")
    bazaar.btcpay.always = Fault(delay_s=5)
    async with asyncio.timeout(3):
        swept = await watch.swept("btcpay")
    assert (swept.state, swept.checked, swept.last_error) == ("done", 0, None)
    bazaar.btcpay.always = None
    await watch.swept("btcpay")
    assert (await bazaar.look_at(shop, order)).paid


async def test_more_invoices_and_accounts_than_a_page_holds(
    bazaar: Bazaar, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merchants, "_PAGE", 2)
    sold = []
    for count in (3, 1, 2):
        shop = await bazaar.merchant("btcpay")
        for _ in range(count):
            order = await bazaar.order(shop)
            bazaar.btcpay.pay(await bazaar.begin(shop, order))
            sold.append((shop, order))
    swept = await watch.swept("btcpay")
    assert (swept.checked, swept.found) == (6, 6)
    assert all([(await bazaar.look_at(shop, order)).paid for shop, order in sold])


async def test_an_account_that_is_away_loses_nothing_of_its_list(bazaar: Bazaar, watch: Watch) -> None:
    shop = await bazaar.merchant("btcpay")
    order = await bazaar.order(shop)
    session_id = await bazaar.begin(shop, order)
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, look_at=None)
    bazaar.btcpay.pay(session_id)
    bazaar.btcpay.always = Fault(status=503)
    await watch.pass_minutes(10)
    feed = await feed_of(watch, bazaar.accounts_of[shop.tenant_id].id)
    assert feed.failures > 0
    assert feed.read_until is None
    bazaar.btcpay.always = None
    await watch.pass_minutes(10)
    assert (await bazaar.look_at(shop, order)).paid


async def test_a_list_without_an_end_is_left_after_some_pages(
    bazaar: Bazaar, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_MERCHANTS_PAGES", 3)
    shop = await bazaar.merchant("btcpay")
    await bazaar.begin(shop, await bazaar.order(shop))
    (invoice,) = bazaar.btcpay.invoices.values()
    monkeypatch.setattr(bazaar.btcpay, "_list", lambda _: Reply(200, [bazaar.btcpay._shown(invoice)] * 100))
    await watch.look()
    feed = await feed_of(watch, bazaar.accounts_of[shop.tenant_id].id)
    before = len(bazaar.btcpay.requests)
    await watch.till.billing.reconciling.read(feed.id)
    assert len(bazaar.btcpay.requests) - before == 3
    assert (await feed_of(watch, bazaar.accounts_of[shop.tenant_id].id)).read_until is not None


async def test_what_went_with_its_account(bazaar: Bazaar, watch: Watch) -> None:
    shop = await bazaar.merchant("btcpay")
    await bazaar.begin(shop, await bazaar.order(shop))
    await watch.look()
    account = bazaar.accounts_of[shop.tenant_id].id
    feed = await feed_of(watch, account)
    async with watch.till.units(PLATFORM) as uow:
        await uow.session.delete(await uow.session.get_one(PaymentIntegration, account))
    await watch.till.billing.reconciling.read(feed.id)
    await watch.till.billing.reconciling.read(uuid4())
    async with watch.till.units(PLATFORM) as uow:
        assert await uow.session.get(ProviderFeed, feed.id) is None


async def test_who_sells_nothing_is_not_asked(bazaar: Bazaar, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = await bazaar.merchant("btcpay")
    await watch.pass_minutes(10)
    assert bazaar.btcpay.requests == []
    await bazaar.begin(shop, await bazaar.order(shop))
    await watch.pass_minutes(10)
    assert bazaar.btcpay.requests
    monkeypatch.setattr(accounts, "INVOICES_OF", timedelta(0))
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, look_at=None)
    before = len(bazaar.btcpay.requests)
    await watch.pass_minutes(10)
    assert len(bazaar.btcpay.requests) == before


async def test_where_nobody_has_an_account(bazaar: Bazaar, watch: Watch) -> None:
    async with watch.till.units(PLATFORM) as uow:
        await uow.session.execute(text("DELETE FROM tenants_payment_integrations"))
        with pytest.raises(NothingToReconcile, match=r"No keys .* something at: "):
            await watch.till.billing.reconciling.begin(uow, "btcpay")
    await bazaar.merchant("btcpay")
    async with watch.till.units(PLATFORM) as uow:
        view = await watch.till.billing.reconciling.begin(uow, "BTCPay")
    assert view.provider == "btcpay"
