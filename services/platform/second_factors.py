"""Lost second factors: the platform's people switch one off, for a reason, and its owner is told.

Whoever asks for it may be somebody else who knows the password. So the operator has to make sure of the person first;
what is done here makes sure that it does not stay unseen.
"""

from contextlib import suppress
from uuid import UUID

from sqlalchemy import select

from core.phones import PhoneInvalid, parse_phone
from models.users import User
from services.auth.announcer import announce
from services.auth.endings import end_sessions
from services.auth.errors import SecondFactorAbsent
from services.auth.notices import SecurityNotices
from services.auth.second_factor import SecondFactors
from services.identity import Principal
from services.platform.errors import OwnSecondFactor, UserNotFound
from services.platform.staff import hold_user
from services.step_up import require_recent_authentication
from services.tenants.members import home_of, lock_user, memberships_of
from services.unit_of_work import UnitOfWork


class SecondFactorResets:
    """The use cases of whoever helps somebody who has lost app and recovery codes; all need a PlatformScope."""

    def __init__(self, *, factors: SecondFactors, notices: SecurityNotices) -> None:
        self._factors = factors
        self._notices = notices

    async def reset(self, uow: UnitOfWork, actor: Principal, *, user_id: UUID, reason: str) -> None:
        """Switch somebody's second factor off; every session of theirs ends.

        For superusers who have just proved who they are. Raises SuperuserRequired, StepUpRequired, Impersonated,
        UserNotFound, OwnSecondFactor and SecondFactorAbsent.
        """
        await hold_user(uow, actor, user_id)
        await require_recent_authentication(uow, actor)
        if user_id == actor.user_id:
            raise OwnSecondFactor
        await self._reset(uow, user_id, by=actor.user_id, reason=reason)

    async def reset_by_command(self, uow: UnitOfWork, *, login: str, reason: str) -> None:
        """Do the same from the command line, for the account of an address or a phone; also for the last superuser.

        Raises UserNotFound and SecondFactorAbsent.
        """
        known_as = User.has_email(login)
        # What is no phone is an address.
        with suppress(PhoneInvalid):
            known_as = User.phone == parse_phone(login)
        user_id = await uow.session.scalar(select(User.id).where(known_as))
        if user_id is None:
            raise UserNotFound
        await lock_user(uow, user_id)
        await self._reset(uow, user_id, by=None, reason=reason)

    async def _reset(self, uow: UnitOfWork, user_id: UUID, *, by: UUID | None, reason: str) -> None:
        if not await self._factors.forget(uow, user_id):
            raise SecondFactorAbsent
        ended = await end_sessions(uow, user_id, reason="two_factor_reset")
        await announce(uow, user_id, "two_factor_reset")
        home = home_of(await memberships_of(uow, user_id))
        await self._notices.warn(
            uow, user_id, "two_factor_reset", tenant_id=home.tenant_id if home else None, reason=reason
        )
        uow.audit(
            "second_factor.reset",
            actor_id=by,
            tenant_id=None,
            subject=("user", user_id),
            details={"reason": reason, "sessions": len(ended)},
        )
