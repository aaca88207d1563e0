"""Buying a plan: by the official SDK against the fake API, and by the sandbox."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from core.errors import ErrorKind
from models.billing import BillingPeriod, CheckoutState, Plan, Subscription, SubscriptionStatus
from providers.payments import ProviderRejected, ProviderUnavailable
from services.billing import CheckoutOrder
from services.billing.errors import (
    AlreadySubscribed,
    PlanNotForSale,
    PlanNotFound,
    ProviderNotSupported,
    StripeNotConfigured,
    SubscriptionNotFound,
)
from services.identity import RoleRequired
from services.unit_of_work import RequestTrace
from tests.fakes.stripe_api import Fault
from tests.support.billing import CANCEL_URL, PLATFORM, SUCCESS_URL, Shop, Till, moment, press_sandbox


async def test_the_provider_is_asked_for_what_the_plan_costs(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.admin, period=BillingPeriod.YEARLY, provider=" Stripe ")
    session = till.stripe.sessions[view.session_id]
    assert view.checkout_url == session["url"]
    assert (session["amount_total"], session["currency"]) == (49_999, "usd")
    assert (session["success_url"], session["cancel_url"]) == (SUCCESS_URL, CANCEL_URL)
    assert session["customer_email"] == f"admin-{shop.tenant_id.hex}@example.org"
    (checkout,) = await till.checkouts(shop)
    assert session["metadata"] == {
        "checkout_id": str(checkout.id),
        "tenant_id": str(shop.tenant_id),
        "plan_id": str(checkout.plan_id),
        "billing_period": "yearly",
    }
    assert (checkout.state, checkout.session_id, checkout.url) == (
        CheckoutState.PENDING,
        view.session_id,
        view.checkout_url,
    )
    assert (checkout.amount, checkout.currency) == (Decimal("499.99"), "USD")
    assert checkout.expires_at == moment(session["expires_at"])
    assert checkout.created_by == shop.admin.user_id
    assert "checkout.started" in await till.audit(shop)


async def test_a_checkout_changes_nothing_before_it_is_paid(till: Till, shop: Shop) -> None:
    before = await till.view(shop.owner)
    await till.checkout(shop.owner)
    after = await till.view(shop.owner)
    assert after.model_dump(exclude={"updated_at"}) == before.model_dump(exclude={"updated_at"})


async def test_members_may_not_buy(till: Till, shop: Shop) -> None:
    with pytest.raises(RoleRequired, match="one of the following roles: owner, admin"):
        await till.checkout(shop.member)
    assert await till.checkouts(shop) == []


async def test_what_cannot_be_bought(till: Till, shop: Shop) -> None:
    with pytest.raises(PlanNotForSale):
        await till.checkout(shop.owner, plan="trial")
    plan = await till.plan("starter")
    await till.change(Plan, plan.id, is_active=False)
    try:
        with pytest.raises(PlanNotFound, match="Plan not found") as refusal:
            await till.checkout(shop.owner, plan="starter")
    finally:
        await till.change(Plan, plan.id, is_active=True)
    assert refusal.value.kind is ErrorKind.BAD_REQUEST
    unknown = CheckoutOrder(
        plan_id=uuid4(),
        billing_period=BillingPeriod.MONTHLY,
        provider=None,
        success_url=SUCCESS_URL,
        cancel_url=CANCEL_URL,
    )
    with pytest.raises(PlanNotFound):
        await till.billing.checkout(shop.owner, unknown, trace=RequestTrace())
    assert await till.checkouts(shop) == []
    assert till.stripe.requests == []


async def test_a_tenant_without_a_subscription(till: Till, shop: Shop) -> None:
    async with till.units(PLATFORM) as uow:
        await uow.session.delete(await uow.session.get_one(Subscription, (await till.subscription(shop)).id))
    with pytest.raises(SubscriptionNotFound):
        await till.checkout(shop.owner)


async def test_other_providers(till: Till, shop: Shop) -> None:
    sandbox = till.providers.pop("sandbox")
    with pytest.raises(ProviderNotSupported, match="Only 'stripe' payment provider is supported currently"):
        await till.checkout(shop.owner, provider="paypal")
    # Whatever would be taken is named: by its own name, by another, and what the sandbox stands in for.
    till.providers["sandbox"] = sandbox
    till.billing._checkouts._aliases = {"box": "sandbox"}
    for names in ("'stripe', 'sandbox', 'box'", "'sandbox', 'box', 'stripe'"):
        with pytest.raises(ProviderNotSupported, match=f"Only {names} payment providers are supported currently"):
            await till.checkout(shop.owner, provider="paypal")
        till.providers.pop("stripe", None)
        till.billing._checkouts._default_provider = "sandbox"
    for name in ("sandbox", "box", "stripe"):
        assert (await till.checkout(shop.owner, provider=name)).checkout_url


async def test_stripe_without_keys(till: Till, shop: Shop) -> None:
    del till.providers["stripe"]
    with pytest.raises(StripeNotConfigured, match="Stripe secret key is not configured"):
        await till.checkout(shop.owner, provider="stripe")


async def test_the_sandbox_stands_in_for_stripe(till: Till, shop: Shop) -> None:
    del till.providers["stripe"]
    till.billing._checkouts._default_provider = "sandbox"
    for provider in (None, "stripe", "sandbox"):
        view = await till.checkout(shop.owner, provider=provider)
        assert view.checkout_url.startswith("http://localhost/sandbox/pay/")
    assert {row.provider for row in await till.checkouts(shop)} == {"sandbox"}


async def test_a_provider_that_is_away(till: Till, shop: Shop) -> None:
    till.stripe.faults.append(Fault(status=503, body="{}"))
    with pytest.raises(ProviderUnavailable) as refusal:
        await till.checkout(shop.owner)
    assert (refusal.value.kind, refusal.value.code) == (ErrorKind.UNAVAILABLE, "PAYMENT_ERROR")
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.FAILED]


async def test_a_provider_that_refuses(till: Till, shop: Shop) -> None:
    body = '{"error": {"type": "invalid_request_error", "code": "url_invalid", "message": "secret inside"}}'
    till.stripe.faults.append(Fault(status=400, body=body))
    with pytest.raises(ProviderRejected) as refusal:
        await till.checkout(shop.owner)
    assert (refusal.value.kind, refusal.value.code) == (ErrorKind.BAD_REQUEST, "PAYMENT_ERROR")
    assert refusal.value.text == "The payment provider does not accept the return address"


async def test_no_transaction_is_open_while_the_provider_is_asked(till: Till, shop: Shop) -> None:
    # With both connections of a small pool held by open units, this would wait for ever.
    till.stripe.faults.extend(Fault(delay_s=0.3) for _ in range(6))
    async with asyncio.timeout(20):
        views = await asyncio.gather(
            *(
                till.checkout(shop.owner, plan=plan, period=period)
                for plan in ("starter", "professional", "business")
                for period in BillingPeriod
            )
        )
    assert len({view.session_id for view in views}) == 6


async def test_money_for_a_session_that_was_given_up_still_counts(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    paid = till.stripe.pay_checkout(view.session_id)
    expired = till.stripe._event("checkout.session.expired", till.stripe.sessions[view.session_id])
    await till.take(expired)
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.EXPIRED]
    await till.take(*paid)
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.PAID]
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_a_session_that_expires(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    await till.take(*till.stripe.expire_checkout(view.session_id))
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.EXPIRED]
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL


async def test_slow_money_activates_only_when_it_arrives(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    await till.take(*till.stripe.pay_checkout(view.session_id, delayed=True))
    (checkout,) = await till.checkouts(shop)
    assert (checkout.state, checkout.subscription_ref) == (
        CheckoutState.PROCESSING,
        till.stripe.sessions[view.session_id]["subscription"],
    )
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    till.travel(days=2)
    await till.take(*till.stripe.settle_checkout(view.session_id, arrives=True))
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE
    assert len(await till.payments(shop)) == 1


async def test_slow_money_that_never_arrives(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    await till.take(*till.stripe.pay_checkout(view.session_id, delayed=True))
    await till.take(*till.stripe.settle_checkout(view.session_id, arrives=False))
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.FAILED]
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    # Stripe tells of it twice, by the checkout and by its invoice.
    assert [invoice.status for invoice in await till.invoices(shop.owner)] == ["failed"]
    assert [row.title for row in await till.notifications(shop)] == ["Payment failed", "Payment failed"]


async def test_the_plan_in_force_is_not_sold_twice(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    with pytest.raises(AlreadySubscribed):
        await till.checkout(shop.owner)
    # Another period, another plan, and the same after a cancellation are other purchases.
    await till.checkout(shop.owner, period=BillingPeriod.YEARLY)
    await till.cancel(shop.owner)
    view = await till.checkout(shop.owner)
    # A known customer is not asked for an address again.
    assert till.stripe.sessions[view.session_id]["customer"] == till.stripe.subscriptions[subscription_id]["customer"]


async def test_asking_again_for_the_same_leads_to_the_same_page(till: Till, shop: Shop) -> None:
    views = await asyncio.gather(*(till.checkout(actor) for actor in (shop.owner, shop.admin) * 4))
    assert len({view.session_id for view in views}) == 1
    assert len(till.stripe.sessions) == len(await till.checkouts(shop)) == 1
    # Another plan is another purchase.
    cheaper = await till.checkout(shop.owner, plan="starter")
    assert cheaper.session_id != views[0].session_id
    till.travel(minutes=31)
    assert (await till.checkout(shop.owner)).session_id == views[0].session_id
    # A page that is about to close, or that was paid, is not offered again.
    till.travel(hours=23, minutes=26)
    later = await till.checkout(shop.owner)
    assert later.session_id != views[0].session_id
    await till.take(*till.stripe.expire_checkout(later.session_id))
    assert (await till.checkout(shop.owner)).session_id != later.session_id


async def test_many_who_buy_by_a_provider_that_does_not_charge_by_itself_pay_once(till: Till, shop: Shop) -> None:
    views = await asyncio.gather(*(till.checkout(actor, provider="sandbox") for actor in (shop.owner, shop.admin) * 4))
    assert len({view.session_id for view in views}) == 1
    await press_sandbox(till, shop, "pay")
    assert len(await till.payments(shop)) == len(await till.checkouts(shop)) == 1
    assert await till.credits(shop) == []
    # The next one buys the next period.
    assert (await till.checkout(shop.admin, provider="sandbox")).session_id != views[0].session_id


async def test_a_second_purchase_ends_the_old_subscription_at_the_provider(till: Till, shop: Shop) -> None:
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "business")]
    told = till.stripe.pay_checkout(views[0].session_id)
    till.travel(hours=3)
    # The second page is paid before it can be closed.
    await till.take(*told, *till.stripe.pay_checkout(views[1].session_id))
    old, view = till.stripe.sessions[views[0].session_id]["subscription"], views[1]
    new = till.stripe.sessions[view.session_id]["subscription"]
    assert till.stripe.subscriptions[old]["status"] == "canceled"
    assert till.stripe.subscriptions[new]["status"] == "active"
    (_, order) = await till.orders(shop)
    assert (order.subscription_ref, order.kind, order.done_at is not None) == (old, "cancel_now", True)
    # The end of the old one is no end of the new one.
    await till.take(*till.stripe.end_subscription(old))
    subscription = await till.subscription(shop)
    assert (subscription.status, subscription.external_subscription_id) == (SubscriptionStatus.ACTIVE, new)
    shown = await till.view(shop.owner)
    assert (shown.plan.slug, shown.amount) == ("business", Decimal("99.00"))


async def test_an_older_purchase_that_is_told_late_does_not_replace_the_newer(till: Till, shop: Shop) -> None:
    first = await till.checkout(shop.owner, plan="starter")
    old_events = till.stripe.pay_checkout(first.session_id)
    till.travel(minutes=5)
    new = await till.buy(shop, plan="business")
    await till.take(*old_events)
    subscription = await till.subscription(shop)
    assert subscription.external_subscription_id == new
    old = till.stripe.sessions[first.session_id]["subscription"]
    assert till.stripe.subscriptions[old]["status"] == "canceled"
    # Both payments are money all the same.
    assert sorted(payment.amount for payment in await till.payments(shop)) == [Decimal("19.99"), Decimal("99.00")]
    assert "checkout.superseded" in await till.audit(shop)


async def test_a_price_change_does_not_change_what_was_agreed(till: Till, shop: Shop) -> None:
    await till.buy(shop, plan="business")
    plan = await till.plan("business")
    await till.change(Plan, plan.id, price_monthly=Decimal("150.00"))
    try:
        view = await till.view(shop.owner)
    finally:
        await till.change(Plan, plan.id, price_monthly=plan.price_monthly)
    assert (view.amount, view.plan.price_monthly) == (Decimal("99.00"), Decimal("150.00"))


async def test_paying_the_sandbox_again_prolongs(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "pay")
    first = await till.subscription(shop)
    assert (first.status, first.payment_provider) == (SubscriptionStatus.ACTIVE, "sandbox")
    till.travel(days=10)
    await press_sandbox(till, shop, "pay")
    second = await till.subscription(shop)
    assert second.current_period_start == first.current_period_start
    assert second.current_period_end > first.current_period_end + timedelta(days=27)
    assert len(await till.payments(shop)) == 2
    # The sandbox charges nobody by itself, so there is nothing to stop.
    assert await till.orders(shop) == []
