"""Buying over REST: the deeds of a customer, and how they are refused, that the tests of billing share."""

from typing import Any

from tests.support.billing import eventually
from tests.support.people import Person, RegisterCompany

SUBSCRIPTION_KEYS = {
    "id", "tenant_id", "plan_id", "plan_name", "status", "billing_period", "amount", "currency", "trial_ends_at",
    "trial_end", "current_period_start", "current_period_end", "cancel_at_period_end", "cancelled_at", "canceled_at",
    "cancel_reason", "payment_provider", "provider", "pending_change", "overdue_since",
    "available_actions", "created_at", "updated_at", "plan",
}  # fmt: skip
URLS = {"success_url": "https://shop.example/ok?s={CHECKOUT_SESSION_ID}", "cancel_url": "myapp://billing/cancel"}


async def plan_ids(person: Person) -> dict[str, str]:
    _, answer = await person.get("billing/plans")
    return {plan["slug"]: plan["id"] for plan in answer["data"]}


async def order(person: Person, slug: str = "professional", **more: Any) -> dict[str, Any]:
    return {"plan_id": (await plan_ids(person))[slug], "billing_period": "monthly", **URLS, **more}


async def check_out(person: Person, slug: str = "professional", **more: Any) -> dict[str, Any]:
    """Begin to buy a plan; returns the answer."""
    status, answer = await person.post("billing/checkout", await order(person, slug, **more))
    assert status == 200, answer
    checkout: dict[str, Any] = answer
    return checkout


async def press(person: Person, checkout: dict[str, Any], action: str) -> str:
    """Press a button of the payment page; returns where the payer is sent."""
    async with person.http.post(checkout["checkout_url"], data={"action": action}, allow_redirects=False) as response:
        assert response.status == 303, await response.text()
        return response.headers["Location"]


async def subscription(person: Person) -> dict[str, Any]:
    status, answer = await person.get("billing/subscription")
    assert status == 200, answer
    shown: dict[str, Any] = answer["data"]
    return shown


async def plan_of(person: Person) -> str:
    slug: str = (await subscription(person))["plan"]["slug"]
    return slug


async def paid(person: Person, slug: str = "professional", **more: Any) -> dict[str, Any]:
    """Buy a plan to the end; returns the subscription."""
    await press(person, await check_out(person, slug, **more), "pay")
    return await eventually(lambda: subscription(person), lambda seen: seen["status"] == "active")


async def colleague(company: RegisterCompany, owner: Person, role: str) -> Person:
    """Return somebody else in the tenant of `owner`, signed in to it."""
    person = await company()
    status, _ = await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": person.email, "role": role})
    assert status == 201
    _, answer = await person.post("auth/switch-tenant", {"tenant_id": str(owner.tenant_id)})
    person.token = answer["data"]["access_token"]
    return person


def refusal(text: str, code: str) -> dict[str, Any]:
    """The one error body (contract.md 1.3)."""
    return {
        "status": "error",
        "data": None,
        "message": text,
        "detail": text,
        "error": {"code": code, "message": text, "details": {}},
    }
