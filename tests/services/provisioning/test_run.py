"""A job from its doorbell to its end: steps, progress, log, and what follows for the tenant and its people."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from models.provisioning import JobState, JobType, StepState
from models.tenants import Role, TenantStatus
from providers.provisioning.contract import SiteTarget, StepReport
from providers.provisioning.driver import RecipeDriver
from services.provisioning import JobTypeUnavailable
from tests.services.provisioning.support import QUICK, Workshop, recipe_driver, step


async def test_a_site_is_created(workshop: Workshop) -> None:
    """Steps run in order and hand their outputs on; tenant, events, notifications and audit follow."""
    service = workshop.worker(
        {
            "create_site": [
                step("make", "echo '::output database=db1'", prints=["database"], weight=3),
                step("fill", 'echo "got {output.database}"; echo oops >&2'),
            ]
        }
    )
    owner = await workshop.owner()
    admin = await workshop.member(owner.tenant, Role.ADMIN)
    await workshop.member(owner.tenant, Role.MEMBER)
    await workshop.member(owner.tenant, Role.ADMIN, active=False)
    job_id = await workshop.queue(service, owner)
    assert workshop.rung(job_id) == 1
    assert (await workshop.show(service, owner, job_id)).status == "pending"

    await service.run(job_id)

    assert workshop.trace(owner) == ["make", "fill"]
    shown = await workshop.show(service, owner, job_id)
    assert (shown.status, shown.state, shown.progress, shown.message) == ("completed", "succeeded", 100, "Completed")
    assert (shown.error, shown.error_message, shown.result) == (None, None, {"database": "db1"})
    assert shown.started_at is not None
    assert shown.completed_at is not None
    assert [(line.step, line.stream, line.text) for line in shown.metadata.log] == [
        ("fill", "stdout", "got db1"),
        ("fill", "stderr", "oops"),
    ]
    assert [(item.name, item.state, item.attempts) for item in shown.metadata.steps] == [
        ("make", StepState.SUCCEEDED, 1),
        ("fill", StepState.SUCCEEDED, 1),
    ]
    tenant = await workshop.tenant(owner)
    url = f"https://{owner.tenant.slug}.example.test"
    assert (tenant.status, tenant.erpnext_site_url) == (TenantStatus.ACTIVE, url)
    events = await workshop.events(owner)
    updates = [event.payload for event in events if event.name == "status:update"]
    assert [(body["status"], body["state"], body["progress"], body["message"]) for body in updates] == [
        ("pending", "queued", 0, "Queued"),
        ("running", "running", 0, "Started"),
        ("running", "running", 0, "Title of make"),
        ("running", "running", 75, "Title of make"),
        ("running", "running", 75, "Title of fill"),
        ("running", "running", 100, "Title of fill"),
    ]
    [completed] = [event.payload for event in events if event.name == "status:completed"]
    assert completed == {
        "tenant_id": str(owner.tenant.id),
        "job_id": str(job_id),
        "job_type": "create_site",
        "status": "completed",
        "state": "succeeded",
        "progress": 100,
        "erpnext_url": url,
        "result": {"database": "db1"},
    }
    told = await workshop.notifications(owner)
    assert {row.user_id for row in told} == {owner.actor.user_id, admin.actor.user_id}
    assert {(row.type, row.title, row.link) for row in told} == {("success", "Site created", url)}
    assert await workshop.audit(owner) == [
        "provisioning_job.requested",
        "tenant.status_changed",
        "tenant.status_changed",
        "provisioning_job.succeeded",
    ]


async def test_the_tenant_is_provisioning_while_its_site_is_made_and_after_a_failure(workshop: Workshop) -> None:
    service = workshop.worker(
        {"create_site": [step("make", "test -e $D/go || exit 3", permanent_exit_codes=[3], undo="true")]}
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)

    await service.run(job_id)

    tenant = await workshop.tenant(owner)
    assert (tenant.status, tenant.erpnext_site_url) == (TenantStatus.PROVISIONING, None)
    job = await workshop.job(job_id)
    assert (job.state, job.progress, job.message, job.error) == (
        JobState.FAILED,
        0,
        "Failed",
        "Title of make: exit code 3",
    )
    assert job.completed_at is not None
    [failed] = [event.payload for event in await workshop.events(owner) if event.name == "status:failed"]
    assert failed == {
        "tenant_id": str(owner.tenant.id),
        "job_id": str(job_id),
        "job_type": "create_site",
        "status": "failed",
        "state": "failed",
        "error": "Title of make: exit code 3",
    }
    [told] = await workshop.notifications(owner)
    assert (told.type, told.title, told.message) == ("error", "Creating the site failed", "Title of make: exit code 3")
    assert workshop.trace(owner) == ["make"], "a failure undoes nothing, so that a retry can go on"

    Path(workshop.folder, "data", "go").touch()
    await workshop.retry(service, owner, job_id)
    await service.run(job_id)

    assert (await workshop.tenant(owner)).status is TenantStatus.ACTIVE


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (JobType.DELETE_SITE, TenantStatus.ACTIVE, TenantStatus.CANCELLED),
        (JobType.RESTORE_SITE, TenantStatus.CANCELLED, TenantStatus.ACTIVE),
        (JobType.BACKUP_SITE, TenantStatus.ACTIVE, TenantStatus.ACTIVE),
        (JobType.UPDATE_SITE, TenantStatus.SUSPENDED, TenantStatus.SUSPENDED),
        (JobType.CREATE_SITE, TenantStatus.SUSPENDED, TenantStatus.SUSPENDED),
        (JobType.CREATE_SITE, TenantStatus.CANCELLED, TenantStatus.ACTIVE),
    ],
    ids=str,
)
async def test_the_tenant_follows_the_job(
    workshop: Workshop, kind: JobType, before: TenantStatus, after: TenantStatus
) -> None:
    service = workshop.worker({kind.value: [step("work")]})
    owner = await workshop.owner(status=before)
    url = f"https://{owner.tenant.slug}.example.test"
    had_site = kind in (JobType.DELETE_SITE, JobType.BACKUP_SITE, JobType.UPDATE_SITE)
    await workshop.change_tenant(owner, erpnext_site_url=url if had_site else None)

    await service.run(await workshop.queue(service, owner, kind))

    tenant = await workshop.tenant(owner)
    assert tenant.status is after
    assert tenant.erpnext_site_url == (None if kind is JobType.DELETE_SITE else url)


async def test_a_tenant_in_use_stays_active_while_its_creation_is_repeated(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("make", "test ! -e $D/broken")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)
    Path(workshop.folder, "data", "broken").touch()

    shown = await workshop.retry(service, owner, job_id)
    assert (shown.status, shown.progress, shown.result, shown.metadata.steps[0].state) == (
        "pending",
        0,
        None,
        StepState.PENDING,
    )
    await service.run(job_id)

    assert workshop.trace(owner) == ["make", "make"], "a completed job is done once more as a whole"
    assert (await workshop.job(job_id)).state is JobState.RETRYING
    assert (await workshop.tenant(owner)).status is TenantStatus.ACTIVE


async def test_a_failed_step_is_tried_again_when_it_is_due(workshop: Workshop) -> None:
    service = workshop.worker(
        {
            "create_site": [
                step("first"),
                step("flaky", "test -e $D/tried || (touch $D/tried; exit 1)", max_attempts=2),
            ]
        },
        timing=replace(QUICK, retry_base_s=60.0, retry_cap_s=60.0),
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)

    job = await workshop.job(job_id)
    assert (job.state, job.message, job.error, job.progress) == (
        JobState.RETRYING,
        "Trying again: Title of flaky",
        None,
        50,
    )
    assert workshop.clock.now() < job.next_run_at <= workshop.clock.now() + timedelta(seconds=60)
    shown = await workshop.show(service, owner, job_id)
    assert (shown.status, shown.state) == ("running", "retrying")
    assert shown.metadata.steps[1].error == "Title of flaky: exit code 1"
    await service.run(job_id)
    assert workshop.trace(owner) == ["first", "flaky"], "it is not due yet"

    workshop.clock.offset += timedelta(seconds=61)
    await service.run(job_id)

    assert workshop.trace(owner) == ["first", "flaky", "flaky"]
    shown = await workshop.show(service, owner, job_id)
    assert (shown.status, shown.metadata.attempt) == ("completed", 2)
    assert [(item.attempts, item.error) for item in shown.metadata.steps] == [(1, None), (2, None)]
    assert [row.title for row in await workshop.notifications(owner)] == ["Site created"]


async def test_attempts_are_used_up_and_a_retry_brings_new_ones(workshop: Workshop) -> None:
    """The job fails with its last attempt; retried, it goes on at that step and may fail as often again."""
    service = workshop.worker({"create_site": [step("first"), step("never", "exit 1", max_attempts=2)]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    for _ in range(2):
        await service.run(job_id)
        workshop.clock.offset += timedelta(seconds=1)
    assert (await workshop.job(job_id)).state is JobState.FAILED
    assert workshop.trace(owner) == ["first", "never", "never"]

    shown = await workshop.retry(service, owner, job_id)
    assert (shown.status, shown.state, shown.progress, shown.message) == ("pending", "queued", 0, "Queued")
    assert (shown.error, shown.started_at, shown.completed_at) == (None, None, None)
    assert workshop.rung(job_id) == 2
    await service.run(job_id)

    assert workshop.trace(owner) == ["first", "never", "never", "never"]
    assert (await workshop.job(job_id)).state is JobState.RETRYING
    assert [item.attempts for item in await workshop.steps(job_id)] == [1, 3]


async def test_a_job_whose_recipe_has_changed_fails_plainly(workshop: Workshop) -> None:
    before = workshop.worker({"create_site": [step("old")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(before, owner)

    await workshop.worker({"create_site": [step("new")]}).run(job_id)

    job = await workshop.job(job_id)
    assert (job.state, job.error) == (JobState.FAILED, "Title of old: this step is no longer part of the recipe")


async def test_a_job_type_that_the_recipe_lacks_is_refused(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("only")]})
    owner = await workshop.owner()

    with pytest.raises(JobTypeUnavailable):
        await workshop.queue(service, owner, JobType.RESTORE_SITE)

    assert await workshop.events(owner) == []


class BrokenDriver:
    """A driver with a fault of its own in the first step it is asked for."""

    def __init__(self, sound: RecipeDriver) -> None:
        self._sound = sound
        self.plan = sound.plan
        self.compensate = sound.compensate
        self.broken = True

    async def run_step(
        self,
        kind: str,
        step_name: str,
        target: SiteTarget,
        *,
        job_id: UUID,
        attempt: int,
        outputs: Mapping[str, str],
        report: StepReport,
    ) -> Mapping[str, str]:
        if self.broken:
            self.broken = False
            raise ZeroDivisionError("at /opt/secret/place")
        return await self._sound.run_step(
            kind, step_name, target, job_id=job_id, attempt=attempt, outputs=outputs, report=report
        )


async def test_a_fault_of_the_driver_is_a_failure_like_another(workshop: Workshop) -> None:
    service = workshop.worker(
        driver=BrokenDriver(recipe_driver(workshop.folder, {"create_site": [step("make", max_attempts=2)]}))
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)

    await service.run(job_id)
    [made] = await workshop.steps(job_id)
    assert (made.state, made.error) == (StepState.FAILED, "Title of make: an unexpected error")
    workshop.clock.offset += timedelta(seconds=1)
    await service.run(job_id)

    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED


async def test_an_owner_whose_address_a_command_could_misread_stops_the_job(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("make")]})
    owner = await workshop.owner(email=f"-rf@{uuid4().hex[:8]}.example.test")
    job_id = await workshop.queue(service, owner)

    await service.run(job_id)

    job = await workshop.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error == "The site cannot be worked on: the administrator's e-mail address is malformed"
    assert workshop.trace(owner) == []


async def test_the_site_is_made_for_the_plan_and_the_owner(workshop: Workshop) -> None:
    words = "echo '{plan} {limits} {admin_email} {site_url} {site_name}'"
    service = workshop.worker({"create_site": [step("tell", words)]})
    owner = await workshop.owner()
    await workshop.subscribe(owner, plan="starter", limits={"max_users": 5, "ratio": 1.5, "api": True})
    job_id = await workshop.queue(service, owner)

    await service.run(job_id)

    slug, plan = owner.tenant.slug, f"starter-{owner.tenant.slug}"
    [line] = await workshop.log(job_id)
    assert line.text == (
        f'{plan} {{"api":true,"max_users":5,"users":5}} {owner.email} https://{slug}.example.test {slug}.example.test'
    )


async def test_an_unknown_job_is_nothing_to_do(workshop: Workshop) -> None:
    await workshop.worker({"create_site": [step("make")]}).run(uuid4())
