"""Who belongs to a tenant, who may change that, and what nobody may."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from core.errors import DomainError
from core.pagination import PageRequest
from models.audit import AuditEntry
from models.entitlements import Limit
from models.tenants import Membership, Role
from services.auth.views import SessionView
from services.identity import RoleRequired
from services.tenants.errors import (
    MemberNotFound,
    NoTenantAccess,
    OwnerNotRemovable,
    OwnerRoleFixed,
    OwnerRoleNotGrantable,
    SelfNotRemovable,
)
from services.unit_of_work import TenantScope
from tests.support.identity import Identity, tenant_of


async def change_role(identity: Identity, who: SessionView, tenant_id: UUID, user_id: UUID, role: Role) -> None:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.members.change_role(uow, actor, tenant_id=tenant_id, user_id=user_id, role=role)


async def remove(identity: Identity, who: SessionView, tenant_id: UUID, user_id: UUID) -> None:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.members.remove(uow, actor, tenant_id=tenant_id, user_id=user_id)


async def joined(identity: Identity, host: SessionView, role: Role) -> SessionView:
    """Return the sign-in, still to a tenant of their own, of somebody added to the tenant of `host`."""
    guest = await identity.sign_up()
    await identity.invite(host, guest.user.email, role)
    return guest


async def roles_in(identity: Identity, tenant_id: UUID) -> dict[UUID, Role]:
    places = await identity.rows(select(Membership).where(Membership.tenant_id == tenant_id))
    return {place.user_id: place.role for place in places}


async def test_the_role_in_the_path_tenant_counts_and_not_the_tokens(identity: Identity) -> None:
    owner = await identity.sign_up()
    admin = await joined(identity, owner, Role.ADMIN)
    plain = await joined(identity, owner, Role.MEMBER)
    tenant_id = tenant_of(owner)

    await remove(identity, admin, tenant_id, plain.user.id)
    with pytest.raises(RoleRequired, match=r"requires one of the following roles: owner$"):
        await change_role(identity, admin, tenant_id, owner.user.id, Role.USER)

    assert await roles_in(identity, tenant_id) == {owner.user.id: Role.OWNER, admin.user.id: Role.ADMIN}


async def test_the_owner_changes_roles(identity: Identity) -> None:
    owner = await identity.sign_up()
    guest = await joined(identity, owner, Role.USER)

    for role in (Role.ADMIN, Role.MEMBER, Role.USER):
        await change_role(identity, owner, tenant_of(owner), guest.user.id, role)
        assert (await roles_in(identity, tenant_of(owner)))[guest.user.id] is role

    changes = await identity.rows(
        select(AuditEntry).where(AuditEntry.tenant_id == tenant_of(owner), AuditEntry.action == "member.role_changed")
    )
    assert [(entry.actor_id, entry.subject_id) for entry in changes] == [(owner.user.id, str(guest.user.id))] * 3
    assert sorted((entry.details["from"], entry.details["to"]) for entry in changes) == [
        ("admin", "member"),
        ("member", "user"),
        ("user", "admin"),
    ]


@pytest.mark.parametrize("role", [Role.MEMBER, Role.USER], ids=str)
async def test_others_only_look_on(identity: Identity, role: Role) -> None:
    owner = await identity.sign_up()
    guest = await joined(identity, owner, role)
    tenant_id, actor = tenant_of(owner), await identity.actor(guest)

    with pytest.raises(RoleRequired, match="This action requires one of the following roles: owner, admin"):
        await remove(identity, guest, tenant_id, owner.user.id)
    with pytest.raises(RoleRequired):
        await change_role(identity, guest, tenant_id, guest.user.id, Role.ADMIN)
    for use_case in (identity.tenants.members.list, identity.tenants.invitations.list):
        with pytest.raises(RoleRequired):
            async with identity.units(TenantScope(tenant_id)) as uow:
                await use_case(uow, actor, tenant_id=tenant_id, page=PageRequest())


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OWNER], ids=str)
async def test_the_owner_stays_the_owner(identity: Identity, role: Role) -> None:
    owner = await identity.sign_up()
    admin = await joined(identity, owner, Role.ADMIN)
    tenant_id = tenant_of(owner)

    with pytest.raises(OwnerRoleFixed, match="Cannot change owner role"):
        await change_role(identity, owner, tenant_id, owner.user.id, role)
    with pytest.raises(OwnerRoleNotGrantable):
        await change_role(identity, owner, tenant_id, admin.user.id, Role.OWNER)
    with pytest.raises(OwnerNotRemovable, match="Cannot remove owner from tenant"):
        await remove(identity, admin, tenant_id, owner.user.id)
    with pytest.raises(SelfNotRemovable, match="Cannot remove yourself from tenant"):
        await remove(identity, owner, tenant_id, owner.user.id)
    with pytest.raises(SelfNotRemovable):
        await remove(identity, admin, tenant_id, admin.user.id)

    assert await roles_in(identity, tenant_id) == {owner.user.id: Role.OWNER, admin.user.id: Role.ADMIN}


async def test_who_is_no_member_is_not_found(identity: Identity) -> None:
    owner, stranger = await identity.sign_up(), await identity.sign_up()

    for user_id in (stranger.user.id, uuid4()):
        with pytest.raises(MemberNotFound, match="User in this tenant not found"):
            await change_role(identity, owner, tenant_of(owner), user_id, Role.ADMIN)
        with pytest.raises(MemberNotFound):
            await remove(identity, owner, tenant_of(owner), user_id)


async def test_a_foreign_tenant_looks_like_one_that_does_not_exist(identity: Identity) -> None:
    owner, stranger = await identity.sign_up(), await identity.sign_up()

    refusals: list[DomainError] = []
    for tenant_id in (tenant_of(owner), uuid4()):
        with pytest.raises(NoTenantAccess) as refusal:
            await remove(identity, stranger, tenant_id, owner.user.id)
        refusals.append(refusal.value)

    assert {(error.kind, error.code, error.text) for error in refusals} == {
        ("forbidden", "PERMISSION_DENIED", "You don't have access to this tenant")
    }


async def test_members_are_listed_newest_first_and_page_by_page(identity: Identity) -> None:
    owner = await identity.sign_up()
    await identity.allow(owner, Limit.USERS, 4)
    guests = [await joined(identity, owner, Role.USER) for _ in range(3)]
    tenant_id, actor = tenant_of(owner), await identity.actor(owner)

    shown = []
    for number in (1, 2, 3):
        async with identity.units(TenantScope(tenant_id)) as uow:
            page = await identity.tenants.members.list(
                uow, actor, tenant_id=tenant_id, page=PageRequest(page=number, size=2)
            )
        assert (page.total, page.pages) == (4, 2)
        shown.append([member.user_id for member in page.items])

    assert shown == [[guests[2].user.id, guests[1].user.id], [guests[0].user.id, owner.user.id], []]
