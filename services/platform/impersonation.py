"""Acting in somebody's name, to see what they see: short, with a reason, and never behind their back."""

from uuid import UUID

from services.auth.notices import SecurityNotices
from services.auth.tokens import Device, TokenDesk
from services.identity import Principal
from services.platform.errors import NotImpersonable
from services.platform.staff import hold_user
from services.platform.views import ImpersonationView
from services.step_up import require_recent_authentication
from services.tenants.errors import NoTenantAccess
from services.tenants.members import home_of, memberships_of
from services.unit_of_work import UnitOfWork


class Impersonation:
    """The use case of a superuser who helps somebody."""

    def __init__(self, *, desk: TokenDesk, notices: SecurityNotices) -> None:
        self._desk = desk
        self._notices = notices

    async def begin(
        self,
        uow: UnitOfWork,
        actor: Principal,
        *,
        user_id: UUID,
        reason: str,
        tenant_id: UUID | None,
        device: Device,
    ) -> ImpersonationView:
        """Issue a token to act as a user in one of their tenants, by default the one that they sign in to.

        The user is told at once, sees the session among their own and can end it. Needs a PlatformScope. Raises
        SuperuserRequired, StepUpRequired, UserNotFound, NotImpersonable and NoTenantAccess.
        """
        user = await hold_user(uow, actor, user_id)
        await require_recent_authentication(uow, actor)
        if user.is_platform_staff or not user.is_active:
            raise NotImpersonable
        places = await memberships_of(uow, user_id)
        place = home_of([place for place in places if tenant_id in (None, place.tenant_id)])
        if place is None and tenant_id is not None:
            raise NoTenantAccess
        session, token = self._desk.impersonate(uow, user, place, by=actor.user_id, device=device)
        minutes = int((session.expires_at - uow.now).total_seconds() // 60)
        await self._notices.warn(
            uow, user_id, "impersonated", tenant_id=session.tenant_id, reason=reason, minutes=minutes
        )
        uow.audit(
            "user.impersonated",
            actor_id=actor.user_id,
            tenant_id=session.tenant_id,
            subject=("user", user_id),
            details={"reason": reason, "session": str(session.id), "until": session.expires_at.isoformat()},
        )
        return ImpersonationView(
            access_token=token,
            expires_at=session.expires_at,
            session_id=session.id,
            user_id=user_id,
            tenant_id=session.tenant_id,
        )
