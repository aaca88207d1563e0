"""Owners: handing a tenant on, leaving it, and that one is always left, whoever races."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from core.errors import DomainError
from models.audit import AuditEntry
from models.tenants import Membership, Role, Tenant
from models.users import User
from services.auth.views import SessionView
from services.identity import RoleRequired
from services.step_up import RECENT, StepUpRequired
from services.tenants.errors import (
    LastOwner,
    MemberNotFound,
    NoTenantAccess,
    OwnerNotRemovable,
    OwnerRoleFixed,
    OwnershipNotTransferable,
    TooManyTenants,
)
from services.unit_of_work import TenantScope
from tests.support.identity import MAX_OWNED, PLATFORM, Identity, tenant_of

Deed = Callable[[Identity, SessionView, SessionView, UUID], Coroutine[None, None, None]]


async def transfer(
    identity: Identity, who: SessionView, user_id: UUID, *, tenant_id: UUID, former_role: Role = Role.ADMIN
) -> None:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.ownership.transfer(
            uow, actor, tenant_id=tenant_id, user_id=user_id, former_role=former_role
        )


async def demote(identity: Identity, who: SessionView, whom: SessionView, tenant_id: UUID) -> None:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.members.change_role(
            uow, actor, tenant_id=tenant_id, user_id=whom.user.id, role=Role.MEMBER
        )


async def remove(identity: Identity, who: SessionView, whom: SessionView, tenant_id: UUID) -> None:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.members.remove(uow, actor, tenant_id=tenant_id, user_id=whom.user.id)


async def leave(identity: Identity, who: SessionView, _: SessionView | None, tenant_id: UUID) -> None:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.ownership.leave(uow, actor, tenant_id=tenant_id)


async def joined(identity: Identity, host: SessionView, role: Role = Role.MEMBER) -> SessionView:
    guest = await identity.sign_up()
    await identity.invite(host, guest.user.email, role)
    return guest


async def two_owners(identity: Identity) -> tuple[SessionView, SessionView, UUID]:
    first = await identity.sign_up()
    second = await joined(identity, first)
    await transfer(identity, first, second.user.id, tenant_id=tenant_of(first), former_role=Role.OWNER)
    return first, second, tenant_of(first)


async def roles_in(identity: Identity, tenant_id: UUID) -> dict[UUID, Role]:
    places = await identity.rows(select(Membership).where(Membership.tenant_id == tenant_id))
    return {place.user_id: place.role for place in places}


async def test_ownership_is_handed_on_and_told_to_every_instance(identity: Identity) -> None:
    owner = await identity.sign_up()
    heir = await joined(identity, owner)
    tenant_id = tenant_of(owner)
    identity.ears.events.clear()

    await transfer(identity, owner, heir.user.id, tenant_id=tenant_id)

    assert await roles_in(identity, tenant_id) == {owner.user.id: Role.ADMIN, heir.user.id: Role.OWNER}
    told = {(event.payload["user_id"], event.payload["role"]) for event in identity.ears.events}
    assert told == {(str(heir.user.id), "owner"), (str(owner.user.id), "admin")}
    entry = await identity.one(
        select(AuditEntry).where(AuditEntry.tenant_id == tenant_id, AuditEntry.action == "tenant.ownership_transferred")
    )
    assert (entry.actor_id, entry.subject_id) == (owner.user.id, str(heir.user.id))
    with pytest.raises(RoleRequired):
        await transfer(identity, owner, heir.user.id, tenant_id=tenant_id)


async def test_handing_on_needs_an_owner_who_has_just_proved_it_and_a_fit_heir(identity: Identity) -> None:
    owner = await identity.sign_up()
    admin, heir, stranger = (
        await joined(identity, owner, Role.ADMIN),
        await joined(identity, owner),
        await identity.sign_up(),
    )
    tenant_id = tenant_of(owner)

    with pytest.raises(RoleRequired):
        await transfer(identity, admin, heir.user.id, tenant_id=tenant_id)
    with pytest.raises(NoTenantAccess):
        await transfer(identity, stranger, heir.user.id, tenant_id=tenant_id)
    with pytest.raises(MemberNotFound):
        await transfer(identity, owner, stranger.user.id, tenant_id=tenant_id)
    with pytest.raises(OwnershipNotTransferable):
        await transfer(identity, owner, owner.user.id, tenant_id=tenant_id)
    async with identity.units(PLATFORM) as uow:
        await uow.session.execute(update(User).where(User.id == heir.user.id).values(is_active=False))
    with pytest.raises(OwnershipNotTransferable):
        await transfer(identity, owner, heir.user.id, tenant_id=tenant_id)
    identity.clock.offset += RECENT + timedelta(seconds=1)
    with pytest.raises(StepUpRequired):
        await transfer(identity, owner, admin.user.id, tenant_id=tenant_id)

    assert (await roles_in(identity, tenant_id))[owner.user.id] is Role.OWNER


async def test_leaving_takes_the_place_and_the_last_owner_stays(identity: Identity) -> None:
    owner = await identity.sign_up()
    guest = await joined(identity, owner)
    tenant_id = tenant_of(owner)
    identity.ears.events.clear()

    await leave(identity, guest, None, tenant_id)
    with pytest.raises(LastOwner):
        await leave(identity, owner, None, tenant_id)
    with pytest.raises(NoTenantAccess):
        await leave(identity, guest, None, tenant_id)

    assert await roles_in(identity, tenant_id) == {owner.user.id: Role.OWNER}
    (told,) = identity.ears.events
    assert (told.payload["code"], told.payload["user_id"]) == ("TENANT_ACCESS_REVOKED", str(guest.user.id))


async def test_of_two_owners_one_demotes_or_removes_the_other(identity: Identity) -> None:
    first, second, tenant_id = await two_owners(identity)
    admin = await joined(identity, first, Role.ADMIN)

    with pytest.raises(OwnerNotRemovable):
        await remove(identity, admin, second, tenant_id)
    await demote(identity, first, second, tenant_id)
    with pytest.raises(OwnerRoleFixed):
        await demote(identity, first, first, tenant_id)
    await remove(identity, first, second, tenant_id)

    assert await roles_in(identity, tenant_id) == {first.user.id: Role.OWNER, admin.user.id: Role.ADMIN}


@pytest.mark.parametrize("deed", [demote, remove, leave])
async def test_of_two_owners_at_once_one_is_left(identity: Identity, deed: Deed) -> None:
    for _ in range(3):
        first, second, tenant_id = await two_owners(identity)

        outcomes = await asyncio.gather(
            deed(identity, first, second, tenant_id),
            deed(identity, second, first, tenant_id),
            return_exceptions=True,
        )

        # A loser who comes late enough is no owner any more, or no member.
        (lost,) = [outcome for outcome in outcomes if outcome is not None]
        assert isinstance(lost, LastOwner | RoleRequired | NoTenantAccess | OwnerNotRemovable)
        assert list((await roles_in(identity, tenant_id)).values()).count(Role.OWNER) == 1


async def test_two_transfers_at_once_make_one_heir(identity: Identity) -> None:
    owner = await identity.sign_up()
    heirs = [await joined(identity, owner) for _ in range(2)]
    tenant_id = tenant_of(owner)

    outcomes = await asyncio.gather(
        *(transfer(identity, owner, heir.user.id, tenant_id=tenant_id) for heir in heirs), return_exceptions=True
    )

    (lost,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(lost, RoleRequired)
    assert sorted((await roles_in(identity, tenant_id)).values()) == ["admin", "member", "owner"]


async def test_the_database_itself_keeps_an_owner_against_code_that_forgets(identity: Identity) -> None:
    """Two transactions that ask nobody, each taking the other's ownership away."""
    first, second, tenant_id = await two_owners(identity)
    both_changed = asyncio.Barrier(2)

    async def take_from(view: SessionView) -> None:
        mine = (Membership.tenant_id == tenant_id, Membership.user_id == view.user.id)
        async with identity.units(PLATFORM) as uow:
            await uow.session.execute(select(Membership.id).where(*mine).with_for_update())
            await both_changed.wait()
            await uow.session.execute(update(Membership).where(*mine).values(role=Role.MEMBER))

    outcomes = await asyncio.gather(take_from(first), take_from(second), return_exceptions=True)

    (lost,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(lost, IntegrityError)
    assert list((await roles_in(identity, tenant_id)).values()).count(Role.OWNER) == 1
    alone = await identity.sign_up()
    for statement in (
        delete(Membership).where(Membership.user_id == alone.user.id),
        delete(User).where(User.id == alone.user.id),
    ):
        with pytest.raises(IntegrityError, match="would have no owner"):
            async with identity.units(PLATFORM) as uow:
                await uow.session.execute(statement)
    async with identity.units(PLATFORM) as uow:
        await uow.session.execute(delete(Tenant).where(Tenant.id == tenant_of(alone)))


async def test_a_further_tenant_has_its_own_trial_and_is_no_default(identity: Identity) -> None:
    view = await identity.sign_up()
    actor = await identity.actor(view)

    async def found() -> UUID:
        async with identity.units(PLATFORM) as uow:
            return (await identity.tenants.create_further(uow, actor, name=f"Second {uuid4().hex}")).id

    further = await found()
    place = await identity.one(
        select(Membership).where(Membership.tenant_id == further, Membership.user_id == view.user.id)
    )
    assert (place.role, place.is_default) == (Role.OWNER, False)
    async with identity.units(TenantScope(further)) as uow:
        assert (await identity.tenants.status(uow, actor, tenant_id=further)).tenant_id == further

    outcomes = await asyncio.gather(*(found() for _ in range(MAX_OWNED)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, DomainError)]
    assert [type(refusal) for refusal in refused] == [TooManyTenants] * 2
