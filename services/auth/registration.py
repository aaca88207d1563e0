"""Becoming somebody: signing up with a company, or by an invitation into one (contract.md 2.2, 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from core.passwords import PasswordHasher
from models.tenants import Invitation, Membership
from models.users import User
from services.auth.accounts import insert_user
from services.auth.tokens import Device, TokenDesk
from services.auth.views import SessionView
from services.identity import Actor
from services.tenants import TenantService
from services.tenants.errors import InvitationExpired, InvitationForAnother
from services.tenants.members import memberships_of
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("an invitation's token names the tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUp:
    """What somebody fills in to sign up; `locale` is a language of the catalogue."""

    email: str
    password: str
    full_name: str
    company_name: str
    locale: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """What an invited person without an account fills in."""

    full_name: str
    password: str
    locale: str


class Registration:
    """The use cases that make users."""

    def __init__(
        self, *, units: UnitOfWorkFactory, hasher: PasswordHasher, desk: TokenDesk, tenants: TenantService
    ) -> None:
        self._units = units
        self._hasher = hasher
        self._desk = desk
        self._tenants = tenants

    async def register(self, uow: UnitOfWork, form: SignUp, *, device: Device) -> SessionView:
        """Sign up: user, tenant, owner's place, trial, first provisioning job and session in one transaction.

        Needs a PlatformScope. Raises EmailTaken.
        """
        # Hashed before the first statement, so that no connection waits for it.
        hashed = await self._hasher.hash(form.password)
        user = await insert_user(
            uow, email=form.email, hashed_password=hashed, full_name=form.full_name, locale=form.locale
        )
        tenant = await self._tenants.create(uow, name=form.company_name, owner=user)
        uow.audit("user.registered", actor_id=user.id, tenant_id=tenant.id, subject=("user", user.id))
        places = await memberships_of(uow, user.id)
        return self._open(uow, user, places, places[0], device)

    async def accept_invitation(
        self, *, token: str, guest: Actor | Newcomer, device: Device, trace: RequestTrace | None = None
    ) -> SessionView:
        """Take the place an invitation offers, signed in or as a new user, and open a session there.

        Raises InvitationNotFound, InvitationClosed, InvitationExpired, InvitationForAnother and EmailTaken.
        """
        hashed = await self._hasher.hash(guest.password) if isinstance(guest, Newcomer) else ""
        async with self._units(_SCOPE, trace=trace) as uow:
            invitation = await self._tenants.invitations.find(uow, token)
            if not invitation.expire(uow.now):
                user = await self._invited(uow, invitation, guest, hashed)
                place = await self._tenants.invitations.accept(uow, invitation, user=user)
                places = await memberships_of(uow, user.id)
                return self._open(uow, user, places, place, device)
        # Raised only now: leaving the unit of work by an exception would undo the invitation's end.
        raise InvitationExpired

    async def _invited(self, uow: UnitOfWork, invitation: Invitation, guest: Actor | Newcomer, hashed: str) -> User:
        if isinstance(guest, Newcomer):
            user = await insert_user(
                uow,
                email=invitation.email,
                hashed_password=hashed,
                full_name=guest.full_name,
                locale=guest.locale,
            )
            uow.audit("user.registered", actor_id=user.id, tenant_id=invitation.tenant_id, subject=("user", user.id))
            return user
        # A forwarded letter must not let somebody else in.
        if guest.email.lower() != invitation.email.lower():
            raise InvitationForAnother
        return (await uow.session.scalars(select(User).where(User.id == guest.user_id))).one()

    def _open(
        self, uow: UnitOfWork, user: User, places: Sequence[Membership], place: Membership, device: Device
    ) -> SessionView:
        tokens = self._desk.open(uow, user, place, device=device)
        return SessionView.build(tokens, user, places, place)
