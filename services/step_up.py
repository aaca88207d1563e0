"""Step-up: what cannot be undone is done only by somebody who has just proved who they are.

A stolen access token, or a device left open, must not be enough to switch the second factor off or to delete a tenant.
"""

from datetime import timedelta

from sqlalchemy import select

from core.errors import PermissionDenied
from models.second_factors import SecondFactor
from models.users import UserSession
from services.identity import Principal, require_oneself
from services.unit_of_work import UnitOfWork

RECENT = timedelta(minutes=10)


class StepUpRequired(PermissionDenied):
    """The caller has to prove again who they are, at `/api/v1/auth/step-up`."""

    code = "STEP_UP_REQUIRED"
    message = "Confirm that it is you to do this"


async def require_recent_authentication(uow: UnitOfWork, actor: Principal) -> None:
    """Raise StepUpRequired unless the caller proved who they are in this session a moment ago.

    Raises Impersonated for whoever acts in somebody's name, who can never do so.
    """
    require_oneself(actor)
    proved_at = await uow.session.scalar(
        select(UserSession.authenticated_at).where(
            UserSession.id == actor.session_id, UserSession.user_id == actor.user_id
        )
    )
    if proved_at is None or proved_at + RECENT < uow.now:
        raise StepUpRequired


async def require_recent_second_factor(uow: UnitOfWork, actor: Principal) -> None:
    """Do as `require_recent_authentication` for whoever has switched a second factor on; let others pass.

    For what the clients of contract.md call at any time: they know of no step-up, nor of a second factor. Raises
    StepUpRequired and, for everybody, Impersonated and ApiKeyRefused.
    """
    require_oneself(actor)
    enrolled = select(SecondFactor.user_id).where(
        SecondFactor.user_id == actor.user_id, SecondFactor.confirmed_at.is_not(None)
    )
    if await uow.session.scalar(enrolled) is not None:
        await require_recent_authentication(uow, actor)
