"""Signing in and up by phone (contract.md 2.3, 2.5), and the profile that goes with it.

Whoever proves a phone by a code, and nobody else, is told whether an account belongs to it.
"""

import secrets
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from models.users import EmploymentType, User
from services.auth.accounts import full_name_of, insert_phone_user
from services.auth.new_passwords import NewPasswords
from services.auth.passwords import AccountNames, Passwords
from services.auth.phone_views import (
    PhoneConfirmedView,
    PhoneKnownView,
    PhoneRegisteredView,
    PhoneSessionView,
    ProfileView,
)
from services.auth.sessions import Sessions
from services.auth.tokens import Device
from services.auth.views import ChallengeView
from services.identity import Principal
from services.phones.codes import PhoneCodes, ProvenCode
from services.phones.errors import PhoneBlocked, PhoneTaken, PhoneUnknown
from services.tenants import TenantService
from services.tenants.members import home_of, lock_user, memberships_of
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("signing in comes before any tenant is known")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneSignUp:
    """What somebody fills in to sign up by phone; `phone` is E.164, `locale` a language of the catalogue."""

    phone: str
    code: str
    password: str
    first_name: str
    last_name: str
    employment_type: EmploymentType
    locale: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileChanges:
    """What to change of a profile; None leaves a field as it is."""

    first_name: str | None = None
    last_name: str | None = None
    employment_type: EmploymentType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Newcomer:
    """Whom to write down when nobody has the phone yet."""

    phone: str
    locale: str
    hashed_password: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    employment_type: EmploymentType | None = None


class PhoneSignIn:
    """The use cases of people who are known by their phone.

    `disclosed` is whether strangers are told which phones have an account, as released clients expect.
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        codes: PhoneCodes,
        sessions: Sessions,
        new_passwords: NewPasswords,
        passwords: Passwords,
        tenants: TenantService,
        disclosed: bool,
    ) -> None:
        self._units = units
        self._codes = codes
        self._sessions = sessions
        self._new_passwords = new_passwords
        self._passwords = passwords
        self._tenants = tenants
        self._disclosed = disclosed

    async def check(self, uow: UnitOfWork, *, phone: str) -> PhoneKnownView:
        """Tell whether somebody has signed up with a phone.

        The released clients choose between signing in and signing up by it (contract.md 2.5), so it tells strangers
        what nothing else here does. The door must limit it hard. Where nobody is told who has an account, nobody seems
        to have one: clients then go on by a code, which lets in those who have and those who have not.
        """
        if not self._disclosed:
            return PhoneKnownView(exists=False)
        known = await uow.session.scalar(select(User.id).where(User.phone == phone))
        return PhoneKnownView(exists=known is not None)

    async def login(
        self, *, phone: str, password: str, device: Device, trace: RequestTrace | None = None
    ) -> PhoneSessionView | ChallengeView:
        """Sign in by a password, or get a challenge for the second factor. Raises what `Sessions.login` raises."""
        outcome = await self._sessions.login_by_phone(phone=phone, password=password, device=device, trace=trace)
        if isinstance(outcome, ChallengeView):
            return outcome
        return PhoneSessionView.of(outcome, is_new_user=False)

    async def verify(
        self, *, phone: str, code: str, locale: str, device: Device, trace: RequestTrace | None = None
    ) -> PhoneSessionView | ChallengeView:
        """Sign in by a code, or get a challenge; a phone that nobody has signs up at once.

        Raises PhoneCodeRefused, PhoneBlocked and UserHasNoTenants.
        """
        proven = await self._codes.prove(phone=phone, code=code, trace=trace)
        newcomer = _Newcomer(phone=phone, locale=locale)
        return await self._let_in_or_found(newcomer, proven, device=device, trace=trace)

    async def register(
        self, *, phone: str, code: str, locale: str, device: Device, trace: RequestTrace | None = None
    ) -> PhoneRegisteredView:
        """Sign up by a code alone. Raises PhoneCodeRefused, PhoneTaken and PhoneBlocked."""
        proven = await self._codes.prove(phone=phone, code=code, trace=trace)
        newcomer = _Newcomer(phone=phone, locale=locale)
        return PhoneRegisteredView.of(await self._register(newcomer, proven, device=device, trace=trace))

    async def register_full(
        self, form: PhoneSignUp, *, device: Device, trace: RequestTrace | None = None
    ) -> PhoneSessionView | ChallengeView:
        """Sign up by a code, with a password for later and a profile.

        Where nobody is told who has an account, whoever has one comes here too, and is signed in by the code, with
        their password and profile as they are.

        Raises PhoneCodeRefused, PhoneBlocked, PasswordBreached, and PhoneTaken where it is told or UserHasNoTenants
        where it is not.
        """
        # Hashing is work, which a stranger without a code cannot make us do.
        proven = await self._codes.prove(phone=form.phone, code=form.code, trace=trace)
        newcomer = _Newcomer(
            phone=form.phone,
            locale=form.locale,
            hashed_password=await self._new_passwords.hash(form.password),
            first_name=form.first_name,
            last_name=form.last_name,
            employment_type=form.employment_type,
        )
        if not self._disclosed:
            return await self._let_in_or_found(newcomer, proven, device=device, trace=trace)
        return await self._register(newcomer, proven, device=device, trace=trace)

    async def reset_password(
        self, *, phone: str, code: str, new_password: str, trace: RequestTrace | None = None
    ) -> AccountNames:
        """Set a new password by a code and end every session; also the first one of whoever had none.

        Raises PhoneCodeRefused, PhoneUnknown, PhoneBlocked and PasswordBreached.
        """
        proven = await self._codes.prove(phone=phone, code=code, trace=trace)
        hashed = await self._new_passwords.hash(new_password)
        async with self._units(_SCOPE, trace=trace) as uow:
            await self._codes.redeem(uow, proven)
            user = await _owner(uow, phone)
            if user is None:
                raise PhoneUnknown
            return await self._passwords.replace(uow, user, hashed)

    async def confirm(
        self, *, phone: str, code: str, locale: str, trace: RequestTrace | None = None
    ) -> PhoneConfirmedView:
        """Prove a phone and make its account if there is none, without signing anybody in (contract.md 2.3).

        Raises PhoneCodeRefused and PhoneBlocked.
        """
        proven = await self._codes.prove(phone=phone, code=code, trace=trace)
        async with self._units(_SCOPE, trace=trace) as uow:
            await self._codes.redeem(uow, proven)
            user = await _owner(uow, phone)
            if user is None:
                user = await self._found(uow, _Newcomer(phone=phone, locale=locale))
            place = home_of(await memberships_of(uow, user.id))
            uow.audit(
                "phone.confirmed",
                actor_id=user.id,
                tenant_id=place.tenant_id if place else None,
                subject=("user", user.id),
            )
        return PhoneConfirmedView(tenant_id=place.tenant_id if place else None)

    async def profile(self, uow: UnitOfWork, actor: Principal) -> ProfileView:
        """Show the caller; needs a PlatformScope."""
        user = (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
        return ProfileView.of(user, role=actor.role, tenant_id=actor.tenant_id)

    async def change_profile(self, uow: UnitOfWork, actor: Principal, changes: ProfileChanges) -> ProfileView:
        """Change the caller's names and employment; needs a PlatformScope."""
        await lock_user(uow, actor.user_id)
        user = (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
        given = {
            "first_name": changes.first_name,
            "last_name": changes.last_name,
            "employment_type": changes.employment_type,
        }
        after = {field: value for field, value in given.items() if value is not None}
        before = {field: getattr(user, field) for field in after}
        for field, value in after.items():
            setattr(user, field, value)
        if after:
            user.full_name = full_name_of(user.first_name, user.last_name) or user.full_name
            user.updated_at = uow.now
            uow.audit(
                "user.profile_changed",
                actor_id=user.id,
                tenant_id=actor.tenant_id,
                subject=("user", user.id),
                details={"before": before, "after": after},
            )
        return ProfileView.of(user, role=actor.role, tenant_id=actor.tenant_id)

    async def _let_in_or_found(
        self, newcomer: _Newcomer, proven: ProvenCode, *, device: Device, trace: RequestTrace | None
    ) -> PhoneSessionView | ChallengeView:
        async with self._units(_SCOPE, trace=trace) as uow:
            await self._codes.redeem(uow, proven)
            user = await _owner(uow, newcomer.phone)
            is_new = user is None
            if user is None:
                user = await self._found(uow, newcomer)
            outcome = await self._sessions.let_in(uow, user, device=device)
        return outcome if isinstance(outcome, ChallengeView) else PhoneSessionView.of(outcome, is_new_user=is_new)

    async def _register(
        self, newcomer: _Newcomer, proven: ProvenCode, *, device: Device, trace: RequestTrace | None
    ) -> PhoneSessionView:
        async with self._units(_SCOPE, trace=trace) as uow:
            await self._codes.redeem(uow, proven)
            # Told only now that the phone is proven. The code stays good, for signing in.
            if await _owner(uow, newcomer.phone) is not None:
                raise PhoneTaken
            user = await self._found(uow, newcomer)
            session = await self._sessions.welcome(uow, user, device=device)
        return PhoneSessionView.of(session, is_new_user=True)

    async def _found(self, uow: UnitOfWork, newcomer: _Newcomer) -> User:
        """Write down a user with a company of their own, as signing up by e-mail does; raises PhoneTaken."""
        user = await insert_phone_user(
            uow,
            phone=newcomer.phone,
            hashed_password=newcomer.hashed_password,
            first_name=newcomer.first_name,
            last_name=newcomer.last_name,
            employment_type=newcomer.employment_type,
            locale=newcomer.locale,
        )
        # The names and the form of the slug are the ancestors' (contract.md 2.3, 2.5): a subdomain names no person.
        name = f"Company {newcomer.last_name}" if newcomer.last_name else f"Tenant {user.id}"
        tenant = await self._tenants.create(uow, name=name, owner=user, slug_from=f"u-{secrets.token_hex(4)}")
        uow.audit("user.registered", actor_id=user.id, tenant_id=tenant.id, subject=("user", user.id))
        return user


async def _owner(uow: UnitOfWork, phone: str) -> User | None:
    """Return the user of a proven phone, locked. Raises PhoneBlocked if the account has been switched off."""
    user_id: UUID | None = await uow.session.scalar(select(User.id).where(User.phone == phone))
    if user_id is None:
        return None
    await lock_user(uow, user_id)
    user = (await uow.session.scalars(select(User).where(User.id == user_id))).one()
    if not user.is_active:
        raise PhoneBlocked
    return user
