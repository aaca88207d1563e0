"""Acting in somebody's name: short, told, audited, and never enough for what is dangerous."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from models.audit import AuditEntry
from models.notifications import Notification
from models.tenants import Role
from models.users import UserSession
from services.auth.errors import TokenExpired, TokenRevoked
from services.auth.views import SessionView
from services.billing import ChangeOrder
from services.identity import Impersonated, Principal
from services.platform.errors import NotImpersonable
from services.platform.views import ImpersonationView
from services.step_up import StepUpRequired, require_recent_authentication
from services.tenants import TenantChanges
from services.tenants.errors import NoTenantAccess
from services.unit_of_work import RequestTrace
from tests.services.platform.conftest import Platform
from tests.support.identity import DEVICE, PASSWORD, PLATFORM, claims_of, tenant_of
from tests.support.running import Orchestrator


async def impersonate(
    platform: Platform, actor: Principal, view: SessionView, *, tenant_id: UUID | None = None
) -> ImpersonationView:
    async with platform.identity.units(PLATFORM) as uow:
        return await platform.service.impersonation.begin(
            uow, actor, user_id=view.user.id, reason="Invoice 7 cannot be seen", tenant_id=tenant_id, device=DEVICE
        )


async def test_the_user_is_told_sees_the_session_and_ends_it(platform: Platform) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()

    seen = await impersonate(platform, actor, view)

    claims = claims_of(seen.access_token)
    assert (claims["sub"], claims["imp"]) == (str(view.user.id), str(actor.user_id))
    assert (claims["tenant_id"], claims["role"], claims["platform_role"]) == (str(tenant_of(view)), "owner", None)
    assert claims["exp"] - claims["iat"] == timedelta(minutes=15).total_seconds()
    acting = await identity.actor(seen.access_token)
    assert (acting.user_id, acting.impersonator_id, acting.is_superuser) == (view.user.id, actor.user_id, False)
    assert identity.auth.recognise(seen.access_token, now=identity.clock.now())[0] == acting
    [letter] = await identity.letters(view.user.email)
    assert "Invoice 7 cannot be seen" in letter.body
    notification = await identity.one(
        select(Notification).where(Notification.user_id == view.user.id, Notification.tenant_id == tenant_of(view))
    )
    assert notification.data["notice"] == "impersonated"
    [entry] = await identity.rows(
        select(AuditEntry).where(AuditEntry.tenant_id == tenant_of(view), AuditEntry.action == "user.impersonated")
    )
    assert (entry.actor_id, entry.subject_id) == (actor.user_id, str(view.user.id))
    assert entry.details["reason"] == "Invoice 7 cannot be seen"

    owner = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        marked = {device.id: device.impersonated for device in await identity.auth.devices.list(uow, owner)}
        assert marked == {owner.session_id: False, seen.session_id: True}
        await identity.auth.devices.end(uow, owner, session_id=seen.session_id)
    with pytest.raises(TokenRevoked):
        await identity.actor(seen.access_token)


@pytest.mark.embedded
async def test_what_is_dangerous_or_lasts_needs_the_user_in_person(
    platform: Platform, orchestrator: Orchestrator
) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()
    acting = await identity.actor((await impersonate(platform, actor, view)).access_token)
    auth = identity.auth

    with pytest.raises(Impersonated):
        await auth.challenges.step_up(acting, password=PASSWORD, code=None)
    with pytest.raises(Impersonated):
        await auth.passwords.change(acting, current=PASSWORD, new="another password")
    with pytest.raises(Impersonated):
        await auth.addresses.change(acting, email="friend@example.org")
    with pytest.raises(Impersonated):
        await auth.own_phone.change(acting, phone="+79161234567", code="000000")
    async with identity.units(PLATFORM) as uow:
        with pytest.raises(Impersonated):
            await auth.addresses.remove(uow, acting)
        with pytest.raises(Impersonated):
            await auth.own_phone.remove(uow, acting)
        with pytest.raises(Impersonated):
            await require_recent_authentication(uow, acting)
        with pytest.raises(Impersonated):
            await auth.second_factors.enrol(uow, acting)
        # It would answer with a refresh token.
        with pytest.raises(Impersonated):
            await auth.sessions.switch_tenant(uow, acting, tenant_id=tenant_of(view))
        # What is given away outlasts the quarter of an hour.
        with pytest.raises(Impersonated):
            await identity.tenants.invitations.invite(
                uow, acting, tenant_id=tenant_of(view), email="friend@example.org", role=Role.ADMIN
            )
        # The place would be gone for good.
        with pytest.raises(Impersonated):
            await identity.tenants.ownership.leave(uow, acting, tenant_id=tenant_of(view))
        with pytest.raises(Impersonated):
            await orchestrator.services.sso.issue(uow, acting)


@pytest.mark.embedded
async def test_what_a_tenant_has_is_not_changed_for_good(platform: Platform, orchestrator: Orchestrator) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()
    acting = await identity.actor((await impersonate(platform, actor, view)).access_token)
    tenant_id, trace = tenant_of(view), RequestTrace(source="rest")
    billing = orchestrator.services.billing
    order = ChangeOrder(plan_id=uuid4(), billing_period=None, success_url=None, cancel_url=None)

    async with identity.units(PLATFORM) as uow:
        for deed in (
            identity.tenants.create_further(uow, acting, name="One more"),
            identity.tenants.update(uow, acting, tenant_id=tenant_id, changes=TenantChanges(settings={})),
            identity.tenants.members.remove(uow, acting, tenant_id=tenant_id, user_id=uuid4()),
            identity.tenants.invitations.revoke(uow, acting, tenant_id=tenant_id, invitation_id=uuid4()),
            identity.tenants.deletion.restore(uow, acting, tenant_id=tenant_id),
            orchestrator.services.api_keys.revoke(uow, acting, tenant_id=tenant_id, key_id=uuid4()),
        ):
            with pytest.raises(Impersonated):
                await deed
    for decision in (
        billing.cancel(acting, reason=None, at_period_end=True, trace=trace),
        billing.reinstate(acting, trace=trace),
        billing.change_plan(acting, order, trace=trace),
        billing.withdraw_change(acting, trace=trace),
    ):
        with pytest.raises(Impersonated):
            await decision


@pytest.mark.embedded
async def test_what_is_done_in_the_users_name_says_so(platform: Platform) -> None:
    identity = platform.identity
    actor, _ = await platform.superuser()
    view = await identity.sign_up()
    acting = await identity.actor((await impersonate(platform, actor, view)).access_token)
    trace = RequestTrace(source="rest", impersonator_id=acting.impersonator_id)
    async with identity.units(PLATFORM, trace=trace) as uow:
        await identity.auth.sessions.logout(uow, acting)
    entry = await identity.one(select(AuditEntry).where(AuditEntry.subject_id == str(acting.session_id)))
    assert (entry.action, entry.actor_id) == ("session.closed", view.user.id)
    assert entry.details["impersonator_id"] == str(actor.user_id)


@pytest.mark.embedded
async def test_it_is_over_after_a_quarter_of_an_hour(platform: Platform) -> None:
    actor, _ = await platform.superuser()
    seen = await impersonate(platform, actor, await platform.identity.sign_up())
    platform.identity.clock.offset += timedelta(minutes=15)
    with pytest.raises(TokenExpired):
        await platform.identity.actor(seen.access_token)


async def test_it_ends_with_the_superusers_own_account(platform: Platform) -> None:
    identity = platform.identity
    (actor, own), (other, _) = await platform.superuser(), await platform.superuser()
    view = await identity.sign_up()
    seen = await impersonate(platform, actor, view)

    await platform.deactivate(other, own)

    session: UserSession = await identity.one(select(UserSession).where(UserSession.id == seen.session_id))
    assert session.revoked_reason == "deactivated"
    with pytest.raises(TokenRevoked):
        await identity.actor(seen.access_token)
    await identity.actor(view)


@pytest.mark.embedded
async def test_whom_it_is_refused_for(platform: Platform) -> None:
    identity = platform.identity
    (actor, own), (_, other), view = await platform.superuser(), await platform.superuser(), await identity.sign_up()
    for staff in (own, other):
        with pytest.raises(NotImpersonable):
            await impersonate(platform, actor, staff)
    with pytest.raises(NoTenantAccess):
        await impersonate(platform, actor, view, tenant_id=tenant_of(other))
    await platform.deactivate(actor, view)
    with pytest.raises(NotImpersonable):
        await impersonate(platform, actor, view)
    identity.clock.offset += timedelta(minutes=11)
    with pytest.raises(StepUpRequired):
        await impersonate(platform, actor, await identity.sign_up())
