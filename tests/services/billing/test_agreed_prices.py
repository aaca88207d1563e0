"""A renewal of another amount than was agreed is booked as it came, serves its period, and has people look at it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from models.audit import AuditEntry
from models.billing import PaymentEventType, SubscriptionStatus
from models.inbox import InboxState
from models.mail import OutboundMail
from models.users import User
from services.unit_of_work import RequestTrace
from tests.support.billing import PLATFORM, Shop, Till, money
from tests.support.changing import change, halfway, order, pay

pytestmark = pytest.mark.embedded

TITLE = "Renewal of another amount"


def charge(till: Till, subscription_id: str, **price: Any) -> None:
    """Have Stripe charge another price from now on, as somebody may at its dashboard."""
    till.stripe.subscriptions[subscription_id]["items"]["data"][0]["price"].update(price)


async def differences(till: Till, shop: Shop) -> list[tuple[str, str]]:
    """Return what was noted of renewals of other amounts: what was paid, and what was agreed."""
    async with till.units(PLATFORM) as uow:
        rows = await uow.session.scalars(
            select(AuditEntry).where(AuditEntry.tenant_id == shop.tenant_id, AuditEntry.action == "payment.differs")
        )
        return [(row.details["paid"], row.details["agreed"]) for row in rows]


@pytest.fixture
async def operator(till: Till, shop: Shop) -> AsyncIterator[str]:
    """Make the shop's owner a superuser for a while; returns the address."""
    async with till.units(PLATFORM) as uow:
        user = await uow.session.get_one(User, shop.owner.user_id)
        user.is_superuser = True
        address = user.email or ""
    yield address
    # Whoever stays one is told of the oddities of other tests.
    await till.change(User, shop.owner.user_id, is_superuser=False)


@pytest.mark.parametrize(
    ("unit_amount", "currency", "paid"),
    [(5999, "usd", "59.99 USD"), (100, "usd", "1.00 USD"), (4999, "eur", "49.99 EUR"), (0, "usd", "0.00 USD")],
    ids=["more", "less", "another currency", "nothing"],
)
async def test_it_is_booked_as_it_came_and_told_once(
    till: Till, shop: Shop, operator: str, *, unit_amount: int, currency: str, paid: str
) -> None:
    subscription_id = await till.buy(shop)
    before = await till.subscription(shop)
    till.travel(days=31)
    charge(till, subscription_id, unit_amount=unit_amount, currency=currency)
    till.stripe.subscriptions[subscription_id]["currency"] = currency
    told = till.stripe.renew(subscription_id)
    await till.take(*told, *told)
    renewed = await till.subscription(shop)
    assert renewed.status is SubscriptionStatus.ACTIVE
    assert renewed.current_period_start == before.current_period_end.replace(microsecond=0)
    payments = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.PAYMENT_SUCCESS]
    amount, code = paid.split()
    booked = [(money("49.99"), "USD"), (money(amount), code)]
    assert [(row.amount, row.currency) for row in payments] == [row for row in booked if row[0]]
    assert await till.credits(shop) == []
    assert await differences(till, shop) == [(paid, "49.99 USD")]
    assert [note.title for note in await till.notifications(shop)].count(TITLE) == 1
    async with till.units(PLATFORM) as uow:
        to_them = (OutboundMail.subject == TITLE, OutboundMail.recipient == operator)
        letter = (await uow.session.scalars(select(OutboundMail.body).where(*to_them))).one()
    assert subscription_id in letter
    assert paid in letter
    assert "49.99 USD" in letter


async def test_what_was_agreed_is_no_news(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    for _ in range(2):
        till.travel(days=31)
        await till.take(*till.stripe.renew(subscription_id))
    assert len(await till.payments(shop)) == 3
    assert await differences(till, shop) == []


@pytest.mark.parametrize("is_told", [True, False], ids=["the provider charges it", "the provider does not"])
@pytest.mark.parametrize("has_turned", [True, False], ids=["our clock has turned", "our clock has not"])
async def test_a_cheaper_plan_that_was_to_follow(till: Till, shop: Shop, *, is_told: bool, has_turned: bool) -> None:
    subscription_id = await till.buy(shop, plan="business")
    await till.billing.change_plan(shop.owner, await order(till, "starter", pays=False), trace=RequestTrace())
    if not is_told:
        charge(till, subscription_id, unit_amount=9900)
    till.travel(days=31)
    if has_turned:
        await till.billing.sweep()
    await till.take(*till.stripe.renew(subscription_id))
    assert await differences(till, shop) == ([] if is_told else [("99.00 USD", "19.99 USD")])


async def test_a_renewal_before_a_change_that_is_heard_of_after_it(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop, plan="starter")
    till.travel(days=31)
    late = till.stripe.renew(subscription_id)
    await till.take(late[-1])
    await halfway(till, shop)
    await till.take(*await pay(till, await change(till, shop.owner, "business")))
    await till.take(*late)
    assert [row.amount for row in await till.payments(shop)].count(money("19.99")) == 2
    assert len(await till.payments(shop)) == 3
    assert await differences(till, shop) == []
    assert (await till.view(shop.owner)).plan.slug == "business"


async def test_one_that_overtakes_its_purchase_waits_for_it(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    first = till.stripe.pay_checkout(view.session_id)
    subscription_id = till.stripe.sessions[view.session_id]["subscription"]
    till.travel(days=31)
    charge(till, subscription_id, unit_amount=5999)
    renewal = till.stripe.renew(subscription_id)
    await till.take(*renewal)
    paid = next(event for event in renewal if event["type"] == "invoice.paid")
    assert (await till.event_row(paid["id"])).state is InboxState.RECEIVED
    await till.take(*first)
    for event in renewal:
        await till.retry(event)
    assert sorted(row.amount for row in await till.payments(shop)) == [money("49.99"), money("59.99")]
    assert await differences(till, shop) == [("59.99 USD", "49.99 USD")]
