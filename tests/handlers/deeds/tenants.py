"""Deeds of a tenant's people about their tenant: its members, its life, its site."""

from dataclasses import replace
from uuid import uuid4

from models.provisioning import JobState
from tests.handlers.deeds.stage import PASSWORD, Deed, Play, Stage, succeeded
from tests.handlers.provisioned import with_site
from tests.support.keys import make_key

TENANT = "/api/v1/tenants/{tenant_id}"
JOBS = "/api/v1/provisioning/jobs"


async def of_tenant(stage: Stage) -> Deed:
    # A job under way would be cancelled with the tenant's end, and that audited too.
    owner = await with_site(stage.company)
    return Deed(by=owner, path={"tenant_id": owner.tenant_id})


async def change(stage: Stage) -> Deed:
    owner = await stage.company()
    settings = {"theme": "dark", "smtp": {"password": "of the tenant's own mail server"}}
    return Deed(by=owner, path={"tenant_id": owner.tenant_id}, json={"name": "Renamed", "settings": settings})


async def found(stage: Stage) -> Deed:
    # Which tenant is founded, only the answer tells; see `tenant_of` in test_audited.py.
    return Deed(by=await stage.company(), json={"name": f"Second {uuid4().hex}"})


async def invite(stage: Stage) -> Deed:
    owner = await stage.company()
    body = {"email": f"guest-{uuid4().hex}@example.org", "role": "admin"}
    return Deed(by=owner, path={"tenant_id": owner.tenant_id}, json=body)


async def change_role(stage: Stage) -> Deed:
    owner, guest = await stage.pair()
    return Deed(by=owner, path={"tenant_id": owner.tenant_id, "user_id": guest.user_id}, json={"role": "admin"})


async def remove(stage: Stage) -> Deed:
    owner, guest = await stage.pair()
    return Deed(by=owner, path={"tenant_id": owner.tenant_id, "user_id": guest.user_id})


async def revoke(stage: Stage) -> Deed:
    owner, invitation_id, _ = await stage.invited()
    return Deed(by=owner, path={"tenant_id": owner.tenant_id, "invitation_id": invitation_id})


async def accept(stage: Stage) -> Deed:
    _, _, token = await stage.invited()
    return Deed(path={"token": token}, json={"full_name": "Nina", "password": PASSWORD})


async def transfer(stage: Stage) -> Deed:
    owner, heir = await stage.pair()
    return Deed(by=owner, path={"tenant_id": owner.tenant_id}, json={"user_id": str(heir.user_id)})


async def leave(stage: Stage) -> Deed:
    _, guest = await stage.pair()
    return Deed(by=guest, path={"tenant_id": guest.tenant_id})


async def restore(stage: Stage) -> Deed:
    owner = await with_site(stage.company)
    succeeded(await owner.delete(f"tenants/{owner.tenant_id}"))
    return Deed(by=owner, path={"tenant_id": owner.tenant_id})


async def request_job(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"job_type": "backup_site"})


async def retry_job(stage: Stage) -> Deed:
    owner = await stage.company()
    return Deed(by=owner, path={"job_id": await stage.job(owner, JobState.FAILED)})


async def cancel_job(stage: Stage) -> Deed:
    owner = await stage.company()
    return Deed(by=owner, path={"job_id": await stage.job(owner, JobState.QUEUED)})


async def create_key(stage: Stage) -> Deed:
    owner = await stage.company()
    return Deed(by=owner, path={"tenant_id": owner.tenant_id}, json={"name": "1C", "scopes": ["jobs:read"]})


async def of_key(stage: Stage) -> Deed:
    made = await make_key(await stage.company())
    return Deed(by=made.owner, path={"tenant_id": made.owner.tenant_id, "key_id": made.id})


async def rename_key(stage: Stage) -> Deed:
    return replace(await of_key(stage), json={"name": "Warehouse"})


DEEDS: dict[str, Play] = {
    f"PATCH {TENANT}": change,
    f"DELETE {TENANT}": of_tenant,
    f"POST {TENANT}/restore": restore,
    f"GET {TENANT}/export": of_tenant,
    "POST /api/v1/tenants": found,
    f"POST {TENANT}/users/invite": invite,
    f"PATCH {TENANT}/users/{{user_id}}": change_role,
    f"DELETE {TENANT}/users/{{user_id}}": remove,
    f"DELETE {TENANT}/invitations/{{invitation_id}}": revoke,
    "POST /api/v1/invitations/{token}/accept": accept,
    f"POST {TENANT}/transfer-ownership": transfer,
    f"POST {TENANT}/leave": leave,
    f"POST {TENANT}/api-keys": create_key,
    f"PATCH {TENANT}/api-keys/{{key_id}}": rename_key,
    f"DELETE {TENANT}/api-keys/{{key_id}}": of_key,
    f"POST {JOBS}": request_job,
    f"POST {JOBS}/{{job_id}}/retry": retry_job,
    f"POST {JOBS}/{{job_id}}/cancel": cancel_job,
}
