"""The sandbox's desk: what its page shows and what its buttons do."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from models.billing import BillingPeriod, CheckoutSession, CheckoutState, PaymentEventType, SubscriptionStatus
from providers.payments.sandbox_session import SandboxSessionUnknown
from services.billing.sandbox import SandboxAction, SandboxDesk, SandboxPage, SandboxSessionClosed
from services.billing.views import CheckoutView
from tests.support.billing import CANCEL_URL, PLATFORM, Shop, Till, press_sandbox


def token_of(view: CheckoutView) -> str:
    return dict(parse_qsl(urlsplit(view.checkout_url).query))["token"]


async def page(till: Till, view: CheckoutView, *, token: str | None = None) -> SandboxPage:
    async with till.units(PLATFORM) as uow:
        return await till.billing.sandbox.page(
            uow, session_id=view.session_id, token=token_of(view) if token is None else token
        )


async def test_the_page_shows_the_purchase(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner, provider="sandbox", period=BillingPeriod.YEARLY)
    shown = await page(till, view)
    assert (shown.plan_name, shown.billing_period, str(shown.amount), shown.currency) == (
        "Professional",
        BillingPeriod.YEARLY,
        "499.99",
        "USD",
    )
    assert (shown.customer_email, shown.state) == (f"owner-{shop.tenant_id.hex}@example.org", CheckoutState.PENDING)
    assert shown.success_url == f"https://shop.example/success?session={view.session_id}"
    assert shown.cancel_url == CANCEL_URL


async def test_paying_activates(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "pay", plan="starter", period=BillingPeriod.YEARLY)
    view = await till.view(shop.owner)
    assert (view.status, view.plan.slug, view.billing_period) == (
        SubscriptionStatus.ACTIVE,
        "starter",
        BillingPeriod.YEARLY,
    )
    assert (view.payment_provider, view.trial_end) == ("sandbox", None)
    assert (view.current_period_end - view.current_period_start).days in (365, 366)
    assert [invoice.status for invoice in await till.invoices(shop.owner)] == ["paid"]


async def test_a_declined_card_may_be_followed_by_a_good_one(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner, provider="sandbox")
    for action in (SandboxAction.DECLINE, SandboxAction.PAY):
        async with till.units(PLATFORM) as uow:
            event = await till.billing.sandbox.act(uow, action, session_id=view.session_id, token=token_of(view))
        await till.receive_sandbox(event.body)
        await till.work()
    kinds = [payment.event_type for payment in await till.payments(shop)]
    assert sorted(kinds) == [PaymentEventType.PAYMENT_FAILED, PaymentEventType.PAYMENT_SUCCESS]
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.PAID]
    assert (await page(till, view)).state is CheckoutState.PAID


async def test_declined(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "decline")
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    assert [invoice.status for invoice in await till.invoices(shop.owner)] == ["failed"]
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.FAILED]


async def test_expired(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "expire")
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.EXPIRED]
    assert await till.payments(shop) == []


async def test_an_expired_page_is_closed(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner, provider="sandbox")
    till.travel(hours=25)
    assert (await page(till, view)).state is CheckoutState.EXPIRED
    async with till.units(PLATFORM) as uow:
        with pytest.raises(SandboxSessionClosed):
            await till.billing.sandbox.act(uow, SandboxAction.PAY, session_id=view.session_id, token=token_of(view))


async def test_pressing_pay_twice_is_one_payment(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner, provider="sandbox")
    for action in (SandboxAction.PAY, SandboxAction.PAY, SandboxAction.DECLINE):
        async with till.units(PLATFORM) as uow:
            event = await till.billing.sandbox.act(uow, action, session_id=view.session_id, token=token_of(view))
        assert event.return_url.startswith("https://shop.example/success")
        await till.receive_sandbox(event.body)
        await till.work()
    assert len(await till.payments(shop)) == 1


async def test_addresses_that_we_did_not_make(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner, provider="sandbox")
    other = await till.checkout(shop.owner, provider="sandbox", plan="starter")
    for token in ("", "nonsense", "a.b", token_of(other), token_of(view)[:-2]):
        with pytest.raises(SandboxSessionUnknown):
            await page(till, view, token=token)
    # The checkout is gone, such as in a database that was made anew.
    async with till.units(PLATFORM) as uow:
        (row,) = [row for row in await till.checkouts(shop) if row.session_id == view.session_id]
        await uow.session.delete(await uow.session.get_one(CheckoutSession, row.id))
    with pytest.raises(SandboxSessionUnknown):
        await page(till, view)


async def test_without_a_sandbox_there_is_no_desk(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner, provider="sandbox")
    desk = SandboxDesk({"stripe": till.providers["stripe"]})
    async with till.units(PLATFORM) as uow:
        with pytest.raises(SandboxSessionUnknown):
            await desk.page(uow, session_id=view.session_id, token=token_of(view))
