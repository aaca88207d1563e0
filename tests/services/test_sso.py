"""One-time tokens into ERPNext: short-lived, stored as a hash, redeemed once, for those who may still enter."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from core.tokens import token_hash
from models.audit import AuditEntry
from models.base import Base
from models.sso import SsoToken
from models.tenants import Membership, Role, Tenant, TenantStatus
from models.users import User
from services.closed_tenants import TenantSuspended
from services.identity import Principal, RoleRequired
from services.sso import (
    SiteNotProvisioned,
    SsoAcceptedView,
    SsoRefusedView,
    SsoService,
    SsoTicketView,
    SsoTokenNotFound,
    safe_redirect,
)
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWorkFactory
from tests.support.clock import MovableClock
from tests.support.spine import Ears, everything, new_tenant, spine

PLATFORM = PlatformScope("a test looks at everything")
TEMPLATE = "{site}/api/method/erpmax.sso.login?token={token}"
LIFETIME = timedelta(seconds=60)


@dataclass(slots=True)
class Desk:
    """The service on a real database with a clock of its own."""

    engine: AsyncEngine
    units: UnitOfWorkFactory
    clock: MovableClock
    service: SsoService

    async def member(self, *, site: str | None = "https://acme.example.test", **settings: Any) -> Principal:
        """Make a tenant and a member of it."""
        tenant_id, user_id = await new_tenant(self.engine), uuid4()
        async with everything(self.engine) as connection:
            tables = Base.metadata.tables
            await connection.execute(
                update(tables["tenants"])
                .where(tables["tenants"].c.id == tenant_id)
                .values(erpnext_site_url=site, settings=settings)
            )
            await connection.execute(
                insert(tables["users"]).values(
                    id=user_id,
                    email=f"{user_id.hex}@example.test",
                    full_name="Olga Owner",
                    hashed_password="-",
                    is_active=True,
                    is_superuser=False,
                    locale="en",
                )
            )
        async with self.units(PLATFORM) as uow:
            uow.session.add(Membership(tenant_id=tenant_id, user_id=user_id, role=Role.MEMBER, joined_at=uow.now))
        return Principal(
            user_id=user_id,
            session_id=uuid4(),
            tenant_id=tenant_id,
            role=Role.MEMBER,
            is_superuser=False,
        )

    async def issue(self, actor: Principal) -> SsoTicketView:
        assert actor.tenant_id is not None
        async with self.units(TenantScope(actor.tenant_id)) as uow:
            return await self.service.issue(uow, actor)

    async def redeem(self, token: str, redirect: str = "/desk") -> SsoAcceptedView | SsoRefusedView:
        async with self.units(PLATFORM) as uow:
            return await self.service.redeem(uow, token=token, redirect=redirect)

    async def rows(self, actor: Principal) -> list[SsoToken]:
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(select(SsoToken).where(SsoToken.user_id == actor.user_id)))

    async def audit(self, actor: Principal) -> list[str]:
        statement = select(AuditEntry.action).where(AuditEntry.tenant_id == actor.tenant_id).order_by(AuditEntry.id)
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(statement))


@pytest.fixture
def make_desk(engine: AsyncEngine) -> Callable[..., Desk]:
    def make(*, development: bool = False, template: str = TEMPLATE) -> Desk:
        units, clock = spine(engine, Ears()), MovableClock()
        units._clock = clock
        service = SsoService(units, sso_url_template=template, lifetime=LIFETIME, development=development)
        return Desk(engine, units, clock, service)

    return make


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


async def test_a_token_opens_the_site_once(desk: Desk) -> None:
    actor = await desk.member()
    before = desk.clock.now()

    ticket = await desk.issue(actor)

    assert len(ticket.token) == 43
    assert ticket.sso_url == f"https://acme.example.test/api/method/erpmax.sso.login?token={ticket.token}"
    assert ticket.expires_in == 60
    assert before + LIFETIME <= ticket.expires_at <= desk.clock.now() + LIFETIME
    [row] = await desk.rows(actor)
    assert row.token_hash == token_hash(ticket.token)
    assert ticket.token not in repr(vars(row))

    answer = await desk.redeem(ticket.token, "/app/item")
    email = f"{actor.user_id.hex}@example.test"
    async with desk.units(PLATFORM) as uow:
        tenant = (await uow.session.scalars(select(Tenant).where(Tenant.id == actor.tenant_id))).one()
    assert answer.model_dump(mode="json") == {
        "success": True,
        "data": {
            "user": {"id": str(actor.user_id), "email": email, "full_name": "Olga Owner"},
            "tenant": {"id": str(tenant.id), "name": tenant.name, "slug": tenant.slug},
            "user_id": str(actor.user_id),
            "tenant_id": str(tenant.id),
            "email": email,
            "full_name": "Olga Owner",
        },
        "redirect": "/app/item",
    }
    refused = {"success": False, "error": "Invalid or expired SSO token", "redirect": "/login"}
    assert (await desk.redeem(ticket.token)).model_dump() == refused
    assert (await desk.redeem("never issued")).model_dump() == refused
    assert await desk.audit(actor) == ["sso.issued", "sso.redeemed"]


async def test_of_ten_redemptions_at_once_one_succeeds(desk: Desk) -> None:
    actor = await desk.member()
    ticket = await desk.issue(actor)

    answers = await asyncio.gather(*(desk.redeem(ticket.token) for _ in range(10)))

    assert sorted(answer.success for answer in answers) == [False] * 9 + [True]
    assert (await desk.audit(actor)).count("sso.redeemed") == 1


async def test_a_token_grows_old(desk: Desk) -> None:
    ticket = await desk.issue(await desk.member())
    desk.clock.offset += LIFETIME

    assert not (await desk.redeem(ticket.token)).success
    async with desk.units(PLATFORM) as uow:
        with pytest.raises(SsoTokenNotFound, match="Token not found or expired"):
            await desk.service.validate(uow, token=ticket.token)


async def test_looking_at_a_token_does_not_use_it_up(desk: Desk) -> None:
    actor = await desk.member()
    ticket = await desk.issue(actor)

    async with desk.units(PLATFORM) as uow:
        view = await desk.service.validate(uow, token=ticket.token)
    async with desk.units(PLATFORM) as uow:
        assert await desk.service.destination(uow, token=ticket.token) == ticket.sso_url
        assert await desk.service.validate(uow, token=ticket.token) == view
    assert (view.valid, view.user_id, view.tenant_id) == (True, actor.user_id, actor.tenant_id)
    assert view.created_at + LIFETIME == ticket.expires_at
    assert (await desk.redeem(ticket.token)).success
    async with desk.units(PLATFORM) as uow:
        with pytest.raises(SsoTokenNotFound):
            await desk.service.validate(uow, token=ticket.token)
        with pytest.raises(SsoTokenNotFound):
            await desk.service.destination(uow, token="never issued")


async def lock_out(desk: Desk, actor: Principal) -> None:
    async with desk.units(PLATFORM) as uow:
        await uow.session.execute(update(User).where(User.id == actor.user_id).values(is_active=False))


async def demote(desk: Desk, actor: Principal) -> None:
    async with desk.units(PLATFORM) as uow:
        statement = update(Membership).where(Membership.user_id == actor.user_id)
        await uow.session.execute(statement.values(role=Role.BUYER))


async def suspend(desk: Desk, actor: Principal) -> None:
    async with desk.units(PLATFORM) as uow:
        (await uow.session.get_one(Tenant, actor.tenant_id)).status = TenantStatus.SUSPENDED


@pytest.mark.parametrize("bar", [lock_out, demote, suspend])
async def test_who_may_no_longer_enter_does_not(desk: Desk, bar: Callable[[Desk, Principal], Awaitable[None]]) -> None:
    actor = await desk.member()
    ticket = await desk.issue(actor)
    await bar(desk, actor)

    async with desk.units(PLATFORM) as uow:
        with pytest.raises(SsoTokenNotFound):
            await desk.service.validate(uow, token=ticket.token)
    assert not (await desk.redeem(ticket.token)).success
    assert await desk.audit(actor) == ["sso.issued", "sso.refused"]


async def test_nobody_is_led_to_the_site_of_a_suspended_tenant(desk: Desk) -> None:
    actor = await desk.member()
    await suspend(desk, actor)
    with pytest.raises(TenantSuspended):
        await desk.issue(actor)


async def test_the_people_of_a_tenant_that_is_to_be_deleted_use_their_site_until_it_is_gone(desk: Desk) -> None:
    actor = await desk.member()
    async with desk.units(PLATFORM) as uow:
        due_at = desk.clock.now() + timedelta(days=30)
        await uow.session.execute(update(Tenant).where(Tenant.id == actor.tenant_id).values(deletion_due_at=due_at))
    assert isinstance(await desk.redeem((await desk.issue(actor)).token), SsoAcceptedView)


async def test_customers_of_a_tenant_do_not_enter_its_site(desk: Desk) -> None:
    actor = replace(await desk.member(), role=Role.BUYER)
    with pytest.raises(RoleRequired):
        await desk.issue(actor)


async def test_without_a_site_there_is_no_entrance(desk: Desk, make_desk: Callable[..., Desk]) -> None:
    with pytest.raises(SiteNotProvisioned, match="ERPNext site not provisioned yet"):
        await desk.issue(await desk.member(site=None))

    developer = make_desk(development=True)
    actor = await developer.member(site=None)
    ticket = await developer.issue(actor)
    slug = f"t-{UUID(str(actor.tenant_id)).hex}"
    assert ticket.sso_url.startswith(f"https://{slug}.erpnext.mock.local/api/method/erpmax.sso.login?token=")
    with_site = await developer.issue(await developer.member())
    assert with_site.sso_url.startswith("https://acme.example.test/"), "the mock is only for who has no site"


@pytest.mark.parametrize(
    ("own", "start"),
    [
        ("{site}/sso/callback?token={token}", "https://acme.example.test/sso/callback?token="),
        ("https://evil.example/in/{token}", "https://acme.example.test/api/method/"),
        ("{site}.evil.example/{token}", "https://acme.example.test/api/method/"),
        ("{site}@evil.example/{token}", "https://acme.example.test/api/method/"),
        ("{site}{token}", "https://acme.example.test/api/method/"),
        ("https://evil.example\\@{site}/{token}", "https://acme.example.test/api/method/"),
        ("javascript:alert('{token}')", "https://acme.example.test/api/method/"),
        ("ftp://acme.test/{token}", "https://acme.example.test/api/method/"),
        ("https:///{token}", "https://acme.example.test/api/method/"),
        ("{site}/no-token", "https://acme.example.test/api/method/"),
        ("{site}/\n{token}", "https://acme.example.test/api/method/"),
        ("{site.__class__}/{token}", "https://acme.example.test/api/method/"),
        (17, "https://acme.example.test/api/method/"),
        (None, "https://acme.example.test/api/method/"),
    ],
)
async def test_a_tenants_own_entrance_is_on_its_site(desk: Desk, own: object, start: str) -> None:
    ticket = await desk.issue(await desk.member(sso_url_template=own))
    assert ticket.sso_url.startswith(start)
    assert ticket.token in ticket.sso_url


async def test_a_template_of_ours_that_leads_nowhere_is_a_refusal(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(template="nowhere")
    with pytest.raises(SiteNotProvisioned):
        await desk.issue(await desk.member())


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("/desk", "/desk"),
        ("/", "/"),
        ("/app/item?x=1#y", "/app/item?x=1#y"),
        ("", "/desk"),
        ("desk", "/desk"),
        ("//evil.example", "/desk"),
        ("/\\evil.example", "/desk"),
        ("/a\\b", "/desk"),
        ("/\t/evil.example", "/desk"),
        ("/\n/evil.example", "/desk"),
        ("https://evil.example", "/desk"),
        ("javascript:alert(1)", "/desk"),
        ("/" + "a" * 2000, "/desk"),
    ],
)
async def test_only_paths_of_the_same_site_are_followed(asked: str, given: str) -> None:
    assert safe_redirect(asked) == given


async def test_old_tokens_are_swept_away(desk: Desk) -> None:
    actor = await desk.member()
    await desk.issue(actor)
    desk.clock.offset += timedelta(hours=12)
    fresh = await desk.issue(actor)
    desk.clock.offset += timedelta(hours=12, minutes=1)

    assert await desk.service.sweep() >= 1

    assert [row.token_hash for row in await desk.rows(actor)] == [token_hash(fresh.token)]
