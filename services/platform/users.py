"""Everybody on the platform: found, switched off and on again (contract.md 3.6, 3.7)."""

from contextlib import suppress
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select

from core.pagination import Page, PageRequest
from core.phones import PhoneInvalid, parse_phone
from models.users import User
from services.auth.accounts import insert_phone_user
from services.auth.endings import end_sessions
from services.auth.new_passwords import NewPasswords
from services.identity import Principal, require_superuser
from services.platform.errors import OwnAccount, RoleNotCreatable, UserNotFound
from services.platform.staff import hold_user
from services.platform.views import ListedUserView, ManagedUserView, UserListView
from services.step_up import require_recent_authentication
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

MASTER: Literal["platform_master"] = "platform_master"
_SCOPE = PlatformScope("the platform's people belong to no tenant")


class PlatformUsers:
    """The use cases of superusers about people; all need a PlatformScope and raise SuperuserRequired."""

    def __init__(self, *, units: UnitOfWorkFactory, new_passwords: NewPasswords) -> None:
        self._units = units
        self._new_passwords = new_passwords

    async def list(self, uow: UnitOfWork, actor: Principal, page: PageRequest, *, sought: str | None) -> UserListView:
        """Show everybody, newest first; `sought` is a part of a name, an address or a phone, however it is written."""
        require_superuser(actor)
        conditions = _matching(sought) if sought else []
        total = await uow.session.scalar(select(func.count()).select_from(User).where(*conditions))
        users = await uow.session.scalars(
            select(User)
            .where(*conditions)
            .order_by(User.created_at.desc(), User.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return UserListView.of(Page([ListedUserView.of(user) for user in users], total or 0, page))

    async def show(self, uow: UnitOfWork, actor: Principal, *, user_id: UUID) -> ManagedUserView:
        """Show one user; raises UserNotFound."""
        return await self._one(uow, actor, User.id == user_id)

    async def show_by_phone(self, uow: UnitOfWork, actor: Principal, *, phone: str) -> ManagedUserView:
        """Show the user of a phone, however it is written; raises PhoneInvalid and UserNotFound."""
        return await self._one(uow, actor, User.phone == parse_phone(phone))

    async def create_master(
        self, actor: Principal, *, phone: str, password: str, role: str, locale: str, trace: RequestTrace | None = None
    ) -> ManagedUserView:
        """Make somebody who may edit the platform's content; `phone` is E.164 and is taken as proven.

        They outlast the superuser's token, so it needs the superuser in person.

        Raises RoleNotCreatable, StepUpRequired, PhoneTaken and PasswordBreached.
        """
        require_superuser(actor)
        if role != MASTER:
            raise RoleNotCreatable
        hashed = await self._new_passwords.hash(password)
        async with self._units(_SCOPE, trace=trace) as uow:
            await hold_user(uow, actor, actor.user_id)
            await require_recent_authentication(uow, actor)
            user = await insert_phone_user(
                uow,
                phone=phone,
                hashed_password=hashed,
                first_name=None,
                last_name=None,
                employment_type=None,
                locale=locale,
            )
            user.is_platform_master = True
            uow.audit("user.platform_master_created", actor_id=actor.user_id, tenant_id=None, subject=("user", user.id))
        return ManagedUserView.of(user)

    async def deactivate(self, uow: UnitOfWork, actor: Principal, *, user_id: UUID, reason: str | None) -> bool:
        """Switch an account off: every session ends at once, also those in which its owner acts for somebody else.

        Returns whether that changed anything. Raises UserNotFound and OwnAccount.
        """
        user = await hold_user(uow, actor, user_id)
        if user_id == actor.user_id:
            raise OwnAccount
        if not user.is_active:
            return False
        user.is_active, user.updated_at = False, uow.now
        ended = await end_sessions(uow, user_id, reason="deactivated", code="USER_INACTIVE")
        self._audit(uow, actor, "user.deactivated", user_id, reason, sessions=len(ended))
        return True

    async def activate(self, uow: UnitOfWork, actor: Principal, *, user_id: UUID, reason: str | None) -> bool:
        """Switch an account on again; its sessions stay ended. Returns whether that changed anything.

        Raises UserNotFound.
        """
        user = await hold_user(uow, actor, user_id)
        if user.is_active:
            return False
        user.is_active, user.updated_at = True, uow.now
        self._audit(uow, actor, "user.activated", user_id, reason)
        return True

    async def _one(self, uow: UnitOfWork, actor: Principal, known_as: ColumnElement[bool]) -> ManagedUserView:
        require_superuser(actor)
        user = await uow.session.scalar(select(User).where(known_as))
        if user is None:
            raise UserNotFound
        return ManagedUserView.of(user)

    def _audit(
        self, uow: UnitOfWork, actor: Principal, action: str, user_id: UUID, reason: str | None, **details: object
    ) -> None:
        uow.audit(
            action,
            actor_id=actor.user_id,
            tenant_id=None,
            subject=("user", user_id),
            details={"reason": reason, **details},
        )


def _matching(sought: str) -> list[ColumnElement[bool]]:
    found = [column.icontains(sought, autoescape=True) for column in (User.email, User.phone, User.full_name)]
    # What is no phone is a name or an address.
    with suppress(PhoneInvalid):
        found.append(User.phone == parse_phone(sought))
    return [or_(*found)]
