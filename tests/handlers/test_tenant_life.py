"""Founding, handing on, leaving, exporting, deleting and restoring a tenant over REST, field by field."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from models.api_keys import ApiKey
from models.audit import AuditEntry
from models.checkouts import CheckoutSession
from models.provisioning import ProvisioningJob
from models.tenants import Invitation
from services.unit_of_work import TenantScope
from tests.support.people import Person, RegisterCompany
from tests.support.running import Orchestrator

pytestmark = pytest.mark.embedded

DETAIL_KEYS = {
    "id", "name", "slug", "status", "erpnext_site_url", "created_at", "updated_at", "settings", "role", "is_default",
}  # fmt: skip


async def joined(company: RegisterCompany, host: Person) -> Person:
    """Return somebody added to the tenant of `host`."""
    guest = await company()
    body = {"email": guest.email, "role": "member"}
    assert (await host.post(f"tenants/{host.tenant_id}/users/invite", body))[0] == 201
    return guest


async def test_a_further_tenant_is_founded_and_entered(company: RegisterCompany) -> None:
    owner = await company()
    name = f"Second {uuid4().hex}"

    status, answer = await owner.post("tenants", {"name": f" {name} "})

    assert (status, set(answer["data"])) == (201, DETAIL_KEYS)
    assert (answer["data"]["name"], answer["data"]["role"], answer["data"]["is_default"]) == (name, "owner", False)
    status, switched = await owner.post("auth/switch-tenant", {"tenant_id": answer["data"]["id"]})
    assert (status, switched["data"]["tenant"]["id"]) == (200, answer["data"]["id"])
    owner.token = switched["data"]["access_token"]
    assert (await owner.get("billing/subscription"))[1]["data"]["status"] == "trial"


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 256}, {"name": None}, {"name": "a\u0000b"}])
async def test_a_bad_name_founds_nothing(company: RegisterCompany, body: dict[str, Any]) -> None:
    owner = await company()

    status, answer = await owner.post("tenants", body)

    assert (status, answer["error"]["code"]) == (422, "VALIDATION_ERROR")
    assert (await owner.get("tenants"))[1]["pagination"]["total"] == 1


async def test_ownership_is_handed_on_and_the_former_owner_leaves(company: RegisterCompany) -> None:
    owner = await company()
    heir = await joined(company, owner)
    path = f"tenants/{owner.tenant_id}"

    status, answer = await owner.post(f"{path}/leave")
    assert (status, answer["error"]["code"]) == (409, "LAST_OWNER")
    for body in ({"user_id": "x"}, {}, {"user_id": str(heir.user_id), "former_role": "buyer"}):
        assert (await owner.post(f"{path}/transfer-ownership", body))[0] == 422
    body = {"user_id": str(heir.user_id), "former_role": "Member"}
    assert await owner.post(f"{path}/transfer-ownership", body) == (
        200,
        {"status": "success", "message": "Ownership transferred successfully"},
    )
    assert (await owner.get(path))[1]["data"]["role"] == "member"
    assert (await heir.get(path))[1]["data"]["role"] == "owner"
    assert await owner.post(f"{path}/leave") == (200, {"status": "success", "message": "You have left the tenant"})
    assert (await owner.get(path))[0] == 403


async def beginnings(owner: Person) -> list[tuple[str, dict[str, Any]]]:
    """Return what begins something for a tenant, or has it charged."""
    _, plans = await owner.get("billing/plans")
    # One that is dearer than the trial's.
    plan_id = next(plan["id"] for plan in plans["data"] if plan["slug"] == "professional")
    purchase = {"plan_id": plan_id, "success_url": f"{owner.url}/", "cancel_url": f"{owner.url}/"}
    return [
        ("provisioning/jobs", {"job_type": "backup_site"}),
        ("billing/checkout", {**purchase, "payment_provider": "sandbox"}),
        ("billing/change-plan/preview", {"plan_id": plan_id}),
        ("billing/change-plan", purchase),
        ("billing/reinstate", {}),
        (f"tenants/{owner.tenant_id}/users/invite", {"email": f"{uuid4().hex}@example.org"}),
        (f"tenants/{owner.tenant_id}/api-keys", {"name": "1C", "scopes": ["tenant:read"]}),
        ("/api/tenant/orders", {"amount": "1.00", "currency": "USD"}),
        ("/api/tenant/payments/provider", {"provider": "coinbase_commerce", "apiKey": "k", "webhookSecret": "s"}),
    ]


async def counted(orchestrator: Orchestrator, owner: Person) -> list[int | None]:
    async with orchestrator.house.units(TenantScope(owner.tenant_id)) as uow:
        return [
            await uow.session.scalar(select(func.count()).select_from(table))
            for table in (CheckoutSession, Invitation, ApiKey, ProvisioningJob, AuditEntry)
        ]


async def test_a_tenant_is_exported_deleted_and_restored(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner = await company()
    path = f"tenants/{owner.tenant_id}"

    status, document = await owner.get(f"{path}/export")
    assert (status, document["tenant"]["id"]) == (200, str(owner.tenant_id))
    assert document["tables"]["user_tenants"][0]["email"] == owner.email

    status, answer = await owner.get(f"{path}/deletion")
    assert (status, answer["error"]["code"]) == (409, "CONFLICT")
    status, answer = await owner.delete(path)
    assert (status, answer["message"], set(answer["data"])) == (200, "Tenant will be deleted", {"tenant_id", "due_at"})
    assert (await owner.get(f"{path}/deletion"))[1]["data"] == answer["data"]
    assert (await owner.get(path))[1]["data"]["status"] == "cancelled"
    before = await counted(orchestrator, owner)
    for begun, body in await beginnings(owner):
        status, answer = await owner.post(begun, body)
        assert (begun, status, answer["error"]["code"]) == (begun, 403, "TENANT_DELETED")
    assert await counted(orchestrator, owner) == before
    status, answer = await owner.post(f"{path}/restore")
    assert (status, set(answer["data"])) == (200, DETAIL_KEYS)
    assert answer["data"]["status"] != "cancelled"
