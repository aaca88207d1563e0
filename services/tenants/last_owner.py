"""At least one owner: whoever would take an owner's place away asks here; the database itself has the last word.

See docs/adr/0015 and the trigger in `models/tenants.py`.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from models.tenants import Membership, Role, Tenant
from services.tenants.errors import LastOwner
from services.unit_of_work import UnitOfWork

_CONSTRAINT = "ck_user_tenants_owner_left"


async def hold_places(uow: UnitOfWork, tenant_id: UUID) -> None:
    """Make whoever else would change the tenant's owners wait until this unit of work is over.

    The database's trigger takes the same lock, but later; taken first, it cannot be waited for crosswise.
    """
    await uow.session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))


async def role_of(uow: UnitOfWork, tenant_id: UUID, user_id: UUID) -> Role | None:
    """Return a user's role as it is now, whatever was read of it before."""
    role: Role | None = await uow.session.scalar(
        select(Membership.role).where(Membership.tenant_id == tenant_id, Membership.user_id == user_id)
    )
    return role


async def has_other_owner(uow: UnitOfWork, tenant_id: UUID, user_id: UUID) -> bool:
    """Tell whether somebody other than this user owns the tenant."""
    other = await uow.session.scalar(
        select(Membership.id)
        .where(Membership.tenant_id == tenant_id, Membership.role == Role.OWNER, Membership.user_id != user_id)
        .limit(1)
    )
    return other is not None


async def write_places(uow: UnitOfWork) -> None:
    """Write changed places now, so that the database says whether an owner is left; raises LastOwner if none is."""
    try:
        await uow.session.flush()
    except IntegrityError as error:
        # The driver's own error, which names the rule that was broken, is behind SQLAlchemy's.
        if getattr(getattr(error.orig, "__cause__", None), "constraint_name", None) != _CONSTRAINT:
            raise
        raise LastOwner from error
