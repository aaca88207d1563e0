"""Entitlements over REST: what is shown, what is refused with 402, and what operators change."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select

from core import json
from models.billing import Subscription
from services.unit_of_work import PlatformScope
from tests.handlers.test_super_admin_plans import promoted
from tests.support.people import Person, RegisterCompany, request
from tests.support.running import Orchestrator

SCOPE = PlatformScope("a test moves a period")


@pytest.fixture
async def boss(orchestrator: Orchestrator, company: RegisterCompany) -> Person:
    """One of the platform's people."""
    return await promoted(orchestrator, await company("Platform"), is_superuser=True)


async def test_what_a_trial_may_and_uses(company: RegisterCompany) -> None:
    owner = await company()
    status, answer = await owner.get("billing/entitlements")
    assert status == 200
    data = answer["data"]
    assert set(data) == {"plan", "state", "limits", "feature_flags", "changes_at", "usage", "overrides"}
    assert (data["plan"], data["state"], data["changes_at"], data["overrides"]) == ("trial", "in_force", None, [])
    assert data["limits"] == {"users": 3, "max_users": 3, "storage_gb": 10, "max_storage_gb": 10}
    assert data["feature_flags"] == {"listed_in_marketplace": False, "webhooks_enabled": False}
    assert data["usage"]["users"] == {"used": 1, "allowed": 3, "remaining": 2, "is_over": False}
    assert data["usage"]["max_users"] == data["usage"]["users"]
    assert data["usage"]["sites"]["allowed"] == -1
    assert data["usage"]["storage_gb"]["used"] == 0


async def test_the_fourth_user_needs_a_larger_plan(company: RegisterCompany, boss: Person) -> None:
    owner = await company()
    path = f"tenants/{owner.tenant_id}/users/invite"
    answers = await asyncio.gather(*(owner.post(path, {"email": f"{uuid4().hex}@example.org"}) for _ in range(6)))
    assert sorted(status for status, _ in answers) == [201, 201, 402, 402, 402, 402]
    refusal = next(answer for status, answer in answers if status == 402)
    assert refusal["error"]["code"] == "PLAN_LIMIT_REACHED"
    assert refusal["error"]["details"] == {"limit": "users", "used": 3, "allowed": 3}
    assert refusal["detail"] == refusal["message"] == "Your plan allows no more of this"

    override = f"super-admin/tenants/{owner.tenant_id}/entitlements/users"
    status, answer = await boss.request("PUT", override, json={"value": 4, "reason": "a good customer"})
    assert (status, answer["data"]["limits"]["max_users"], answer["data"]["overrides"][0]["reason"]) == (
        200, 4, "a good customer",
    )  # fmt: skip
    assert (await owner.post(path, {"email": f"{uuid4().hex}@example.org"}))[0] == 201
    _, answer = await owner.get("billing/entitlements")
    assert answer["data"]["overrides"] == [{"name": "users", "value": 4, "until": None}]
    _, answer = await owner.get("tenants/current")
    assert answer["data"]["limits"]["users"] == 4
    assert (await boss.delete(override))[0] == 200
    assert (await boss.delete(override))[0] == 404


async def test_bad_exceptions_are_refused(company: RegisterCompany, boss: Person) -> None:
    owner = await company()
    path = f"super-admin/tenants/{owner.tenant_id}/entitlements"
    for name, body in (
        ("users", {"value": "5", "reason": "why not"}),
        ("users", {"value": 5}),
        ("users", {"value": True, "reason": "why not"}),
        ("users", {"value": 5, "until": "2001-01-01T00:00:00Z", "reason": "why not"}),
        ("users", {"value": 5, "until": "2101-01-01T00:00:00", "reason": "why not"}),
        ("users", {"value": 5, "until": "9999-12-31T23:59:59-14:00", "reason": "why not"}),
        ("no%20name", {"value": 5, "reason": "why not"}),
    ):
        status, answer = await boss.request("PUT", f"{path}/{name}", json=body)
        assert (status, len(answer["errors"]) > 0) == (422, True), body
    assert (await owner.request("PUT", f"{path}/users", json={"value": 5, "reason": "why not"}))[0] == 403
    nobody = f"super-admin/tenants/{uuid4()}/entitlements"
    assert (await boss.get(nobody))[0] == 404
    assert (await boss.request("PUT", f"{nobody}/users", json={"value": 5, "reason": "why not"}))[0] == 404


async def test_after_the_last_call_of_the_month_billing_is_still_open(company: RegisterCompany, boss: Person) -> None:
    owner = await company()
    path = f"super-admin/tenants/{owner.tenant_id}/entitlements/api_calls_per_month"
    await boss.request("PUT", path, json={"value": 5, "reason": "a test"})
    answers = await asyncio.gather(*(owner.get("notifications") for _ in range(12)))
    assert sorted(status for status, _ in answers) == [200] * 5 + [402] * 7
    refusal = next(answer for status, answer in answers if status == 402)
    assert refusal["error"]["details"] == {"limit": "api_calls_per_month", "used": 5, "allowed": 5}
    for free in ("billing/subscription", "billing/entitlements", "billing/invoices", "auth/me", "tenants"):
        assert (await owner.get(free))[0] == 200, free
    await boss.request("PUT", path, json={"value": -1, "reason": "a test"})
    assert (await owner.get("notifications"))[0] == 200


async def test_the_second_ancestors_view_of_a_subscription(company: RegisterCompany) -> None:
    owner = await company()
    for path in ("subscriptions/status", "modules/subscription"):
        status, answer = await owner.get(path)
        assert (status, set(answer)) == (200, {"active", "plan", "limits", "features", "expires"})
        assert (answer["active"], answer["plan"], answer["limits"]["max_users"]) == (True, "trial", 3)
        assert answer["features"] == {"listed_in_marketplace": False, "webhooks_enabled": False}
        assert answer["expires"].endswith("Z")
    status, _ = await request(owner.http, "GET", f"{owner.url}/api/v1/subscriptions/status")
    assert status == 401


async def test_whoever_is_not_served_any_more_is_not_active(
    company: RegisterCompany, orchestrator: Orchestrator
) -> None:
    owner = await company()
    await owner.post("billing/cancel", {"cancel_at_period_end": False})
    status, answer = await owner.get("subscriptions/status")
    # Days of grace are served.
    assert (status, answer["active"]) == (200, True)
    async with orchestrator.units(SCOPE) as uow:
        subscription = (
            await uow.session.scalars(select(Subscription).where(Subscription.tenant_id == owner.tenant_id))
        ).one()
        subscription.current_period_end -= timedelta(days=4)
    assert await owner.get("subscriptions/status") == (200, {"active": False})
    status, answer = await owner.request("GET", f"/api/billing/subscriptions/{owner.tenant_id}")
    assert (status, answer["is_active"]) == (200, False)
    _, answer = await owner.get("billing/entitlements")
    assert (answer["data"]["state"], answer["data"]["limits"]["users"]) == ("none", 1)
    status, answer = await owner.post("provisioning/provision", {"job_type": "BACKUP_INSTANCE"})
    assert (status, answer["error"]["details"]["limit"]) == (402, "storage_gb")


async def test_the_third_ancestors_tariffs_and_subscriptions(company: RegisterCompany) -> None:
    owner, stranger = await company(), await company()
    status, tariffs = await request(owner.http, "GET", f"{owner.url}/api/billing/tariffs?active_only=true")
    assert status == 200
    starter = next(tariff for tariff in tariffs if tariff["name"] == "Starter")
    assert set(starter) == {"id", "name", "price_monthly", "subdomain_limit", "is_active", "features_json"}
    assert (starter["price_monthly"], starter["subdomain_limit"], starter["is_active"]) == (19.99, -1, True)
    assert json.loads(starter["features_json"])["max_users"] == 5
    status, one = await request(owner.http, "GET", f"{owner.url}/api/billing/tariffs/{starter['id']}")
    assert (status, one) == (200, starter)
    status, answer = await request(owner.http, "GET", f"{owner.url}/api/billing/tariffs/{uuid4()}")
    assert (status, answer["detail"]) == (404, "Tariff not found")

    path = f"/api/billing/subscriptions/{owner.tenant_id}"
    status, held = await owner.get(path)
    assert (status, set(held)) == (200, {"id", "tenant_id", "tariff_id", "start_date", "end_date", "is_active"})
    assert (held["tenant_id"], held["is_active"]) == (str(owner.tenant_id), True)
    assert (await stranger.get(path))[0] == 403
