"""What the deeds of the audit's test are played on: a server, and people who are in the right place to do them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pyotp
from aiohttp import ClientSession
from sqlalchemy import update

from models.provisioning import JobState, JobType, ProvisioningJob
from models.users import User
from services.unit_of_work import PlatformScope
from tests.handlers.provisioned import colleague
from tests.support.identity import letter_in, token_in
from tests.support.people import Answer, Person, RegisterCompany, address, company_factory, request
from tests.support.phones import World, new_phone
from tests.support.running import Orchestrator

PASSWORD = "correct horse"
NEW_PASSWORD = "battery staple"
SCOPE = PlatformScope("a test makes what is asked about")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One request that shall succeed.

    * `by`: who sends it; nobody's token is shown without one.
    * `actor`, `tenant`: whom and which tenant its audit entries name, where that is neither the sender nor whom the
      token in the answer speaks for.
    * `url`: another server than the stage's own.
    """

    by: Person | None = None
    path: Mapping[str, object] = field(default_factory=dict)
    query: str = ""
    json: object = None
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    actor: UUID | None = None
    tenant: UUID | None = None
    url: str = ""


class Stage:
    """Makes what a deed needs."""

    def __init__(self, http: ClientSession, orchestrator: Orchestrator, *, world: World, bots_url: str) -> None:
        self.http = http
        self.orchestrator = orchestrator
        self.company: RegisterCompany = company_factory(http, orchestrator.url)
        self.world = world
        self.bots_url = bots_url

    async def post(self, path: str, body: object) -> Any:
        """Send something as a stranger and return the answer."""
        return succeeded(await request(self.http, "POST", address(self.orchestrator.url, path), json=body))

    async def sign_in(self, person: Person) -> Person:
        """Return the same person in a session of its own."""
        data = (await self.post("auth/login", {"email": person.email, "password": person.password}))["data"]
        return replace(person, token=data["access_token"], refresh_token=data["refresh_token"])

    async def boss(self) -> Person:
        """Return one of the platform's people, just signed in."""
        person = await self.company("Platform")
        async with self.orchestrator.units(SCOPE) as uow:
            await uow.session.execute(update(User).where(User.id == person.user_id).values(is_superuser=True))
        return await self.sign_in(person)

    async def pair(self, role: str = "member") -> tuple[Person, Person]:
        """Return an owner and a colleague."""
        owner = await self.company()
        return owner, await colleague(self.company, owner, role)

    async def letter_token(self, email: str, *, welcome: bool = False) -> str:
        """Return the token that somebody was written, by default not in the letter of signing up."""
        return token_in(await letter_in(self.orchestrator.settings.data_dir / "outbox", email, welcome=welcome))

    async def invited(self) -> tuple[Person, str, str]:
        """Return an owner, the id of an invitation of theirs, and the token of its letter."""
        owner, email = await self.company(), f"guest-{uuid4().hex}@example.org"
        answer = succeeded(
            await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": email, "role": "member"})
        )
        return owner, answer["data"]["invitation_id"], await self.letter_token(email)

    def totp(self, secret: str, *, later_s: int = 0) -> str:
        """Return what an authenticator app shows."""
        return pyotp.TOTP(secret).at(self.orchestrator.clock.now() + timedelta(seconds=later_s))

    async def enrolled(self) -> tuple[Person, str]:
        """Return somebody whose app is set up and not confirmed yet, and its secret."""
        owner = await self.company()
        return owner, succeeded(await owner.post("auth/2fa/enrol"))["data"]["secret"]

    async def guarded(self) -> tuple[Person, str]:
        """Return somebody with a second factor, and its secret."""
        owner, secret = await self.enrolled()
        succeeded(await owner.post("auth/2fa/confirm", {"code": self.totp(secret)}))
        return owner, secret

    async def code(self, phone: str) -> str:
        """Return a code for a phone, which development answers with."""
        return str((await self.post("/api/auth/send-code", {"phone": phone}))["dev_code"])

    async def caller(self) -> tuple[str, Person]:
        """Return somebody who has signed up by phone, and the phone."""
        phone = new_phone()
        form = {"first_name": "Anna", "last_name": "Ivanova", "employment_type": "ip", "password": PASSWORD}
        made = await self.post("/api/auth/register-full", {**form, "phone": phone, "code": await self.code(phone)})
        user_id, tenant_id = UUID(made["user_id"]), UUID(made["tenant_id"])
        url, token, refresh_token = self.orchestrator.url, made["access_token"], made["refresh_token"]
        return phone, Person(self.http, url, "", PASSWORD, token, refresh_token, user_id, tenant_id, made)

    async def job(self, owner: Person, state: JobState) -> UUID:
        """Return a job of a tenant that no worker has been rung for."""
        now = self.orchestrator.clock.now()
        job = ProvisioningJob(
            id=uuid4(),
            tenant_id=owner.tenant_id,
            job_type=JobType.BACKUP_SITE,
            state=state,
            progress=0,
            message="",
            result={},
            attempt=0,
            next_run_at=now + timedelta(hours=1),
            rung_at=now,
            created_at=now,
        )
        async with self.orchestrator.units(SCOPE) as uow:
            uow.session.add(job)
        return job.id

    async def plan_id(self, slug: str = "business") -> str:
        """Return a plan that is for sale."""
        url = address(self.orchestrator.url, "billing/plans")
        plans = succeeded(await request(self.http, "GET", url))["data"]
        return next(plan["id"] for plan in plans if plan["slug"] == slug)


Play = Callable[[Stage], Awaitable[Deed]]


def succeeded(answer: Answer) -> Any:
    """Return the body of an answer that says so."""
    status, body = answer
    assert status < 300, body
    return body
