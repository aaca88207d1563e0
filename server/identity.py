"""The wiring of identity: people, their passwords, phones, sessions and keys, and those who run the platform."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

from aiohttp import ClientSession

from core.otp import CodeHasher
from core.sealing import Sealer
from core.tokens import TokenSigner
from providers.breaches import RangeRegister
from providers.passwords.hasher import PasswordHasher
from providers.uploads import UploadFolder
from server.keys import all_secrets, derived_key, token_signer
from server.messengers import open_roads, read_paces
from server.settings import Settings
from services.api_keys import ApiKeyService
from services.auth import AuthService
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.auth.tokens import TokenDesk
from services.mail import MailService
from services.notifications import NotificationService
from services.phones import PhoneService
from services.platform import PlatformService
from services.sso import SsoService
from services.tenants import TenantService
from services.unit_of_work import UnitOfWorkFactory
from services.verification import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The services that know who somebody is."""

    auth: AuthService
    phones: PhoneService
    sso: SsoService
    api_keys: ApiKeyService
    platform: PlatformService


def open_identity(
    settings: Settings,
    units: UnitOfWorkFactory,
    *,
    tenants: TenantService,
    mail: MailService,
    notifications: NotificationService,
    http: ClientSession,
    stack: AsyncExitStack,
) -> Identity:
    """Build the services of identity; `stack` closes what they hold open."""
    hasher = PasswordHasher(
        memory_kib=settings.password_hash_memory_kib,
        rounds=settings.password_hash_rounds,
        earlier_bcrypt_rounds=settings.password_earlier_bcrypt_rounds,
    )
    stack.callback(hasher.close)
    signer, breaches = token_signer(settings), _breaches(settings, http)
    notices = SecurityNotices(mail=mail, notifications=notifications)
    phones = _phones(settings, units, stack)
    auth = AuthService(
        units=units,
        signer=signer,
        hasher=hasher,
        tenants=tenants,
        mail=mail,
        notifications=notifications,
        phones=phones,
        breaches=breaches,
        sealer=Sealer([derived_key(secret, "second factors") for secret in all_secrets(settings)]),
        code_hashers=[CodeHasher(secret) for secret in all_secrets(settings)],
        access_lifetime=timedelta(minutes=settings.access_token_expire_minutes),
        refresh_lifetime=timedelta(days=settings.refresh_token_expire_days),
        public_url=settings.public_base,
        disclosed=settings.accounts_disclosed,
    )
    platform = PlatformService(
        units=units,
        new_passwords=NewPasswords(hasher=hasher, breaches=breaches),
        desk=_token_desk(settings, signer),
        notices=notices,
        factors=auth.second_factors,
        suspension=tenants.suspension,
        folder=UploadFolder(settings.data_dir / "uploads"),
    )
    return Identity(
        auth=auth,
        phones=phones,
        sso=_sso(settings, units),
        api_keys=_api_keys(settings, units, notices, notifications),
        platform=platform,
    )


def _phones(settings: Settings, units: UnitOfWorkFactory, stack: AsyncExitStack) -> PhoneService:
    return PhoneService(
        units=units,
        roads=open_roads(settings, stack),
        sealer=Sealer([derived_key(secret, "phone codes") for secret in all_secrets(settings)]),
        hashers=[CodeHasher(secret) for secret in all_secrets(settings)],
        paces=read_paces(settings.rate_phone_codes_per_phone),
        total=read_paces(settings.rate_phone_codes_total),
    )


def _sso(settings: Settings, units: UnitOfWorkFactory) -> SsoService:
    return SsoService(
        units=units,
        sso_url_template=settings.sso_url_template,
        lifetime=timedelta(seconds=settings.sso_token_lifetime_s),
        development=settings.development,
    )


def _api_keys(
    settings: Settings, units: UnitOfWorkFactory, notices: SecurityNotices, notifications: NotificationService
) -> ApiKeyService:
    return ApiKeyService(
        units=units,
        notices=notices,
        notifications=notifications,
        verification=Verification(required=settings.require_verified_email),
        max_keys=settings.api_keys_per_tenant,
    )


def _token_desk(settings: Settings, signer: TokenSigner) -> TokenDesk:
    return TokenDesk(
        signer,
        access_lifetime=timedelta(minutes=settings.access_token_expire_minutes),
        refresh_lifetime=timedelta(days=settings.refresh_token_expire_days),
    )


def _breaches(settings: Settings, http: ClientSession) -> RangeRegister | None:
    if not settings.breached_passwords_url:
        return None
    return RangeRegister(http, base_url=settings.breached_passwords_url)
