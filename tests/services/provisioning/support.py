"""A workshop for provisioning tests: a database of its own, tenants, recipes of shell commands, and several workers.

Commands write into a trace, one word each, from which a test reads what really ran, in which order.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import yaml
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from models.audit import AuditEntry
from models.billing import Subscription
from models.entitlements import UNLIMITED, Limit
from models.notifications import Notification
from models.overrides import EntitlementOverride
from models.plans import Plan
from models.provisioning import JobType, ProvisioningJob, ProvisioningLogLine, ProvisioningStep
from models.tenants import Membership, Role, Tenant, TenantStatus
from models.users import User
from providers.provisioning.contract import ProvisioningDriver
from providers.provisioning.driver import RecipeDriver
from providers.provisioning.recipe import load_recipe
from realtime.log import EventLog, NumberedEvent
from services.entitlements import EntitlementDesk
from services.identity import Principal
from services.notifications import NotificationService
from services.provisioning import ProvisioningService, Timing
from services.provisioning.views import JobDetailView
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWorkFactory
from tests.support.clock import MovableClock
from tests.support.spine import Ears, spine

# Quick enough for tests that wait, slow enough not to keep the machine busy.
QUICK = Timing(poll_s=0.1, heartbeat_s=0.2, flush_s=0.1, retry_base_s=0.02, retry_cap_s=0.04)
# A worker that looks at its job all the time but does not extend the lease within a test, so that it can be taken away.
HARDLY_HEARD = replace(QUICK, heartbeat_s=20.0)
MAX_WAITING = 5
PLATFORM = PlatformScope("a test looks at everything")

StepSpec = Mapping[str, Any]


def step(name: str, script: str = "true", *, undo: str | None = None, **more: object) -> StepSpec:
    """Return a recipe step that traces its name and runs a shell script; `undo` is its compensation's script.

    A script finds the trace in `$T`, the attempt's folder in `$D` and may use the recipe's variables.
    """
    spec: dict[str, Any] = {
        "name": name,
        "title": f"Title of {name}",
        "timeout_s": 30,
        "argv": shell(f"echo {name} >> $T; {script}"),
        **more,
    }
    if undo is not None:
        spec["compensate"] = {"timeout_s": 30, "argv": shell(f"echo undo-{name} >> $T; {undo}")}
    return spec


def shell(script: str) -> list[str]:
    """Return the arguments that run a script with `$T` and `$D` set."""
    return ["/bin/sh", "-c", f"D={{data_dir}}; T=$D/{{slug}}.trace; {script}"]


def recipe_driver(folder: Path, jobs: Mapping[str, Sequence[StepSpec]], name: str = "recipe") -> RecipeDriver:
    """Return a driver for a recipe with these jobs, which keeps everything under `folder`."""
    content = {
        "version": 1,
        "name": "test",
        "environment": {"PATH": {}},
        "jobs": {kind: {"steps": list(steps)} for kind, steps in jobs.items()},
    }
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump(content))
    data_dir = folder / "data"
    data_dir.mkdir(exist_ok=True)
    return RecipeDriver(
        load_recipe(path), data_dir=data_dir, environment={"PATH": os.environ["PATH"]}, kill_grace_s=1.0
    )


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in a tenant."""

    actor: Principal
    tenant: Tenant
    email: str


@dataclass(slots=True)
class Workshop:
    """One database with everything a provisioning test does to it."""

    engine: AsyncEngine
    folder: Path
    ears: Ears = field(default_factory=Ears)
    clock: MovableClock = field(default_factory=MovableClock)

    @property
    def units(self) -> UnitOfWorkFactory:
        units = spine(self.engine, self.ears)
        units._clock = self.clock
        return units

    def worker(
        self,
        jobs: Mapping[str, Sequence[StepSpec]] | None = None,
        *,
        driver: ProvisioningDriver | None = None,
        timing: Timing = QUICK,
        units: UnitOfWorkFactory | None = None,
    ) -> ProvisioningService:
        """Return a service as one process has it; several of them are several workers."""
        return ProvisioningService(
            units=units or self.units,
            driver=driver or recipe_driver(self.folder, jobs or {}),
            notifications=NotificationService(),
            entitlements=EntitlementDesk(grace=timedelta(days=3)),
            site_url_template="https://{slug}.example.test",
            max_waiting=MAX_WAITING,
            timing=timing,
        )

    async def owner(self, *, status: TenantStatus = TenantStatus.PENDING, email: str | None = None) -> Person:
        """Found a tenant that may have a site without paying, and return its owner."""
        tenant = Tenant(
            id=uuid4(), name="Acme", slug=f"t{uuid4().hex[:10]}", status=status, erpnext_site_url=None, settings={}
        )
        async with self.units(PLATFORM) as uow:
            uow.session.add(tenant)
            # Flushed because no relationship tells the mapper that the rest needs the tenant first.
            await uow.session.flush()
            for limit in (Limit.SITES, Limit.STORAGE_GB):
                uow.session.add(
                    EntitlementOverride(tenant_id=tenant.id, name=limit, value=UNLIMITED, reason="the tests' own")
                )
        return await self.member(tenant, Role.OWNER, email=email)

    async def member(self, tenant: Tenant, role: Role, *, email: str | None = None, active: bool = True) -> Person:
        """Add somebody to a tenant."""
        user = User(
            id=uuid4(),
            email=email or f"{uuid4().hex[:12]}@example.test",
            hashed_password="-",
            full_name="Olga Owner",
            is_active=active,
        )
        async with self.units(PLATFORM) as uow:
            uow.session.add(user)
            # Flushed because no relationship tells the mapper that the membership needs the user first.
            await uow.session.flush()
            uow.session.add(Membership(tenant_id=tenant.id, user_id=user.id, role=role))
        actor = Principal(
            user_id=user.id,
            session_id=uuid4(),
            tenant_id=tenant.id,
            role=role,
            is_superuser=False,
        )
        return Person(actor, tenant, user.shown_email)

    async def subscribe(self, person: Person, *, plan: str, limits: dict[str, Any]) -> None:
        """Give the tenant a plan of its own, in the place of what it may have without one."""
        row = Plan(
            id=uuid4(),
            slug=f"{plan}-{person.tenant.slug}",
            name="Plan",
            price_monthly=Decimal(1),
            price_yearly=Decimal(10),
            trial_days=14,
            limits=limits,
        )
        async with self.units(PLATFORM) as uow:
            uow.session.add(row)
            # Flushed because the subscription needs the plan's id.
            await uow.session.flush()
            uow.session.add(Subscription.trial(person.tenant.id, row, now=uow.now))
            await uow.session.execute(
                delete(EntitlementOverride).where(EntitlementOverride.tenant_id == person.tenant.id)
            )

    async def queue(
        self, service: ProvisioningService, person: Person, job_type: JobType = JobType.CREATE_SITE
    ) -> UUID:
        """Ask for a job and return its id."""
        async with self.units(TenantScope(person.tenant.id)) as uow:
            return (await service.create(uow, person.actor, job_type=job_type)).id

    async def cancel(self, service: ProvisioningService, person: Person, job_id: UUID) -> JobDetailView:
        async with self.units(TenantScope(person.tenant.id)) as uow:
            return await service.cancel(uow, person.actor, job_id=job_id)

    async def retry(self, service: ProvisioningService, person: Person, job_id: UUID) -> JobDetailView:
        async with self.units(TenantScope(person.tenant.id)) as uow:
            return await service.retry(uow, person.actor, job_id=job_id)

    async def show(self, service: ProvisioningService, person: Person, job_id: UUID) -> JobDetailView:
        async with self.units(TenantScope(person.tenant.id)) as uow:
            return await service.show(uow, person.actor, job_id=job_id)

    async def job(self, job_id: UUID) -> ProvisioningJob:
        """Read the job's row."""
        async with self.units(PLATFORM) as uow:
            return (await uow.session.scalars(select(ProvisioningJob).where(ProvisioningJob.id == job_id))).one()

    async def steps(self, job_id: UUID) -> list[ProvisioningStep]:
        statement = select(ProvisioningStep).where(ProvisioningStep.job_id == job_id)
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(statement.order_by(ProvisioningStep.position)))

    async def log(self, job_id: UUID) -> list[ProvisioningLogLine]:
        statement = select(ProvisioningLogLine).where(ProvisioningLogLine.job_id == job_id)
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(statement.order_by(ProvisioningLogLine.id)))

    async def tenant(self, person: Person) -> Tenant:
        async with self.units(PLATFORM) as uow:
            return (await uow.session.scalars(select(Tenant).where(Tenant.id == person.tenant.id))).one()

    async def change_tenant(self, person: Person, **fields: object) -> None:
        async with self.units(PLATFORM) as uow:
            tenant = (await uow.session.scalars(select(Tenant).where(Tenant.id == person.tenant.id))).one()
            for name, value in fields.items():
                setattr(tenant, name, value)

    async def change_job(self, job_id: UUID, **fields: object) -> None:
        """Change the row behind everybody's back, as a crash or another process would leave it."""
        async with self.units(PLATFORM) as uow:
            job = (await uow.session.scalars(select(ProvisioningJob).where(ProvisioningJob.id == job_id))).one()
            for name, value in fields.items():
                setattr(job, name, value)

    async def lose_lease(self, job_id: UUID) -> None:
        """Let the lease run out, as when the worker has not been heard of for long."""
        # Not before now: a job that was rung for since its lease ran out is not rung for again.
        await self.change_job(job_id, lease_until=self.clock.now())

    async def events(self, person: Person) -> list[NumberedEvent]:
        return list(await EventLog(self.engine).read_after(person.tenant.id, 0, limit=1000))

    async def audit(self, person: Person) -> list[str]:
        statement = select(AuditEntry.action).where(AuditEntry.tenant_id == person.tenant.id).order_by(AuditEntry.id)
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(statement))

    async def notifications(self, person: Person) -> list[Notification]:
        statement = select(Notification).where(Notification.tenant_id == person.tenant.id)
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(statement.order_by(Notification.created_at)))

    def trace(self, person: Person) -> list[str]:
        """Return the words that the tenant's commands wrote."""
        path = self.folder / "data" / f"{person.tenant.slug}.trace"
        return path.read_text().split() if path.exists() else []

    def rung(self, job_id: UUID) -> int:
        """Return how often the worker was rung for a job."""
        return sum(task.row_id == job_id for task in self.ears.tasks)

    async def until_traced(self, person: Person, word: str) -> None:
        """Wait until a command has written `word`."""
        async with asyncio.timeout(30):
            while word not in self.trace(person):
                await asyncio.sleep(0.01)


# The first run of the middle step says when it is busy, and is so until it is ended; the second finishes at once.
INTERRUPTED: Final = {
    "create_site": [
        step("first"),
        step("middle", "test -e $D/again || (touch $D/again; echo busy >> $T; sleep 30; echo late >> $T)", undo="true"),
        step("last"),
    ]
}


@dataclass(frozen=True, slots=True)
class Begun:
    """A job whose middle step is under way."""

    owner: Person
    job_id: UUID
    running: "asyncio.Task[None]"


async def begin(workshop: Workshop, service: ProvisioningService) -> Begun:
    """Queue a job of a worker for INTERRUPTED and wait until its middle step is busy."""
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await workshop.until_traced(owner, "busy")
    return Begun(owner, job_id, running)
