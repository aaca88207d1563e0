"""What is owed for money that bought nothing, when more comes after it was given back."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select

from models.billing import CheckoutState, Credit, CreditReason, SubscriptionStatus
from models.journal import Account
from services.billing.errors import CreditNotFound, CreditSettled
from services.billing.journal import balances
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.stalls import Stall

pytestmark = pytest.mark.embedded

PRICE = Decimal("49.99")


async def pay(stall: Stall, invoice_id: str, part: str) -> None:
    """Let a part of what was asked come, and the worker hear of it."""
    await stall.take([stall.fake.encode(event) for event in stall.fake.pay(invoice_id, part)])


async def credits_of(till: Till, shop: Shop) -> list[Credit]:
    async with till.units(PLATFORM) as uow:
        return list(await uow.session.scalars(select(Credit).where(Credit.tenant_id == shop.tenant_id)))


async def owed(till: Till, shop: Shop) -> list[tuple[CreditReason, Decimal]]:
    """Return what is owed and not settled."""
    return [(row.reason, row.amount) for row in await credits_of(till, shop) if row.settled_at is None]


async def settle(till: Till, shop: Shop) -> None:
    """Give back what is owed."""
    (credit,) = await credits_of(till, shop)
    async with till.units(PLATFORM) as uow:
        await till.billing.settle_credit(uow, replace(shop.owner, is_superuser=True), credit_id=credit.id)


async def held(till: Till, shop: Shop) -> dict[Account, Decimal]:
    async with till.units(PLATFORM) as uow:
        return {account: amount for (account, _), amount in (await balances(uow, shop.tenant_id)).items() if amount}


async def test_what_comes_after_an_overpayment_was_given_back_is_owed_anew(
    till: Till, shop: Shop, btcpay: Stall
) -> None:
    created = await btcpay.begin(shop)
    await pay(btcpay, created.session_id, "1.5")
    assert await owed(till, shop) == [(CreditReason.OVERPAID, Decimal("25.00"))]
    await settle(till, shop)
    assert await owed(till, shop) == []
    assert await held(till, shop) == {Account.CASH: PRICE, Account.REVENUE: -PRICE}

    await pay(btcpay, created.session_id, "0.2")
    assert await owed(till, shop) == [(CreditReason.OVERPAID, Decimal("9.99"))]
    assert (await held(till, shop))[Account.CREDITS] == Decimal("-9.99")
    assert [note.title for note in await till.notifications(shop)].count("Payment too large") == 4
    await settle(till, shop)
    assert await held(till, shop) == {Account.CASH: PRICE, Account.REVENUE: -PRICE}
    with pytest.raises(CreditSettled):
        await settle(till, shop)


async def test_the_rest_of_a_part_that_was_given_back_buys_nothing(till: Till, shop: Shop, btcpay: Stall) -> None:
    created = await btcpay.begin(shop)
    events = btcpay.fake.pay(created.session_id, "0.4")
    till.travel(hours=2)
    events += btcpay.fake.expire(created.session_id)
    await btcpay.take([btcpay.fake.encode(event) for event in events])
    await settle(till, shop)
    assert await held(till, shop) == {}

    await pay(btcpay, created.session_id, "0.6")
    assert await owed(till, shop) == [(CreditReason.UNDERPAID, Decimal("29.99"))]
    (checkout,) = await till.checkouts(shop)
    assert checkout.state is CheckoutState.UNDERPAID
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    assert await till.payments(shop) == []
    await settle(till, shop)
    assert await held(till, shop) == {}


async def test_settling_while_more_comes_loses_nothing(till: Till, btcpay: Stall) -> None:
    for _ in range(4):
        shop = await till.shop()
        created = await btcpay.begin(shop)
        await pay(btcpay, created.session_id, "1.5")
        await asyncio.gather(pay(btcpay, created.session_id, "0.2"), settle(till, shop))
        (checkout,) = await till.checkouts(shop)
        assert checkout.overpaid == Decimal("34.99")
        given_back = -(await held(till, shop)).get(Account.CREDITS, Decimal(0))
        assert [amount for _, amount in await owed(till, shop)] == ([given_back] if given_back else [])
        till.clock.offset += timedelta(minutes=1)


async def test_an_unknown_credit_cannot_be_settled(till: Till, shop: Shop) -> None:
    with pytest.raises(CreditNotFound):
        async with till.units(PLATFORM) as uow:
            await till.billing.settle_credit(uow, replace(shop.owner, is_superuser=True), credit_id=shop.tenant_id)
