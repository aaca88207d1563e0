"""Identity and tenancy built by hand on the shared database: their own clock, and tasks that are only written down."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from core.i18n import TEXTS
from core.keys import SigningKey
from core.otp import CodeHasher
from core.passwords import Verdict
from core.sealing import Sealer
from core.tokens import TokenSigner
from models.entitlements import Limit
from models.mail import OutboundMail
from models.overrides import EntitlementOverride
from models.tenants import Role
from providers.mail import OutboxTransport
from providers.passwords.hasher import PasswordHasher
from services.auth import AuthService, Device, SignUp
from services.auth.views import SessionView
from services.entitlements import EntitlementDesk
from services.identity import Principal
from services.mail import MailService
from services.notifications import NotificationService
from services.phones import Pace, PhoneService, Roads
from services.registry import Services
from services.tenants import TenantService
from services.unit_of_work import PlatformScope, UnitOfWorkFactory, guard_tenants
from tests.support.clock import MovableClock
from tests.support.spine import Ears

PLATFORM = PlatformScope("a test looks at everything")
PASSWORD = "correct horse"
SECRET = "a secret for tests that is long enough to sign with"
DEVICE = Device(user_agent="test", ip="127.0.0.1")
ACCESS = timedelta(minutes=15)
REFRESH = timedelta(days=7)
GRACE = timedelta(days=30)
ENTITLED = timedelta(days=3)
MAX_OWNED = 3
WELCOMES = frozenset(TEXTS.text("letters.email_verification.subject", locale) for locale in TEXTS.locales)


class FarClock(MovableClock):
    """A clock of next year, whose rows are not yet due for the sweepers of the running server."""

    def now(self) -> datetime:
        return MovableClock.now(self) + timedelta(days=365)


class WatchedHasher(PasswordHasher):
    """A real hasher that counts its checks and lets a test do something while one is going on."""

    def __init__(self) -> None:
        # As cheap as argon2 can be, for what it costs to break these passwords does not matter.
        super().__init__(memory_kib=64, rounds=1)
        self.checks: list[bool] = []
        self.meanwhile: Any = None

    async def verify(self, password: str, stored: str | None) -> Verdict:
        self.checks.append(stored is not None)
        verdict = await super().verify(password, stored)
        if self.meanwhile is not None:
            todo, self.meanwhile = self.meanwhile, None
            await todo()
        return verdict


@dataclass(slots=True)
class Identity:
    """The services under test and the things they were given."""

    units: UnitOfWorkFactory
    clock: MovableClock
    ears: Ears
    hasher: WatchedHasher
    signer: TokenSigner
    auth: AuthService
    tenants: TenantService
    mail: MailService
    phones: PhoneService

    async def sign_up(self, *, email: str = "", company: str = "", locale: str = "en") -> SessionView:
        """Register a company of its own."""
        unique = uuid4().hex[:12]
        form = SignUp(
            email=email or f"someone-{unique}@example.org",
            password=PASSWORD,
            full_name="Sam Someone",
            company_name=company or f"Company {unique}",
            locale=locale,
        )
        view = await self.auth.registration.register(form, device=DEVICE)
        assert view is not None, "this house tells at once who has an account"
        return view

    async def login(self, email: str, password: str = PASSWORD) -> SessionView:
        view = await self.auth.sessions.login(email=email, password=password, device=DEVICE)
        assert isinstance(view, SessionView)
        return view

    async def actor(self, view: SessionView | str) -> Principal:
        """Return whoever a sign-in's access token speaks for."""
        token = view if isinstance(view, str) else view.access_token
        async with self.units(PLATFORM) as uow:
            return await self.auth.authenticate(uow, token)

    async def invite(self, host: SessionView, email: str, role: Role = Role.USER) -> Any:
        """Invite an address to the current tenant of `host`."""
        actor = await self.actor(host)
        async with self.units(PLATFORM) as uow:
            return await self.tenants.invitations.invite(uow, actor, tenant_id=tenant_of(host), email=email, role=role)

    async def allow(self, host: SessionView, limit: Limit, value: int) -> None:
        """Let the current tenant of `host` have more, or less, than its plan says."""
        async with self.units(PLATFORM) as uow:
            uow.session.add(
                EntitlementOverride(tenant_id=tenant_of(host), name=limit, value=value, reason="the tests' own")
            )

    async def one(self, statement: Any) -> Any:
        """Return the one row of a statement."""
        async with self.units(PLATFORM) as uow:
            return (await uow.session.scalars(statement)).one()

    async def rows(self, statement: Any) -> list[Any]:
        """Return the rows of a statement."""
        async with self.units(PLATFORM) as uow:
            return list(await uow.session.scalars(statement))

    async def letters(self, recipient: str, *, welcome: bool = False) -> list[OutboundMail]:
        """Return the letters that wait for somebody, oldest first.

        Everybody who signs up gets one that confirms the address; it is left out unless a test is about the `welcome`.
        """
        found = await self.rows(
            select(OutboundMail)
            .where(func.lower(OutboundMail.recipient) == recipient.lower())
            .order_by(OutboundMail.created_at)
        )
        return [letter for letter in found if welcome or letter.subject not in WELCOMES]


def build_identity(
    engine: AsyncEngine,
    services: Services,
    outbox: Path,
    *,
    roads: Roads | None = None,
    paces: Sequence[Pace] = (),
    total: Sequence[Pace] = (),
) -> Identity:
    """Build the services over the running server's billing and provisioning; `roads` bring codes, none by default."""
    ears, clock = Ears(), FarClock()
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    guard_tenants(sessions)
    units = UnitOfWorkFactory(sessions, clock=clock, bell=ears, ringer=ears)
    hasher, signer = WatchedHasher(), TokenSigner(SigningKey.shared(SECRET))
    mail = MailService(units=units, transport=OutboxTransport(outbox, sender="Tests <tests@example.org>"))
    tenants = TenantService(
        units=units,
        billing=services.billing,
        provisioning=services.provisioning,
        entitlements=EntitlementDesk(grace=ENTITLED),
        mail=mail,
        public_url="http://localhost",
        max_owned=MAX_OWNED,
        deletion_grace=GRACE,
    )
    phones = PhoneService(
        units=units,
        roads=roads or Roads(gateways={}, bots={}),
        sealer=Sealer([b"p" * 32]),
        hashers=[CodeHasher(SECRET)],
        paces=paces,
        total=total,
    )
    auth = AuthService(
        units=units,
        signer=signer,
        hasher=hasher,
        tenants=tenants,
        mail=mail,
        notifications=NotificationService(),
        phones=phones,
        breaches=None,
        sealer=Sealer([b"k" * 32]),
        code_hashers=[CodeHasher(SECRET)],
        access_lifetime=ACCESS,
        refresh_lifetime=REFRESH,
        public_url="http://localhost",
    )
    return Identity(
        units=units,
        clock=clock,
        ears=ears,
        hasher=hasher,
        signer=signer,
        auth=auth,
        tenants=tenants,
        mail=mail,
        phones=phones,
    )


def tenant_of(view: SessionView) -> UUID:
    """Return the tenant a sign-in is in."""
    assert view.current_tenant is not None
    return view.current_tenant.id


def claims_of(token: str) -> dict[str, Any]:
    """Return a token's claims, whatever the machine's clock thinks of them."""
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], options=options)
    return claims


def token_in(text: str) -> str:
    """Return the one-time token that a letter holds on a line of its own."""
    found = re.search(r"^([\w-]{43})$", text, re.MULTILINE)
    assert found is not None, text
    return found[1]


async def letter_in(outbox: Path, recipient: str, *, count: int = 1, welcome: bool = False) -> str:
    """Wait for the `count`-th letter to somebody in an outbox folder and return its text.

    The one that confirms the address counts only where a test is about the `welcome`.
    """
    for _ in range(200):
        found = await asyncio.to_thread(_letters_to, outbox, recipient, welcome=welcome)
        if len(found) >= count:
            return found[count - 1]
        await asyncio.sleep(0.05)
    raise AssertionError(f"no letter to {recipient}")


def _letters_to(outbox: Path, recipient: str, *, welcome: bool) -> list[str]:
    files = sorted(outbox.glob("*.eml"), key=lambda item: item.stat().st_mtime_ns)
    letters = [message_from_bytes(file.read_bytes(), policy=default) for file in files]
    return [
        str(letter.get_content()).replace("\r\n", "\n")
        for letter in letters
        if str(letter["To"]).lower() == recipient.lower() and (welcome or str(letter["Subject"]) not in WELCOMES)
    ]
