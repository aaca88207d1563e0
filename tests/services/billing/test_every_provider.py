"""Buying by each provider, and the six ways in which a payment may differ from what was asked (providers.md 1.2)."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, select

from core.errors import InvalidInput
from core.pagination import PageRequest
from models.billing import CheckoutSession, CheckoutState, Credit, CreditReason, PaymentEventType, SubscriptionStatus
from models.inbox import InboxState, ProviderEvent
from models.plans import BillingPeriod, PlanPrice
from providers.payments import ProviderUnavailable
from services.billing import checkout as checkout_module
from services.billing.actions import Action
from services.billing.errors import (
    CreditNotFound,
    CreditSettled,
    CurrencyNotTaken,
    PageBeingOpened,
    PlanNotFound,
    WebhookUnknown,
)
from services.billing.plans import PriceInput
from services.identity import Principal, SuperuserRequired
from tests.fakes.server import Fault, Reply
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.stalls import Stall, open_stall

PRICE = Decimal("49.99")


async def owed(till: Till, shop: Shop) -> list[tuple[CreditReason, Decimal]]:
    async with till.units(PLATFORM) as uow:
        rows = await uow.session.scalars(select(Credit).where(Credit.tenant_id == shop.tenant_id))
        return [(row.reason, row.amount) for row in rows]


async def ended(till: Till, shop: Shop) -> tuple[Any, ...]:
    """Return where subscription, purchase and payments of a shop stand."""
    (checkout,) = await till.checkouts(shop)
    subscription = await till.subscription(shop)
    booked = [row.amount for row in await till.payments(shop) if row.event_type is PaymentEventType.PAYMENT_SUCCESS]
    return subscription.status, checkout.state, booked


ACTIVE = (SubscriptionStatus.ACTIVE, CheckoutState.PAID, [PRICE])


async def test_a_purchase_told_twice_is_one_purchase(till: Till, shop: Shop, stall: Stall) -> None:
    created = await stall.begin(shop)
    events = stall.harness.paid(created)
    await stall.take(events)
    assert await ended(till, shop) == ACTIVE
    before = await till.state(shop)
    assert [await stall.bring(event) for event in events] == [False] * len(events)
    await till.work()
    assert await till.state(shop) == before
    assert len(till.heard(shop, "payment:received")) == 1
    (checkout,) = await till.checkouts(shop)
    assert (checkout.received, checkout.overpaid, checkout.is_late) == (PRICE, Decimal(0), False)
    assert (await till.subscription(shop)).payment_provider == stall.name


async def test_a_payment_that_fails_buys_nothing(till: Till, shop: Shop, stall: Stall) -> None:
    await stall.take(stall.harness.declined(await stall.begin(shop)))
    assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.FAILED, [])
    # However many events told of it, it failed once.
    assert [row.event_type for row in await till.payments(shop)] == [PaymentEventType.PAYMENT_FAILED]


async def test_a_provider_that_is_away_is_asked_again(till: Till, shop: Shop, stall: Stall) -> None:
    for event in stall.harness.paid(await stall.begin(shop)):
        await stall.bring(event)
    healthy = stall.fake.answer
    stall.fake.answer = lambda *_: Reply(503, None)
    await till.work()
    row_ids = [task.row_id for task in till.ears.tasks if task.name == "billing.apply"]
    async with till.units(PLATFORM) as uow:
        rows = list(await uow.session.scalars(select(ProviderEvent).where(ProviderEvent.id.in_(row_ids))))
    assert {(row.state, row.attempts) for row in rows} == {(InboxState.RECEIVED, 1)}
    stall.fake.answer = healthy
    for row_id in row_ids:
        await till.billing.apply(row_id)
    assert await ended(till, shop) == ACTIVE


class TestSixCases:
    """The table of providers.md 1.2, at BTCPay Server."""

    async def test_topped_up_in_time(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        created = await btcpay.begin(shop)
        await btcpay.take(encoded(btcpay, btcpay.fake.pay(created.session_id, "0.4")))
        assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.PENDING, [])
        (checkout,) = await till.checkouts(shop)
        assert checkout.received == Decimal("20.00")
        await btcpay.take(encoded(btcpay, btcpay.fake.pay(created.session_id, "0.6")))
        assert await ended(till, shop) == ACTIVE
        assert await owed(till, shop) == []

    async def test_underpaid(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        created = await btcpay.begin(shop)
        events = btcpay.fake.pay(created.session_id, "0.4")
        till.travel(hours=2)
        events += btcpay.fake.expire(created.session_id)
        await btcpay.take(encoded(btcpay, events))
        assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.UNDERPAID, [])
        assert await owed(till, shop) == [(CreditReason.UNDERPAID, Decimal("20.00"))]
        assert "payment.owed" in await till.audit(shop)
        assert [note.title for note in await till.notifications(shop)].count("Payment incomplete") == 2
        await settle(till, shop)

    async def test_paid_late(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        created = await btcpay.begin(shop)
        events = btcpay.fake.pay(created.session_id, "0.4")
        till.travel(hours=2)
        events += btcpay.fake.expire(created.session_id)
        await btcpay.take(encoded(btcpay, events))
        till.travel(hours=1)
        await btcpay.take(encoded(btcpay, btcpay.fake.pay(created.session_id, "0.6")))
        assert await ended(till, shop) == ACTIVE
        (checkout,) = await till.checkouts(shop)
        assert checkout.is_late
        # What was owed has bought the plan after all.
        assert await owed(till, shop) == []

    async def test_overpaid(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        created = await btcpay.begin(shop)
        await btcpay.take(encoded(btcpay, btcpay.fake.pay(created.session_id, "1.5")))
        assert await ended(till, shop) == ACTIVE
        (checkout,) = await till.checkouts(shop)
        assert (checkout.received, checkout.overpaid) == (Decimal("74.99"), Decimal("25.00"))
        assert await owed(till, shop) == [(CreditReason.OVERPAID, Decimal("25.00"))]

    async def test_never_confirmed(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        created = await btcpay.begin(shop)
        till.travel(minutes=5)
        events = btcpay.fake.pay(created.session_id, certain=False)
        await btcpay.take(encoded(btcpay, events))
        assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.PROCESSING, [])
        await btcpay.take(encoded(btcpay, btcpay.fake.invalidate(created.session_id)))
        assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.FAILED, [])

    async def test_paid_twice(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        created = await btcpay.begin(shop)
        # The answer to a first request was lost, so the server has two invoices of one purchase.
        twin = {**btcpay.fake.invoices[created.session_id], "id": "TWIN"}
        btcpay.fake.invoices["TWIN"], btcpay.fake._payments["TWIN"] = twin, []
        events = btcpay.fake.pay(created.session_id) + btcpay.fake.pay("TWIN", certain=False)
        await btcpay.take(encoded(btcpay, events))
        # What is not certain yet is owed to nobody.
        assert await owed(till, shop) == []
        await btcpay.take(encoded(btcpay, btcpay.fake.confirm("TWIN")))
        assert await ended(till, shop) == ACTIVE
        assert await owed(till, shop) == [(CreditReason.DUPLICATE, PRICE)]
        assert [note.title for note in await till.notifications(shop)].count("Paid twice") == 2

    async def test_paid_on_the_page_whose_address_was_lost(self, till: Till, shop: Shop, btcpay: Stall) -> None:
        created = await btcpay.begin(shop)
        twin = {**btcpay.fake.invoices[created.session_id], "id": "TWIN"}
        btcpay.fake.invoices["TWIN"], btcpay.fake._payments["TWIN"] = twin, []
        await btcpay.take(encoded(btcpay, btcpay.fake.pay("TWIN")))
        assert await ended(till, shop) == ACTIVE
        assert await owed(till, shop) == []
        # What the page that nobody pays any more tells is no news, and what is paid there is owed.
        await btcpay.take(encoded(btcpay, btcpay.fake.pay(created.session_id)))
        assert await ended(till, shop) == ACTIVE
        assert await owed(till, shop) == [(CreditReason.DUPLICATE, PRICE)]


@pytest.mark.parametrize(
    ("name", "pages"),
    [
        ("btcpay", "invoices"),
        ("coinbase_commerce", "charges"),
        ("coinbase_business", "checkouts"),
        ("paypal", "orders"),
    ],
)
async def test_pressing_twice_opens_one_page(till: Till, shop: Shop, name: str, pages: str) -> None:
    async with open_stall(till, name) as stall:
        # So slow that all of them would look for a page before any of them has made one.
        stall.fake.always = Fault(delay_s=0.3)
        shown = await asyncio.gather(*(stall.begin(shop) for _ in range(4)))
        assert len({page.session_id for page in shown}) == 1
        opened = [seen for seen in stall.fake.requests if seen.method == "POST" and seen.path.endswith(pages)]
        assert len(opened) == 1


async def test_who_died_while_asking_is_waited_for_no_longer_than_a_minute(
    till: Till, shop: Shop, btcpay: Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout_module, "_TURN_S", 0.01)
    created = await btcpay.begin(shop)
    (row,) = await till.checkouts(shop)
    until = till.now + timedelta(seconds=60)
    await till.change(CheckoutSession, row.id, url=None, session_id=None, opening_until=until)
    with pytest.raises(PageBeingOpened):
        await btcpay.begin(shop)
    till.travel(seconds=61)
    assert (await btcpay.begin(shop)).session_id == created.session_id
    assert len(btcpay.fake.invoices) == len(await till.checkouts(shop)) == 1


async def test_two_purchases_paid_in_the_wrong_order_buy_two_periods(till: Till, shop: Shop, btcpay: Stall) -> None:
    ends = []
    for is_reversed in (False, True):
        tenant = await till.shop()
        paid = []
        for _ in range(2):
            created = await btcpay.begin(tenant)
            paid.append(encoded(btcpay, btcpay.fake.pay(created.session_id)))
            # Until then the page that is open would be offered again.
            till.travel(hours=25)
        for events in reversed(paid) if is_reversed else paid:
            await btcpay.take(events)
        subscription = await till.subscription(tenant)
        ends.append(subscription.current_period_end - subscription.current_period_start)
    assert ends[0] == ends[1] > timedelta(days=55)


async def settle(till: Till, shop: Shop) -> None:
    """See as tenant and as operator what is owed, and settle it, once."""
    operator = replace(shop.owner, is_superuser=True)
    async with till.units(PLATFORM) as uow:
        (bought,) = (await till.billing.purchases(uow, shop.owner, PageRequest())).items
        assert (bought.state, bought.received) == (CheckoutState.UNDERPAID, Decimal("20.00"))
        assert (bought.url, bought.available_actions) == (None, [Action.CHECKOUT])
        with pytest.raises(SuperuserRequired):
            await till.billing.credits(uow, shop.owner, PageRequest())
        shown = (await till.billing.credits(uow, operator, PageRequest(size=100))).items
        (credit,) = [view for view in shown if view.tenant_id == shop.tenant_id]
        assert (await till.billing.settle_credit(uow, operator, credit_id=credit.id)).settled_at == uow.now
        with pytest.raises(CreditNotFound):
            await till.billing.settle_credit(uow, operator, credit_id=uuid4())
        with pytest.raises(CreditSettled):
            await till.billing.settle_credit(uow, operator, credit_id=credit.id)


def encoded(stall: Stall, events: list[Any]) -> list[bytes]:
    return [stall.fake.encode(event) for event in events]


async def test_a_payment_that_the_provider_does_not_know_yet_waits(till: Till, shop: Shop, btcpay: Stall) -> None:
    created = await btcpay.begin(shop)
    (*_, settled) = btcpay.fake.pay(created.session_id)
    hidden = btcpay.fake.invoices.pop(created.session_id)
    await btcpay.take([btcpay.fake.encode(settled)])
    row = await till.event_row(settled["originalDeliveryId"])
    assert (row.state, row.last_error) == (InboxState.RECEIVED, "unknown payment at the provider")
    btcpay.fake.invoices[created.session_id] = hidden
    await till.billing.apply(row.id)
    assert await ended(till, shop) == ACTIVE


async def test_a_signature_that_cannot_be_checked_now_is_to_be_delivered_again(
    till: Till, shop: Shop, paypal: Stall
) -> None:
    (event,) = paypal.harness.paid(await paypal.begin(shop))
    paypal.fake.answer = lambda *_: Reply(503, None)
    with pytest.raises(ProviderUnavailable) as refusal:
        await paypal.bring(event)
    assert refusal.value.retry_after_s


async def test_a_webhook_without_its_secret_is_closed(till: Till, stall: Stall) -> None:
    provider = stall.harness.provider
    for name in ("_webhook_secrets", "_webhook_ids", "_private_key"):
        if hasattr(provider, name):
            setattr(provider, name, ())
    with pytest.raises(WebhookUnknown):
        await stall.bring(stall.harness.other_event())


async def test_the_sender_is_known_by_its_signature(till: Till, stall: Stall) -> None:
    headers = stall.harness.deliver(stall.harness.other_event(), at=till.now).headers
    expected = "stripe" if stall.name == "liqpay" else stall.name
    assert till.billing.sender({name.upper(): value for name, value in headers.items()}) == expected


async def test_a_price_of_its_own(till: Till, shop: Shop) -> None:
    plan = await till.plan()
    operator = Principal(
        user_id=shop.owner.user_id, session_id=shop.owner.session_id, tenant_id=None, role=None, is_superuser=True
    )
    async with open_stall(till, "liqpay") as liqpay:
        # What LiqPay does not take is refused before anybody is sent there.
        await till.change(type(plan), plan.id, currency="RUB")
        with pytest.raises(CurrencyNotTaken):
            await liqpay.begin(shop)
        async with till.units(PLATFORM) as uow:
            price = PriceInput(
                plan_id=plan.id,
                provider="liqpay",
                billing_period=BillingPeriod.MONTHLY,
                amount=Decimal("1999.00"),
                currency="UAH",
            )
            shown = await till.billing.set_price(uow, operator, price)
            (listed,) = [view.offers for view in await till.billing.plans(uow) if view.id == plan.id]
            with pytest.raises(PlanNotFound):
                await till.billing.set_price(uow, operator, replace(price, plan_id=uuid4()))
            with pytest.raises(InvalidInput):
                await till.billing.set_price(uow, operator, replace(price, amount=Decimal("1.50"), currency="JPY"))
            with pytest.raises(SuperuserRequired):
                await till.billing.set_price(uow, shop.owner, price)
            # A price for a further name of the provider is one for the provider.
            till.billing._aliases = {"pay": "liqpay"}
            assert await till.billing.set_price(uow, operator, replace(price, provider="pay")) == shown
        assert listed == [shown]
        try:
            created = await liqpay.begin(shop)
        finally:
            await till.change(type(plan), plan.id, currency="USD")
        await liqpay.take(liqpay.harness.paid(created))
        assert (await till.view(shop.owner)).amount == Decimal("1999.00")
        assert [row.currency for row in await till.payments(shop)] == ["UAH"]
        # Other tests read the price list of this database too.
        async with till.units(PLATFORM) as uow:
            await uow.session.execute(delete(PlanPrice).where(PlanPrice.plan_id == plan.id))
