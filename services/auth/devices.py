"""Where somebody is signed in: to look at, and to put an end to."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from models.users import UserSession
from services.auth.endings import end_sessions
from services.auth.errors import SessionNotFound
from services.auth.views import DeviceView
from services.identity import Principal
from services.standing import sessions_ended
from services.tenants.members import lock_user
from services.unit_of_work import UnitOfWork


class Devices:
    """The use cases of somebody who looks after their own sign-ins; a session stands for a device."""

    async def list(self, uow: UnitOfWork, actor: Principal) -> Sequence[DeviceView]:
        """Show the caller's live sessions, the one seen last first."""
        sessions = await uow.session.scalars(
            select(UserSession)
            .where(
                UserSession.user_id == actor.user_id,
                UserSession.revoked_at.is_(None),
                UserSession.expires_at > uow.now,
            )
            .order_by(UserSession.last_seen_at.desc(), UserSession.id)
        )
        return [DeviceView.of(session, current=session.id == actor.session_id) for session in sessions]

    async def end(self, uow: UnitOfWork, actor: Principal, *, session_id: UUID) -> None:
        """End one of the caller's sessions, this one or another; raises SessionNotFound."""
        session = await uow.session.scalar(
            select(UserSession)
            .where(UserSession.id == session_id, UserSession.user_id == actor.user_id)
            .with_for_update()
        )
        if session is None or not session.is_live(uow.now):
            raise SessionNotFound
        session.revoke("signed_out_elsewhere", now=uow.now)
        uow.record(sessions_ended([session.id]))
        uow.audit(
            "session.revoked",
            actor_id=actor.user_id,
            tenant_id=session.tenant_id,
            subject=("session", session.id),
        )

    async def end_all(self, uow: UnitOfWork, actor: Principal) -> None:
        """Sign the caller out everywhere, also here."""
        await lock_user(uow, actor.user_id)
        ended = await end_sessions(uow, actor.user_id, reason="logout_everywhere")
        uow.audit(
            "session.all_closed",
            actor_id=actor.user_id,
            tenant_id=actor.tenant_id,
            subject=("user", actor.user_id),
            details={"sessions": len(ended)},
        )
