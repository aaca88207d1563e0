"""Payment webhooks over HTTP (contract.md 1.5, 4.3), with a fake Stripe that signs and delivers as the real one."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession
from sqlalchemy import select, text

from models.billing import CheckoutSession, CheckoutState, PaymentEvent
from models.inbox import InboxState, ProviderEvent
from models.users import User
from providers.payments import CheckoutCreated
from services.unit_of_work import PlatformScope
from tests.fakes.stripe_api import FakeStripe
from tests.fakes.stripe_objects import Obj
from tests.providers.payments.harness import NOW
from tests.support.billing import eventually
from tests.support.listeners import Listener
from tests.support.market import Market
from tests.support.people import Person, address, company_factory, request
from tests.support.running import Orchestrator
from tests.support.stalls import STALLS

RECEIVED = {"status": "success", "message": "Webhook received"}


@pytest.fixture
def seller(market: Market) -> Orchestrator:
    return market.instances[0]


@pytest.fixture
def stripe(market: Market) -> FakeStripe:
    return market.stripe


@pytest.fixture
async def owner(http: ClientSession, seller: Orchestrator) -> Person:
    return await company_factory(http, seller.url)()


async def check_out(person: Person, slug: str = "professional") -> str:
    """Begin to buy a plan by Stripe; returns its session."""
    session_id: str = (await begin(person, "stripe", slug))["session_id"]
    return session_id


async def begin(person: Person, provider: str, slug: str = "professional") -> Any:
    """Begin to buy a plan as the released client does."""
    _, plans = await person.get("billing/plans")
    body = {
        "plan_id": next(plan["id"] for plan in plans["data"] if plan["slug"] == slug),
        "billing_period": "monthly",
        "payment_provider": provider,
        "success_url": "https://shop.example/ok",
        "cancel_url": "https://shop.example/no",
    }
    status, answer = await person.post("billing/checkout", body)
    assert status == 200, answer
    return answer


async def active(person: Person) -> dict[str, Any]:
    async def subscription() -> Any:
        return (await person.get("billing/subscription"))[1]["data"]

    shown: dict[str, Any] = await eventually(subscription, lambda seen: seen["status"] == "active")
    return shown


async def post(seller: Orchestrator, http: ClientSession, body: bytes, **headers: str) -> tuple[int, Any]:
    url = address(seller.url, "billing/webhook/stripe")
    return await request(http, "POST", url, data=body, headers={"Content-Type": "application/json", **headers})


async def stored(seller: Orchestrator, event: Obj) -> list[ProviderEvent]:
    async with seller.units(PlatformScope("a test looks at the inbox")) as uow:
        return list(await uow.session.scalars(select(ProviderEvent).where(ProviderEvent.event_id == event["id"])))


def some_event(stripe: FakeStripe) -> Obj:
    return stripe._event("customer.created", {"id": "cus_1", "object": "customer", "livemode": False})


@pytest.mark.parametrize("path", ["billing/webhook/stripe", "billing/webhook"])
async def test_a_payment_by_stripe(
    owner: Person, http: ClientSession, seller: Orchestrator, stripe: FakeStripe, path: str
) -> None:
    outsider = await company_factory(http, seller.url)()
    listener = await Listener().connect(seller.url, owner.token, "/billing")
    stranger = await Listener().connect(seller.url, outsider.token, "/billing")
    session_id = await check_out(owner)
    events = stripe.pay_checkout(session_id)
    for event in events:
        assert await stripe.deliver(event, address(seller.url, path)) == 200
    shown = await active(owner)
    assert (shown["plan"]["slug"], shown["amount"], shown["provider"]) == ("professional", 49.99, "stripe")
    _, answer = await owner.get("billing/invoices")
    (invoice,) = answer["data"]
    assert (invoice["status"], invoice["amount"], invoice["provider"]) == ("paid", 49.99, "stripe")

    await listener.until(lambda: listener.of("payment:received") and listener.of("subscription:updated"))
    (payment,) = listener.of("payment:received")
    assert {key: payment[key] for key in ("payment_id", "amount", "currency", "status")} == {
        "payment_id": invoice["id"],
        "amount": 49.99,
        "currency": "USD",
        "status": "succeeded",
    }
    update = listener.of("subscription:updated")[0]
    assert (update["subscription_id"], update["status"], update["plan"]) == (shown["id"], "active", "professional")
    assert set(update["subscription"]) == set(shown)
    assert stranger.of("payment:received") == stranger.of("subscription:updated") == []
    await listener.close()
    await stranger.close()


async def test_the_answer_is_the_one_that_was_always_given(
    seller: Orchestrator, http: ClientSession, stripe: FakeStripe
) -> None:
    body = stripe.encode(some_event(stripe))
    assert await post(seller, http, body, **{"Stripe-Signature": stripe.sign(body)}) == (200, RECEIVED)


# One provider many times, the others often enough to race.
DELIVERIES = {"stripe": 200} | dict.fromkeys(STALLS, 40)


@pytest.mark.parametrize("provider", DELIVERIES)
async def test_deliveries_at_once_on_two_instances_are_one_payment(
    owner: Person, market: Market, provider: str
) -> None:
    harness = market.harnesses[provider]
    answer = await begin(owner, provider)
    created = CheckoutCreated(
        session_id=answer["session_id"], url=answer["checkout_url"], customer_ref=None, expires_at=NOW
    )
    # The last event is the one that pays; of an order that is only approved, we take the money ourselves.
    sent = harness.deliver(harness.paid(created)[-1], at=datetime.now(UTC))
    urls = [address(instance.url, f"billing/webhook/{provider}") for instance in market.instances]

    async def connection(place: int) -> list[int]:
        statuses = []
        async with ClientSession(headers={"Content-Type": "application/octet-stream"}) as line:
            for _ in range(DELIVERIES[provider] // 8):
                async with line.post(urls[place % 2], data=sent.body, headers=sent.headers) as response:
                    statuses.append(response.status)
        return statuses

    statuses = await asyncio.gather(*(connection(place) for place in range(8)))
    assert {status for line in statuses for status in line} == {200}
    await active(owner)
    async with market.instances[0].units(PlatformScope("a test looks at the books")) as uow:
        sessions = CheckoutSession.session_id == created.session_id
        checkout = (await uow.session.scalars(select(CheckoutSession).where(sessions))).one()
        movements = list(
            await uow.session.scalars(select(PaymentEvent).where(PaymentEvent.tenant_id == checkout.tenant_id))
        )
        heard = await uow.session.scalar(
            text("SELECT count(*) FROM events WHERE tenant_id = :tenant_id AND name = 'payment:received'"),
            {"tenant_id": checkout.tenant_id},
        )
    assert [movement.amount for movement in movements] == [checkout.amount]
    assert (checkout.state, heard) == (CheckoutState.PAID, 1)


async def test_one_address_for_all(owner: Person, market: Market, http: ClientSession) -> None:
    harness = market.harnesses["coinbase_commerce"]
    answer = await begin(owner, "Coinbase")
    created = CheckoutCreated(
        session_id=answer["session_id"], url=answer["checkout_url"], customer_ref=None, expires_at=NOW
    )
    for content in harness.paid(created):
        sent = harness.deliver(content, at=datetime.now(UTC))
        url = f"{market.instances[1].url}/api/billing/webhook"
        assert (await request(http, "POST", url, data=sent.body, headers=sent.headers))[0] == 200
    assert (await active(owner))["provider"] == "coinbase_commerce"


async def promote(person: Person, server: Orchestrator) -> None:
    """Make somebody one of the platform's own, and sign them in again."""
    async with server.units(PlatformScope("a test makes an operator")) as uow:
        (await uow.session.get_one(User, person.user_id)).is_superuser = True
    status, answer = await person.post("auth/login", {"email": person.email, "password": person.password})
    assert status == 200
    person.token = answer["data"]["access_token"]


async def test_dead_events_are_shown_to_superusers_and_resent(
    owner: Person, http: ClientSession, market: Market, seller: Orchestrator, stripe: FakeStripe
) -> None:
    operator = await company_factory(http, seller.url)()
    await promote(operator, seller)
    event = stripe.pay_checkout(await check_out(owner))[-1]
    whole = event["data"]["object"].pop("amount_total")
    body = stripe.encode(event)
    assert (await post(seller, http, body, **{"Stripe-Signature": stripe.sign(body)}))[0] == 200
    (row,) = await eventually(lambda: stored(seller, event), lambda rows: rows[0].state is InboxState.DEAD)
    status, answer = await operator.get("billing/provider-events?size=100")
    assert status == 200
    (shown,) = [item for item in answer["data"] if item["event_id"] == event["id"]]
    assert (shown["state"], shown["attempts"], shown["type"]) == ("dead", 1, "checkout.session.completed")
    assert str(whole) not in json.dumps(shown)
    _, notes = await operator.get("notifications")
    told = [note["data"]["provider_event_id"] for note in notes["data"] if "provider_event_id" in note["data"]]
    assert told == [shown["id"]]
    assert (await owner.get("billing/provider-events"))[0] == 403
    assert (await owner.post(f"billing/provider-events/{shown['id']}/resend"))[0] == 403
    assert (await operator.post(f"billing/provider-events/{UUID(int=1)}/resend"))[0] == 404

    # Somebody mends what the event lacked.
    async with seller.units(PlatformScope("a test mends an event")) as uow:
        found = await uow.session.get_one(ProviderEvent, row.id)
        content = dict(found.payload["data"]["object"], amount_total=whole)
        found.payload = {**found.payload, "data": {**found.payload["data"], "object": content}}
    status, answer = await operator.post(f"billing/provider-events/{shown['id']}/resend")
    assert (status, answer["data"]["state"]) == (200, "received")
    await active(owner)
    status, answer = await operator.post(f"billing/provider-events/{shown['id']}/resend")
    assert (status, answer["error"]["code"]) == (409, "CONFLICT")


async def test_the_raw_bytes_are_what_is_signed(seller: Orchestrator, http: ClientSession, stripe: FakeStripe) -> None:
    event = some_event(stripe)
    body = stripe.encode(event)
    compact = json.dumps(event).encode()
    assert compact != body
    status, answer = await post(seller, http, compact, **{"Stripe-Signature": stripe.sign(body)})
    assert (status, answer["detail"]) == (400, "Invalid Stripe webhook signature")
    assert await stored(seller, event) == []


FORGERIES: dict[str, tuple[int, str | None, str]] = {
    "forged": (0, "whsec_other", "Invalid Stripe webhook signature"),
    "stale": (-400, None, "Stripe webhook timestamp is outside the tolerance"),
    "future": (400, None, "Stripe webhook timestamp is outside the tolerance"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_unproven_events_are_refused(
    seller: Orchestrator, http: ClientSession, stripe: FakeStripe, forgery: str
) -> None:
    shift_s, secret, detail = FORGERIES[forgery]
    event = some_event(stripe)
    body = stripe.encode(event)
    signature = stripe.sign(body, at=stripe.now() + shift_s, secret=secret)
    status, answer = await post(seller, http, body, **{"Stripe-Signature": signature})
    assert (status, answer["detail"], answer["error"]["code"]) == (400, detail, "INVALID_SIGNATURE")
    assert await stored(seller, event) == []


@pytest.mark.parametrize("headers", [{}, {"Stripe-Signature": ""}, {"Stripe-Signature": "t=1"}], ids=str)
async def test_a_header_that_is_missing_or_unreadable(
    seller: Orchestrator, http: ClientSession, headers: dict[str, str]
) -> None:
    status, answer = await post(seller, http, b"{}", **headers)
    assert (status, answer["detail"]) == (400, "Invalid Stripe-Signature header")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"not json", "Invalid Stripe webhook payload"),
        (b"[]", "Invalid Stripe webhook payload"),
        (b'{"id": "evt_\\u0000", "type": "x"}', "Invalid Stripe webhook payload"),
        (b"{}", "Stripe event missing required fields"),
    ],
    ids=["no json", "no object", "nul", "no fields"],
)
async def test_a_signed_body_that_is_no_event(
    seller: Orchestrator, http: ClientSession, stripe: FakeStripe, body: bytes, detail: str
) -> None:
    status, answer = await post(seller, http, body, **{"Stripe-Signature": stripe.sign(body)})
    assert (status, answer["detail"], answer["error"]["code"]) == (400, detail, "INVALID_PAYLOAD")


@pytest.mark.parametrize("size", [512 * 1024 + 1, 3 * 1024 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_without_end(
    seller: Orchestrator, http: ClientSession, stripe: FakeStripe, size: int, chunked: bool
) -> None:
    body = b" " * size

    async def stream() -> AsyncIterator[bytes]:
        yield body

    url = address(seller.url, "billing/webhook/stripe")
    data = stream() if chunked else BytesIO(body)
    status, answer = await request(http, "POST", url, data=data, headers={"Stripe-Signature": stripe.sign(body)})
    assert (status, answer["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_nobody_of_this_name(orchestrator: Orchestrator, http: ClientSession) -> None:
    status, answer = await request(http, "POST", address(orchestrator.url, "billing/webhook/nobody"), data=b"{}")
    assert (status, answer["detail"]) == (404, "Payment provider not found")


async def test_stripe_without_a_secret(orchestrator: Orchestrator, http: ClientSession) -> None:
    for path in ("billing/webhook/stripe", "billing/webhook"):
        status, answer = await request(http, "POST", address(orchestrator.url, path), data=b"{}")
        assert (status, answer["detail"]) == (404, "Stripe webhook secret is not configured")


@pytest.mark.parametrize(
    "header", ["BTCPay-Sig", "x-cc-webhook-signature", "X-Hook0-Signature", "PAYPAL-TRANSMISSION-SIG"]
)
async def test_a_provider_without_keys_is_not_taken_for_stripe(
    orchestrator: Orchestrator, http: ClientSession, header: str
) -> None:
    for path in ("/api/billing/webhook", "/api/v1/billing/webhook"):
        status, answer = await request(http, "POST", orchestrator.url + path, data=b"{}", headers={header: "sha256=00"})
        assert (status, answer["detail"]) == (404, "Payment provider not found")


async def test_the_sandbox_refuses_forgeries_too(orchestrator: Orchestrator, http: ClientSession) -> None:
    url = address(orchestrator.url, "billing/webhook/sandbox")
    status, answer = await request(http, "POST", url, data=b"{}", headers={"Sandbox-Signature": "t=1,v1=00"})
    assert (status, answer["error"]["code"]) == (400, "INVALID_SIGNATURE")
