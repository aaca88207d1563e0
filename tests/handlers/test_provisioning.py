"""Provisioning over REST, field by field (contract.md 1.5, 5.1, 5.2, 5.4)."""

import asyncio
import re
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from tests.handlers.provisioned import colleague, settled, with_site
from tests.handlers.test_super_admin_plans import promoted
from tests.support.people import Person, RegisterCompany
from tests.support.running import Orchestrator

JOB_KEYS = {
    "id", "tenant_id", "status", "job_type", "progress", "message", "error", "started_at", "completed_at", "created_at",
    "type", "state", "result", "error_message", "metadata",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture
def orchestrator(site_orchestrator: Orchestrator) -> Orchestrator:
    return site_orchestrator


def error(code: str, text: str) -> dict[str, Any]:
    return {
        "status": "error",
        "data": None,
        "message": text,
        "detail": text,
        "error": {"code": code, "message": text, "details": {}},
    }


async def create(person: Person, job_type: str = "backup_site") -> dict[str, Any]:
    status, answer = await person.post("provisioning/jobs", {"job_type": job_type})
    assert status == 201, answer
    data: dict[str, Any] = answer["data"]
    return data


async def test_a_registered_company_gets_its_site(company: RegisterCompany) -> None:
    owner = await company()
    _, answer = await owner.get("provisioning/jobs")
    [first] = answer["data"]
    assert (first["job_type"], first["type"]) == ("create_site", "CREATE_INSTANCE")

    await settled(owner)

    status, answer = await owner.get(f"provisioning/jobs/{first['id']}")
    assert status == 200
    assert set(answer) == {"status", "data", "error"}
    job = answer["data"]
    assert set(job) == JOB_KEYS
    assert (job["id"], job["tenant_id"]) == (first["id"], str(owner.tenant_id))
    assert (job["status"], job["state"], job["progress"], job["message"]) == (
        "completed",
        "succeeded",
        100,
        "Completed",
    )
    assert (job["error"], job["error_message"]) == (None, None)
    assert job["result"]["database"].startswith("site_")
    assert all(TIME.fullmatch(job[key]) for key in ("created_at", "started_at", "completed_at"))
    assert set(job["metadata"]) == {"attempt", "steps", "log"}
    assert job["metadata"]["attempt"] == 1
    for shown in job["metadata"]["steps"]:
        assert set(shown) == {"name", "title", "state", "weight", "attempts", "error", "started_at", "finished_at"}
        assert (shown["state"], shown["attempts"], shown["error"]) == ("succeeded", 1, None)
    for line in job["metadata"]["log"]:
        assert set(line) == {"at", "step", "stream", "text"}
    _, answer = await owner.get("tenants/current")
    tenant = answer["data"]
    assert (tenant["status"], tenant["erpnext_site_url"]) == ("active", f"{owner.url}/sites/{tenant['slug']}")


async def test_jobs_are_queued_under_every_name(company: RegisterCompany) -> None:
    """They wait behind the creation of the site, so that their first state can be seen at leisure."""
    owner = await company()
    forms = {
        "backup_site": ("backup_site", "BACKUP_INSTANCE"),
        "BACKUP_INSTANCE": ("backup_site", "BACKUP_INSTANCE"),
        "updateSite": ("update_site", "UPDATE_INSTANCE"),
        "delete-instance": ("delete_site", "DELETE_INSTANCE"),
    }
    for place, (sent, names) in enumerate(forms.items()):
        path = ("provisioning/jobs", "provisioning/provision")[place % 2]
        status, answer = await owner.post(path, {"job_type": sent, "unknown": "ignored"})

        assert status == 201
        assert set(answer) == {"status", "data", "error"}
        job = answer["data"]
        assert set(job) == JOB_KEYS
        assert (job["job_type"], job["type"]) == names
        assert (job["status"], job["state"], job["progress"], job["message"]) == ("pending", "queued", 0, "Queued")
        assert [job[key] for key in ("error", "error_message", "result", "started_at", "completed_at")] == [None] * 5
        assert job["tenant_id"] == str(owner.tenant_id)
        assert job["metadata"]["log"] == []
        assert {shown["state"] for shown in job["metadata"]["steps"]} == {"pending"}
        await owner.post(f"provisioning/jobs/{job['id']}/cancel")


async def test_an_unknown_job_type_is_refused(company: RegisterCompany) -> None:
    owner = await company()

    for body in ({}, {"job_type": "explode"}, {"job_type": 7}, {"job_type": None}):
        status, answer = await owner.post("provisioning/jobs", body)
        assert status == 422
        assert answer["message"] == "Validation error"
        assert [item["field"] for item in answer["errors"]] == ["body -> job_type"]

    _, answer = await owner.get("provisioning/jobs")
    assert answer["pagination"]["total"] == 1


async def test_members_look_and_managers_act(company: RegisterCompany) -> None:
    owner = await company()
    member, admin = [await colleague(company, owner, role) for role in ("member", "admin")]
    job = await create(owner)
    refusal = error("PERMISSION_DENIED", "This action requires one of the following roles: owner, admin")

    for path in ("provisioning/jobs", f"provisioning/jobs/{job['id']}"):
        assert (await member.get(path))[0] == 200
    for path in ("provisioning/jobs", "provisioning/provision"):
        assert await member.post(path, {"job_type": "backup_site"}) == (403, refusal)
    for verb in ("retry", "cancel"):
        assert await member.post(f"provisioning/jobs/{job['id']}/{verb}") == (403, refusal)
    assert (await create(admin))["status"] == "pending"
    # What becomes of the job depends on how far it is by now; here it matters who may ask.
    assert (await admin.post(f"provisioning/jobs/{job['id']}/cancel"))[0] == 200


async def test_without_a_token_there_is_nothing(company: RegisterCompany) -> None:
    owner = await company()
    owner.token = "forged"
    assert (await owner.get("provisioning/jobs"))[0] == 401
    assert (await owner.post("provisioning/jobs", {"job_type": "backup_site"}))[0] == 401


async def test_unknown_and_foreign_jobs_do_not_exist(company: RegisterCompany) -> None:
    owner, stranger = await company(), await company()
    job = await create(owner)
    not_found = error("NOT_FOUND", "ProvisioningJob not found")

    for job_id in (job["id"], uuid4()):
        assert await stranger.get(f"provisioning/jobs/{job_id}") == (404, not_found)
        assert await stranger.post(f"provisioning/jobs/{job_id}/retry") == (404, not_found)
        assert await stranger.post(f"provisioning/jobs/{job_id}/cancel") == (404, not_found)
    assert (await stranger.get("provisioning/jobs/42"))[0] == 422
    _, answer = await owner.get(f"provisioning/jobs/{job['id']}")
    assert answer["data"]["state"] in ("queued", "running", "succeeded"), "nothing a stranger tries has an effect"


async def test_cancelling_and_retrying_a_waiting_job(company: RegisterCompany) -> None:
    owner = await company()
    job = await create(owner)

    conflict = error("CONFLICT", "Only failed/completed jobs can be retried")
    assert await owner.post(f"provisioning/jobs/{job['id']}/retry") == (400, conflict)

    status, answer = await owner.post(f"provisioning/jobs/{job['id']}/cancel")
    assert status == 200
    cancelled = answer["data"]
    assert (cancelled["status"], cancelled["state"], cancelled["progress"]) == ("failed", "cancelled", 0)
    assert (cancelled["error"], cancelled["error_message"], cancelled["message"]) == (
        "Cancelled by user",
        "Cancelled by user",
        "Cancelled",
    )
    assert cancelled["completed_at"] is None
    assert await owner.post(f"provisioning/jobs/{job['id']}/cancel") == (200, answer), "left as it is"

    status, answer = await owner.post(f"provisioning/jobs/{job['id']}/retry")
    assert status == 200
    retried = answer["data"]
    assert (retried["status"], retried["state"], retried["progress"], retried["message"]) == (
        "pending",
        "queued",
        0,
        "Queued",
    )
    assert [retried[key] for key in ("error", "error_message", "started_at", "completed_at")] == [None] * 4
    assert [job["status"] for job in await settled(owner)] == ["completed", "completed"]


async def test_a_cancelled_creation_leaves_no_site(company: RegisterCompany) -> None:
    """Whenever the cancellation meets it; made anew afterwards, the site is there."""
    owner = await company()
    _, answer = await owner.get("provisioning/jobs")
    job_id = answer["data"][0]["id"]

    status, _ = await owner.post(f"provisioning/jobs/{job_id}/cancel")
    assert status == 200
    [job] = await settled(owner)

    assert (job["status"], job["state"], job["error"], job["progress"]) == (
        "failed",
        "cancelled",
        "Cancelled by user",
        0,
    )
    _, answer = await owner.get("tenants/current")
    assert answer["data"]["status"] == "provisioning"
    assert answer["data"]["erpnext_site_url"] is None
    await owner.post(f"provisioning/jobs/{job_id}/retry")
    assert [job["status"] for job in await settled(owner)] == ["completed"]
    _, answer = await owner.get("tenants/current")
    assert answer["data"]["status"] == "active"


async def test_a_site_is_backed_up_and_deleted(company: RegisterCompany) -> None:
    owner = await with_site(company)
    await create(owner, "backup_site")
    await create(owner, "delete_instance")

    deleted, backup, created = await settled(owner)

    assert [job["status"] for job in (deleted, backup, created)] == ["completed"] * 3
    finished = [datetime.fromisoformat(job["completed_at"]) for job in (created, backup, deleted)]
    started = [datetime.fromisoformat(job["started_at"]) for job in (created, backup, deleted)]
    assert started[1] >= finished[0]
    assert started[2] >= finished[1], "one after another"
    assert backup["result"]["backup_path"].startswith(owner.registration["current_tenant"]["slug"])
    _, answer = await owner.get("tenants/current")
    assert (answer["data"]["status"], answer["data"]["erpnext_site_url"]) == ("cancelled", None)


async def test_a_backup_needs_a_plan_with_room_for_it(orchestrator: Orchestrator, company: RegisterCompany) -> None:
    owner, boss = await company(), await promoted(orchestrator, await company("Platform"), is_superuser=True)
    path = f"super-admin/tenants/{owner.tenant_id}/entitlements/storage_gb"
    await boss.request("PUT", path, json={"value": 0, "reason": "a test"})
    answers = await asyncio.gather(*(owner.post("provisioning/jobs", {"job_type": "backup_site"}) for _ in range(3)))
    assert [status for status, _ in answers] == [402] * 3
    assert answers[0][1]["error"]["code"] == "PLAN_LIMIT_REACHED"
    assert answers[0][1]["error"]["details"] == {"limit": "storage_gb", "used": 0, "allowed": 0}
    await boss.request("PUT", path, json={"value": 1, "reason": "a test"})
    await create(owner, "backup_site")


async def test_jobs_are_listed_by_page_status_and_type(company: RegisterCompany) -> None:
    owner = await with_site(company)
    for job in [await create(owner) for _ in range(2)]:
        await owner.post(f"provisioning/jobs/{job['id']}/cancel")
    await settled(owner)

    async def listed(query: str) -> tuple[list[str], dict[str, int]]:
        status, answer = await owner.get(f"provisioning/jobs?{query}")
        assert status == 200, answer
        assert set(answer) == {"status", "data", "error", "pagination"}
        assert all(set(job) == JOB_KEYS and set(job["metadata"]) == {"attempt"} for job in answer["data"])
        return [job["job_type"] for job in answer["data"]], answer["pagination"]

    assert await listed("") == (
        ["backup_site", "backup_site", "create_site"],
        {"total": 3, "page": 1, "size": 20, "pages": 1},
    )
    assert await listed("page=2&size=2") == (["create_site"], {"total": 3, "page": 2, "size": 2, "pages": 2})
    assert (await listed("page=0&size=999"))[1] == {"total": 3, "page": 1, "size": 100, "pages": 1}
    assert (await listed("status=COMPLETED"))[0][-1] == "create_site"
    assert (await listed("status=in_progress"))[0] == []
    assert (await listed("status=pending"))[0] == []
    assert (await listed("job_type=CREATE_INSTANCE"))[0] == ["create_site"]
    assert (await listed("job_type=createSite&status=failed"))[0] == []
    assert (await owner.get("provisioning/jobs?status=done"))[0] == 422
    assert (await owner.get("provisioning/jobs?job_type=none"))[0] == 422


async def test_old_clients_may_ask_for_the_bare_job(company: RegisterCompany) -> None:
    owner = await company()
    _, jobs = await owner.get("provisioning/jobs?raw=1")
    assert [job["job_type"] for job in jobs] == ["create_site"]
    status, job = await owner.get(f"provisioning/jobs/{jobs[0]['id']}", headers={"X-Response-Format": "raw"})
    assert status == 200
    assert set(job) == JOB_KEYS
