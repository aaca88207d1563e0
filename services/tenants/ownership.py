"""Who owns a tenant: handing it on, and giving one's own place up (docs/adr/0015)."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from models.tenants import Membership, Role
from services.identity import Principal, require_oneself
from services.permissions import Permission
from services.standing import place_changed
from services.step_up import require_recent_authentication
from services.tenants.errors import MemberNotFound, OwnershipNotTransferable
from services.tenants.last_owner import hold_places, write_places
from services.tenants.members import membership_of
from services.unit_of_work import UnitOfWork
from services.verification import Verification


class Ownership:
    """The use cases around being an owner."""

    def __init__(self, verification: Verification) -> None:
        self._verification = verification

    async def transfer(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, user_id: UUID, former_role: Role
    ) -> None:
        """Make a member an owner; the caller becomes `former_role`, which may be `owner` to own it together.

        For owners who have just proved who they are. Raises StepUpRequired, EmailUnverified, MemberNotFound and
        OwnershipNotTransferable.
        """
        await hold_places(uow, tenant_id)
        own = await membership_of(uow, actor, tenant_id, Permission.TENANT_TRANSFER)
        await require_recent_authentication(uow, actor)
        await self._verification.require(uow, actor)
        heir = await self._heir(uow, tenant_id, user_id)
        if user_id == actor.user_id or heir.role is Role.OWNER or not heir.user.is_active:
            raise OwnershipNotTransferable
        previous, heir.role = heir.role, Role.OWNER
        uow.record(place_changed(tenant_id, user_id, Role.OWNER))
        # Written before the caller's own place, for the tenant must not be without an owner in between.
        await write_places(uow)
        if former_role is not Role.OWNER:
            own.role = former_role
            uow.record(place_changed(tenant_id, actor.user_id, former_role))
            await write_places(uow)
        uow.audit(
            "tenant.ownership_transferred",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("user", user_id),
            details={"from": previous, "former_owner": former_role},
        )

    async def leave(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> None:
        """Give the caller's own place up; their tokens for the tenant are void at once.

        Raises LastOwner and Impersonated.
        """
        require_oneself(actor)
        await hold_places(uow, tenant_id)
        own = await membership_of(uow, actor, tenant_id)
        await uow.session.delete(own)
        await write_places(uow)
        uow.record(place_changed(tenant_id, actor.user_id, None))
        uow.audit(
            "member.left",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("user", actor.user_id),
            details={"role": own.role},
        )

    async def _heir(self, uow: UnitOfWork, tenant_id: UUID, user_id: UUID) -> Membership:
        heir = await uow.session.scalar(
            select(Membership)
            .options(joinedload(Membership.user))
            .where(Membership.tenant_id == tenant_id, Membership.user_id == user_id)
            .with_for_update(of=Membership)
        )
        if heir is None:
            raise MemberNotFound
        return heir
