"""Commission: by plan, half up to the currency's last decimal, and gone in proportion to what goes back.

An ordinary run tries a few dozen sequences; `--hypothesis-profile=thorough` tries ten thousand.
"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from core.money import exponent, share_of
from models.billing import Plan, Subscription
from models.journal import Account
from models.merchants import CommissionLog
from models.orders import Order, OrderInvoice, OrderStatus
from providers.payments import DisputeClosed, DisputeOpened, OrderTags, PaymentState, PaymentStatus, Reading
from services.billing.errors import NotThereYet
from services.billing.inbox import Told
from services.billing.journal import balances
from services.unit_of_work import UnitOfWork
from tests.support.billing import PLATFORM, Shop
from tests.support.merchants import Bazaar
from tests.support.orders_of_facts import Undo

pytestmark = pytest.mark.embedded

SEQUENCES = settings().max_examples if settings().max_examples > 1000 else 40
PRICE = Decimal("49.90")
DISPUTES = {"first": Decimal("20.00"), "second": Decimal("49.90")}

cents = st.integers(0, 4990).map(lambda number: Decimal(number) / 100)
outcomes = st.fixed_dictionaries({name: st.sampled_from([None, "open", "won", "lost"]) for name in DISPUTES})


@pytest.mark.parametrize(
    ("amount", "percent", "currency", "share"),
    [
        ("49.90", "5", "USD", "2.50"),
        ("10.10", "5", "USD", "0.51"),
        ("10.09", "5", "USD", "0.50"),
        ("1010", "5", "JPY", "51"),
        ("1.010", "0.05", "KWD", "0.001"),
        ("0.00000010", "5", "BTC", "0.00000001"),
        ("0.00000009", "5", "BTC", "0.00000000"),
        ("1.000010", "5", "USDC", "0.050001"),
        ("123456789.123456789123456789", "3.3333", "ETH", "4115185.151852185151852185"),
        ("49.90", "0", "USD", "0.00"),
        ("49.90", "100", "USD", "49.90"),
    ],
)
def test_a_share_is_rounded_half_up_and_once(amount: str, percent: str, currency: str, share: str) -> None:
    assert f"{share_of(Decimal(amount), Decimal(percent), currency):f}" == share


async def bought(bazaar: Bazaar, shop: Shop, amount: str = "49.90", currency: str = "USD") -> None:
    order = await bazaar.order(shop, amount, currency)
    await bazaar.take(shop, bazaar.btcpay.pay(await bazaar.begin(shop, order)))
    assert (await bazaar.look_at(shop, order)).paid


async def test_the_plan_names_its_own(bazaar: Bazaar, shop: Shop) -> None:
    await bought(bazaar, shop)
    subscription = await bazaar.till.subscription(shop)
    own = Plan(id=uuid4(), slug=f"own-{uuid4().hex}", name="Own", price_monthly=1, price_yearly=1)
    async with bazaar.till.units(PLATFORM) as uow:
        uow.session.add(own)
    await bazaar.till.change(Subscription, subscription.id, plan_id=own.id)
    for percent, share in (("2.5", "1.25"), ("0", "0.00")):
        await bazaar.till.change(Plan, own.id, commission_percent=Decimal(percent))
        await bought(bazaar, shop)
        assert Decimal(share) in await bazaar.commissions(shop)
    # That nothing was taken is logged too.
    assert len(await bazaar.commissions(shop)) == 3
    assert (await bazaar.journal(shop))[Account.RECEIVABLES] == Decimal("3.75")


async def test_what_was_agreed_when_the_invoice_was_opened_holds(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    invoice = await bazaar.begin(shop, order)
    subscription = await bazaar.till.subscription(shop)
    async with bazaar.till.units(PLATFORM) as uow:
        before = (await uow.session.get_one(Plan, subscription.plan_id)).commission_percent
    await bazaar.till.change(Plan, subscription.plan_id, commission_percent=Decimal(50))
    try:
        await bazaar.take(shop, bazaar.btcpay.pay(invoice))
    finally:
        await bazaar.till.change(Plan, subscription.plan_id, commission_percent=before)
    assert await bazaar.commissions(shop) == [Decimal("2.50")]


async def test_coins_have_their_own_decimals(bazaar: Bazaar, shop: Shop) -> None:
    await bought(bazaar, shop, "0.00123410", "BTC")
    assert [str(step) for step in await bazaar.commissions(shop)] == ["0.00006171"]
    assert await bazaar.journal(shop) == {
        Account.RECEIVABLES: Decimal("0.00006171"),
        Account.COMMISSIONS: Decimal("-0.00006171"),
    }


@settings(max_examples=SEQUENCES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
async def test_any_sequence_of_payment_refunds_and_disputes(bazaar: Bazaar, shop: Shop, data: st.DataObject) -> None:
    if not (rows := await bazaar.rows(shop)):
        await bazaar.begin(shop, await bazaar.order(shop))
        rows = await bazaar.rows(shop)
    (invoice,) = rows
    percent = data.draw(st.integers(0, 1_000_000).map(lambda number: Decimal(number) / 10_000), label="percent")
    totals = data.draw(st.lists(cents, max_size=4), label="totals refunded")
    over = data.draw(st.sampled_from([Decimal(0), Decimal("12.34")]), label="paid too much")
    decided = data.draw(outcomes, label="disputes")
    told = [
        told_state(bazaar, shop, invoice, refunded=total, place=place, over=over)
        for place, total in enumerate([Decimal(0), *totals])
    ]
    for name, outcome in decided.items():
        told += [bazaar.told(shop, Reading(facts=(fact,))) for fact in disputed(invoice, name, outcome)]
    order = data.draw(st.permutations([*told, *told[:2]]), label="order of arrival")
    lost = sum((DISPUTES[name] for name, outcome in decided.items() if outcome in ("open", "lost")), Decimal(0))
    # Refunds under way may fail, so a total may fall; the newest counts.
    gone = min(max((totals or [Decimal(0)])[-1] - over, Decimal(0)) + lost, PRICE)
    try:
        async with bazaar.till.units(PLATFORM) as uow:
            (await uow.session.get_one(OrderInvoice, invoice.id)).commission_percent = percent
            await uow.session.flush()
            await take_all(uow, bazaar, order)
            await assert_exact(uow, shop, invoice, share_of(PRICE - gone, percent, "USD"))
            status = await uow.session.scalar(select(Order.status).where(Order.id == invoice.order_id))
            assert status is expected_status(gone, decided)
            raise Undo
    except Undo:
        pass


def expected_status(gone: Decimal, decided: dict[str, str | None]) -> OrderStatus:
    if "open" in decided.values():
        return OrderStatus.DISPUTED
    if not gone:
        return OrderStatus.PAID
    return OrderStatus.REFUNDED if gone == PRICE else OrderStatus.PARTIALLY_REFUNDED


async def assert_exact(uow: UnitOfWork, shop: Shop, invoice: OrderInvoice, share: Decimal) -> None:
    """The log, the journal and the rule tell the same, and a full refund leaves nothing to the last cent."""
    await uow.session.flush()
    mine = CommissionLog.order_id == invoice.order_id
    assert await uow.session.scalar(select(func.sum(CommissionLog.commission_amount)).where(mine)) == share
    found = await balances(uow, shop.tenant_id)
    assert sum(found.values()) == 0
    held = {account: amount for (account, _), amount in found.items() if amount}
    assert held == ({Account.RECEIVABLES: share, Account.COMMISSIONS: -share} if share else {})
    names = [event.name for event in uow.pending_events]
    assert names.count("order:paid") == 1


async def take_all(uow: UnitOfWork, bazaar: Bazaar, order: Sequence[Told]) -> None:
    waiting = list(order)
    while waiting:
        left = []
        for told in waiting:
            try:
                await bazaar.merchants.inbox.apply(uow, told)
                await uow.session.flush()
            except NotThereYet:
                left.append(told)
        assert len(left) < len(waiting), "nothing more can be applied"
        waiting = left


def told_state(
    bazaar: Bazaar, shop: Shop, invoice: OrderInvoice, *, refunded: Decimal, place: int, over: Decimal
) -> Told:
    """The payment as its provider holds it in the `place`-th second after it was paid."""
    paid_at = invoice.created_at + timedelta(seconds=1)
    state = PaymentState(
        session_id=invoice.session_id or "",
        tags=OrderTags(order_id=invoice.id, tenant_id=shop.tenant_id, purchase=None),
        status=PaymentStatus.PAID,
        provider_status="Settled",
        asked=PRICE,
        received=PRICE + over,
        refunded=refunded,
        currency="USD",
        payment_key=invoice.session_id or "",
        payment_ref=invoice.session_id,
        invoice_ref=None,
        subscription_ref=None,
        customer_ref=None,
        is_late=False,
        is_test=False,
        changed_at=paid_at + timedelta(seconds=place),
        paid_at=paid_at,
    )
    return bazaar.told(shop, Reading(facts=(), payment=state))


def disputed(invoice: OrderInvoice, name: str, outcome: str | None) -> Sequence[Any]:
    if outcome is None:
        return []
    about: Any = {
        "provider": "btcpay",
        "event_id": f"{name}-{invoice.id}",
        "dispute_ref": f"dp_{name}",
        "payment_ref": invoice.session_id,
        "charge_ref": None,
        "amount": DISPUTES[name],
        "currency": "USD",
        "inquiry": False,
    }
    opened = DisputeOpened(**about, occurred_at=invoice.created_at + timedelta(seconds=30), reason=None)
    if outcome == "open":
        return [opened]
    decision: Any = outcome
    closed = DisputeClosed(**about, occurred_at=invoice.created_at + timedelta(seconds=60), outcome=decision)
    return [opened, closed]


@pytest.mark.parametrize(("currency", "decimals"), [("BTC", 8), ("usdc", 6), ("ETH", 18), ("XMR", 12), ("SATS", 0)])
def test_coins_are_as_fine_as_their_networks(currency: str, decimals: int) -> None:
    assert exponent(currency) == decimals
