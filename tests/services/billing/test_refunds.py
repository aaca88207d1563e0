"""Giving payments back at providers that never tell of it."""

from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest

from models.billing import PaymentEventType
from providers.payments import ProviderUnavailable
from services.billing.errors import NothingLeftToRefund, PaymentNotFound, RefundIsTold
from services.billing.refunds import PaymentRefundView
from services.identity import SuperuserRequired
from services.unit_of_work import RequestTrace
from tests.fakes.server import Fault
from tests.support.billing import Shop, Till
from tests.support.stalls import open_stall

pytestmark = pytest.mark.embedded


async def refund(till: Till, shop: Shop, amount: str | None = None) -> PaymentRefundView:
    """Give a shop's one payment back, as an operator."""
    paid = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.PAYMENT_SUCCESS]
    operator = replace(shop.owner, is_superuser=True)
    wanted = None if amount is None else Decimal(amount)
    return await till.billing.refund(operator, paid[0].id, wanted, trace=RequestTrace())


async def test_what_btcpay_was_asked_for_is_booked(till: Till, shop: Shop) -> None:
    async with open_stall(till, "btcpay") as stall:
        await stall.take(stall.harness.paid(await stall.begin(shop)))
        shown = await refund(till, shop, "10.00")
        assert (shown.amount, shown.refunded, bool(shown.claim_url)) == (Decimal("10.00"), Decimal("10.00"), True)
        assert (await refund(till, shop)).refunded == Decimal("49.99")
        with pytest.raises(NothingLeftToRefund):
            await refund(till, shop)
        made = [Decimal(row["amount"]) for row in stall.fake.pull_payments.values()]
        assert sorted(made) == [Decimal("10.00"), Decimal("39.99")]
    assert await till.balance(shop, "refunds") == Decimal("49.99")
    assert [paper.kind for paper in await till.papers(shop)] == ["invoice", "credit_note", "credit_note"]
    assert (await till.audit(shop)).count("payment.refund_made") == 2


async def test_an_answer_that_was_lost_gives_nothing_back_twice(till: Till, shop: Shop) -> None:
    async with open_stall(till, "btcpay") as stall:
        await stall.take(stall.harness.paid(await stall.begin(shop)))
        healthy = len(stall.fake.requests)
        await refund(till, shop, "10.00")
        asked = len(stall.fake.requests) - healthy
        # The last request makes it, and its answer is lost.
        stall.fake.faults.extend([*(Fault() for _ in range(asked - 1)), Fault(cut="after")])
        with pytest.raises(ProviderUnavailable):
            await refund(till, shop, "5.00")
        assert await till.balance(shop, "refunds") == Decimal("10.00")
        await refund(till, shop, "5.00")
        assert len(stall.fake.pull_payments) == 2
    assert await till.balance(shop, "refunds") == Decimal("15.00")


async def test_what_was_given_back_by_hand_is_noted(till: Till, shop: Shop) -> None:
    async with open_stall(till, "coinbase_commerce") as stall:
        await stall.take(stall.harness.paid(await stall.begin(shop)))
        assert (await refund(till, shop)).claim_url is None
    assert await till.balance(shop, "refunds") == Decimal("49.99")


async def test_what_cannot_be_given_back_here(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    with pytest.raises(RefundIsTold):
        await refund(till, shop)
    (paid,) = await till.payments(shop)
    with pytest.raises(SuperuserRequired):
        await till.billing.refund(shop.owner, paid.id, None, trace=RequestTrace())
    with pytest.raises(PaymentNotFound):
        operator = replace(shop.owner, is_superuser=True)
        await till.billing.refund(operator, uuid4(), None, trace=RequestTrace())
    assert await till.balance(shop, "refunds") == 0
