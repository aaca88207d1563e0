"""Money that comes for a tenant that is to be deleted: nobody is asked for it, and what comes renews nothing."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from models.billing import CreditReason, InstructionKind, SubscriptionStatus
from models.tenants import Tenant
from services.closed_tenants import DELETION_REASON, TenantDeleted
from services.unit_of_work import RequestTrace
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.changing import change, pay
from tests.support.stalls import open_stall

pytestmark = pytest.mark.embedded

_GRACE = timedelta(days=30)
ORDERS = ("asked, paid, heard", "paid, asked, heard", "paid, heard, asked")

Step = Callable[[], Awaitable[Any]]


async def ask(till: Till, shop: Shop) -> None:
    """Ask for a tenant's deletion, as far as it concerns billing (services/tenants/deletion.py)."""
    async with till.units(PLATFORM) as uow:
        (await uow.session.get_one(Tenant, shop.tenant_id)).deletion_due_at = uow.now + _GRACE
        await till.billing.winding_up.let_end(uow, shop.tenant_id, actor_id=shop.owner.user_id)


async def take_back(till: Till, shop: Shop) -> None:
    await till.change(Tenant, shop.tenant_id, deletion_due_at=None)


async def carry_out(till: Till, shop: Shop) -> None:
    """End the billing of a tenant whose time is over."""
    async with till.units(PLATFORM) as uow:
        due_at = (await uow.session.get_one(Tenant, shop.tenant_id)).deletion_due_at
        assert due_at is not None
        await till.billing.winding_up.end(uow, shop.tenant_id, due_at=due_at)
    await till.billing.sweep()


async def in_order(order: str, **steps: Step) -> None:
    for name in order.split(", "):
        await steps[name]()


async def test_open_pages_of_purchases_are_closed(till: Till, shop: Shop) -> None:
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "professional")]
    await ask(till, shop)
    await ask(till, shop)
    await till.billing.sweep()
    assert {till.stripe.sessions[view.session_id]["status"] for view in views} == {"expired"}
    assert [order.kind for order in await till.orders(shop)] == [InstructionKind.WITHDRAW] * 2


async def test_an_open_page_of_a_change_is_closed(till: Till, shop: Shop) -> None:
    await till.buy(shop, plan="starter")
    view = await change(till, shop.owner, "professional")
    # Its end was decided before, so the deletion has nothing to cancel.
    await till.cancel(shop.owner)
    await ask(till, shop)
    await till.billing.sweep()
    assert till.stripe.sessions[view.session_id or ""]["status"] == "expired"


async def test_a_page_is_closed_also_when_the_subscription_is_over(till: Till, shop: Shop) -> None:
    till.travel(days=15)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
    view = await till.checkout(shop.owner)
    await ask(till, shop)
    await till.billing.sweep()
    assert till.stripe.sessions[view.session_id]["status"] == "expired"


async def test_a_page_that_is_opened_meanwhile_is_closed(
    till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = till.providers["stripe"].create_checkout

    async def slow(request: Any) -> Any:
        created = await create(request)
        await ask(till, shop)
        return created

    monkeypatch.setattr(till.providers["stripe"], "create_checkout", slow)
    with pytest.raises(TenantDeleted):
        await till.checkout(shop.owner)
    assert [session["status"] for session in till.stripe.sessions.values()] == ["expired"]


@pytest.mark.parametrize("order", ORDERS)
async def test_what_is_paid_all_the_same_does_not_renew_at_stripe(till: Till, shop: Shop, order: str) -> None:
    view = await till.checkout(shop.owner)
    events: list[Any] = []

    async def paid() -> None:
        events.extend(till.stripe.pay_checkout(view.session_id))

    await in_order(order, paid=paid, heard=lambda: till.take(*events), asked=lambda: ask(till, shop))
    await till.billing.sweep()
    begun = till.stripe.sessions[view.session_id]["subscription"]
    assert till.stripe.subscriptions[begun]["cancel_at_period_end"] is True
    # What Stripe has told meanwhile is as old as its payment.
    till.travel(seconds=5)
    await till.take(till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[begun]))
    subscription = await till.subscription(shop)
    assert (subscription.status, subscription.cancel_at_period_end) == (SubscriptionStatus.ACTIVE, True)
    assert subscription.cancel_reason == DELETION_REASON
    assert (await till.credits(shop), len(await till.payments(shop))) == ([], 1)
    assert till.heard(shop, "subscription:updated")[-1].payload["subscription"]["cancel_at_period_end"] is True


@pytest.mark.parametrize("order", ORDERS)
async def test_what_is_paid_at_a_page_that_nobody_can_close_ends_likewise(till: Till, shop: Shop, order: str) -> None:
    async with open_stall(till, "sandbox") as sandbox:
        created = await sandbox.begin(shop)
        bodies: list[bytes] = []

        async def paid() -> None:
            bodies.extend(sandbox.harness.paid(created))

        await in_order(order, paid=paid, heard=lambda: sandbox.take(bodies), asked=lambda: ask(till, shop))
    subscription = await till.subscription(shop)
    assert (subscription.status, subscription.cancel_at_period_end) == (SubscriptionStatus.ACTIVE, True)
    assert await till.credits(shop) == []
    till.clock.offset += subscription.current_period_end - till.now + timedelta(minutes=1)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED


async def test_a_month_paid_ahead_keeps_the_cancellation_too(till: Till, shop: Shop) -> None:
    async with open_stall(till, "sandbox") as sandbox:
        await sandbox.take(sandbox.harness.paid(await sandbox.begin(shop)))
        until = (await till.subscription(shop)).current_period_end
        further = await sandbox.begin(shop)
        await ask(till, shop)
        await sandbox.take(sandbox.harness.paid(further))
    subscription = await till.subscription(shop)
    assert (subscription.current_period_end > until, subscription.cancel_at_period_end) == (True, True)


async def test_a_change_that_is_paid_all_the_same_counts_until_the_end(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop, plan="starter")
    view = await change(till, shop.owner, "professional")
    events = await pay(till, view)
    await ask(till, shop)
    await till.take(*events)
    await till.billing.sweep()
    shown = await till.view(shop.owner)
    assert (shown.plan.slug, shown.cancel_at_period_end) == ("professional", True)
    assert till.stripe.subscriptions[subscription_id]["cancel_at_period_end"] is True
    assert await till.credits(shop) == []


async def test_what_is_paid_when_the_time_is_over_is_owed(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    await ask(till, shop)
    till.travel(days=31)
    await carry_out(till, shop)
    # Nobody had told Stripe to close the page, nor that its time is over.
    till.stripe.sessions[view.session_id].update(status="open", expires_at=int(till.now.timestamp()) + 3600)
    await till.take(*till.stripe.pay_checkout(view.session_id))
    for _ in range(2):
        await carry_out(till, shop)
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
    begun = till.stripe.sessions[view.session_id]["subscription"]
    assert till.stripe.subscriptions[begun]["status"] == "canceled"
    (credit,) = await till.credits(shop)
    assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, Decimal("49.99"))
    assert (await till.balance(shop, "credits"), await till.balance(shop, "revenue")) == (-credit.amount, Decimal(0))


async def test_what_was_paid_before_the_time_was_over_is_not_owed(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    await ask(till, shop)
    await till.take(*events)
    till.travel(days=29)
    await till.billing.sweep()
    till.travel(days=1, seconds=1)
    await carry_out(till, shop)
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
    assert await till.credits(shop) == []


async def test_after_the_deletion_is_taken_back_the_payer_gets_a_new_page(till: Till, shop: Shop) -> None:
    closed = await till.checkout(shop.owner)
    await ask(till, shop)
    # Before Stripe has been told, let alone has told us.
    await take_back(till, shop)
    view = await till.checkout(shop.owner)
    assert view.session_id != closed.session_id
    await till.billing.sweep()
    assert till.stripe.sessions[view.session_id]["status"] == "open"
    await till.take(*till.stripe.pay_checkout(view.session_id))
    await till.billing.sweep()
    subscription = await till.subscription(shop)
    assert (subscription.status, subscription.cancel_at_period_end) == (SubscriptionStatus.ACTIVE, False)
    begun = till.stripe.sessions[view.session_id]["subscription"]
    assert till.stripe.subscriptions[begun]["cancel_at_period_end"] is False


async def test_what_was_paid_meanwhile_is_reinstated_by_its_owner(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    await ask(till, shop)
    await till.take(*events)
    await take_back(till, shop)
    assert (await till.view(shop.owner)).cancel_at_period_end
    shown = await till.billing.reinstate(shop.owner, trace=RequestTrace())
    await till.billing.sweep()
    assert (shown.status, shown.cancel_at_period_end) == (SubscriptionStatus.ACTIVE, False)
    begun = till.stripe.sessions[view.session_id]["subscription"]
    assert till.stripe.subscriptions[begun]["cancel_at_period_end"] is False
