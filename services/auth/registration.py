"""Becoming somebody: signing up with a company, or by an invitation into one (contract.md 2.2, 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from models.tenants import Invitation, Membership
from models.users import User
from services.auth.accounts import insert_user
from services.auth.addresses import EmailAddresses
from services.auth.errors import UserInactive
from services.auth.new_passwords import NewPasswords
from services.auth.sign_ups import SignUp, SignUps
from services.auth.tokens import Device, TokenDesk
from services.auth.views import SessionView
from services.identity import Principal, require_oneself
from services.tenants import TenantService
from services.tenants.errors import InvitationExpired, InvitationForAnother
from services.tenants.members import lock_user, memberships_of
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("an invitation's token names the tenant")
_SIGN_UP = PlatformScope("the tenant does not exist yet")
_PRUNE = PlatformScope("what is too old goes, whoever it is about")


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """What an invited person without an account fills in."""

    full_name: str
    password: str
    locale: str


class Registration:
    """The use cases that make users.

    Args:
        sign_ups: keeps those that wait for their letter.
        disclosed: whether signing up tells at once if an address has an account, as released clients expect.
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        new_passwords: NewPasswords,
        desk: TokenDesk,
        tenants: TenantService,
        addresses: EmailAddresses,
        sign_ups: SignUps,
        disclosed: bool,
    ) -> None:
        self._units = units
        self._new_passwords = new_passwords
        self._desk = desk
        self._tenants = tenants
        self._addresses = addresses
        self._sign_ups = sign_ups
        self._disclosed = disclosed

    async def register(self, form: SignUp, *, device: Device, trace: RequestTrace | None = None) -> SessionView | None:
        """Sign up: user, tenant, owner's place, trial, first provisioning job and session in one transaction.

        The letter that confirms the address goes with it. Where nobody is told who has an account, None: a letter goes
        to the address whoever has it, and `finish` does the rest.

        Raises PasswordBreached and, where it is told, EmailTaken.
        """
        hashed = await self._new_passwords.hash(form.password)
        async with self._units(_SIGN_UP, trace=trace) as uow:
            if not self._disclosed:
                await self._sign_ups.put_off(uow, form, hashed)
                return None
            user = await insert_user(
                uow, email=form.email, hashed_password=hashed, full_name=form.full_name, locale=form.locale
            )
            self._addresses.welcome(uow, user)
            return await self._found(uow, user, form.company_name, device)

    async def finish(self, *, token: str, device: Device, trace: RequestTrace | None = None) -> SessionView:
        """Sign up by the token of the letter that `register` wrote; it proves the address.

        Raises RegistrationTokenInvalid, and EmailTaken if the address has got an account meanwhile.
        """
        async with self._units(_SIGN_UP, trace=trace) as uow:
            waiting = await self._sign_ups.take(uow, token)
            user = await insert_user(
                uow,
                email=waiting.email,
                hashed_password=waiting.hashed_password,
                full_name=waiting.full_name,
                locale=waiting.locale,
                verified_at=uow.now,
            )
            return await self._found(uow, user, waiting.company_name, device)

    async def prune(self) -> None:
        """Forget sign-ups that nobody has finished in time."""
        async with self._units(_PRUNE) as uow:
            await self._sign_ups.prune(uow)

    async def _found(self, uow: UnitOfWork, user: User, company_name: str, device: Device) -> SessionView:
        tenant = await self._tenants.create(uow, name=company_name, owner=user)
        uow.audit("user.registered", actor_id=user.id, tenant_id=tenant.id, subject=("user", user.id))
        places = await memberships_of(uow, user.id)
        return self._open(uow, user, places, places[0], device)

    async def accept_invitation(
        self, *, token: str, guest: Principal | Newcomer, device: Device, trace: RequestTrace | None = None
    ) -> SessionView:
        """Take the place an invitation offers, signed in or as a new user, and open a session there.

        Raises InvitationNotFound, InvitationClosed, InvitationExpired, InvitationForAnother, EmailTaken,
        PasswordBreached, UserInactive, Impersonated and PlanLimitReached.
        """
        hashed = await self._new_passwords.hash(guest.password) if isinstance(guest, Newcomer) else ""
        async with self._units(_SCOPE, trace=trace) as uow:
            invitation = await self._tenants.invitations.find(uow, token)
            if not isinstance(guest, Newcomer):
                # After the tenant, as whoever adds them does: the two would wait for each other otherwise. And held, so
                # that whoever is switched off meanwhile does not get a session that nobody ends.
                await lock_user(uow, guest.user_id)
            if not invitation.expire(uow.now):
                user = await self._invited(uow, invitation, guest, hashed)
                place = await self._tenants.invitations.accept(uow, invitation, user=user)
                places = await memberships_of(uow, user.id)
                # An invitation's token proves nothing of whoever was signed in before.
                return self._open(uow, user, places, place, device, proved=isinstance(guest, Newcomer))
        # Raised only now: leaving the unit of work by an exception would undo the invitation's end.
        raise InvitationExpired

    async def _invited(self, uow: UnitOfWork, invitation: Invitation, guest: Principal | Newcomer, hashed: str) -> User:
        if isinstance(guest, Newcomer):
            user = await insert_user(
                uow,
                email=invitation.email,
                hashed_password=hashed,
                full_name=guest.full_name,
                locale=guest.locale,
                # Nobody else has the letter that the invitation's token came by.
                verified_at=uow.now,
            )
            uow.audit("user.registered", actor_id=user.id, tenant_id=invitation.tenant_id, subject=("user", user.id))
            return user
        require_oneself(guest)
        user = (await uow.session.scalars(select(User).where(User.id == guest.user_id))).one()
        if not user.is_active:
            raise UserInactive
        # A forwarded letter must not let somebody else in.
        if user.shown_email.lower() != invitation.email.lower():
            raise InvitationForAnother
        user.email_verified_at = user.email_verified_at or uow.now
        return user

    def _open(
        self,
        uow: UnitOfWork,
        user: User,
        places: Sequence[Membership],
        place: Membership,
        device: Device,
        *,
        proved: bool = True,
    ) -> SessionView:
        tokens = self._desk.open(uow, user, place, device=device, proved=proved)
        return SessionView.build(tokens, user, places, place)
