"""Who belongs to a tenant and as what."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import joinedload

from core.pagination import Page, PageRequest
from models.tenants import Membership, Role, Tenant
from models.users import User
from services.identity import Principal, require_may, require_oneself, require_permission
from services.permissions import Permission
from services.standing import place_changed
from services.tenants.errors import (
    BuyerRoleNotGrantable,
    LastOwner,
    MemberNotFound,
    NoTenantAccess,
    OwnerNotRemovable,
    OwnerRoleFixed,
    OwnerRoleNotGrantable,
    SelfNotRemovable,
)
from services.tenants.last_owner import has_other_owner, hold_places, role_of, write_places
from services.tenants.views import MemberView, Place
from services.unit_of_work import UnitOfWork


async def membership_of(
    uow: UnitOfWork, actor: Principal, tenant_id: UUID, permission: Permission | None = None
) -> Membership:
    """Return the caller's place in a tenant, its `tenant` loaded; the token's own tenant plays no part.

    Raises NoTenantAccess for a tenant that is foreign or does not exist, and RoleRequired when a `permission` is
    asked for that the caller's role does not give.
    """
    membership = await uow.session.scalar(
        select(Membership)
        .options(joinedload(Membership.tenant))
        .where(Membership.user_id == actor.user_id, Membership.tenant_id == tenant_id)
    )
    if membership is None:
        raise NoTenantAccess
    if permission is not None:
        require_permission(membership.role, permission)
    return membership


async def place_of(uow: UnitOfWork, actor: Principal, tenant_id: UUID, permission: Permission | None = None) -> Place:
    """Do what `membership_of` does for people, and let the tenant's own API keys look too.

    Raises ScopeRequired for a key that lacks the `permission`.
    """
    if actor.key_id is None:
        own = await membership_of(uow, actor, tenant_id, permission)
        return Place(tenant=own.tenant, role=own.role, is_default=own.is_default)
    if actor.tenant_id != tenant_id:
        raise NoTenantAccess
    if permission is not None:
        require_may(actor, permission)
    tenant = (await uow.session.scalars(select(Tenant).where(Tenant.id == tenant_id))).one()
    return Place(tenant=tenant, role=None, is_default=True)


async def memberships_of(uow: UnitOfWork, user_id: UUID) -> Sequence[Membership]:
    """Return all of a user's places, their `tenant` loaded, oldest first; needs a PlatformScope."""
    places = await uow.session.scalars(
        select(Membership)
        .options(joinedload(Membership.tenant))
        .where(Membership.user_id == user_id)
        .order_by(Membership.joined_at, Membership.id)
    )
    return places.all()


def home_of(places: Sequence[Membership]) -> Membership | None:
    """Return the place that signing in leads to: the default, else the oldest; None for whoever has none."""
    default = next((place for place in places if place.is_default), None)
    return default or (places[0] if places else None)


async def lock_user(uow: UnitOfWork, user_id: UUID) -> None:
    """Make whoever else would change this user's sign-in or memberships wait until this unit of work is over."""
    await uow.session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))


async def attach(uow: UnitOfWork, *, tenant_id: UUID, user_id: UUID, role: Role) -> tuple[Membership, bool]:
    """Give a user a place in a tenant; returns it and whether it is new. Needs a PlatformScope.

    The first place a user gets is the default one. Two that do this at once for one user wait for each other.
    """
    await lock_user(uow, user_id)
    has_default = await uow.session.scalar(
        select(Membership.id).where(Membership.user_id == user_id, Membership.is_default)
    )
    statement = (
        insert(Membership)
        .values(
            id=uuid4(),
            tenant_id=tenant_id,
            user_id=user_id,
            role=role,
            is_default=has_default is None,
            joined_at=uow.now,
        )
        .on_conflict_do_nothing(index_elements=[Membership.user_id, Membership.tenant_id])
        .returning(Membership)
    )
    created = (await uow.session.scalars(statement)).one_or_none()
    if created is not None:
        return created, True
    existing = await uow.session.scalars(
        select(Membership).where(Membership.user_id == user_id, Membership.tenant_id == tenant_id)
    )
    return existing.one(), False


class Members:
    """The use cases of a tenant's list of users."""

    async def list(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, page: PageRequest) -> Page[MemberView]:
        """Show the users, newest first; for owners and admins."""
        await place_of(uow, actor, tenant_id, Permission.MEMBERS_READ)
        total = await uow.session.scalar(
            select(func.count()).select_from(Membership).where(Membership.tenant_id == tenant_id)
        )
        rows = await uow.session.scalars(
            select(Membership)
            .options(joinedload(Membership.user))
            .where(Membership.tenant_id == tenant_id)
            .order_by(Membership.joined_at.desc(), Membership.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=[MemberView.of(row) for row in rows], total=total or 0, request=page)

    async def change_role(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, user_id: UUID, role: Role
    ) -> None:
        """Give a member another role; for owners only. Where there are several owners, one may demote another.

        Raises MemberNotFound, OwnerRoleFixed, OwnerRoleNotGrantable, BuyerRoleNotGrantable, LastOwner and Impersonated.
        """
        await membership_of(uow, actor, tenant_id, Permission.MEMBERS_CHANGE_ROLE)
        require_oneself(actor)
        if role is Role.BUYER:
            raise BuyerRoleNotGrantable
        await hold_places(uow, tenant_id)
        membership = await self._locked(uow, tenant_id, user_id)
        if membership.role is Role.OWNER and not await has_other_owner(uow, tenant_id, user_id):
            # Whoever asks is an owner, or was one until a moment ago, when the other was faster.
            raise OwnerRoleFixed if user_id == actor.user_id else LastOwner
        # Asked again under the lock: the caller may have lost the right while waiting for it.
        require_permission(await role_of(uow, tenant_id, actor.user_id), Permission.MEMBERS_CHANGE_ROLE)
        if role is Role.OWNER:
            raise OwnerRoleFixed if membership.role is Role.OWNER else OwnerRoleNotGrantable
        previous, membership.role = membership.role, role
        await write_places(uow)
        uow.record(place_changed(tenant_id, user_id, role))
        uow.audit(
            "member.role_changed",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("user", user_id),
            details={"from": previous, "to": role},
        )

    async def remove(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, user_id: UUID) -> None:
        """Take a member's place away; for owners and admins. The user's tokens for the tenant are void at once.

        An owner is removed by another owner only. Raises SelfNotRemovable, MemberNotFound, OwnerNotRemovable,
        LastOwner and Impersonated.
        """
        own = await membership_of(uow, actor, tenant_id, Permission.MEMBERS_REMOVE)
        require_oneself(actor)
        if user_id == actor.user_id:
            raise SelfNotRemovable
        await hold_places(uow, tenant_id)
        membership = await self._locked(uow, tenant_id, user_id)
        if membership.role is Role.OWNER:
            if own.role is not Role.OWNER:
                raise OwnerNotRemovable
            if not await has_other_owner(uow, tenant_id, user_id):
                raise LastOwner
        # Asked again under the lock: the caller may have lost the right while waiting for it.
        own_role = await role_of(uow, tenant_id, actor.user_id)
        require_permission(own_role, Permission.MEMBERS_REMOVE)
        if membership.role is Role.OWNER:
            require_permission(own_role, Permission.MEMBERS_CHANGE_ROLE)
        await uow.session.delete(membership)
        await write_places(uow)
        uow.record(place_changed(tenant_id, user_id, None))
        uow.audit(
            "member.removed",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("user", user_id),
            details={"role": membership.role},
        )

    async def _locked(self, uow: UnitOfWork, tenant_id: UUID, user_id: UUID) -> Membership:
        membership = await uow.session.scalar(
            select(Membership).where(Membership.tenant_id == tenant_id, Membership.user_id == user_id).with_for_update()
        )
        if membership is None:
            raise MemberNotFound
        return membership
