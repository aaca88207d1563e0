"""Billing over REST, field by field (contract.md 1.5, 1.7, 4.2, 4.3), with the sandbox as the payment provider."""

from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession

from tests.handlers.buying import (
    SUBSCRIPTION_KEYS,
    URLS,
    check_out,
    colleague,
    order,
    paid,
    plan_ids,
    plan_of,
    press,
    refusal,
    subscription,
)
from tests.support.billing import eventually
from tests.support.people import RegisterCompany, address, request
from tests.support.running import Orchestrator

PLAN_KEYS = {
    "id", "name", "slug", "description", "price_monthly", "price_yearly", "monthly_price", "yearly_price", "currency",
    "limits", "max_users", "max_storage", "features", "feature_flags", "is_active", "sort_order", "created_at",
    "updated_at",
    "trial_days", "past_due_policy",
    "commission_percent",
}  # fmt: skip
INVOICE_KEYS = {
    "id", "subscription_id", "event_type", "status", "amount", "currency", "provider", "provider_event_id",
    "provider_payment_id", "event_metadata", "invoice_url", "document_id", "document_number", "created_at", "paid_at",
}  # fmt: skip


async def test_plans_are_public_and_complete(http: ClientSession, orchestrator: Orchestrator) -> None:
    status, answer = await request(http, "GET", address(orchestrator.url, "billing/plans"))
    assert status == 200
    assert set(answer) == {"status", "data", "error", "pagination"}
    assert (answer["status"], answer["error"], answer["pagination"]) == ("success", None, None)
    assert all(set(plan) == PLAN_KEYS | {"offers"} for plan in answer["data"])
    by_slug = {plan["slug"]: plan for plan in answer["data"]}
    assert {"trial", "starter", "professional", "business"} <= set(by_slug)
    plan = by_slug["professional"]
    assert (
        (plan["price_monthly"], plan["price_yearly"])
        == (plan["monthly_price"], plan["yearly_price"])
        == (
            49.99,
            499.99,
        )
    )
    assert plan["limits"] == {
        "users": 10,
        "max_users": 10,
        "storage_gb": 100,
        "max_storage_gb": 100,
        "api_calls_per_month": 100_000,
    }
    assert (plan["max_users"], plan["max_storage"], plan["currency"], plan["is_active"]) == (10, 100, "USD", True)
    assert plan["feature_flags"] == {"listed_in_marketplace": True, "webhooks_enabled": True}
    assert by_slug["trial"]["features"] == ["Basic features", "Email support"]
    for shown in answer["data"]:
        assert isinstance(shown["description"], str)
        assert shown["created_at"].endswith("Z")


async def test_prices_have_two_decimals_on_the_wire(http: ClientSession, orchestrator: Orchestrator) -> None:
    async with http.get(address(orchestrator.url, "billing/plans")) as response:
        text = await response.text()
    assert '"price_monthly":99.00' in text
    assert '"price_yearly":990.00' in text


@pytest.mark.parametrize("path", ["billing/subscription", "billing/subscriptions"])
async def test_a_new_company_is_on_trial(company: RegisterCompany, path: str) -> None:
    owner = await company()
    status, answer = await owner.get(path)
    assert status == 200
    assert set(answer) == {"status", "data", "error"}
    shown = answer["data"]
    assert set(shown) == SUBSCRIPTION_KEYS
    assert set(shown["plan"]) == PLAN_KEYS
    assert (shown["tenant_id"], shown["status"], shown["plan_name"]) == (str(owner.tenant_id), "trial", "Trial")
    assert (shown["plan_id"], shown["plan"]["slug"]) == (shown["plan"]["id"], "trial")
    assert (shown["billing_period"], shown["amount"], shown["currency"]) == ("monthly", 0, "USD")
    assert shown["trial_ends_at"] == shown["trial_end"] == shown["current_period_end"]
    assert shown["trial_end"].endswith("Z")
    assert shown["cancel_at_period_end"] is False
    assert shown["cancelled_at"] is shown["canceled_at"] is shown["cancel_reason"] is None
    assert shown["payment_provider"] is shown["provider"] is None


async def test_a_client_that_reads_no_envelope(company: RegisterCompany) -> None:
    owner = await company()
    for options in ({"path": "billing/subscription?raw=1"}, {"headers": {"X-Response-Format": "raw"}}):
        status, answer = await owner.get(**{"path": "billing/subscription", **options})  # type: ignore[arg-type]
        assert (status, set(answer)) == (200, SUBSCRIPTION_KEYS)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "billing/subscription"),
        ("GET", "billing/invoices"),
        ("POST", "billing/checkout"),
        ("POST", "billing/cancel"),
        ("POST", f"billing/plans/{UUID(int=1)}/subscribe"),
    ],
)
async def test_strangers_are_turned_away(
    http: ClientSession, orchestrator: Orchestrator, method: str, path: str
) -> None:
    status, answer = await request(http, method, address(orchestrator.url, path), json={})
    assert (status, answer) == (401, refusal("Not authenticated", "AUTH_ERROR"))


async def test_roles(company: RegisterCompany) -> None:
    owner = await company()
    admin, member = await colleague(company, owner, "admin"), await colleague(company, owner, "member")
    needs = "This action requires one of the following roles: "
    for path, method in (("billing/checkout", "POST"), ("billing/invoices", "GET")):
        body = await order(owner) if method == "POST" else None
        assert (await admin.request(method, path, json=body))[0] == 200
        status, answer = await member.request(method, path, json=body)
        assert (status, answer) == (403, refusal(f"{needs}owner, admin", "PERMISSION_DENIED"))
    for person in (admin, member):
        status, answer = await person.post("billing/cancel")
        assert (status, answer) == (403, refusal(f"{needs}owner", "PERMISSION_DENIED"))
        assert (await person.get("billing/subscription"))[0] == 200


async def test_prices_are_the_platforms_to_set(company: RegisterCompany) -> None:
    owner = await company()
    path = f"billing/plans/{(await plan_ids(owner))['starter']}/prices"
    status, answer = await owner.post(path, {"provider": "liqpay", "amount": "799.00", "currency": "UAH"})
    assert (status, answer) == (403, refusal("Superuser access required", "PERMISSION_DENIED"))
    for change, field in (
        ({"amount": 0}, "amount"),
        ({"amount": "1.999"}, "amount"),
        ({"currency": "hryvnia"}, "currency"),
    ):
        body = {"provider": "liqpay", "amount": "799.00", "currency": "UAH", **change}
        status, answer = await owner.post(path, body)
        assert (status, [error["field"] for error in answer["errors"]]) == (422, [f"body -> {field}"])


async def test_purchases_and_what_can_be_done_with_them(company: RegisterCompany) -> None:
    owner = await company()
    checkout = await check_out(owner)
    _, answer = await owner.get("billing/checkouts")
    (pending,) = answer["data"]
    assert (pending["state"], pending["url"]) == ("pending", checkout["checkout_url"])
    assert (pending["amount"], pending["received"], pending["available_actions"]) == (49.99, 0, ["pay", "checkout"])
    await press(owner, checkout, "pay")
    shown = await eventually(lambda: subscription(owner), lambda seen: seen["status"] == "active")
    assert shown["available_actions"] == ["checkout", "change_plan", "cancel", "cancel_now"]
    _, answer = await owner.get("billing/checkouts")
    (paid_for,) = answer["data"]
    assert (paid_for["state"], paid_for["url"], paid_for["available_actions"]) == ("paid", None, [])
    assert paid_for["received"] == 49.99
    assert (await owner.get("billing/credits"))[0] == 403
    member = await colleague(company, owner, "member")
    assert (await member.get("billing/checkouts"))[0] == 403


async def test_buying_by_the_sandbox(company: RegisterCompany) -> None:
    owner, other = await company(), await company()
    checkout = await check_out(owner)
    location = await press(owner, checkout, "pay")
    assert location == f"https://shop.example/ok?s={checkout['session_id']}"
    shown = await eventually(lambda: subscription(owner), lambda seen: seen["status"] == "active")
    assert set(shown) == SUBSCRIPTION_KEYS
    assert (shown["plan"]["slug"], shown["plan_name"], shown["billing_period"]) == (
        "professional",
        "Professional",
        "monthly",
    )
    assert (shown["amount"], shown["currency"], shown["provider"]) == (49.99, "USD", "sandbox")
    assert shown["trial_ends_at"] is shown["trial_end"] is None

    status, answer = await owner.get("billing/invoices")
    assert (status, answer["pagination"]) == (200, {"total": 1, "page": 1, "size": 20, "pages": 1})
    (invoice,) = answer["data"]
    assert set(invoice) == INVOICE_KEYS
    assert (invoice["subscription_id"], invoice["event_type"], invoice["status"]) == (
        shown["id"],
        "payment_success",
        "paid",
    )
    assert (invoice["amount"], invoice["currency"], invoice["provider"]) == (49.99, "USD", "sandbox")
    assert invoice["paid_at"] == invoice["created_at"]
    assert invoice["provider_payment_id"] == checkout["session_id"]
    assert invoice["event_metadata"] == {}
    # The sandbox issues no bills, so it is our own.
    assert invoice["invoice_url"].startswith(f"{owner.url}/invoices/")
    assert (await owner.get(f"billing/documents/{invoice['document_id']}"))[1]["data"]["url"] == invoice["invoice_url"]
    assert (await owner.get("billing/payments"))[1] == answer

    # Nothing of it is another tenant's business.
    assert (await other.get("billing/invoices"))[1] == {
        "status": "success",
        "data": [],
        "error": None,
        "pagination": {"total": 0, "page": 1, "size": 20, "pages": 0},
    }
    assert (await subscription(other))["status"] == "trial"


async def test_a_declined_card(company: RegisterCompany) -> None:
    owner = await company()
    assert await press(owner, await check_out(owner), "decline") == "myapp://billing/cancel"

    async def invoices() -> Any:
        return (await owner.get("billing/invoices"))[1]["data"]

    (failed,) = await eventually(invoices, len)
    assert (failed["status"], failed["event_type"], failed["paid_at"]) == ("failed", "payment_failed", None)
    assert (await subscription(owner))["status"] == "trial"
    _, answer = await owner.get("notifications?unread=true")
    assert "Payment failed" in {note["title"] for note in answer["data"]}


async def test_invoices_in_pages(company: RegisterCompany) -> None:
    owner = await company()
    for slug in ("starter", "business"):
        await press(owner, await check_out(owner, slug), "pay")
        await eventually(lambda: plan_of(owner), slug.__eq__)
    pages = [(await owner.get(f"billing/invoices?page={page}&size=1"))[1] for page in (1, 2, 3)]
    assert [len(page["data"]) for page in pages] == [1, 1, 0]
    assert pages[0]["pagination"] == {"total": 2, "page": 1, "size": 1, "pages": 2}
    # The second is what the dearer plan costs more for the rest of the period.
    amounts = sorted(page["data"][0]["amount"] for page in pages[:2])
    assert amounts[0] == 19.99
    assert 78.9 < amounts[1] <= 79.01
    assert (await owner.get("billing/invoices?page=x"))[0] == 422


@pytest.mark.parametrize("body", [None, {}, {"reason": None, "cancel_at_period_end": None}, {"reason": " "}])
async def test_cancelling_at_the_periods_end(company: RegisterCompany, body: dict[str, Any] | None) -> None:
    owner = await company()
    before = await paid(owner)
    status, answer = await owner.post("billing/cancel", body)
    assert status == 200
    shown = answer["data"]
    assert set(shown) == SUBSCRIPTION_KEYS
    assert (shown["status"], shown["cancel_at_period_end"], shown["cancel_reason"]) == ("active", True, None)
    assert shown["current_period_end"] == before["current_period_end"]
    assert shown["cancelled_at"] == shown["canceled_at"] is not None


async def test_cancelling_now(company: RegisterCompany) -> None:
    owner = await company()
    await paid(owner)
    status, answer = await owner.post("billing/cancel", {"cancel_at_period_end": False, "reason": "too dear"})
    shown = answer["data"]
    assert (status, shown["status"], shown["cancel_reason"]) == (200, "cancelled", "too dear")
    assert shown["current_period_end"] == shown["cancelled_at"]
    status, answer = await owner.post("billing/cancel")
    assert (status, answer["error"]["code"]) == (400, "SUBSCRIPTION_ERROR")


async def test_a_reason_has_an_end(company: RegisterCompany) -> None:
    owner = await company()
    status, answer = await owner.post("billing/cancel", {"reason": "x" * 501})
    assert (status, answer["errors"][0]["field"]) == (422, "body -> reason")
    assert (await owner.post("billing/cancel", {"reason": "x" * 500}))[0] == 200


async def test_a_dearer_plan_for_the_difference_and_a_cheaper_one_later(company: RegisterCompany) -> None:
    owner = await company()
    await press(owner, await check_out(owner, "starter"), "pay")
    await eventually(lambda: plan_of(owner), "starter".__eq__)
    wanted = {"plan_id": (await plan_ids(owner))["business"]}
    status, answer = await owner.post("billing/change-plan/preview", wanted)
    assert (status, answer["data"]["effect"], answer["data"]["currency"]) == (200, "payment", "USD")
    assert 78.9 < answer["data"]["amount"] <= 79.01
    status, answer = await owner.post("billing/change-plan", wanted)
    assert (status, answer["error"]["code"]) == (422, "VALIDATION_ERROR")
    status, answer = await owner.post("billing/change-plan", {**wanted, **URLS})
    assert (status, answer["data"]["effect"]) == (200, "payment")
    await press(owner, answer["data"], "pay")
    await eventually(lambda: plan_of(owner), "business".__eq__)
    cheaper = {"plan_id": (await plan_ids(owner))["starter"]}
    status, answer = await owner.post("billing/checkout", {**cheaper, **URLS})
    assert (status, answer["error"]["code"]) == (409, "CHANGE_AT_PERIOD_END")
    status, answer = await owner.post("billing/change-plan", cheaper)
    assert (status, answer["data"]["effect"], answer["data"]["checkout_url"]) == (200, "period_end", None)
    pending = answer["data"]["subscription"]["pending_change"]
    assert (pending["plan"], pending["amount"]) == ("starter", 19.99)
    assert answer["data"]["subscription"]["plan"]["slug"] == "business"
    status, answer = await owner.delete("billing/change-plan")
    assert (status, answer["data"]["pending_change"]) == (200, None)
    assert (await owner.delete("billing/change-plan"))[0] == 409


async def test_a_cancellation_is_taken_back(company: RegisterCompany) -> None:
    owner = await company()
    await paid(owner)
    assert (await owner.post("billing/reinstate"))[0] == 409
    await owner.post("billing/cancel")
    status, answer = await owner.post("billing/reinstate")
    assert (status, answer["data"]["cancel_at_period_end"], answer["data"]["cancelled_at"]) == (200, False, None)
