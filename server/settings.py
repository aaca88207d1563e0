"""Settings: one frozen place for everything the environment decides; docs/configuration.md explains each.

The names are those of the first ancestor (contract.md) where it had one. Production refuses to start without its
secrets; development makes a random secret and keeps it in `DATA_DIR`.
"""

import hmac
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from limits import parse_many
from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.keys import Algorithm
from core.sealing import read_key

_ROOT = Path(__file__).resolve().parent.parent
_DEFAULT_ORIGINS = "http://localhost:3000,http://localhost:8000,http://127.0.0.1:3000,http://localhost:8080"
_MIN_SECRET_LENGTH = 32
# The least that OWASP's password storage cheat sheet names for argon2id.
_MIN_HASH_MEMORY_KIB = 19 * 1024
_A_DAY_S = 24 * 60 * 60
_BOT_NAMES = {"TELEGRAM_BOT": re.compile(r"[A-Za-z0-9_]{1,64}"), "MAX_BOT": re.compile(r"[A-Za-z0-9_-]{1,64}")}
_WEBHOOK_SECRET = re.compile(r"[A-Za-z0-9_-]{16,256}")
# What a payment provider cannot do without, in the order in which one of them becomes the one that is meant by none.
_PAYMENT_KEYS = {
    "stripe": ("stripe_secret_key",),
    "liqpay": ("liqpay_public_key", "liqpay_private_key"),
    "paypal": ("paypal_client_id", "paypal_client_secret"),
    "btcpay": ("btcpay_host", "btcpay_api_key", "btcpay_store_id"),
    "coinbase_commerce": ("coinbase_api_key",),
    "coinbase_business": ("coinbase_business_key_id", "coinbase_business_key_secret"),
}
_SANDBOX = "sandbox"
_ProviderName = Literal[
    "", "stripe", "liqpay", "paypal", "btcpay", "coinbase", "coinbase_commerce", "coinbase_business", "sandbox"
]


class ConfigurationError(Exception):
    """The environment does not make a server; the message names every fault and how to mend it."""


class Settings(BaseSettings):
    """What one process of the orchestrator is told by its environment."""

    model_config = SettingsConfigDict(frozen=True, env_file=".env", extra="ignore", env_ignore_empty=True)

    # Process
    environment: Literal["development", "test", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    public_url: str = ""
    data_dir: Path = Path("./var")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["console", "json", ""] = ""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    metrics_token: SecretStr = SecretStr("")
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024)
    request_timeout_s: float = Field(default=30, gt=0)
    shutdown_grace_s: float = Field(default=10.0, ge=0)

    # Stores
    database_url: SecretStr = SecretStr("")
    database_pool_size: int = Field(default=10, ge=2)
    redis_url: SecretStr = SecretStr("")
    redis_host: str = ""
    redis_port: int = 6379
    redis_password: SecretStr = SecretStr("")
    rabbitmq_url: SecretStr = SecretStr("")
    rabbitmq_host: str = ""
    rabbitmq_port: int = 5672
    rabbitmq_user: str = "guest"
    rabbitmq_password: SecretStr = SecretStr("")

    # Identity
    secret_key: SecretStr = SecretStr("")
    secret_key_previous: SecretStr = SecretStr("")
    encryption_key: SecretStr = SecretStr("")
    encryption_key_previous: SecretStr = SecretStr("")
    jwt_algorithm: Algorithm = "HS256"
    jwt_private_key_file: str = ""
    jwt_previous_key_files: Annotated[tuple[Path, ...], NoDecode] = ()
    # Changes of what tokens say are kept for at least a day (services/standing.py); no token may outlive that.
    access_token_expire_minutes: int = Field(default=15, ge=1, le=720)
    refresh_token_expire_days: int = Field(default=7, ge=1)
    breached_passwords_url: str = ""
    require_verified_email: bool = False
    password_hash_memory_kib: int = Field(default=64 * 1024, ge=64, le=4 * 1024 * 1024)
    password_hash_rounds: int = Field(default=3, ge=1, le=50)
    tenants_per_owner: int = Field(default=10, ge=1)
    tenant_deletion_grace_days: int = Field(default=30, ge=0)
    api_keys_per_tenant: int = Field(default=50, ge=0)
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = tuple(_DEFAULT_ORIGINS.split(","))

    # Limits (contract.md 9.8); `off` switches a rule off
    rate_auth_per_ip: str = "10/minute"
    rate_auth_per_account: str = "10/minute;100/hour"
    rate_sso_per_user: str = "10/minute"
    rate_webhooks_per_ip: str = "120/minute"
    rate_documents_per_ip: str = "60/minute"
    rate_payments_per_tenant: str = "60/minute"
    rate_invites_per_tenant: str = "60/hour"
    rate_user_total: str = "600/minute"
    rate_key_total: str = "600/minute"
    rate_key_looks_per_ip: str = "120/minute"
    rate_phone_codes_per_ip: str = "5/minute"
    rate_phone_codes_per_phone: str = "3/10 minutes;20/day"
    rate_phone_codes_total: str = "300/minute"
    rate_phone_checks_per_ip: str = "5/minute"

    # Messengers that bring codes to phones
    telegram_gateway_token: SecretStr = SecretStr("")
    telegram_gateway_api_base: str = "https://gatewayapi.telegram.org"
    telegram_gateway_sender: str = ""
    telegram_bot_token: SecretStr = SecretStr("")
    telegram_bot_username: str = ""
    telegram_bot_webhook_secret: SecretStr = SecretStr("")
    telegram_bot_api_base: str = "https://api.telegram.org"
    max_bot_token: SecretStr = SecretStr("")
    max_bot_username: str = ""
    max_bot_webhook_secret: SecretStr = SecretStr("")
    max_bot_api_base: str = "https://platform-api2.max.ru"
    max_bot_ca_file: str = ""

    # Realtime; limits of -1 mean unlimited, and a plan may name its own
    emitter_channel: str = "socketio"
    events_keep_hours: int = Field(default=72, ge=24)
    events_keep_count: int = Field(default=100_000, ge=10_000)
    sockets_per_tenant: int = Field(default=20_000, ge=-1)
    socket_connects_per_s: int = Field(default=10_000, ge=-1)
    socket_events_per_s: int = Field(default=5_000, ge=-1)
    events_per_socket_per_s: int = Field(default=50, ge=-1)
    socket_drain_s: float = Field(default=8.0, ge=0)
    socket_payload_bytes: int = Field(default=64 * 1024, ge=-1)

    # Payments; of webhook secrets several may stand side by side, separated by commas
    payment_provider: _ProviderName = ""
    reconcile_hour: int = Field(default=3, ge=0, le=23)
    entitlement_grace_days: int = Field(default=3, ge=0, le=90)
    http_retry_enabled: bool = True
    dunning_retry_days: Annotated[tuple[Annotated[int, Field(ge=1, le=60)], ...], NoDecode] = Field(
        default=(2, 5, 7, 7), min_length=1, max_length=12
    )
    stripe_secret_key: SecretStr = SecretStr("")
    stripe_webhook_secret: SecretStr = SecretStr("")
    stripe_api_base: str = "https://api.stripe.com"
    liqpay_public_key: str = ""
    liqpay_private_key: SecretStr = SecretStr("")
    liqpay_sandbox: bool = False
    liqpay_api_base: str = "https://www.liqpay.ua"
    paypal_client_id: str = ""
    paypal_client_secret: SecretStr = SecretStr("")
    paypal_webhook_id: str = ""
    paypal_api_base: str = "https://api-m.paypal.com"
    paypal_ca_file: str = ""
    btcpay_host: str = ""
    btcpay_api_key: SecretStr = SecretStr("")
    btcpay_store_id: str = ""
    btcpay_webhook_secret: SecretStr = SecretStr("")
    coinbase_api_key: SecretStr = SecretStr("")
    coinbase_webhook_secret: SecretStr = SecretStr("")
    coinbase_api_base: str = "https://api.commerce.coinbase.com"
    coinbase_business_key_id: str = ""
    coinbase_business_key_secret: SecretStr = SecretStr("")
    coinbase_business_webhook_secret: SecretStr = SecretStr("")
    coinbase_business_api_base: str = "https://business.coinbase.com"

    # Papers that we issue ourselves
    invoice_issuer_name: str = Field(default="ERPMax Orchestrator", min_length=1, max_length=255)
    invoice_issuer_address: str = ""
    invoice_issuer_tax_id: str = Field(default="", max_length=50)
    invoice_number_prefix: str = Field(default="INV", pattern=r"^[A-Z0-9][A-Z0-9-]{0,19}$")
    invoice_tax_rate: Decimal = Field(default=Decimal(0), ge=0, lt=100, decimal_places=3)

    # Merchants, whose customers pay them through us; the commission is in percent, and a plan may name its own
    platform_commission: Decimal = Field(default=Decimal(5), ge=0, le=100, decimal_places=4)
    merchant_private_hosts: bool = False

    # Provisioning
    provisioning_queue_name: str = "erpmax.provisioning"
    tasks_queue_name: str = "erpmax.tasks"
    provisioning_recipe: Path = _ROOT / "deploy" / "recipes" / "local.yml"
    provisioning_database_url: SecretStr = SecretStr("")
    site_url_template: str = ""
    waiting_jobs_per_tenant: int = Field(default=10, ge=1)
    sso_url_template: str = "{site}/api/method/erpmax.sso.login?token={token}"
    sso_token_lifetime_s: int = Field(default=60, ge=5, le=600)

    # Mail
    smtp_host: str = ""
    smtp_port: int = 587
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_starttls: bool = True
    mail_from: str = "ERPMax Orchestrator <no-reply@localhost>"

    @field_validator(
        "allowed_origins", "trusted_proxies", "jwt_previous_key_files", "dunning_retry_days", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            ip_network(item, strict=False)
        return value

    @field_validator(
        "rate_auth_per_ip",
        "rate_auth_per_account",
        "rate_sso_per_user",
        "rate_webhooks_per_ip",
        "rate_documents_per_ip",
        "rate_payments_per_tenant",
        "rate_invites_per_tenant",
        "rate_user_total",
        "rate_key_total",
        "rate_key_looks_per_ip",
        "rate_phone_codes_per_ip",
        "rate_phone_codes_total",
        "rate_phone_checks_per_ip",
    )
    @classmethod
    def _is_a_rule(cls, value: str) -> str:
        if value != "off":
            parse_many(value)
        return value

    @field_validator("rate_phone_codes_per_phone")
    @classmethod
    def _are_paces(cls, value: str) -> str:
        # Counted by rows that are kept for two days (services/phones).
        if value != "off" and any(rule.get_expiry() > _A_DAY_S for rule in parse_many(value)):
            raise ValueError("nothing longer than a day is counted")
        return value

    @field_validator("encryption_key", "encryption_key_previous")
    @classmethod
    def _are_keys(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        given = _listed(value) if info.field_name == "encryption_key_previous" else (value.get_secret_value(),)
        for key in filter(None, given):
            read_key(key)
        return value

    @field_validator("payment_provider", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator(
        "public_url",
        "stripe_api_base",
        "telegram_gateway_api_base",
        "telegram_bot_api_base",
        "max_bot_api_base",
        "liqpay_api_base",
        "paypal_api_base",
        "btcpay_host",
        "coinbase_api_base",
        "coinbase_business_api_base",
        "breached_passwords_url",
    )
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="before")
    @classmethod
    def _compose_urls(cls, values: dict[str, object]) -> dict[str, object]:
        # The first ancestor named Redis and RabbitMQ by host and password; a URL wins over these.
        if values.get("redis_host") and not values.get("redis_url"):
            password = quote(str(values.get("redis_password") or ""), safe="")
            login = f":{password}@" if password else ""
            values["redis_url"] = f"redis://{login}{values['redis_host']}:{values.get('redis_port') or 6379}/0"
        if values.get("rabbitmq_host") and not values.get("rabbitmq_url"):
            user = quote(str(values.get("rabbitmq_user") or "guest"), safe="")
            password = quote(str(values.get("rabbitmq_password") or "guest"), safe="")
            port = values.get("rabbitmq_port") or 5672
            values["rabbitmq_url"] = f"amqp://{user}:{password}@{values['rabbitmq_host']}:{port}/"
        return values

    @model_validator(mode="after")
    def _production_is_complete(self) -> Self:
        if self.environment == "production" and (faults := self._faults()):
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _a_pair_has_its_file(self) -> Self:
        if self.jwt_algorithm != "HS256" and not self.jwt_private_key_file:
            raise ValueError(f"JWT_PRIVATE_KEY_FILE is missing, which JWT_ALGORITHM={self.jwt_algorithm} needs")
        return self

    @model_validator(mode="after")
    def _bots_are_complete(self) -> Self:
        bots = {
            "TELEGRAM_BOT": (self.telegram_bot_token, self.telegram_bot_username, self.telegram_bot_webhook_secret),
            "MAX_BOT": (self.max_bot_token, self.max_bot_username, self.max_bot_webhook_secret),
        }
        faults = [fault for name, bot in bots.items() for fault in _bot_faults(name, *bot)]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _providers_are_whole(self) -> Self:
        faults = [
            f"{name.upper()} is missing, which {given[0].upper()} needs"
            for names in _PAYMENT_KEYS.values()
            if (given := [name for name in names if self._text(name)])
            for name in names
            if name not in given
        ]
        usable = {*self.payment_providers, *((_SANDBOX,) if self.development else ())}
        if any(name.startswith("coinbase_") for name in usable):
            usable.add("coinbase")
        if not faults and self.payment_provider and self.payment_provider not in usable:
            faults = [f"PAYMENT_PROVIDER is {self.payment_provider}, whose keys are not given"]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> list[str]:
        needed = {
            "SECRET_KEY": self.secret_key.get_secret_value(),
            "ENCRYPTION_KEY": self.encryption_key.get_secret_value(),
            "DATABASE_URL": self.database_url.get_secret_value(),
            "PUBLIC_URL": self.public_url,
            "SITE_URL_TEMPLATE": self.site_url_template,
            "SMTP_HOST": self.smtp_host,
        }
        if not self.payment_providers:
            needed["STRIPE_SECRET_KEY"] = ""
        if self.payment_providers in ((), ("stripe",)):
            needed["STRIPE_WEBHOOK_SECRET"] = self.stripe_webhook_secret.get_secret_value()
        faults = [f"{name} is missing" for name, value in needed.items() if not value]
        if needed["SECRET_KEY"] and len(needed["SECRET_KEY"]) < _MIN_SECRET_LENGTH:
            faults.append(f"SECRET_KEY must have at least {_MIN_SECRET_LENGTH} characters")
        if self.password_hash_memory_kib < _MIN_HASH_MEMORY_KIB:
            faults.append(f"PASSWORD_HASH_MEMORY_KIB must be at least {_MIN_HASH_MEMORY_KIB}")
        if "*" in self.allowed_origins:
            faults.append("ALLOWED_ORIGINS must name origins, not *")
        if self.liqpay_sandbox:
            faults.append("LIQPAY_SANDBOX takes play money, which must not buy anything")
        if self.merchant_private_hosts:
            faults.append("MERCHANT_PRIVATE_HOSTS lets tenants reach into this network")
        return faults

    def _text(self, name: str) -> str:
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    @property
    def payment_providers(self) -> tuple[str, ...]:
        """The payment providers whose keys are given, in a fixed order."""
        return tuple(name for name, keys in _PAYMENT_KEYS.items() if all(map(self._text, keys)))

    @property
    def development(self) -> bool:
        """Whether conveniences that are holes in production may exist."""
        return self.environment != "production"

    @property
    def demo_sites(self) -> bool:
        """Whether the demo accounts get sites: people who try things want them, tests make tenants of their own."""
        return self.environment == "development"

    @property
    def embedded(self) -> bool:
        """Whether this process starts its own PostgreSQL."""
        return not self.database_url.get_secret_value()

    @property
    def previous_secrets(self) -> tuple[str, ...]:
        """The values that `SECRET_KEY` had before and that are still believed."""
        return _listed(self.secret_key_previous)

    @property
    def previous_encryption_keys(self) -> tuple[str, ...]:
        """The values that `ENCRYPTION_KEY` had before, or is to have next, and that can be read with."""
        return _listed(self.encryption_key_previous)

    @property
    def public_base(self) -> str:
        """The address under which clients reach this server, without a trailing slash."""
        return self.public_url or f"http://localhost:{self.port}"

    @property
    def site_template(self) -> str:
        """The address of a tenant's site, with `{slug}` in it."""
        return self.site_url_template or f"{self.public_base}/sites/{{slug}}"


def _listed(value: SecretStr) -> tuple[str, ...]:
    return tuple(item for item in value.get_secret_value().split(",") if item)


def _bot_faults(name: str, token: SecretStr, username: str, secret: SecretStr) -> list[str]:
    """Name what a bot lacks; without a token there is no bot, and its webhook is closed."""
    if not token.get_secret_value():
        return []
    faults = []
    if _BOT_NAMES[name].fullmatch(username) is None:
        faults.append(f"{name}_USERNAME must be the bot's name, which {name}_TOKEN needs")
    if _WEBHOOK_SECRET.fullmatch(secret.get_secret_value()) is None:
        faults.append(f"{name}_WEBHOOK_SECRET must be 16 to 256 of A-Z a-z 0-9 _ -, which {name}_TOKEN needs")
    return faults


def load_settings(**overrides: object) -> Settings:
    """Read the environment; raises ConfigurationError with every fault in one message."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigurationError(_explain(error)) from error


def _explain(error: ValueError) -> str:
    lines = ["The configuration is wrong or not complete:"]
    for problem in getattr(error, "errors", list)():
        place = "/".join(str(part) for part in problem["loc"]).upper()
        text = problem["msg"].removeprefix("Value error, ")
        lines.append(f"  {place}: {text}" if place else f"  {text}")
    return "\n".join([*lines, "See docs/configuration.md."])


def prepare_data_dir(path: Path) -> None:
    """Make the folder that `DATA_DIR` names unless it is there; raises ConfigurationError when it is no use."""
    why = "this process may not write there"
    try:
        path.mkdir(parents=True, exist_ok=True)
        usable = os.access(path, os.W_OK | os.X_OK)
    except FileExistsError:
        why, usable = "it is not a folder", False
    except OSError as error:
        why, usable = (error.strerror or str(error)).lower(), False
    if not usable:
        raise ConfigurationError(
            f"DATA_DIR={path} cannot be used: {why}. Name a folder that can be made or written. "
            "See docs/configuration.md."
        )


def derived_key(secret: str, purpose: str) -> bytes:
    """Return a key of its own for one purpose, 32 bytes, so that what one leaks tells nothing of the others."""
    return hmac.digest(secret.encode(), f"erpmax {purpose}".encode(), "sha256")


def secret_key(settings: Settings) -> str:
    """Return the signing secret; development makes one at first use and keeps it in `DATA_DIR`."""
    return settings.secret_key.get_secret_value() or kept_secret(
        settings, "secret_key", lambda: secrets.token_urlsafe(48)
    )


def all_secrets(settings: Settings) -> tuple[str, ...]:
    """Return the signing secret and those before it, the newest first."""
    return (secret_key(settings), *settings.previous_secrets)


def kept_secret(settings: Settings, name: str, make: Callable[[], str]) -> str:
    """Return the secret that is kept in `DATA_DIR` under a name, made at its first use."""
    path = settings.data_dir / name
    prepare_data_dir(settings.data_dir)
    # Written aside and linked into place, so that two processes that start at once agree on one whole secret.
    draft = path.with_name(f"{name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(make())
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
    return path.read_text()
