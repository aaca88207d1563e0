"""The ends of sessions: whichever way one ends, its tokens are void at once and its open sockets end."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import or_, update

from models.users import UserSession
from services.standing import sessions_ended
from services.unit_of_work import UnitOfWork


async def end_sessions(
    uow: UnitOfWork, user_id: UUID, *, reason: str, keep: UUID | None = None, code: str = "SESSION_REVOKED"
) -> Sequence[UUID]:
    """End all of a user's sessions but `keep`; returns which. The caller has locked the user.

    Those that the user has opened in somebody else's name end too. `code` tells open sockets why.

    Whoever makes a user less than they were has to call this: what their tokens say is believed otherwise.
    """
    statement = (
        update(UserSession)
        .where(
            or_(UserSession.user_id == user_id, UserSession.impersonated_by == user_id),
            UserSession.revoked_at.is_(None),
            UserSession.expires_at > uow.now,
        )
        .values(revoked_at=uow.now, revoked_reason=reason)
        .returning(UserSession.id)
    )
    if keep is not None:
        statement = statement.where(UserSession.id != keep)
    ended = (await uow.session.scalars(statement)).all()
    if ended:
        uow.record(sessions_ended(ended, code=code))
    return ended
