"""What the tests of provisioning, SSO and notifications share: sites that are ready, and colleagues."""

import asyncio
from typing import Any

from tests.support.people import Person, RegisterCompany

# The local recipe makes a site in about two seconds.
_PATIENCE_S = 60.0


async def settled(person: Person) -> list[dict[str, Any]]:
    """Wait until every job of the tenant has ended and return them, newest first."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            _, answer = await person.get("provisioning/jobs?size=100")
            jobs: list[dict[str, Any]] = answer["data"]
            if all(job["status"] in ("completed", "failed") for job in jobs):
                return jobs
            await asyncio.sleep(0.1)


async def with_site(company: RegisterCompany, name: str = "Company", full_name: str = "Olga Owner") -> Person:
    """Register a company and wait for its site."""
    owner = await company(name, full_name)
    assert [job["status"] for job in await settled(owner)] == ["completed"]
    return owner


async def colleague(company: RegisterCompany, owner: Person, role: str) -> Person:
    """Return somebody who was added to the owner's tenant and is signed in to it."""
    guest = await company()
    await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": guest.email, "role": role})
    status, answer = await guest.post("auth/switch-tenant", {"tenant_id": str(owner.tenant_id)})
    assert status == 200, answer
    guest.token = answer["data"]["access_token"]
    guest.tenant_id = owner.tenant_id
    return guest
