"""Events of merchants' accounts: believed by the merchant's secret, stored once, applied to nobody else's orders."""

import asyncio
import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from models.inbox import InboxState, ProviderEvent
from models.merchants import PaymentIntegration
from models.orders import OrderInvoice, OrderStatus
from providers.payments import BadPayload, BadSignature
from services.billing.errors import WebhookUnknown
from services.merchants.errors import KeysUnreadable
from services.unit_of_work import RequestTrace, Task
from tests.fakes.server import Reply
from tests.support.billing import PLATFORM, Shop
from tests.support.merchants import FAKES, Bazaar, signed


async def receive(bazaar: Bazaar, event: Any, **where: Any) -> bool:
    body, headers = signed(bazaar.btcpay, event)
    return await bazaar.merchants.inbox.receive(
        **{"integration_id": None, "tenant": None, **where}, body=body, headers=headers, trace=RequestTrace()
    )


async def test_a_thousand_deliveries_are_one_payment(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    events = bazaar.btcpay.pay(await bazaar.begin(shop, order))
    gate = asyncio.Semaphore(8)

    async def bring(place: int) -> bool:
        async with gate:
            return await bazaar.bring(shop, bazaar.btcpay.redeliver(events[place % len(events)]))

    stored = await asyncio.gather(*(bring(place) for place in range(1000)))
    assert sum(stored) == len(events)
    tasks = [task for task in bazaar.till.ears.tasks if task.name == "billing.apply_merchants"]
    await asyncio.gather(*(bazaar.till.billing.apply_merchants(task.row_id) for task in [*tasks, *tasks]))
    # Two workers on one order: whoever comes second waits for the lock, or finds the event held.
    for task in tasks:
        await bazaar.till.billing.apply_merchants(task.row_id)
    assert (await bazaar.look_at(shop, order)).status is OrderStatus.PAID
    assert len(await bazaar.commissions(shop)) == 1
    assert len(bazaar.till.heard(shop, "order:paid")) == 1
    assert {row.state for row in await bazaar.events(shop)} == {InboxState.HANDLED}


async def test_the_tenant_may_be_named_by_id_or_slug(bazaar: Bazaar, shop: Shop) -> None:
    await bazaar.set_up(shop, "coinbase_commerce")
    order = await bazaar.order(shop)
    await bazaar.set_up(shop, "btcpay")
    (event, *_) = bazaar.btcpay.pay(await bazaar.begin(shop, order))
    assert await receive(bazaar, event, tenant=str(shop.tenant_id))
    assert not await receive(bazaar, event, tenant=f"shop-{shop.tenant_id.hex}")
    for tenant in ("", "nobody", str(uuid4()), "shop-x' OR 1=1"):
        with pytest.raises(WebhookUnknown):
            await receive(bazaar, event, tenant=tenant)
    with pytest.raises(WebhookUnknown):
        await receive(bazaar, event, integration_id=uuid4())


@pytest.mark.parametrize("provider", FAKES)
async def test_an_account_that_cannot_be_read_blocks_no_other(bazaar: Bazaar, shop: Shop, provider: str) -> None:
    others = [await bazaar.set_up(shop, name) for name in FAKES if name != provider]
    await bazaar.set_up(shop, provider)
    fake = bazaar.fakes[provider]
    (event, *_) = fake.pay(await bazaar.begin(shop, await bazaar.order(shop)))
    for view in others:
        await bazaar.till.change(PaymentIntegration, view.id, key_id="of somebody else"[:16])
    body, headers = signed(fake, event)
    try:
        assert await bazaar.merchants.inbox.receive(
            integration_id=None, tenant=str(shop.tenant_id), body=body, headers=headers, trace=RequestTrace()
        )
    finally:
        async with bazaar.till.units(PLATFORM) as uow:
            for view in others:
                await uow.session.delete(await uow.session.get_one(PaymentIntegration, view.id))


async def test_a_signature_must_be_the_merchants_own(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    (event, *_) = bazaar.btcpay.pay(await bazaar.begin(shop, order))
    body, headers = signed(bazaar.btcpay, event)
    other = await bazaar.merchant()
    view = await bazaar.set_up(other, "btcpay", webhook_secret="another secret")
    inbox = bazaar.merchants.inbox
    for sent, header in ((body, headers), (body, {}), (body + b" ", headers)):
        with pytest.raises(BadSignature):
            await inbox.receive(integration_id=view.id, tenant=None, body=sent, headers=header, trace=RequestTrace())
    nonsense = b"[]"
    signature = {"BTCPay-Sig": bazaar.btcpay.sign(nonsense, secret="another secret")}
    with pytest.raises(BadPayload):
        await inbox.receive(integration_id=view.id, tenant=None, body=nonsense, headers=signature, trace=RequestTrace())
    assert await bazaar.events(other) == []


async def test_a_secret_is_rolled_side_by_side(bazaar: Bazaar, shop: Shop) -> None:
    await bazaar.set_up(shop, "btcpay", webhook_secret="new, HelloWorld")
    order = await bazaar.order(shop)
    (event, *_) = bazaar.btcpay.pay(await bazaar.begin(shop, order))
    assert await bazaar.bring(shop, event)


async def test_another_merchants_order_is_out_of_reach(bazaar: Bazaar, shop: Shop) -> None:
    """Both have the same store, and one of them delivers the other's events to its own account."""
    order = await bazaar.order(shop)
    events = bazaar.btcpay.pay(await bazaar.begin(shop, order))
    other = await bazaar.merchant()
    await bazaar.take(other, events)
    rows = await bazaar.events(other)
    assert {(row.state, row.last_error) for row in rows} == {(InboxState.DEAD, "another tenant's order")}
    assert not (await bazaar.look_at(shop, order)).paid
    # Those who can mend it are told, and nobody else.
    titles = [note.title for note in await bazaar.till.notifications(other)]
    assert titles.count("Payment event given up") == 2 * len(rows)
    assert "Payment event given up" not in [note.title for note in await bazaar.till.notifications(shop)]
    assert "provider_event.dead" in await bazaar.till.audit(other)


NO_REFS: list[Any] = [None, "absent", 7, True, "", "x" * 256, ["an", "id"], {"id": None}, {}]
# Where the provider's events name what they are about.
REFS = {
    "btcpay": (("invoiceId",), ("storeId",)),
    "coinbase_commerce": (("data",), ("data", "id")),
    "coinbase_business": (("id",),),
}


def spoilt(event: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return an event in which something else, or nothing, stands at a place."""
    changed = copy.deepcopy(event)
    place = changed
    for key in path[:-1]:
        place = place[key]
        # Coinbase Commerce names a charge twice.
        place.pop("code", None)
    place[path[-1]] = value
    if value == "absent":
        del place[path[-1]]
    return changed


async def bring_as(bazaar: Bazaar, shop: Shop, event: Any, name: str) -> None:
    """Deliver an event under an id of its own, and let the worker apply it."""
    view = bazaar.accounts_of[shop.tenant_id]
    fake = bazaar.fakes[view.provider]
    ids = {"btcpay": {"deliveryId": name, "originalDeliveryId": name}, "coinbase_commerce": {"id": name}}
    body, headers = signed(fake, {**event, **ids.get(view.provider, {})})
    if view.provider == "coinbase_business":
        headers = fake.sign(body, x_event_id=name)
    await bazaar.merchants.inbox.receive(
        integration_id=view.id, tenant=None, body=body, headers=headers, trace=RequestTrace()
    )
    await bazaar.work()


@pytest.mark.parametrize("value", NO_REFS, ids=repr)
@pytest.mark.parametrize("provider", FAKES)
async def test_a_signed_event_that_names_nothing_is_ignored(bazaar: Bazaar, provider: str, value: Any) -> None:
    shop = await bazaar.merchant(provider)
    fake = bazaar.fakes[provider]
    order = await bazaar.order(shop)
    told = fake.pay(await bazaar.begin(shop, order))
    for number, path in enumerate(REFS[provider]):
        await bring_as(bazaar, shop, spoilt(told[-1], path, value), f"spoilt-{number}")
    rows = await bazaar.events(shop)
    assert {row.state for row in rows} == {InboxState.HANDLED}
    assert len(rows) == len(REFS[provider])
    # Nobody is troubled, and the event that is as it should be still pays.
    assert "provider_event.dead" not in await bazaar.till.audit(shop)
    await bazaar.take(shop, told)
    assert (await bazaar.look_at(shop, order)).paid
    assert len(await bazaar.commissions(shop)) == 1


@pytest.mark.parametrize("value", NO_REFS, ids=repr)
@pytest.mark.parametrize("provider", FAKES)
async def test_a_signed_body_that_is_no_event_is_refused(bazaar: Bazaar, provider: str, value: Any) -> None:
    shop = await bazaar.merchant(provider)
    fake = bazaar.fakes[provider]
    (*_, event) = fake.pay(await bazaar.begin(shop, await bazaar.order(shop)))
    kind = "eventType" if provider == "coinbase_business" else "type"
    with pytest.raises(BadPayload):
        await bazaar.bring(shop, spoilt(event, (kind,), value))
    assert await bazaar.events(shop) == []


async def test_other_sales_of_the_merchant_are_none_of_our_business(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    theirs = {**bazaar.btcpay.invoices[invoice], "id": "OWN", "metadata": {"orderId": "till 3"}}
    bazaar.btcpay.invoices["OWN"], bazaar.btcpay._payments["OWN"] = theirs, []
    gone = {**theirs, "id": "GONE", "metadata": {**bazaar.btcpay.invoices[invoice]["metadata"]}}
    for name in gone["metadata"]:
        if gone["metadata"][name] == str((await bazaar.rows(shop))[0].id):
            gone["metadata"][name] = str(uuid4())
    bazaar.btcpay.invoices["GONE"], bazaar.btcpay._payments["GONE"] = gone, []
    await bazaar.take(shop, [*bazaar.btcpay.pay("OWN"), *bazaar.btcpay.pay("GONE")])
    assert {row.state for row in await bazaar.events(shop)} == {InboxState.HANDLED}
    assert len(await bazaar.rows(shop)) == 1
    assert await bazaar.commissions(shop) == []


@pytest.mark.parametrize("change", [{"amount": "0.01"}, {"currency": "EUR"}])
async def test_a_price_that_was_not_asked_pays_nothing(bazaar: Bazaar, shop: Shop, change: dict[str, str]) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    # The merchant can change what lies at the merchant's own server.
    bazaar.btcpay.invoices[invoice].update(change)
    await bazaar.take(shop, bazaar.btcpay.pay(invoice))
    assert {row.state for row in await bazaar.events(shop)} == {InboxState.DEAD}
    assert not (await bazaar.look_at(shop, order)).paid
    assert await bazaar.commissions(shop) == []


async def test_a_provider_that_is_away_is_asked_again_and_given_up_in_a_day(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    (event, *_) = bazaar.btcpay.pay(await bazaar.begin(shop, order))[-1:]
    healthy = bazaar.btcpay.answer
    bazaar.btcpay.answer = lambda *_: Reply(503, None)  # type: ignore[method-assign]
    await bazaar.take(shop, [event])
    (row,) = await bazaar.events(shop)
    assert (row.state, row.attempts) == (InboxState.RECEIVED, 1)
    bazaar.till.travel(hours=25)
    await bazaar.till.billing.apply_merchants(row.id)
    (row,) = await bazaar.events(shop)
    assert row.state is InboxState.DEAD
    bazaar.btcpay.answer = healthy  # type: ignore[method-assign]
    # A superuser gives it another chance, and it takes the merchants' road again.
    operator = replace(shop.owner, is_superuser=True)
    async with bazaar.till.units(PLATFORM) as uow:
        await bazaar.till.billing.resend(uow, operator, row_id=row.id)
    assert bazaar.till.ears.tasks[-1] == Task("billing.apply_merchants", row.id)
    await bazaar.work()
    assert (await bazaar.look_at(shop, order)).paid


async def test_a_lost_ring_is_rung_again(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    (event, *_) = bazaar.btcpay.pay(await bazaar.begin(shop, order))[-1:]
    await bazaar.bring(shop, event)
    (row,) = await bazaar.events(shop)
    bazaar.till.ears.tasks.clear()
    bazaar._stepped = 0
    bazaar.till.travel(seconds=40)
    await bazaar.till.billing._inbox.sweep()
    assert Task("billing.apply_merchants", row.id) in bazaar.till.ears.tasks
    async with bazaar.till.units(PLATFORM) as uow:
        await uow.session.execute(
            update(ProviderEvent).where(ProviderEvent.id == row.id).values(next_attempt_at=bazaar.till.now)
        )


async def test_keys_that_cannot_be_read_now_ask_for_another_delivery(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    (event, *_) = bazaar.btcpay.pay(await bazaar.begin(shop, order))
    view = bazaar.accounts_of[shop.tenant_id]
    await bazaar.till.change(PaymentIntegration, view.id, key_id="of somebody else"[:16])
    with pytest.raises(KeysUnreadable) as refusal:
        await bazaar.bring(shop, event)
    # BTCPay never sends again what was answered with 4xx.
    assert refusal.value.retry_after_s
    async with bazaar.till.units(PLATFORM) as uow:
        await uow.session.delete(await uow.session.get_one(PaymentIntegration, view.id))


@pytest.mark.parametrize("provider", FAKES)
async def test_with_all_webhooks_lost_the_order_is_paid_all_the_same(bazaar: Bazaar, provider: str) -> None:
    shop = await bazaar.merchant(provider)
    order = await bazaar.order(shop)
    bazaar.fakes[provider].pay(await bazaar.begin(shop, order))
    bazaar.till.travel(minutes=6)
    await bazaar.merchants.sweep()
    await bazaar.work()
    assert (await bazaar.look_at(shop, order)).paid
    (row,) = await bazaar.rows(shop)
    assert row.looks == 1
    assert row.look_at is not None
    assert timedelta(minutes=59) < row.look_at - bazaar.till.now <= timedelta(hours=1)
    # Looking again, also twice at once, changes nothing.
    await asyncio.gather(bazaar.merchants.look(row.id), bazaar.merchants.look(row.id))
    assert len(await bazaar.commissions(shop)) == 1
    assert len(bazaar.till.heard(shop, "order:paid")) == 1
    assert {"order.paid", "payment.reconciled"} <= set(await bazaar.till.audit(shop))


@pytest.mark.parametrize("provider", FAKES)
async def test_a_payment_of_any_minute_is_found_soon(bazaar: Bazaar, provider: str) -> None:
    shop = await bazaar.merchant(provider)
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)

    async def six_minutes_later() -> OrderInvoice:
        bazaar.till.travel(minutes=6)
        await bazaar.merchants.sweep()
        await bazaar.work()
        (row,) = await bazaar.rows(shop)
        return row

    for _ in range(8):
        row = await six_minutes_later()
        assert (row.looks, row.look_at and row.look_at - bazaar.till.now < timedelta(minutes=5)) == (0, True)
        if row.expires_at is not None and row.expires_at < bazaar.till.now:
            # The page has closed, and what was paid at its last moment is still to be confirmed.
            break
    bazaar.fakes[provider].pay(invoice)
    assert (await six_minutes_later()).looks == 1
    assert (await bazaar.look_at(shop, order)).paid


async def test_once_the_page_is_closed_looks_become_rare(bazaar: Bazaar, shop: Shop) -> None:
    await bazaar.begin(shop, await bazaar.order(shop))
    (row,) = await bazaar.rows(shop)
    assert row.expires_at is not None
    bazaar.till.clock.offset += row.expires_at - bazaar.till.now + timedelta(minutes=29)
    waits = []
    for minutes in (0, 2, 0):
        bazaar.till.travel(minutes=minutes)
        await bazaar.merchants.look(row.id)
        (row,) = await bazaar.rows(shop)
        assert row.look_at is not None
        waits.append(round((row.look_at - bazaar.till.now) / timedelta(minutes=1)))
    assert waits == [5, 60, 24 * 60]


async def test_looking_ends_after_a_month(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    await bazaar.begin(shop, order)
    bazaar.till.travel(hours=2)
    (row,) = await bazaar.rows(shop)
    await bazaar.till.change(OrderInvoice, row.id, looks=31)
    await bazaar.merchants.look(row.id)
    (row,) = await bazaar.rows(shop)
    assert (row.looks, row.look_at) == (32, None)
    # Nor is an account looked at that is gone.
    await bazaar.till.change(OrderInvoice, row.id, integration_id=None)
    await bazaar.merchants.look(row.id)
    await bazaar.merchants.look(uuid4())


async def test_a_look_that_fails_is_counted(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    await bazaar.begin(shop, order)
    bazaar.till.travel(hours=2)
    (row,) = await bazaar.rows(shop)
    healthy = bazaar.btcpay.answer
    for status in (401, 503):
        bazaar.btcpay.answer = lambda *_, status=status: Reply(status, None)  # type: ignore[method-assign]
        await bazaar.merchants.look(row.id)
    bazaar.btcpay.answer = healthy  # type: ignore[method-assign]
    assert (await bazaar.rows(shop))[0].looks == 2
    (invoice,) = bazaar.btcpay.invoices.values()
    asked = invoice["amount"]
    invoice["amount"] = "0.01"
    await bazaar.merchants.look(row.id)
    invoice["amount"] = asked
    view = bazaar.accounts_of[shop.tenant_id]
    async with bazaar.till.units(PLATFORM) as uow:
        key_id = (await uow.session.get_one(PaymentIntegration, view.id)).key_id
    await bazaar.till.change(PaymentIntegration, view.id, key_id="of somebody else"[:16])
    await bazaar.merchants.look(row.id)
    await bazaar.till.change(PaymentIntegration, view.id, key_id=key_id)
    (row,) = await bazaar.rows(shop)
    assert row.looks == 4
    assert row.look_at is not None
    assert row.look_at - bazaar.till.now > timedelta(hours=23)
