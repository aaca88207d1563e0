"""The fake itself: its shapes are those of the pinned API version, as the official SDK's types define them."""

from types import NoneType
from typing import get_args

import pytest
import stripe as sdk
from aiohttp import web
from aiohttp.test_utils import TestServer

from providers.payments.stripe_adapter import API_VERSION
from tests.fakes import stripe_form, stripe_objects
from tests.fakes.stripe_api import FakeStripe
from tests.fakes.stripe_objects import Obj
from tests.providers.payments.harness import NOW, StripeHarness, invoice_request, request

_CLASSES: dict[str, type[sdk.StripeObject]] = {
    "checkout.session": sdk.checkout.Session,
    "balance_transaction": sdk.BalanceTransaction,
    "charge": sdk.Charge,
    "customer": sdk.Customer,
    "dispute": sdk.Dispute,
    "event": sdk.Event,
    "invoice": sdk.Invoice,
    "invoice_payment": sdk.InvoicePayment,
    "line_item": sdk.InvoiceLineItem,
    "payment_intent": sdk.PaymentIntent,
    "plan": sdk.Plan,
    "price": sdk.Price,
    "refund": sdk.Refund,
    "subscription": sdk.Subscription,
    "subscription_item": sdk.SubscriptionItem,
}


async def test_every_shape_is_the_sdks(stripe: StripeHarness) -> None:
    fake = stripe.fake
    first = await stripe.provider.create_checkout(request())
    second = await stripe.provider.create_checkout(request())
    events = fake.pay_checkout(first.session_id) + fake.expire_checkout(second.session_id)
    (subscription_id,) = fake.subscriptions
    charge_id = fake.charge_of(subscription_id)["id"]
    events += fake.renew(subscription_id) + fake.renew(subscription_id, paid=False)
    events += fake.refund(charge_id, 100) + fake.open_dispute(charge_id) + fake.end_subscription(subscription_id)

    once = await stripe.provider.create_invoice(invoice_request())
    events += fake.pay_checkout(once.session_id)
    paid = fake.sessions[once.session_id]["payment_intent"]
    fake._create_refund({"payment_intent": paid})
    shown = [*events, *fake.customers.values(), *fake.payments.values(), *fake.refunds.values(), *fake.books.values()]

    seen = {shape for holder in shown for shape in _check(holder)}

    assert seen == _CLASSES.keys()


def _check(value: object) -> set[str]:
    """Compare every object inside `value` with the SDK's class for it; return the kinds that were met."""
    if isinstance(value, list):
        return {kind for item in value for kind in _check(item)}
    if not isinstance(value, dict):
        return set()
    met = {kind for item in value.values() for kind in _check(item)}
    kind = value.get("object")
    if not isinstance(kind, str) or kind == "list":
        return met
    known = {
        name: hint
        for name, hint in _CLASSES[kind].__annotations__.items()
        # The class's own constants are upper case, its private parts begin with an underscore.
        if name[0] != "_" and name.islower()
    }
    required = {name for name, hint in known.items() if NoneType not in get_args(hint)}
    assert value.keys() <= known.keys(), kind
    assert required <= value.keys(), kind
    assert not [name for name in required if value[name] is None], kind
    return met | {kind}


def test_the_pinned_version_is_the_sdks() -> None:
    # When the SDK moves on, somebody must read its changelog before this is changed.
    assert API_VERSION == stripe_objects.API_VERSION == sdk.api_version


async def test_the_official_sdk_reads_the_answers(stripe: StripeHarness) -> None:
    http = sdk.AIOHTTPClient()
    client = sdk.StripeClient("sk_test_fake", http_client=http, base_addresses={"api": stripe.fake.base_url})
    created = await stripe.provider.create_checkout(request())

    session = await client.v1.checkout.sessions.retrieve_async(created.session_id)
    stripe.fake.pay_checkout(created.session_id)
    (subscription_id,) = stripe.fake.subscriptions
    subscription = await client.v1.subscriptions.retrieve_async(subscription_id)
    with pytest.raises(sdk.InvalidRequestError) as missing:
        await client.v1.checkout.sessions.retrieve_async("cs_unknown")
    await http.close_async()

    assert isinstance(session, sdk.checkout.Session)
    assert session.amount_total == 4999
    assert subscription.items.data[0].price.unit_amount == 4999
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    assert missing.value.request_id


async def test_delivers_what_the_official_sdk_verifies() -> None:
    received: list[tuple[bytes, str]] = []

    async def receive(got: web.Request) -> web.Response:
        received.append((await got.read(), got.headers["Stripe-Signature"]))
        return web.Response(status=202)

    application = web.Application()
    application.router.add_post("/hook", receive)
    fake = FakeStripe()
    event = stripe_objects.event("customer.created", {"id": "cus_1", "livemode": False}, now=fake.now())
    async with TestServer(application) as server:
        status = await fake.deliver(event, str(server.make_url("/hook")))

    assert status == 202
    ((body, header),) = received
    client = sdk.StripeClient("sk_test_fake")
    assert client.construct_event(body, header, fake.webhook_secret).id == event["id"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"mode": ""}, "mode"),
        ({"mode": "payment"}, "line_items[0][price_data]"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"colour": "red"}, "colour"),
        ({"metadata": {"k" * 41: "v"}}, "metadata"),
        ({"customer": "cus_1", "customer_email": "a@b"}, "customer"),
        ({"line_items": [{"price_data": {"currency": "usd"}}]}, "line_items[0][price_data][unit_amount]"),
    ],
)
def test_refuses_what_stripe_refuses(change: Obj, param: str) -> None:
    price = {"currency": "usd", "unit_amount": "1", "recurring": {"interval": "month"}, "product_data": {"name": "x"}}
    good: Obj = {"mode": "subscription", "success_url": "https://x", "line_items": [{"price_data": price}]}
    assert stripe_form.session_line(good)["unit_amount"] == 1

    with pytest.raises(stripe_form.BadParameter) as refused:
        stripe_form.session_line(good | change)

    assert refused.value.param == param


def test_months_end_where_the_calendar_says() -> None:
    january = int(NOW.replace(month=1, day=31).timestamp())
    leap = int(NOW.replace(year=2024, month=2, day=29).timestamp())

    assert stripe_objects.add_interval(january, "month") == int(NOW.replace(month=2, day=28).timestamp())
    assert stripe_objects.add_interval(leap, "year") == int(NOW.replace(year=2025, month=2, day=28).timestamp())
