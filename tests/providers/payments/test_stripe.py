"""Stripe's adapter: what it sends over the wire, what it makes of failures."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ErrorKind
from providers.payments import (
    ProviderRejected,
    ProviderUnavailable,
)
from providers.payments.stripe_adapter import API_VERSION, StripeProvider
from tests.fakes.stripe_api import FakeStripe, Fault
from tests.fakes.stripe_objects import Obj
from tests.providers.payments.harness import NOW, PLAN, TENANT, StripeHarness, request


def provider(fake: FakeStripe, *, secret_key: str | None = None, timeout_s: float = 30.0) -> StripeProvider:
    return StripeProvider(
        secret_key=secret_key or fake.secret_key,
        webhook_secrets=(fake.webhook_secret,),
        api_base=fake.base_url,
        timeout_s=timeout_s,
    )


@asynccontextmanager
async def closing(adapter: StripeProvider) -> AsyncIterator[StripeProvider]:
    try:
        yield adapter
    finally:
        await adapter.aclose()


class TestWire:
    """The requests, as Stripe sees them."""

    async def test_checkout_is_one_form_with_everything(self, stripe: StripeHarness) -> None:
        asked = request()

        await stripe.provider.create_checkout(asked)

        (seen,) = stripe.fake.requests
        ids = {
            "checkout_id": str(asked.checkout_id),
            "tenant_id": str(TENANT),
            "plan_id": str(PLAN),
            "billing_period": "yearly",
        }
        assert (seen.method, seen.path) == ("POST", "/v1/checkout/sessions")
        assert seen.headers["Stripe-Version"] == API_VERSION
        assert seen.headers["Idempotency-Key"] == f"checkout-{asked.checkout_id}"
        assert seen.params == {
            "mode": "subscription",
            "line_items": [
                {
                    "quantity": "1",
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": "4999",
                        "recurring": {"interval": "year"},
                        "product_data": {"name": "Professional «Про» & more"},
                    },
                }
            ],
            "client_reference_id": str(asked.checkout_id),
            "metadata": ids,
            "subscription_data": {"metadata": ids},
            "success_url": "https://app.example.com/ok?a=1&b=2",
            "cancel_url": "https://app.example.com/cancelled",
            "customer_email": "owner@example.com",
        }

    async def test_a_known_customer_is_named_instead_of_an_address(self, stripe: StripeHarness) -> None:
        stripe.fake.customers["cus_1"] = {"id": "cus_1"}

        await stripe.provider.create_checkout(request(customer_ref="cus_1"))
        await stripe.provider.create_checkout(request(customer_email=None))

        first, second = (seen.params for seen in stripe.fake.requests)
        assert first["customer"] == "cus_1"
        assert "customer_email" not in first
        assert not {"customer", "customer_email"} & second.keys()

    async def test_cancelling_again_after_taking_it_back_reaches_stripe(self, stripe: StripeHarness) -> None:
        subscription = await _subscribed(stripe)
        ref = subscription["id"]

        await stripe.provider.cancel(ref, at_period_end=True)
        subscription.update(cancel_at_period_end=False, cancel_at=None)
        await stripe.provider.cancel(ref, at_period_end=True)

        assert subscription["cancel_at_period_end"] is True
        await stripe.provider.cancel(ref, at_period_end=False)
        assert subscription["status"] == "canceled"

    async def test_nothing_is_reported_about_us(self, stripe: StripeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "home", lambda: pytest.fail("the SDK looked for the home directory"))

        await stripe.provider.create_checkout(request())
        await stripe.provider.create_checkout(request())

        assert not [seen for seen in stripe.fake.requests if "X-Stripe-Client-Telemetry" in seen.headers]
        assert "platform" not in stripe.fake.requests[0].headers["X-Stripe-Client-User-Agent"]

    async def test_the_event_loop_stays_free(self, stripe: StripeHarness) -> None:
        stripe.fake.faults.append(Fault(delay_s=0.3))
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0.005)
                longest = max(longest, time.perf_counter() - before)

        watcher = asyncio.create_task(watch())
        await stripe.provider.create_checkout(request())
        watcher.cancel()

        # A call that blocked would show as its own 300 ms.
        assert longest < 0.25


class TestFailures:
    """What goes wrong with a call, and what becomes of it."""

    @pytest.mark.parametrize("cut", ["before", "after"])
    async def test_a_lost_answer_does_not_make_two_sessions(self, stripe: StripeHarness, cut: str) -> None:
        stripe.fake.faults.append(Fault(cut=cut))

        created = await stripe.provider.create_checkout(request())

        assert list(stripe.fake.sessions) == [created.session_id]
        assert len(stripe.fake.requests) == 2

    @pytest.mark.parametrize("status", [409, 500, 503])
    async def test_passing_faults_are_repeated(self, stripe: StripeHarness, status: int) -> None:
        stripe.fake.faults.append(Fault(status=status, body='{"error": {"type": "api_error", "message": "later"}}'))

        await stripe.provider.create_checkout(request())

        first, second = (seen.headers["Idempotency-Key"] for seen in stripe.fake.requests)
        assert first == second

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(status=500, body='{"error": {"type": "api_error", "message": "boom"}}'),
            Fault(status=502, body="<html>Bad gateway</html>"),
            Fault(status=429, body='{"error": {"type": "invalid_request_error", "code": "rate_limit"}}'),
            Fault(status=200, body="<html>Login to the wifi</html>"),
            Fault(status=200, body="[]"),
            Fault(status=200, body="null"),
            Fault(status=200, body='"text"'),
            Fault(status=200, body='{"object": "checkout.session"}'),
            Fault(status=200, body='{"id": "cs_1", "url": null, "expires_at": 1}'),
            Fault(status=200, body='{"id": "cs_1", "url": "https://x", "expires_at": "soon"}'),
            Fault(status=400, body='{"error": []}'),
            Fault(status=400, body="{}"),
            Fault(cut="middle"),
            Fault(cut="before"),
        ],
        ids=lambda fault: f"{fault.status} {fault.cut} {fault.body[:30]}",
    )
    async def test_a_broken_provider_is_unavailable(self, stripe: StripeHarness, fault: Fault) -> None:
        # As often as the SDK tries, and told not to wait between.
        for _ in range(3):
            stripe.fake.faults.append(fault)

        with pytest.raises(ProviderUnavailable) as failed:
            await stripe.provider.create_checkout(request())

        assert failed.value.retryable
        assert failed.value.kind is ErrorKind.UNAVAILABLE

    async def test_a_slow_provider_is_unavailable_within_the_time(self, stripe: StripeHarness) -> None:
        stripe.fake.faults.append(Fault(delay_s=3.0))
        async with closing(provider(stripe.fake, timeout_s=0.2)) as adapter:
            started = time.perf_counter()
            with pytest.raises(ProviderUnavailable):
                await adapter.create_checkout(request())

        assert time.perf_counter() - started < 2.5

    async def test_retries_stay_within_the_time(self, stripe: StripeHarness) -> None:
        stripe.fake.faults.extend([Fault(status=500, body="{}")] * 3)
        async with closing(provider(stripe.fake, timeout_s=0.3)) as adapter:
            started = time.perf_counter()
            with pytest.raises(ProviderUnavailable):
                await adapter.create_checkout(request())

        # Two pauses of the SDK alone would take more than a second.
        assert time.perf_counter() - started < 0.9

    async def test_nobody_listens(self) -> None:
        nowhere = StripeProvider(secret_key="sk_test_x", webhook_secrets=(), api_base="http://127.0.0.1:1")
        async with closing(nowhere):
            with pytest.raises(ProviderUnavailable) as failed:
                await nowhere.create_checkout(request())

        assert failed.value.retryable

    @pytest.mark.parametrize("status", [401, 403])
    async def test_refused_credentials_need_an_operator(self, stripe: StripeHarness, status: int) -> None:
        stripe.fake.faults.append(Fault(status=status, body='{"error": {"message": "sk_live_abc is not allowed"}}'))

        with pytest.raises(ProviderUnavailable) as failed:
            await stripe.provider.create_checkout(request())

        assert not failed.value.retryable
        assert "sk_live" not in str(failed.value)

    async def test_a_wrong_key_is_told_by_the_real_path(self, stripe: StripeHarness) -> None:
        async with closing(provider(stripe.fake, secret_key="sk_test_wrong")) as adapter:
            with pytest.raises(ProviderUnavailable) as failed:
                await adapter.create_checkout(request())

        assert not failed.value.retryable

    async def test_the_same_checkout_with_another_price_is_refused(self, stripe: StripeHarness) -> None:
        asked = request()
        await stripe.provider.create_checkout(asked)

        with pytest.raises(ProviderRejected):
            await stripe.provider.create_checkout(request(checkout_id=asked.checkout_id, amount="1.00"))

        assert len(stripe.fake.sessions) == 1

    async def test_refusals_say_what_a_user_may_know(self, stripe: StripeHarness) -> None:
        with pytest.raises(ProviderRejected) as mail:
            await stripe.provider.create_checkout(request(customer_email="not an address"))
        with pytest.raises(ProviderRejected) as customer:
            await stripe.provider.create_checkout(request(customer_ref="cus_gone"))

        assert mail.value.text == "The payment provider does not accept this e-mail address"
        assert customer.value.text == "The payment provider refused the request"
        assert customer.value.details == {"reason": "resource_missing"}

    async def test_a_declined_card_is_told_in_stripes_words(self, stripe: StripeHarness) -> None:
        body = '{"error": {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}}'
        stripe.fake.faults.append(Fault(status=402, body=body))

        with pytest.raises(ProviderRejected, match=r"Your card was declined\."):
            await stripe.provider.create_checkout(request())

    async def test_a_refusal_to_cancel_what_runs_is_passed_on(self, stripe: StripeHarness) -> None:
        subscription = await _subscribed(stripe)
        stripe.fake.faults.append(Fault(status=400, body='{"error": {"type": "invalid_request_error"}}'))

        with pytest.raises(ProviderRejected):
            await stripe.provider.cancel(subscription["id"], at_period_end=True)


class TestFetch:
    """Asking for a subscription."""

    async def test_tells_the_present_state(self, stripe: StripeHarness) -> None:
        subscription = await _subscribed(stripe)
        item = subscription["items"]["data"][0]

        state = await stripe.provider.fetch_subscription(subscription["id"])

        assert state is not None
        assert (state.status, state.provider_status) == ("active", "active")
        assert state.customer_ref == subscription["customer"]
        assert state.purchase is not None
        assert state.purchase.plan_id == PLAN
        assert state.period_end == datetime.fromtimestamp(item["current_period_end"], UTC)
        assert state.period_end - NOW == timedelta(days=365)

    async def test_knows_no_other(self, stripe: StripeHarness) -> None:
        assert await stripe.provider.fetch_subscription("sub_unknown") is None

    async def test_one_that_never_began_is_none(self, stripe: StripeHarness) -> None:
        subscription = await _subscribed(stripe)
        subscription["status"] = "incomplete_expired"

        assert await stripe.provider.fetch_subscription(subscription["id"]) is None

    async def test_nonsense_is_an_unavailable_provider(self, stripe: StripeHarness) -> None:
        stripe.fake.faults.append(Fault(status=200, body='{"id": "sub_1", "status": "dreaming"}'))

        with pytest.raises(ProviderUnavailable):
            await stripe.provider.fetch_subscription("sub_1")

    async def test_another_refusal_is_passed_on(self, stripe: StripeHarness) -> None:
        stripe.fake.faults.append(Fault(status=400, body='{"error": {"type": "invalid_request_error"}}'))

        with pytest.raises(ProviderRejected):
            await stripe.provider.fetch_subscription("sub_1")


async def test_closing_twice_is_harmless(stripe: StripeHarness) -> None:
    await stripe.provider.create_checkout(request())

    await stripe.provider.aclose()
    await stripe.provider.aclose()


def test_capabilities(stripe: StripeHarness) -> None:
    assert stripe.provider.name == "stripe"
    assert stripe.provider.capabilities.recurring
    assert stripe.provider.capabilities.fetch_subscription
    assert not stripe.provider.capabilities.development_only


async def _subscribed(stripe: StripeHarness) -> Obj:
    created = await stripe.provider.create_checkout(request())
    stripe.fake.pay_checkout(created.session_id)
    (subscription,) = stripe.fake.subscriptions.values()
    return subscription
