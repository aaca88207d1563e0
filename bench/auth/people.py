"""People with passwords: written by the product's own services, all with one hash, for to hash thousands takes long."""

import asyncio
from collections.abc import Mapping

from core.i18n import DEFAULT_LOCALE
from models.tenants import Role
from providers.passwords.hasher import PasswordHasher
from server.database import migrate
from server.seed import seed
from server.settings import load_settings
from server.stores import open_database
from server.wiring import Part, build
from services.auth.accounts import insert_user
from services.tenants.members import attach
from services.unit_of_work import PlatformScope

PASSWORD = "a password of the benchmark"  # noqa: S105 - of people who live for one run
TENANT_SLUG = "benchmark"
_SCOPE = PlatformScope("the benchmark makes its own people")
_BATCH = 100


def email_of(number: int) -> str:
    """Return the address of a person, who exists if the number is below the count that was made."""
    return f"person-{number}@example.org"


def phone_of(number: int) -> str:
    """Return the phone of the same person."""
    return f"+7999{number:07d}"


def make_people(environment: Mapping[str, str], count: int) -> str:
    """Migrate the database that `environment` names and write `count` people of one tenant; returns the tenant's id."""
    settings = {name.lower(): value for name, value in environment.items()}
    return asyncio.run(_make(settings, count))


async def _make(given: Mapping[str, str], count: int) -> str:
    settings = load_settings(**given)
    hasher = PasswordHasher(memory_kib=settings.password_hash_memory_kib, rounds=settings.password_hash_rounds)
    async with open_database(settings) as engine:
        await migrate(engine)
        async with build(settings, engine, Part()) as house:
            await seed(house.units, house.services, demo=False)
            hashed = await hasher.hash(PASSWORD)
            hasher.close()
            async with house.units(_SCOPE) as uow:
                owner = await insert_user(
                    uow, email="owner@example.org", hashed_password=hashed, full_name="Owner", locale=DEFAULT_LOCALE
                )
                tenant = await house.services.tenants.ensure_tenant(
                    uow, name="Benchmark", slug=TENANT_SLUG, owner=owner
                )
            for begin in range(0, count, _BATCH):
                async with house.units(_SCOPE) as uow:
                    for number in range(begin, min(count, begin + _BATCH)):
                        user = await insert_user(
                            uow,
                            email=email_of(number),
                            hashed_password=hashed,
                            full_name=f"Person {number}",
                            locale=DEFAULT_LOCALE,
                        )
                        user.phone = phone_of(number)
                        await attach(uow, tenant_id=tenant.id, user_id=user.id, role=Role.MEMBER)
    return str(tenant.id)
