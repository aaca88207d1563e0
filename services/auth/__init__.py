"""Identity: who somebody is, how they become somebody, and for how long they stay signed in."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import and_, select

from core.i18n import DEFAULT_LOCALE
from core.otp import CodeHasher
from core.sealing import Sealer
from core.tokens import ExpiredToken, InvalidToken, TokenSigner
from models.tenants import Membership, Role
from models.users import User, UserSession
from providers.breaches import BreachRegister
from providers.passwords.hasher import PasswordHasher
from services.auth.accounts import insert_user
from services.auth.addresses import EmailAddresses
from services.auth.challenges import Challenges
from services.auth.devices import Devices
from services.auth.errors import CredentialsRefused, EmailTaken, TokenExpired, TokenRevoked, UserGone, UserInactive
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.auth.own_phone import OwnPhone
from services.auth.passwords import Passwords
from services.auth.phone_sign_in import PhoneSignIn, PhoneSignUp, ProfileChanges
from services.auth.registration import Newcomer, Registration
from services.auth.second_factor import SecondFactors
from services.auth.sessions import Sessions
from services.auth.sign_ups import SignUp, SignUps
from services.auth.staff_sign_in import StaffSignIn
from services.auth.tokens import AccessClaims, Device, TokenDesk, read_bearer
from services.closed_tenants import require_open
from services.identity import Principal
from services.mail import MailService
from services.notifications import NotificationService
from services.phones import PhoneService
from services.tenants import TenantService
from services.tenants.errors import NoTenantAccess
from services.unit_of_work import UnitOfWork, UnitOfWorkFactory

__all__ = ["AuthService", "Device", "Newcomer", "PhoneSignUp", "ProfileChanges", "SignUp", "read_bearer"]


class AuthService:
    """Recognises people; its parts hold the use cases around that.

    Args:
        sealer: encrypts what authenticator apps are set up with.
        code_hashers: hash recovery codes; the first makes new ones.
        disclosed: whether strangers are told who has an account, as released clients expect (docs/adr/0024).
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        signer: TokenSigner,
        hasher: PasswordHasher,
        tenants: TenantService,
        mail: MailService,
        notifications: NotificationService,
        phones: PhoneService,
        breaches: BreachRegister | None,
        sealer: Sealer,
        code_hashers: Sequence[CodeHasher],
        access_lifetime: timedelta,
        refresh_lifetime: timedelta,
        public_url: str,
        disclosed: bool = True,
    ) -> None:
        self._hasher = hasher
        self._signer = signer
        self._desk = TokenDesk(signer, access_lifetime=access_lifetime, refresh_lifetime=refresh_lifetime)
        new_passwords = NewPasswords(hasher=hasher, breaches=breaches)
        notices = SecurityNotices(mail=mail, notifications=notifications)
        self.addresses = EmailAddresses(
            units=units, new_passwords=new_passwords, mail=mail, notices=notices, public_url=public_url
        )
        self.registration = Registration(
            units=units,
            new_passwords=new_passwords,
            desk=self._desk,
            tenants=tenants,
            addresses=self.addresses,
            sign_ups=SignUps(mail=mail, public_url=public_url),
            disclosed=disclosed,
        )
        self.second_factors = SecondFactors(units=units, sealer=sealer, hashers=code_hashers, notices=notices)
        self.challenges = Challenges(units=units, hasher=hasher, desk=self._desk, factors=self.second_factors)
        self.sessions = Sessions(
            units=units, hasher=hasher, desk=self._desk, challenges=self.challenges, notices=notices
        )
        self.staff = StaffSignIn(self.sessions)
        self.devices = Devices()
        self.passwords = Passwords(
            units=units,
            hasher=hasher,
            new_passwords=new_passwords,
            mail=mail,
            notices=notices,
            public_url=public_url,
        )
        self.own_phone = OwnPhone(units=units, codes=phones.codes, notices=notices)
        self.phones = PhoneSignIn(
            units=units,
            codes=phones.codes,
            sessions=self.sessions,
            new_passwords=new_passwords,
            passwords=self.passwords,
            tenants=tenants,
            disclosed=disclosed,
        )

    async def prune(self) -> None:
        """Forget what waited for its letter too long; see `Registration.prune`."""
        await self.registration.prune()

    async def authenticate(self, uow: UnitOfWork, token: str) -> Principal:
        """Return whoever an access token speaks for, as the database knows them. Needs a PlatformScope.

        Raises CredentialsRefused, TokenExpired, UserGone, TokenRevoked, UserInactive, and NoTenantAccess when the
        user no longer belongs to the token's tenant.
        """
        claims = self._read(token, now=uow.now)
        row = (
            await uow.session.execute(
                select(User, UserSession, Membership.role)
                .select_from(User)
                .outerjoin(UserSession, and_(UserSession.id == claims.session_id, UserSession.user_id == User.id))
                .outerjoin(Membership, and_(Membership.user_id == User.id, Membership.tenant_id == claims.tenant_id))
                .where(User.id == claims.user_id)
            )
        ).one_or_none()
        if row is None:
            raise UserGone
        # The outer joins may find nothing, which the statement's own types do not tell.
        user: User = row[0]
        session: UserSession | None = row[1]
        role: Role | None = row[2]
        if session is None or not session.is_live(uow.now):
            raise TokenRevoked
        if not user.is_active:
            raise UserInactive
        if claims.tenant_id is not None and role is None:
            raise NoTenantAccess
        return Principal(
            user_id=user.id,
            session_id=session.id,
            tenant_id=claims.tenant_id,
            role=role,
            is_superuser=user.is_superuser,
            impersonator_id=session.impersonated_by,
        )

    def recognise(self, token: str, *, now: datetime) -> tuple[Principal, datetime]:
        """Return whom an access token names, at its word, and until when; nothing is read from the database.

        Only to be believed when `services.standing` has no doubt, as `Recognition` sees to. Raises CredentialsRefused
        and TokenExpired.
        """
        claims = self._read(token, now=now)
        principal = Principal(
            user_id=claims.user_id,
            session_id=claims.session_id,
            tenant_id=claims.tenant_id,
            role=claims.role,
            is_superuser=claims.is_superuser,
            impersonator_id=claims.impersonator_id,
        )
        return principal, claims.expires_at

    @property
    def public_keys(self) -> list[dict[str, str]]:
        """What others verify our tokens with, as JWKs (RFC 7517); nothing while a shared secret signs them."""
        return self._signer.public_keys

    async def require_open_tenant(self, uow: UnitOfWork, tenant_id: UUID | None) -> None:
        """Raise TenantSuspended or TenantDeleted when a tenant is closed to sockets."""
        if tenant_id is not None:
            await require_open(uow, tenant_id)

    async def create_superuser(self, uow: UnitOfWork, *, email: str, password: str, full_name: str) -> User:
        """Make one of the platform's own people, who needs no tenant; for the command line. Raises EmailTaken."""
        hashed = await self._hasher.hash(password)
        user = await insert_user(
            uow,
            email=email,
            hashed_password=hashed,
            full_name=full_name,
            locale=DEFAULT_LOCALE,
            is_superuser=True,
            # Whoever runs the command line vouches for it.
            verified_at=uow.now,
        )
        uow.audit("user.superuser_created", actor_id=None, tenant_id=None, subject=("user", user.id))
        return user

    async def ensure_user(
        self, uow: UnitOfWork, *, email: str, password: str, full_name: str, is_superuser: bool
    ) -> User:
        """Return the user of an address, made when there is none; one that exists is left as it is (demo accounts)."""
        known = await self._find(uow, email)
        if known is not None:
            return known
        hashed = await self._hasher.hash(password)
        try:
            user = await insert_user(
                uow,
                email=email,
                hashed_password=hashed,
                full_name=full_name,
                locale=DEFAULT_LOCALE,
                is_superuser=is_superuser,
                verified_at=uow.now,
            )
        except EmailTaken:
            # Another process seeds at the same moment; its row is there by now.
            return (await uow.session.scalars(select(User).where(User.has_email(email)))).one()
        uow.audit("user.seeded", actor_id=None, tenant_id=None, subject=("user", user.id))
        return user

    async def _find(self, uow: UnitOfWork, email: str) -> User | None:
        user: User | None = await uow.session.scalar(select(User).where(User.has_email(email)))
        return user

    def _read(self, token: str, *, now: datetime) -> AccessClaims:
        try:
            return self._desk.read_access(token, now=now)
        except ExpiredToken as error:
            raise TokenExpired from error
        except InvalidToken as error:
            raise CredentialsRefused from error
