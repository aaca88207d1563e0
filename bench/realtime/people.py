"""A tenant with signed-in users, made by the product's own services, and the access tokens of their sessions."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from core.i18n import DEFAULT_LOCALE
from models.tenants import Role, Tenant
from models.users import User
from server.database import migrate
from server.keys import token_signer
from server.seed import seed
from server.settings import Settings, load_settings
from server.stores import open_database
from server.wiring import Part, build
from services.auth.accounts import insert_user
from services.auth.tokens import Device, TokenDesk
from services.registry import Services
from services.tenants.members import attach
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("the benchmark makes its own people")
# No password has this hash: these people have signed in already, and hashing hundreds of passwords takes minutes.
_NO_PASSWORD = "!"  # noqa: S105
# Longer than any run, for these people do not come back for new tokens.
TOKENS_LIVE_MIN = 240
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the tenant, and the access token of one sign-in."""

    user_id: UUID
    token: str


@dataclass(frozen=True, slots=True)
class People:
    """The tenant and its users."""

    tenant_id: UUID
    persons: tuple[Person, ...]


def make_people(environment: Mapping[str, str], count: int) -> People:
    """Migrate and seed the database that `environment` names and write a tenant with `count` users."""
    settings = load_settings(**{name.lower(): value for name, value in environment.items()})
    return asyncio.run(_make(settings, count))


async def _make(settings: Settings, count: int) -> People:
    async with open_database(settings) as engine:
        await migrate(engine)
        async with build(settings, engine, Part()) as house:
            await seed(house.units, house.services, demo=False)
            tenant = await _found(house.units, house.services)
            desk = TokenDesk(
                token_signer(settings),
                access_lifetime=timedelta(minutes=TOKENS_LIVE_MIN),
                refresh_lifetime=timedelta(days=1),
            )
            persons: list[Person] = []
            while len(persons) < count:
                async with house.units(_SCOPE) as uow:
                    places = range(len(persons), min(count, len(persons) + _BATCH))
                    persons += [await _sign_in(uow, desk, tenant, number) for number in places]
    return People(tenant.id, tuple(persons))


async def _found(units: UnitOfWorkFactory, services: Services) -> Tenant:
    async with units(_SCOPE) as uow:
        owner = await _user(uow, "owner")
        return await services.tenants.ensure_tenant(uow, name="Benchmark", slug="benchmark", owner=owner)


async def _sign_in(uow: UnitOfWork, desk: TokenDesk, tenant: Tenant, number: int) -> Person:
    user = await _user(uow, f"person-{number}")
    place, _ = await attach(uow, tenant_id=tenant.id, user_id=user.id, role=Role.MEMBER)
    tokens = desk.open(uow, user, place, device=Device())
    return Person(user.id, tokens.access_token)


async def _user(uow: UnitOfWork, name: str) -> User:
    return await insert_user(
        uow, email=f"{name}@example.org", hashed_password=_NO_PASSWORD, full_name=name, locale=DEFAULT_LOCALE
    )
