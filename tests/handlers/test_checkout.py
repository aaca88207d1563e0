"""Checkouts over REST: the names that clients have for them, and what is refused (contract.md 4.2)."""

from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from tests.handlers.buying import (
    URLS,
    check_out,
    order,
    paid,
    plan_ids,
    press,
    refusal,
    subscription,
)
from tests.support.billing import eventually
from tests.support.people import RegisterCompany


async def test_checkout_answers_twice_for_two_kinds_of_clients(company: RegisterCompany) -> None:
    owner = await company()
    answer = await check_out(owner)
    assert set(answer) == {"status", "data", "error", "checkout_url", "session_id"}
    assert answer["data"] == {"checkout_url": answer["checkout_url"], "session_id": answer["session_id"]}
    assert urlsplit(answer["checkout_url"]).path == f"/sandbox/pay/{answer['session_id']}"


@pytest.mark.parametrize(
    "provider", [{}, {"payment_provider": None}, {"payment_provider": ""}, {"payment_provider": "SandBox"}]
)
async def test_the_provider_may_be_left_out(company: RegisterCompany, provider: dict[str, Any]) -> None:
    answer = await check_out(await company(), **provider)
    assert answer["session_id"].startswith("sbx_cs_")


@pytest.mark.parametrize(
    ("period", "meant"),
    [("month", "monthly"), ("MONTHLY", "monthly"), ("Year", "yearly"), ("annual", "yearly"), ("yearly", "yearly")],
)
async def test_periods_have_several_names(company: RegisterCompany, period: str, meant: str) -> None:
    shown = await paid(await company(), billing_period=period)
    assert (shown["billing_period"], shown["amount"]) == (meant, 49.99 if meant == "monthly" else 499.99)


async def test_the_older_path_names_the_plan(company: RegisterCompany) -> None:
    owner = await company()
    plan_id = (await plan_ids(owner))["starter"]
    status, answer = await owner.post(f"billing/plans/{plan_id}/subscribe", {**URLS, "plan_id": "ignored"})
    assert status == 200
    await press(owner, answer, "pay")
    shown = await eventually(lambda: subscription(owner), lambda seen: seen["status"] == "active")
    assert shown["plan"]["slug"] == "starter"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"plan_id": "nonsense"}, "body -> plan_id"),
        ({"plan_id": None}, "body -> plan_id"),
        ({"billing_period": "weekly"}, "body -> billing_period"),
        ({"billing_period": 1}, "body -> billing_period"),
        ({"success_url": "javascript://%0aalert(1)"}, "body -> success_url"),
        ({"success_url": "/relative"}, "body -> success_url"),
        ({"cancel_url": "data:text/html,x"}, "body -> cancel_url"),
        ({"cancel_url": None}, "body -> cancel_url"),
        ({"cancel_url": "https://shop.example/\r\nX: y"}, "body -> cancel_url"),
        ({"payment_provider": "x" * 51}, "body -> payment_provider"),
        ({"payment_provider": 7}, "body -> payment_provider"),
    ],
)
async def test_what_is_refused_in_a_checkout(company: RegisterCompany, change: dict[str, Any], field: str) -> None:
    owner = await company()
    status, answer = await owner.post("billing/checkout", {**await order(owner), **change})
    assert status == 422
    assert [error["field"] for error in answer["errors"]] == [field]
    assert answer["detail"] == "Validation error"


async def test_addresses_to_return_to_are_needed(company: RegisterCompany) -> None:
    owner = await company()
    status, answer = await owner.post("billing/checkout", {"plan_id": (await plan_ids(owner))["starter"]})
    assert status == 422
    assert [error["field"] for error in answer["errors"]] == ["body -> success_url", "body -> cancel_url"]


async def test_refusals_of_a_checkout(company: RegisterCompany) -> None:
    owner = await company()
    status, answer = await owner.post("billing/checkout", await order(owner) | {"plan_id": str(uuid4())})
    assert (status, answer) == (400, refusal("Plan not found", "SUBSCRIPTION_ERROR"))
    status, answer = await owner.post(f"billing/plans/{UUID(int=1)}/subscribe", URLS)
    assert (status, answer) == (400, refusal("Plan not found", "SUBSCRIPTION_ERROR"))
    status, answer = await owner.post("billing/checkout", await order(owner, payment_provider="paypal"))
    # Of this server, which has no keys, the sandbox also answers to Stripe's name.
    text = "Only 'sandbox', 'stripe' payment providers are supported currently"
    assert (status, answer) == (400, refusal(text, "PAYMENT_ERROR"))
    status, answer = await owner.post("billing/checkout", await order(owner, "trial"))
    assert (status, answer["error"]["code"]) == (400, "SUBSCRIPTION_ERROR")
