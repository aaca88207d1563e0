"""The platform's people at work on somebody: both are held, and both are looked up, before anything is done."""

from uuid import UUID

from sqlalchemy import select

from models.users import User
from services.identity import Principal, SuperuserRequired, require_superuser
from services.platform.errors import UserNotFound
from services.unit_of_work import UnitOfWork


async def hold_user(uow: UnitOfWork, actor: Principal, user_id: UUID) -> User:
    """Return a user, locked, for a superuser who is one still; needs a PlatformScope.

    The superuser is locked too, and always in the order of ids: of two who would switch each other off, the later
    finds that they may not any more. Raises SuperuserRequired and UserNotFound.
    """
    require_superuser(actor)
    held = await uow.session.scalars(
        select(User).where(User.id.in_((actor.user_id, user_id))).order_by(User.id).with_for_update(key_share=True)
    )
    users = {user.id: user for user in held}
    superuser = users.get(actor.user_id)
    if superuser is None or not (superuser.is_active and superuser.is_superuser):
        raise SuperuserRequired
    if user_id not in users:
        raise UserNotFound
    return users[user_id]
