"""People made at once, without the provisioning job and the letters that a registration brings."""

from typing import Any
from uuid import UUID, uuid4

from aiohttp import ClientSession

from models.tenants import Role
from models.users import User
from services.tenants.members import attach
from services.unit_of_work import PlatformScope, UnitOfWork
from tests.support.people import Person, address, request
from tests.support.running import Orchestrator

PLATFORM = PlatformScope("a test acts for the platform")
_PASSWORD = "correct horse"


async def found_company(server: Orchestrator, http: ClientSession) -> Person:
    """Return the owner of a new company."""
    unique = uuid4().hex[:12]
    async with server.units(PLATFORM) as uow:
        user = await _user(server, uow, unique)
        await server.services.tenants.ensure_tenant(uow, name=f"Company {unique}", slug=f"c-{unique}", owner=user)
        email = user.shown_email
    return await log_in(server, http, email)


async def newcomer(server: Orchestrator, owner: Person, role: str = "member") -> Person:
    """Return somebody new, who belongs to the owner's company and no other."""
    async with server.units(PLATFORM) as uow:
        user = await _user(server, uow, uuid4().hex[:12])
        await attach(uow, tenant_id=owner.tenant_id, user_id=user.id, role=Role(role))
        email = user.shown_email
    return await log_in(server, owner.http, email)


async def log_in(server: Orchestrator, http: ClientSession, email: str) -> Person:
    """Sign somebody in, and once more with every call."""
    body = {"email": email, "password": _PASSWORD}
    status, answer = await request(http, "POST", address(server.url, "auth/login"), json=body)
    assert status == 200, answer
    data: dict[str, Any] = answer["data"]
    return Person(
        http=http,
        url=server.url,
        email=email,
        password=_PASSWORD,
        token=data["access_token"],
        refresh_token=data["refresh_token"],
        user_id=UUID(data["user"]["id"]),
        tenant_id=UUID(data["current_tenant"]["id"]),
        registration=data,
    )


async def _user(server: Orchestrator, uow: UnitOfWork, unique: str) -> User:
    return await server.services.auth.ensure_user(
        uow,
        email=f"newcomer-{unique}@example.org",
        password=_PASSWORD,
        full_name="Nina Newcomer",
        is_superuser=False,
    )
