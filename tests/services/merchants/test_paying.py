"""Paying an order: one open invoice whatever the crowd, at the merchant's own provider, for what the order costs."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.errors import InvalidInput
from models.orders import OrderInvoice, OrderStatus
from models.payment_progress import CheckoutState
from models.tenants import Tenant
from providers.payments import ProviderRejected, ProviderUnavailable
from services.billing.errors import FactRefused
from services.closed_tenants import TenantDeleted
from services.identity import RoleRequired
from services.merchants import PayInput, RefundInput
from services.merchants import paying as paying_module
from services.merchants.errors import (
    InvoiceBeingOpened,
    NoAccount,
    OrderAmountDiffers,
    OrderExists,
    OrderNotFound,
)
from services.unit_of_work import PlatformScope, RequestTrace, TenantScope
from tests.fakes.server import Fault, Reply
from tests.support.billing import Shop
from tests.support.merchants import FAKES, Bazaar


@pytest.mark.parametrize("provider", FAKES)
async def test_an_order_is_paid_at_the_merchants_own_provider(bazaar: Bazaar, provider: str) -> None:
    shop = await bazaar.merchant(provider)
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    events = bazaar.fakes[provider].pay(invoice)
    await bazaar.take(shop, events)
    paid = await bazaar.look_at(shop, order)
    assert (paid.status, paid.paid, paid.commission) == (OrderStatus.PAID, True, "2.50")
    assert paid.paid_at is not None
    # Told again, nothing happens again.
    assert [await bazaar.bring(shop, event) for event in events] == [False] * len(events)
    await bazaar.work()
    assert await bazaar.look_at(shop, order) == paid
    (heard,) = bazaar.till.heard(shop, "order:paid")
    assert (heard.payload["amount"], heard.payload["order_id"]) == ("49.90", str(order.id))
    assert [event.payload["status"] for event in bazaar.till.heard(shop, "order:updated")][-1] == "paid"
    # Owner and admin are told, once each; the platform's own news are not about this.
    titles = [note.title for note in await bazaar.till.notifications(shop)]
    assert titles.count("Order paid") == 2
    assert bazaar.till.heard(shop, "payment:received") == []
    assert {"order.payment_begun", "order.paid"} <= set(await bazaar.till.audit(shop))


@pytest.mark.parametrize("provider", FAKES)
async def test_two_who_pay_at_once_get_one_invoice(bazaar: Bazaar, provider: str) -> None:
    shop = await bazaar.merchant(provider)
    order = await bazaar.order(shop)
    slow = bazaar.fakes[provider]
    # So slow that all of them would look for an invoice before any of them has made one.
    slow.always = Fault(delay_s=0.3)
    urls = await asyncio.gather(*(bazaar.pay(shop, order) for _ in range(4)))
    assert len(set(urls)) == 1
    (row,) = await bazaar.rows(shop)
    assert row.url == urls[0]
    made = (
        slow.invoices if provider == "btcpay" else slow.charges if provider == "coinbase_commerce" else slow.checkouts
    )
    assert len(made) == 1


async def test_an_answer_that_was_lost_makes_no_second_invoice(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    # The first request only searches; the second makes the invoice, and its answer is lost.
    bazaar.btcpay.faults.extend([Fault(), Fault(cut="after")])
    with pytest.raises(ProviderUnavailable):
        await bazaar.pay(shop, order)
    url = await bazaar.pay(shop, order)
    assert [invoice["checkoutLink"] for invoice in bazaar.btcpay.invoices.values()] == [url]
    assert len(await bazaar.rows(shop)) == 1


async def test_whoever_died_while_asking_is_waited_for_no_longer_than_a_minute(
    bazaar: Bazaar, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paying_module, "_TURN_S", 0.01)
    order = await bazaar.order(shop)
    await bazaar.begin(shop, order)
    (row,) = await bazaar.rows(shop)
    until = bazaar.till.now + timedelta(seconds=60)
    await bazaar.till.change(OrderInvoice, row.id, url=None, session_id=None, opening_until=until)
    with pytest.raises(InvoiceBeingOpened):
        await bazaar.pay(shop, order)
    bazaar.till.travel(seconds=61)
    assert await bazaar.pay(shop, order) == row.url
    assert len(bazaar.btcpay.invoices) == 1


async def test_a_refusal_of_the_provider_is_told_and_leaves_the_order_payable(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    healthy = bazaar.btcpay.answer
    bazaar.btcpay.answer = lambda request, seen: (  # type: ignore[method-assign]
        Reply(422, {"code": "validation-error"}) if request.method == "POST" else healthy(request, seen)
    )
    with pytest.raises(ProviderRejected):
        await bazaar.pay(shop, order)
    assert (await bazaar.look_at(shop, order)).status is OrderStatus.PENDING
    bazaar.btcpay.answer = healthy  # type: ignore[method-assign]
    await bazaar.pay(shop, order)
    assert [row.state for row in await bazaar.rows(shop)].count(CheckoutState.PENDING) == 1


@pytest.mark.parametrize(("amount", "currency"), [("49.91", "USD"), ("0.01", "USD"), ("49.90", "EUR")])
async def test_the_stored_amount_is_what_counts(bazaar: Bazaar, shop: Shop, amount: str, currency: str) -> None:
    order = await bazaar.order(shop)
    wanted = PayInput(amount=Decimal(amount), currency=currency, success_url=None, cancel_url=None)
    with pytest.raises(OrderAmountDiffers):
        await bazaar.merchants.paying.pay(shop.owner, order.id, wanted, trace=RequestTrace())
    assert await bazaar.rows(shop) == []


async def test_without_an_account_nobody_can_pay(bazaar: Bazaar) -> None:
    shop = await bazaar.till.shop()
    order = await bazaar.order(shop)
    with pytest.raises(NoAccount):
        await bazaar.pay(shop, order)


async def test_no_invoice_is_opened_for_a_tenant_that_is_to_be_deleted(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    async with bazaar.till.units(PlatformScope("a test lets a tenant end")) as uow:
        (await uow.session.get_one(Tenant, shop.tenant_id)).deletion_due_at = uow.now + timedelta(days=1)
    with pytest.raises(TenantDeleted):
        await bazaar.pay(shop, order)
    assert await bazaar.rows(shop) == []
    with pytest.raises(TenantDeleted):
        await bazaar.order(shop)
    assert (await bazaar.look_at(shop, order)).status is OrderStatus.PENDING


async def test_members_and_other_merchants_reach_no_order(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    wanted = PayInput(amount=Decimal("49.90"), currency="USD", success_url=None, cancel_url=None)
    with pytest.raises(RoleRequired):
        await bazaar.merchants.paying.pay(shop.member, order.id, wanted, trace=RequestTrace())
    other = await bazaar.merchant()
    with pytest.raises(OrderNotFound):
        await bazaar.merchants.paying.pay(other.owner, order.id, wanted, trace=RequestTrace())


async def test_a_new_account_gets_new_invoices(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    first = await bazaar.begin(shop, order)
    # The same account with a new key: its open invoice is still good.
    await bazaar.set_up(shop, "btcpay")
    assert await bazaar.begin(shop, order) == first
    await bazaar.set_up(shop, "coinbase_commerce")
    second = await bazaar.begin(shop, order)
    assert second in bazaar.fakes["coinbase_commerce"].charges
    # The former account's invoice can be paid all the same, and its events are believed.
    integration = (await bazaar.rows(shop))[0].integration_id
    for event in bazaar.btcpay.pay(first):
        body = bazaar.btcpay.encode(event)
        headers = {"BTCPay-Sig": bazaar.btcpay.sign(body)}
        await bazaar.merchants.inbox.receive(
            integration_id=integration, tenant=None, body=body, headers=headers, trace=RequestTrace()
        )
    await bazaar.work()
    assert (await bazaar.look_at(shop, order)).paid


async def test_an_account_that_was_removed_and_set_up_anew_has_its_invoices_back(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    events = bazaar.btcpay.pay(await bazaar.begin(shop, order))
    await bazaar.take(shop, events)
    paid = await bazaar.look_at(shop, order)
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        await bazaar.merchants.integrations.remove(uow, shop.owner, provider=None)
    assert [row.integration_id for row in await bazaar.rows(shop)] == [None]
    view = await bazaar.set_up(shop, "btcpay")
    await bazaar.take(shop, [bazaar.btcpay.redeliver(event) for event in events])
    again = await bazaar.look_at(shop, order)
    assert (again.invoices, again.owed, again.commission) == (paid.invoices, [], "2.50")
    assert [row.integration_id for row in await bazaar.rows(shop)] == [view.id]
    # So that it can be refunded.
    wanted = RefundInput(amount=None, invoice_id=None)
    whole = await bazaar.merchants.refunds.refund(shop.owner, order.id, wanted, trace=RequestTrace())
    assert whole.status is OrderStatus.REFUNDED


async def test_an_account_set_up_anew_has_an_invoice_that_nobody_got_an_answer_for(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, session_id=None, url=None, integration_id=None)
    await bazaar.take(shop, bazaar.btcpay.pay(invoice))
    (row,) = await bazaar.rows(shop)
    assert (row.session_id, row.integration_id) == (invoice, bazaar.accounts_of[shop.tenant_id].id)


async def test_an_invoice_of_another_provider_is_refused(bazaar: Bazaar, shop: Shop) -> None:
    """A merchant may write at one provider that an invoice there is the one that we have opened at another."""
    order = await bazaar.order(shop)
    told = await bazaar.read(shop, bazaar.btcpay.pay(await bazaar.begin(shop, order))[-1])
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        with pytest.raises(FactRefused):
            await bazaar.merchants.inbox.apply(uow, replace(told, provider="coinbase_commerce"))
    assert not (await bazaar.look_at(shop, order)).paid
    assert len(await bazaar.rows(shop)) == 1


async def test_an_event_that_overtakes_the_answer_finds_its_order(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, session_id=None, url=None)
    await bazaar.take(shop, bazaar.btcpay.pay(invoice))
    assert (await bazaar.look_at(shop, order)).paid


async def test_a_twin_makes_no_third_invoice(bazaar: Bazaar, shop: Shop) -> None:
    fake = bazaar.btcpay
    # Whichever of the two rows is looked at first, which their random ids decide.
    for number in range(8):
        order = await bazaar.order(shop)
        url, twin = await bazaar.pay(shop, order), f"TWIN{number}"
        invoice = next(row for row in fake.invoices.values() if row["checkoutLink"] == url)
        fake.invoices[twin], fake._payments[twin] = {**invoice, "id": twin}, []
        await bazaar.take(shop, fake.pay(twin, "0.1", certain=False))
        assert len(await bazaar.invoices(shop, order)) == 2
        assert await bazaar.pay(shop, order) == url
    assert len(fake.invoices) == 16


async def test_a_reference_names_one_order(bazaar: Bazaar, shop: Shop) -> None:
    async def make() -> Any:
        try:
            return await bazaar.order(shop, external_reference="A-1")
        except OrderExists as refusal:
            return refusal

    made = await asyncio.gather(*(make() for _ in range(4)))
    assert sum(isinstance(found, OrderExists) for found in made) == 3
    # Another merchant's are its own.
    await bazaar.order(await bazaar.merchant(), external_reference="A-1")


@pytest.mark.parametrize(
    ("amount", "currency"), [("1.001", "USD"), ("0", "USD"), ("1.5", "JPY"), ("1.123456789", "BTC")]
)
async def test_an_amount_must_fit_its_currency(bazaar: Bazaar, shop: Shop, amount: str, currency: str) -> None:
    with pytest.raises(InvalidInput):
        await bazaar.order(shop, amount, currency)
