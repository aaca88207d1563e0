"""Going from one tenant to another: the session moves, the default moves, and nobody gets where they do not belong."""

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import delete, func, select, update

from models.tenants import Membership, Role
from services.auth.errors import TokenRevoked
from services.auth.views import SwitchView
from services.tenants.errors import NoTenantAccess
from tests.services.auth.support import execute, member_of_two, refresh, switch
from tests.support.identity import PLATFORM, Identity, tenant_of


async def test_a_lost_place_voids_the_token_and_refresh_leads_home(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)
    tokens = await switch(identity, view, other)
    lost = (Membership.user_id == view.user.id) & (Membership.tenant_id == other)

    await execute(identity, update(Membership).where(lost).values(role=Role.BUYER))
    assert (await identity.actor(tokens.access_token)).role is Role.BUYER, "a new role counts at once"

    await execute(identity, delete(Membership).where(lost))
    with pytest.raises(NoTenantAccess, match="You don't have access to this tenant"):
        await identity.actor(tokens.access_token)
    renewed = await refresh(identity, tokens)
    assert (await identity.actor(renewed.access_token)).tenant_id == mine


async def test_switching_moves_the_session_and_the_default(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)

    switched = await switch(identity, view, other)

    assert switched.tenant.id == other
    actor = await identity.actor(switched.access_token)
    assert (actor.tenant_id, actor.role) == (other, Role.ADMIN)
    defaults = await identity.rows(
        select(Membership.tenant_id).where(Membership.user_id == view.user.id, Membership.is_default)
    )
    assert defaults == [other]
    renewed = await refresh(identity, switched)
    assert (await identity.actor(renewed.access_token)).tenant_id == other, "a refresh keeps the tenant"
    again = await identity.login(view.user.email)
    assert (tenant_of(again), again.user.default_tenant_id) == (other, other)
    assert (await identity.actor(view)).tenant_id == mine, "an older token still speaks for its tenant"


async def test_refresh_keeps_the_sessions_tenant_when_another_device_switches(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)
    phone = await identity.login(view.user.email)
    await switch(identity, phone, other)

    renewed = await refresh(identity, view)

    assert (await identity.actor(renewed.access_token)).tenant_id == mine


async def test_nobody_switches_to_a_foreign_or_unknown_tenant(identity: Identity) -> None:
    view, stranger = await identity.sign_up(), await identity.sign_up()

    for tenant_id in (tenant_of(stranger), uuid4()):
        with pytest.raises(NoTenantAccess, match="You don't have access to this tenant"):
            await switch(identity, view, tenant_id)


async def test_switching_at_once_leaves_one_default(identity: Identity) -> None:
    view, mine, other = await member_of_two(identity)
    third = await identity.sign_up()
    await identity.invite(third, view.user.email)
    targets = [other, tenant_of(third), mine] * 2
    devices = [await identity.login(view.user.email) for _ in targets]

    outcomes = await asyncio.gather(
        *(switch(identity, device, target) for device, target in zip(devices, targets, strict=True)),
        return_exceptions=True,
    )

    assert all(isinstance(outcome, SwitchView) for outcome in outcomes), outcomes
    count = await identity.one(select(func.count()).where(Membership.user_id == view.user.id, Membership.is_default))
    assert count == 1


async def test_switching_does_not_revive_a_closed_session(identity: Identity) -> None:
    view = await identity.sign_up()
    actor = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        await identity.auth.sessions.logout(uow, actor)

    with pytest.raises(TokenRevoked):
        async with identity.units(PLATFORM) as uow:
            await identity.auth.sessions.switch_tenant(uow, actor, tenant_id=tenant_of(view))
