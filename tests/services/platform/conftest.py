"""The platform's services beside identity and tenancy, on the same clock, and somebody who may use them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from models.users import User
from providers.uploads import UploadFolder
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.auth.tokens import TokenDesk
from services.auth.views import SessionView
from services.identity import Principal
from services.notifications import NotificationService
from services.platform import PlatformService
from tests.support.identity import ACCESS, PLATFORM, REFRESH, Identity, build_identity
from tests.support.running import Orchestrator


@dataclass(slots=True)
class Platform:
    """The services under test and the identity that they work on."""

    identity: Identity
    service: PlatformService

    async def superuser(self) -> tuple[Principal, SessionView]:
        """Return one of the platform's people, just signed in."""
        view = await self.identity.sign_up()
        async with self.identity.units(PLATFORM) as uow:
            await uow.session.execute(update(User).where(User.id == view.user.id).values(is_superuser=True))
        return await self.identity.actor(view), view

    async def deactivate(self, actor: Principal, view: SessionView) -> bool:
        """Switch somebody's account off."""
        async with self.identity.units(PLATFORM) as uow:
            return await self.service.users.deactivate(uow, actor, user_id=view.user.id, reason="spam")

    async def activate(self, actor: Principal, view: SessionView) -> bool:
        """Switch somebody's account on again."""
        async with self.identity.units(PLATFORM) as uow:
            return await self.service.users.activate(uow, actor, user_id=view.user.id, reason=None)


@pytest.fixture
def platform(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> Iterator[Platform]:
    """The platform's services on the shared database."""
    identity = build_identity(engine, orchestrator.services, tmp_path)
    service = PlatformService(
        units=identity.units,
        new_passwords=NewPasswords(hasher=identity.hasher, breaches=None),
        desk=TokenDesk(identity.signer, access_lifetime=ACCESS, refresh_lifetime=REFRESH),
        notices=SecurityNotices(mail=identity.mail, notifications=NotificationService()),
        factors=identity.auth.second_factors,
        suspension=identity.tenants.suspension,
        folder=UploadFolder(tmp_path / "uploads"),
    )
    yield Platform(identity, service)
    identity.hasher.close()
