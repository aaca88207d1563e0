"""Crypto billing on the wire: the examples of docs/billing.md as they are printed, and the forms of contract.md 4.6."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientSession
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers import merchants
from handlers.context import RateRules
from services.unit_of_work import PlatformScope
from tests.fakes.btcpay_api import API_KEY, STORE, WEBHOOK_SECRET, FakeBtcPay
from tests.handlers.frame import TENANT_ID, open_door, refusal
from tests.handlers.second_factors import code_of, switch_on
from tests.support.billing import eventually
from tests.support.listeners import Listener
from tests.support.market import Market
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "billing.md").read_text(encoding="utf-8")
PROVIDER = "/api/tenant/payments/provider"
ORDERS = "/api/tenant/orders"
KEYS = {"provider": "btcpay", "storeId": STORE, "apiKey": API_KEY, "webhookSecret": WEBHOOK_SECRET}
PASSWORD = "correct horse"


@pytest.fixture
async def btcpay() -> AsyncIterator[FakeBtcPay]:
    async with FakeBtcPay() as fake:
        yield fake


@pytest.fixture
async def owner(company: RegisterCompany) -> Person:
    return await company()


def printed(path: str) -> str:
    """Return the one example of the page that calls a path."""
    section = PAGE.split("\n## Merchants\n", 1)[1].split("\n## ", 1)[0]
    commands = [
        command
        for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        for command in re.split(r"\n(?=curl )", block.strip())
    ]
    (found,) = [command for command in commands if f'"$API{path}"' in command]
    return found


async def run(command: str, **variables: str) -> Any:
    """Run a command of the page in a shell, as its reader would; returns the JSON that it prints."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", command.replace("curl ", "curl --silent --show-error ", 1)),
        env={"PATH": os.environ["PATH"], **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl", "openssl"))), reason="needs bash, curl and openssl")
async def test_the_examples_work_as_printed(orchestrator: Orchestrator, owner: Person, btcpay: FakeBtcPay) -> None:
    variables = {
        "API": orchestrator.url,
        "TOKEN": owner.token,
        "BTCPAY": btcpay.base_url,
        "STORE": STORE,
        "KEY": API_KEY,
        "SECRET": WEBHOOK_SECRET,
    }
    bought = await run(printed("/api/billing/subscribe"), **variables)
    assert list(bought) == ["url"]
    assert bought["url"].startswith("http")
    account = await run(printed(PROVIDER), **variables)
    order = await run(printed(ORDERS), **variables)
    assert (order["amount"], order["status"], order["paid"], order["paidAt"]) == ("49.90", "pending", False, None)
    variables["ORDER"] = order["id"]
    begun = await run(printed(f"{ORDERS}/$ORDER/pay"), **variables)
    assert begun == await run(printed(f"{ORDERS}/$ORDER/pay"), **variables)
    (invoice,) = btcpay.invoices
    assert begun == {"url": btcpay.invoices[invoice]["checkoutLink"]}
    variables["INTEGRATION"] = account["id"]
    for event in btcpay.pay(invoice):
        variables["BODY"] = btcpay.encode(event).decode()
        told = await run(printed("/api/tenant/payments/webhook/$INTEGRATION"), **variables)
        assert told == {"status": "success", "message": "Webhook received"}
    shown = await eventually(
        lambda: run(printed(f"{ORDERS}/$ORDER"), **variables), lambda answer: answer["status"] == "paid"
    )
    assert shown["paid"] is True
    assert shown["commission"] == "2.50"
    assert [row["status"] for row in shown["invoices"]] == ["paid"]
    commissions = await run(printed("/api/tenant/commissions"), **variables)
    (step,) = commissions["items"]
    assert (step["orderId"], step["commissionPercent"], step["commissionAmount"], step["currency"]) == (
        order["id"],
        "5",
        "2.50",
        "USD",
    )


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl", "openssl"))), reason="needs bash, curl and openssl")
async def test_the_platforms_own_webhook_works_as_printed(market: Market) -> None:
    body = json.dumps({"deliveryId": uuid4().hex, "type": "PayoutCreated"})
    variables = {"API": market.instances[0].url, "SECRET": WEBHOOK_SECRET, "BODY": body}
    for _ in range(2):
        told = await run(printed("/api/billing/webhook"), **variables)
        assert told == {"status": "success", "message": "Webhook received"}
    refused = await run(printed("/api/billing/webhook"), **{**variables, "SECRET": "another"})
    assert refused["error"]["code"] == "INVALID_SIGNATURE"


async def test_keys_are_never_shown(owner: Person, btcpay: FakeBtcPay) -> None:
    assert (await owner.get(PROVIDER))[0] == 404
    # The keys as an object of their own, and in snake case.
    keys = {"store_id": STORE, "api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "host": btcpay.base_url + "/"}
    status, told = await owner.post(PROVIDER, {"provider": "BTCPay", "keys": keys})
    assert status == 200, told
    status, shown = await owner.get(PROVIDER)
    assert status == 200
    assert shown["account"] == {"host": btcpay.base_url + "/", "storeId": STORE}
    assert shown["webhookUrl"].endswith(f"/api/tenant/payments/webhook/{shown['id']}")
    assert [row["isCurrent"] for row in shown["integrations"]] == [True]
    for secret in (API_KEY, WEBHOOK_SECRET):
        assert secret not in str((told, shown))
    assert await owner.delete(PROVIDER) == (200, {"status": "success", "message": "Payment provider removed"})
    assert (await owner.get(PROVIDER))[0] == 404


async def test_a_second_factor_is_shown_before_the_money_goes_elsewhere(
    orchestrator: Orchestrator, owner: Person, company: RegisterCompany, btcpay: FakeBtcPay
) -> None:
    plain, account = await company(), {**KEYS, "host": btcpay.base_url}
    secret, _ = await switch_on(owner, orchestrator)
    orchestrator.clock.offset += timedelta(minutes=11)
    try:
        for answer in (await owner.post(PROVIDER, account), await owner.delete(PROVIDER)):
            assert (answer[0], answer[1]["error"]["code"]) == (403, "STEP_UP_REQUIRED")
        assert (await owner.get(PROVIDER))[0] == 404
        assert (await owner.post("auth/step-up", {"code": code_of(secret, orchestrator)}))[0] == 200
        assert (await owner.post(PROVIDER, account))[0] == 200
        # Clients of the contract know of no step-up, and their people have no second factor.
        assert (await plain.post(PROVIDER, account))[0] == 200
        assert (await plain.delete(PROVIDER))[0] == 200
    finally:
        orchestrator.clock.offset -= timedelta(minutes=11)


@pytest.mark.parametrize(
    "wrong",
    [{"apiKey": "x\ny"}, {"apiKey": "ключ"}, {"storeId": "a/b?c"}, {"storeId": "../.."}, {"webhookSecret": "\u202e"}],
)
async def test_keys_that_could_not_be_sent_are_refused(
    owner: Person, btcpay: FakeBtcPay, wrong: dict[str, str]
) -> None:
    status, _ = await owner.post(PROVIDER, {**KEYS, "host": btcpay.base_url, **wrong})
    assert status == 422
    assert (await owner.get(PROVIDER))[0] == 404


async def test_items_hold_nothing_that_cannot_be_shown_again(owner: Person) -> None:
    body = {"amount": "1", "currency": "USD", "items": [{"count": 1e20}]}
    assert (await owner.post(ORDERS, body))[0] == 422
    assert (await owner.get(ORDERS))[1]["items"] == []


async def test_an_order_paid_is_heard_live(orchestrator: Orchestrator, owner: Person, btcpay: FakeBtcPay) -> None:
    _, account = await owner.post(PROVIDER, {**KEYS, "host": btcpay.base_url})
    _, order = await owner.post(ORDERS, {"amount": "0.00123000", "currency": "btc"})
    assert order["amount"] == "0.00123000"
    status, answer = await owner.post(f"{ORDERS}/{order['id']}/pay", {"amount": "0.00123", "currency": "BTC"})
    assert status == 200, answer
    (invoice,) = btcpay.invoices
    listener = await Listener().connect(orchestrator.url, owner.token, "/billing")
    try:
        for event in btcpay.pay(invoice):
            body = btcpay.encode(event)
            assert await btcpay.post(account_url(orchestrator, account), body, {"BTCPay-Sig": btcpay.sign(body)}) == 200
        await listener.until(lambda: listener.of("order:paid"))
        (heard,) = listener.of("order:paid")
        assert (heard["order_id"], heard["amount"], heard["currency"]) == (order["id"], "0.00123000", "BTC")
        assert listener.of("payment:received") == []
    finally:
        await listener.close()
    status, listed = await owner.get(f"{ORDERS}?status=paid&size=5")
    assert (status, listed["total"], listed["items"][0]["id"]) == (200, 1, order["id"])
    assert (await owner.get(f"{ORDERS}?reference=nobody"))[1]["items"] == []


def account_url(orchestrator: Orchestrator, account: dict[str, Any]) -> str:
    # What merchants register stands under PUBLIC_URL, which is this server.
    assert account["webhookUrl"].startswith(orchestrator.url)
    return str(account["webhookUrl"])


async def test_amounts_are_texts(owner: Person) -> None:
    for amount in (49.9, 49, "49,90", "-1", "1e3", "", " ", "NaN", "1234567890", None):
        status, answer = await owner.post(ORDERS, {"amount": amount, "currency": "USD"})
        assert status == 422, amount
        assert answer["errors"][0]["field"] == "body -> amount"
    for currency in ("US", "DOLLAR", "U$D", 5):
        assert (await owner.post(ORDERS, {"amount": "1", "currency": currency}))[0] == 422


async def test_an_order_is_in_a_currency_that_exists(owner: Person) -> None:
    for currency in ("ZZZ", "xau", "DOGGO"):
        status, answer = await owner.post(ORDERS, {"amount": "1", "currency": currency})
        assert (status, answer["error"]["code"]) == (422, "UNKNOWN_CURRENCY")
        assert [error["field"] for error in answer["errors"]] == ["body -> currency"]
    assert (await owner.get(ORDERS))[1]["items"] == []
    for currency in ("jpy", "USDT"):
        assert (await owner.post(ORDERS, {"amount": "1", "currency": currency}))[0] == 201


async def test_a_differing_amount_is_refused(owner: Person) -> None:
    _, order = await owner.post(ORDERS, {"amount": "49.90", "currency": "USD"})
    path = f"{ORDERS}/{order['id']}/pay"
    status, answer = await owner.post(path, {"amount": "0.01", "currency": "USD"})
    assert (status, answer["error"]["code"]) == (409, "AMOUNT_DIFFERS")
    status, answer = await owner.post(path, {"amount": "49.9", "currency": "usd"})
    assert (status, answer["detail"]) == (400, "Set up a payment provider first")


async def test_x_tenant_must_be_the_tokens(owner: Person, company: RegisterCompany) -> None:
    slug = owner.registration["current_tenant"]["slug"]
    for named in (str(owner.tenant_id), slug, slug.upper()):
        assert (await owner.get(ORDERS, headers={"X-Tenant": named}))[0] == 200
    other = await company()
    for named in (str(other.tenant_id), "nobody"):
        status, answer = await owner.get(ORDERS, headers={"X-Tenant": named})
        assert (status, answer["detail"]) == (403, "You don't have access to this tenant")


async def test_webhooks_answer_as_the_others_do(
    orchestrator: Orchestrator, http: ClientSession, owner: Person, btcpay: FakeBtcPay
) -> None:
    _, account = await owner.post(PROVIDER, {**KEYS, "host": btcpay.base_url})
    url, body = account["webhookUrl"], b'{"deliveryId": "1", "type": "PayoutCreated"}'
    signature = {"BTCPay-Sig": btcpay.sign(body)}
    by_tenant = f"{orchestrator.url}/api/tenant/payments/webhook?tenant={owner.tenant_id}"
    for place in (url, by_tenant):
        status, answer = await request(http, "POST", place, data=body, headers=signature)
        assert (status, answer["message"]) == (200, "Webhook received")
    status, answer = await request(http, "POST", url, data=body, headers={"BTCPay-Sig": "sha256=" + "0" * 64})
    assert (status, answer["error"]["code"]) == (400, "INVALID_SIGNATURE")
    status, _ = await request(http, "POST", url, data=b"x" * (600 * 1024), headers=signature)
    assert status == 413
    for place in (
        f"{orchestrator.url}/api/tenant/payments/webhook/{uuid4()}",
        f"{orchestrator.url}/api/tenant/payments/webhook?tenant={uuid4()}",
        f"{orchestrator.url}/api/tenant/payments/webhook",
    ):
        assert (await request(http, "POST", place, data=body, headers=signature))[0] == 404


@pytest.mark.parametrize(
    ("rule", "method", "path"),
    [
        ("webhooks_per_ip", "POST", f"/api/tenant/payments/webhook/{UUID(int=1)}"),
        ("webhooks_per_ip", "POST", "/api/tenant/payments/webhook?tenant=x"),
        ("payments_per_tenant", "POST", f"{ORDERS}/{UUID(int=1)}/pay"),
        ("payments_per_tenant", "POST", f"{ORDERS}/{UUID(int=1)}/refund"),
        ("payments_per_tenant", "POST", PROVIDER),
        ("payments_per_tenant", "POST", "/api/billing/subscribe"),
    ],
)
async def test_the_third_has_to_wait(
    orchestrator: Orchestrator, engine: AsyncEngine, rule: str, method: str, path: str
) -> None:
    rules = replace(RateRules(auth_per_ip="", sso_per_user="", webhooks_per_ip="", user_total=""), **{rule: "2/minute"})
    body = {"amount": "1", "currency": "USD", "provider": "nobody", "planId": "nothing"}
    who = {"Authorization": "Bearer member"}
    async with open_door(engine, rules=rules, routers=[merchants.router], services=orchestrator.services) as client:
        for _ in range(2):
            assert (await client.request(method, path, json=body, headers=who)).status in (400, 404)
        limited = await client.request(method, path, json=body, headers=who)
        await refusal(limited, 429, "RATE_LIMITED")
        assert 0 < int(limited.headers["Retry-After"]) <= 61


@pytest.mark.parametrize(
    ("who", "path", "named"),
    [
        ("stranger", "/api/billing/subscribe", {"tenantId": str(TENANT_ID)}),
        ("helper", "/api/billing/subscribe", {}),
        ("helper", PROVIDER, {}),
        ("helper", f"{ORDERS}/{UUID(int=1)}/pay", {}),
        ("helper", f"{ORDERS}/{UUID(int=1)}/refund", {}),
    ],
)
async def test_whoever_may_not_uses_up_nothing_of_what_the_tenant_may(
    orchestrator: Orchestrator, engine: AsyncEngine, who: str, path: str, named: dict[str, str]
) -> None:
    rules = RateRules(payments_per_tenant="60/minute")
    body = {"amount": "1", "currency": "USD", "provider": "nobody", "planId": "nothing", **named}

    async with open_door(engine, rules=rules, routers=[merchants.router], services=orchestrator.services) as client:

        async def ask(token: str) -> int:
            async with client.post(path, json=body, headers={"Authorization": f"Bearer {token}"}) as response:
                return response.status

        assert set(await asyncio.gather(*(ask(who) for _ in range(70)))) == {403}
        assert await ask("member") in (400, 404), "the owner is served"


class TestSubscribe:
    """`planId` by its id, its slug, or its slug and period."""

    async def test_a_plan_is_named_in_four_ways(self, owner: Person) -> None:
        _, plans = await owner.get("billing/plans")
        (plan,) = [row for row in plans["data"] if row["slug"] == "business"]
        for name in (plan["id"], "business", "business-monthly", "Business-Yearly"):
            status, answer = await owner.post("/api/billing/subscribe", {"planId": name, "currency": "usd"})
            assert (status, list(answer)) == (200, ["url"]), answer
        _, begun = await owner.get("billing/checkouts")
        # The page of the month is open and is offered again.
        assert sorted(row["billing_period"] for row in begun["data"]) == ["monthly", "yearly"]
        assert {row["plan_id"] for row in begun["data"]} == {plan["id"]}

    async def test_what_cannot_be_bought(self, owner: Person) -> None:
        for body, said in (
            ({"planId": "nothing-monthly", "currency": "USD"}, "Plan not found"),
            ({"planId": str(uuid4()), "currency": "USD"}, "Plan not found"),
            ({"planId": "business-weekly", "currency": "USD"}, "Plan not found"),
            ({"planId": "business-monthly", "currency": "EUR"}, "This plan is paid in USD"),
            ({"planId": "trial", "currency": "USD"}, "This plan cannot be bought"),
        ):
            status, answer = await owner.post("/api/billing/subscribe", body)
            assert (status, answer["detail"]) == (400, said)

    async def test_a_superuser_buys_for_any_tenant(
        self, orchestrator: Orchestrator, http: ClientSession, owner: Person, company: RegisterCompany
    ) -> None:
        email = f"root-{uuid4().hex}@example.org"
        async with orchestrator.units(PlatformScope("a test needs somebody of the platform")) as uow:
            await orchestrator.services.auth.create_superuser(uow, email=email, password=PASSWORD, full_name="Root")
        login = {"email": email, "password": PASSWORD}
        _, answer = await request(http, "POST", address(orchestrator.url, "auth/login"), json=login)
        root = {"Authorization": f"Bearer {answer['data']['access_token']}"}
        url = f"{orchestrator.url}/api/billing/subscribe"
        body = {"planId": "business-monthly", "currency": "USD", "tenantId": str(owner.tenant_id)}
        status, answer = await request(http, "POST", url, json=body, headers=root)
        assert (status, list(answer)) == (200, ["url"]), answer
        _, begun = await owner.get("billing/checkouts")
        assert len(begun["data"]) == 1
        status, _ = await request(http, "POST", url, json={**body, "tenantId": str(uuid4())}, headers=root)
        assert status == 404
        stranger = await company()
        assert (await stranger.post("/api/billing/subscribe", body))[0] == 403
