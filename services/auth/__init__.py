"""Identity: who somebody is, how they become somebody, and for how long they stay signed in."""

from datetime import timedelta

from sqlalchemy import and_, select

from core.i18n import DEFAULT_LOCALE
from core.passwords import PasswordHasher
from core.tokens import ExpiredToken, InvalidToken, TokenSigner
from models.tenants import Membership, Role
from models.users import User, UserSession
from services.auth.accounts import insert_user
from services.auth.errors import CredentialsRefused, EmailTaken, TokenExpired, TokenRevoked, UserGone, UserInactive
from services.auth.passwords import Passwords
from services.auth.registration import Newcomer, Registration, SignUp
from services.auth.sessions import Sessions
from services.auth.tokens import AccessClaims, Device, TokenDesk, read_bearer
from services.identity import Actor
from services.mail import MailService
from services.tenants import TenantService
from services.tenants.errors import NoTenantAccess
from services.unit_of_work import UnitOfWork, UnitOfWorkFactory

__all__ = ["AuthService", "Device", "Newcomer", "SignUp", "read_bearer"]


class AuthService:
    """Recognises people; `registration`, `sessions` and `passwords` hold the use cases around that."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        signer: TokenSigner,
        hasher: PasswordHasher,
        tenants: TenantService,
        mail: MailService,
        access_lifetime: timedelta,
        refresh_lifetime: timedelta,
        public_url: str,
    ) -> None:
        self._hasher = hasher
        self._desk = TokenDesk(signer, access_lifetime=access_lifetime, refresh_lifetime=refresh_lifetime)
        self.registration = Registration(units=units, hasher=hasher, desk=self._desk, tenants=tenants)
        self.sessions = Sessions(units=units, hasher=hasher, desk=self._desk)
        self.passwords = Passwords(hasher=hasher, mail=mail, public_url=public_url)

    async def authenticate(self, uow: UnitOfWork, token: str) -> Actor:
        """Return whoever an access token speaks for; REST and sockets ask this alike. Needs a PlatformScope.

        Raises CredentialsRefused, TokenExpired, UserGone, TokenRevoked, UserInactive, and NoTenantAccess when the
        user no longer belongs to the token's tenant.
        """
        claims = self._read(uow, token)
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
        return Actor(
            user_id=user.id,
            email=user.email,
            full_name=user.full_name,
            session_id=session.id,
            tenant_id=claims.tenant_id,
            role=role,
            is_superuser=user.is_superuser,
        )

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
            )
        except EmailTaken:
            # Another process seeds at the same moment; its row is there by now.
            return (await uow.session.scalars(select(User).where(User.has_email(email)))).one()
        uow.audit("user.seeded", actor_id=None, tenant_id=None, subject=("user", user.id))
        return user

    async def _find(self, uow: UnitOfWork, email: str) -> User | None:
        user: User | None = await uow.session.scalar(select(User).where(User.has_email(email)))
        return user

    def _read(self, uow: UnitOfWork, token: str) -> AccessClaims:
        try:
            return self._desk.read_access(token, now=uow.now)
        except ExpiredToken as error:
            raise TokenExpired from error
        except InvalidToken as error:
            raise CredentialsRefused from error
