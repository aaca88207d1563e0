"""Comparing a provider with what we hold, over REST: a payment that no webhook told of is found by the real workers."""

from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from tests.handlers.test_super_admin_plans import promoted
from tests.handlers.test_webhooks import active, check_out
from tests.support.billing import eventually
from tests.support.market import Market
from tests.support.people import Person, company_factory


@pytest.fixture
async def boss(http: ClientSession, market: Market) -> Person:
    seller = market.instances[0]
    return await promoted(seller, await company_factory(http, seller.url)(), is_superuser=True)


async def swept(boss: Person, provider: str) -> dict[str, Any]:
    """Have a provider compared, and wait until that is done."""

    async def asked() -> int:
        status, answer = await boss.post("billing/reconcile", {"provider": provider})
        asked_for.update(answer.get("data") or {})
        return status

    # The night's own sweep may be running.
    asked_for: dict[str, Any] = {}
    await eventually(asked, lambda status: status == 200)

    async def shown() -> dict[str, Any]:
        found: dict[str, Any] = (await boss.get(f"billing/reconciliations/{asked_for['id']}"))[1]["data"]
        return found

    return await eventually(shown, lambda view: view["state"] == "done")


async def test_a_payment_that_no_webhook_told_of(http: ClientSession, market: Market, boss: Person) -> None:
    owner = await company_factory(http, market.instances[1].url)()
    market.stripe.pay_checkout(await check_out(owner))
    view = await swept(boss, "stripe")
    shown = await active(owner)
    assert (shown["plan"]["slug"], shown["provider"]) == ("professional", "stripe")
    assert view["found"] >= 1
    assert (view["provider"], view["requested_by"], view["nightly"]) == ("stripe", str(boss.user_id), False)
    status, answer = await boss.get("billing/reconciliations?page_size=100")
    assert status == 200
    assert view["id"] in {row["id"] for row in answer["data"]}
    _, answer = await boss.get("billing/provider-events?state=handled&page_size=100")
    assert "sweep" in {row["source"] for row in answer["data"]}


async def test_what_cannot_be_compared(boss: Person) -> None:
    status, answer = await boss.post("billing/reconcile", {"provider": "nobody"})
    assert (status, answer["error"]["code"]) == (400, "PAYMENT_ERROR")
    assert (await boss.post("billing/reconcile", {}))[0] == 422
    assert (await boss.get(f"billing/reconciliations/{uuid4()}"))[0] == 404
