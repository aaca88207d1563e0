"""What a signed-in client does: exchange its token, go to another tenant."""

from uuid import UUID

from sqlalchemy import Executable, select

from models.tenants import Role
from models.users import UserSession
from services.auth.views import SessionView, SwitchView, TokensView
from tests.support.identity import PLATFORM, Identity, claims_of, tenant_of


async def execute(identity: Identity, statement: Executable) -> None:
    """Run a statement and keep what it did."""
    async with identity.units(PLATFORM) as uow:
        await uow.session.execute(statement)


async def refresh(identity: Identity, tokens: TokensView | str) -> TokensView:
    """Exchange a sign-in's refresh token, or a token by itself."""
    token = tokens if isinstance(tokens, str) else tokens.refresh_token
    return await identity.auth.sessions.refresh(refresh_token=token)


async def switch(identity: Identity, view: SessionView, tenant_id: UUID) -> SwitchView:
    """Lead a sign-in's session to another tenant."""
    actor = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        return await identity.auth.sessions.switch_tenant(uow, actor, tenant_id=tenant_id)


async def member_of_two(identity: Identity) -> tuple[SessionView, UUID, UUID]:
    """Return somebody's sign-in, the tenant of their own and the one they were added to."""
    mine, other = await identity.sign_up(), await identity.sign_up()
    await identity.invite(other, mine.user.email, Role.ADMIN)
    return mine, tenant_of(mine), tenant_of(other)


async def session_of(identity: Identity, view: SessionView) -> UserSession:
    """Return the session that a sign-in began."""
    claims = claims_of(view.refresh_token)
    row: UserSession = await identity.one(select(UserSession).where(UserSession.id == UUID(claims["sid"])))
    return row
