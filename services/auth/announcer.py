"""Telling people what has happened to their own account, whichever of their tenants they look at."""

from uuid import UUID

from sqlalchemy import select

from models.tenants import Membership
from services.events import AccountChange, AccountChanged
from services.unit_of_work import UnitOfWork


async def announce(
    uow: UnitOfWork,
    user_id: UUID,
    change: AccountChange,
    *,
    session_id: UUID | None = None,
) -> None:
    """Record the change in the stream of each of the user's tenants; needs a PlatformScope."""
    tenant_ids = await uow.session.scalars(select(Membership.tenant_id).where(Membership.user_id == user_id))
    for tenant_id in tenant_ids:
        fact = AccountChanged(tenant_id=tenant_id, user_id=user_id, change=change, session_id=session_id, at=uow.now)
        uow.record(fact)
