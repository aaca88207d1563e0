"""Only webhooks that are refused are limited: a provider delivers everybody's events from a few addresses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers import merchants, webhooks
from handlers.context import RateRules
from server.settings import Settings
from tests.fakes.btcpay_api import API_KEY, STORE, WEBHOOK_SECRET, FakeBtcPay
from tests.handlers.frame import Client, open_door, refusal
from tests.support.market import Market
from tests.support.people import company_factory

# The cluster has the same code here; that instances count together is shown in tests/providers/test_limiter.py.
pytestmark = pytest.mark.embedded

RULE = str(Settings.model_fields["rate_webhooks_per_ip"].default)
ALLOWED = 120
ADDRESSES = ("/api/v1/billing/webhook/stripe", "/api/v1/billing/webhook", "/api/billing/webhook")
MERCHANTS = (
    f"/api/tenant/payments/webhook/{UUID(int=1)}",
    "/api/tenant/payments/webhook?tenant=nobody",
)


@pytest.fixture
async def door(market: Market, engine: AsyncEngine) -> AsyncIterator[Client]:
    """The webhooks of a server that sells by every provider, with the limit as it is shipped."""
    rules = RateRules(auth_per_ip="", sso_per_user="", webhooks_per_ip=RULE, user_total="")
    routers = [webhooks.router, merchants.router]
    services = market.instances[0].services
    async with open_door(engine, rules=rules, routers=routers, services=services) as client:
        yield client


@pytest.fixture
async def btcpay() -> AsyncIterator[FakeBtcPay]:
    async with FakeBtcPay() as fake:
        yield fake


def test_the_limit_as_it_is_shipped() -> None:
    assert f"{ALLOWED}/minute" == RULE


@pytest.mark.parametrize("place", ADDRESSES)
async def test_genuine_deliveries_are_not_limited(door: Client, market: Market, place: str) -> None:
    stripe = market.stripe
    body = stripe.encode(stripe._event("customer.created", {"id": "cus_1", "object": "customer", "livemode": False}))
    headers = {"Stripe-Signature": stripe.sign(body)}
    for _ in range(20):
        answers = await asyncio.gather(*(door.post(place, data=body, headers=headers) for _ in range(10)))
        assert {answer.status for answer in answers} == {200}


async def test_genuine_deliveries_for_a_merchant_are_not_limited(
    door: Client, market: Market, http: ClientSession, btcpay: FakeBtcPay
) -> None:
    owner = await company_factory(http, market.instances[0].url)()
    keys = {"provider": "btcpay", "storeId": STORE, "apiKey": API_KEY, "webhookSecret": WEBHOOK_SECRET}
    status, account = await owner.post("/api/tenant/payments/provider", {**keys, "host": btcpay.base_url})
    assert status == 200, account
    body = b'{"deliveryId": "1", "type": "PayoutCreated"}'
    place = "/api/tenant/payments/webhook/" + account["webhookUrl"].rsplit("/", 1)[1]
    for _ in range(20):
        posts = (door.post(place, data=body, headers={"BTCPay-Sig": btcpay.sign(body)}) for _ in range(10))
        assert {answer.status for answer in await asyncio.gather(*posts)} == {200}


async def test_a_network_of_ipv6_counts_as_one_address(market: Market, engine: AsyncEngine) -> None:
    rules = RateRules(auth_per_ip="", sso_per_user="", webhooks_per_ip="3/minute", user_total="")
    services, proxies = market.instances[0].services, ["127.0.0.0/8"]
    async with open_door(
        engine, rules=rules, routers=[webhooks.router], services=services, trusted_proxies=proxies
    ) as client:
        statuses = [
            (await client.post(ADDRESSES[0], data=b"{}", headers={"X-Forwarded-For": f"2001:db8::{number}"})).status
            for number in range(1, 5)
        ]
    assert statuses == [400, 400, 400, 429]


@pytest.mark.parametrize("place", [*ADDRESSES, *MERCHANTS])
async def test_the_121st_that_is_refused_has_to_wait(door: Client, place: str) -> None:
    for _ in range(12):
        answers = await asyncio.gather(*(door.post(place, data=b"{}") for _ in range(10)))
        assert {answer.status for answer in answers} <= {400, 404}
    limited = await door.post(place, data=b"{}")
    await refusal(limited, 429, "RATE_LIMITED")
    assert 0 < int(limited.headers["Retry-After"]) <= 61


async def test_every_refusal_counts_and_whoever_is_over_is_not_read(door: Client, market: Market) -> None:
    stripe = market.stripe
    place, unreadable = ADDRESSES[0], b"not json"
    refused: dict[int, Any] = {
        400: {"data": unreadable, "headers": {"Stripe-Signature": stripe.sign(unreadable)}},
        413: {"data": b" " * (512 * 1024 + 1)},
    }
    for _ in range(ALLOWED // 3):
        for status, sent in refused.items():
            assert (await door.post(place, **sent)).status == status
        assert (await door.post("/api/v1/billing/webhook/nobody", data=b"{}")).status == 404
    # Its signature is not looked at any more, nor its length.
    body = stripe.encode(stripe._event("customer.created", {"id": "cus_2", "object": "customer", "livemode": False}))
    await refusal(
        await door.post(place, data=body, headers={"Stripe-Signature": stripe.sign(body)}), 429, "RATE_LIMITED"
    )
    await refusal(await door.post(place, **refused[413]), 429, "RATE_LIMITED")
