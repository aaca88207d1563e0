"""The content of the platform's public pages (contract.md 3.8): read by everybody, written by its masters."""

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from core.errors import InvalidInput, PermissionDenied
from core.redaction import redacted
from models.platform import PlatformContent
from models.users import User
from services.identity import Principal
from services.platform.views import ContentPieceView, ContentView, ContentWrittenView, PublicContentView
from services.unit_of_work import UnitOfWork

# What the public pages show; the other keys are the masters' own.
_PUBLIC: Final = ("hero_banner", "telegram_settings")
_KEY: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class MasterRequired(PermissionDenied):
    """Only those who may edit the platform's content may do this."""

    message = "Access denied. Platform master role required."


class PlatformContents:
    """The use cases of the public pages and of those who edit them; all need a PlatformScope."""

    async def public(self, uow: UnitOfWork) -> PublicContentView:
        """Show what everybody may see; what bears the name of a secret is hidden, should somebody have put it there."""
        rows = await uow.session.scalars(select(PlatformContent).where(PlatformContent.key.in_(_PUBLIC)))
        shown = {row.key: ContentPieceView(content=redacted(row.content), updated_at=row.updated_at) for row in rows}
        return PublicContentView(hero_banner=shown.get(_PUBLIC[0]), telegram_settings=shown.get(_PUBLIC[1]))

    async def list(self, uow: UnitOfWork, actor: Principal) -> Mapping[str, ContentView]:
        """Show everything by its key; raises MasterRequired."""
        await require_master(uow, actor)
        rows = await uow.session.scalars(select(PlatformContent).order_by(PlatformContent.key))
        return {
            row.key: ContentView(content=row.content, updated_at=row.updated_at, updated_by=row.updated_by)
            for row in rows
        }

    async def write(
        self, uow: UnitOfWork, actor: Principal, *, key: str, content: dict[str, Any]
    ) -> ContentWrittenView:
        """Put content under a key, in the place of what was there. Raises MasterRequired and InvalidInput."""
        await require_master(uow, actor)
        if _KEY.fullmatch(key) is None:
            problem = {"field": "path -> key", "message": "must be lower-case letters, digits and _", "type": "key"}
            raise InvalidInput(details={"errors": [problem]})
        # Held, so that what the audit says was there before is what this replaces.
        before = await uow.session.scalar(
            select(PlatformContent.content).where(PlatformContent.key == key).with_for_update()
        )
        values = {"content": content, "updated_at": uow.now, "updated_by": actor.user_id}
        await uow.session.execute(
            insert(PlatformContent)
            .values(key=key, **values)
            .on_conflict_do_update(index_elements=[PlatformContent.key], set_=values)
        )
        uow.audit(
            "content.written",
            actor_id=actor.user_id,
            tenant_id=None,
            subject=("content", key),
            details={"before": before, "after": content},
        )
        return ContentWrittenView(key=key, updated_at=uow.now)


async def require_master(uow: UnitOfWork, actor: Principal) -> None:
    """Raise MasterRequired unless the actor may edit the platform's content, as superusers may too."""
    if actor.is_superuser:
        return
    is_master = await uow.session.scalar(
        select(User.is_platform_master).where(User.id == actor.user_id, User.is_active)
    )
    if not is_master:
        raise MasterRequired
