"""Settings: one frozen place for everything the environment decides; docs/configuration.md explains each.

The names are those of the first ancestor (contract.md) where it had one. Production refuses to start without its
secrets; development makes a random secret and keeps it in `DATA_DIR`.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.keys import Algorithm
from server.forms import (
    COMMAS,
    LOWER,
    UPPER,
    Address,
    Items,
    Networks,
    Paces,
    Rule,
    SealingKey,
    SealingKeys,
    bot_faults,
    listed,
)

_ROOT = Path(__file__).resolve().parent.parent
_DEFAULT_ORIGINS = "http://localhost:3000,http://localhost:8000,http://127.0.0.1:3000,http://localhost:8080"
_MIN_SECRET_LENGTH = 32
# The least that OWASP's password storage cheat sheet names for argon2id.
_MIN_HASH_MEMORY_KIB = 19 * 1024
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
_Days = tuple[Annotated[int, Field(ge=1, le=60)], ...]


class ConfigurationError(Exception):
    """The environment does not make a server; the message names every fault and how to mend it."""


class Settings(BaseSettings):
    """What one process of the orchestrator is told by its environment."""

    model_config = SettingsConfigDict(frozen=True, env_file=".env", extra="ignore", env_ignore_empty=True)

    # Process
    environment: Literal["development", "test", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    public_url: Address = ""
    data_dir: Path = Path("./var")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], UPPER] = "INFO"
    log_format: Literal["console", "json", ""] = ""
    trusted_proxies: Networks = ()
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
    encryption_key: SealingKey = SecretStr("")
    encryption_key_previous: SealingKeys = SecretStr("")
    jwt_algorithm: Algorithm = "HS256"
    jwt_private_key_file: str = ""
    jwt_previous_key_files: Annotated[tuple[Path, ...], *COMMAS] = ()
    # Changes of what tokens say are kept for at least a day (services/standing.py); no token may outlive that.
    access_token_expire_minutes: int = Field(default=15, ge=1, le=720)
    refresh_token_expire_days: int = Field(default=7, ge=1)
    breached_passwords_url: Address = ""
    require_verified_email: bool = False
    accounts_disclosed: bool = True
    password_hash_memory_kib: int = Field(default=64 * 1024, ge=64, le=4 * 1024 * 1024)
    password_hash_rounds: int = Field(default=3, ge=1, le=50)
    password_earlier_bcrypt_rounds: int | None = Field(default=None, ge=4, le=16)
    tenants_per_owner: int = Field(default=10, ge=1)
    tenant_deletion_grace_days: int = Field(default=30, ge=0)
    api_keys_per_tenant: int = Field(default=50, ge=0)
    allowed_origins: Items = tuple(_DEFAULT_ORIGINS.split(","))

    # Limits (contract.md 9.8); `off` switches a rule off
    rate_auth_per_ip: Rule = "10/minute"
    rate_auth_per_account: Rule = "10/minute;100/hour"
    rate_sso_per_user: Rule = "10/minute"
    rate_webhooks_per_ip: Rule = "120/minute"
    rate_documents_per_ip: Rule = "60/minute"
    rate_payments_per_tenant: Rule = "60/minute"
    rate_invites_per_tenant: Rule = "60/hour"
    rate_user_total: Rule = "600/minute"
    rate_key_total: Rule = "600/minute"
    rate_key_looks_per_ip: Rule = "120/minute"
    rate_phone_codes_per_ip: Rule = "5/minute"
    rate_phone_codes_per_phone: Paces = "3/10 minutes;20/day"
    rate_phone_codes_total: Rule = "300/minute"
    rate_phone_checks_per_ip: Rule = "5/minute"

    # Messengers that bring codes to phones
    telegram_gateway_token: SecretStr = SecretStr("")
    telegram_gateway_api_base: Address = "https://gatewayapi.telegram.org"
    telegram_gateway_sender: str = ""
    telegram_bot_token: SecretStr = SecretStr("")
    telegram_bot_username: str = ""
    telegram_bot_webhook_secret: SecretStr = SecretStr("")
    telegram_bot_api_base: Address = "https://api.telegram.org"
    max_bot_token: SecretStr = SecretStr("")
    max_bot_username: str = ""
    max_bot_webhook_secret: SecretStr = SecretStr("")
    max_bot_api_base: Address = "https://platform-api2.max.ru"
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
    payment_provider: Annotated[_ProviderName, LOWER] = ""
    reconcile_hour: int = Field(default=3, ge=0, le=23)
    provider_events_keep_days: int = Field(default=30, ge=1, le=3650)
    entitlement_grace_days: int = Field(default=3, ge=0, le=90)
    http_retry_enabled: bool = True
    dunning_retry_days: Annotated[_Days, Field(min_length=1, max_length=12), *COMMAS] = (2, 5, 7, 7)
    stripe_secret_key: SecretStr = SecretStr("")
    stripe_webhook_secret: SecretStr = SecretStr("")
    stripe_api_base: Address = "https://api.stripe.com"
    liqpay_public_key: str = ""
    liqpay_private_key: SecretStr = SecretStr("")
    liqpay_sandbox: bool = False
    liqpay_api_base: Address = "https://www.liqpay.ua"
    paypal_client_id: str = ""
    paypal_client_secret: SecretStr = SecretStr("")
    paypal_webhook_id: str = ""
    paypal_api_base: Address = "https://api-m.paypal.com"
    paypal_ca_file: str = ""
    btcpay_host: Address = ""
    btcpay_api_key: SecretStr = SecretStr("")
    btcpay_store_id: str = ""
    btcpay_webhook_secret: SecretStr = SecretStr("")
    coinbase_api_key: SecretStr = SecretStr("")
    coinbase_webhook_secret: SecretStr = SecretStr("")
    coinbase_api_base: Address = "https://api.commerce.coinbase.com"
    coinbase_business_key_id: str = ""
    coinbase_business_key_secret: SecretStr = SecretStr("")
    coinbase_business_webhook_secret: SecretStr = SecretStr("")
    coinbase_business_api_base: Address = "https://business.coinbase.com"

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
        faults = [fault for name, bot in bots.items() for fault in bot_faults(name, *bot)]
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
        return listed(self.secret_key_previous)

    @property
    def previous_encryption_keys(self) -> tuple[str, ...]:
        """The values that `ENCRYPTION_KEY` had before, or is to have next, and that can be read with."""
        return listed(self.encryption_key_previous)

    @property
    def public_base(self) -> str:
        """The address under which clients reach this server, without a trailing slash."""
        return self.public_url or f"http://localhost:{self.port}"

    @property
    def site_template(self) -> str:
        """The address of a tenant's site, with `{slug}` in it."""
        return self.site_url_template or f"{self.public_base}/sites/{{slug}}"


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
