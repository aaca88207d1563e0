"""Accounts that merchants have at payment providers; their adapters are named here and in payments.py alone."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Final

from core.clock import Clock
from providers.addresses import HostRefused, check_public_host
from providers.http import HttpClient, HttpPolicy
from providers.payments import PaymentProvider, btcpay, coinbase_business, coinbase_commerce, split_secrets
from providers.payments.accounts import AccountKind, Keys, refused_field
from providers.payments.btcpay import BtcPayProvider
from providers.payments.coinbase_business import CoinbaseBusinessProvider
from providers.payments.coinbase_commerce import CoinbaseCommerceProvider
from server.keys import key_ring
from server.settings import Settings
from services.merchants import MerchantService
from services.notifications import NotificationService
from services.unit_of_work import UnitOfWorkFactory

KINDS: Final[Mapping[str, AccountKind]] = MappingProxyType(
    {
        "btcpay": AccountKind(
            needed=("host", "store_id", "api_key", "webhook_secret"),
            shown=("host", "store_id"),
            named_by="api_key",
            signature_header=btcpay.SIGNATURE_HEADER,
        ),
        "coinbase_commerce": AccountKind(
            needed=("api_key", "webhook_secret"),
            shown=(),
            named_by="api_key",
            signature_header=coinbase_commerce.SIGNATURE_HEADER,
        ),
        "coinbase_business": AccountKind(
            needed=("key_id", "key_secret", "webhook_secret"),
            shown=("key_id",),
            named_by="key_id",
            signature_header=coinbase_business.SIGNATURE_HEADER,
        ),
    }
)


def open_merchants(
    settings: Settings,
    units: UnitOfWorkFactory,
    notifications: NotificationService,
    *,
    clock: Clock,
    stack: AsyncExitStack,
) -> MerchantService:
    """Build the service of merchants. How their accounts fare must not decide over the platform's connections."""
    policy = HttpPolicy(retry_enabled=settings.http_retry_enabled)
    http = HttpClient(policy, clock=clock)
    outward = HttpClient(policy, clock=clock, public_only=not settings.merchant_private_hosts)
    for client in (http, outward):
        stack.push_async_callback(client.aclose)
    return MerchantService(
        units=units,
        accounts=MerchantAccounts(settings, http, outward, clock=clock),
        ring=key_ring(settings),
        notifications=notifications,
        commission_percent=settings.platform_commission,
        public_url=settings.public_base,
    )


class MerchantAccounts:
    """Opens merchants' accounts: Coinbase's by the addresses of the settings, BTCPay Servers where merchants say.

    Args:
        http: for Coinbase.
        outward: for addresses that merchants give; it must lead nowhere into our own network.
    """

    def __init__(self, settings: Settings, http: HttpClient, outward: HttpClient, *, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._outward = outward
        self._clock = clock

    @property
    def kinds(self) -> Mapping[str, AccountKind]:
        return KINDS

    def open(self, provider: str, keys: Keys) -> PaymentProvider:
        """See `Accounts.open`."""
        secrets = split_secrets(keys["webhook_secret"])
        if provider == "btcpay":
            return BtcPayProvider(
                self._outward,
                base_url=keys["host"],
                api_key=keys["api_key"],
                store_id=keys["store_id"],
                webhook_secrets=secrets,
            )
        if provider == "coinbase_commerce":
            return CoinbaseCommerceProvider(
                self._http,
                api_key=keys["api_key"],
                webhook_secrets=secrets,
                api_base=self._settings.coinbase_api_base,
            )
        try:
            return CoinbaseBusinessProvider(
                self._http,
                key_id=keys["key_id"],
                key_secret=keys["key_secret"],
                webhook_secrets=secrets,
                clock=self._clock,
                api_base=self._settings.coinbase_business_api_base,
            )
        except ValueError as error:
            raise refused_field("keySecret", "is neither an Ed25519 nor an EC key") from error

    async def check(self, provider: str, keys: Keys) -> None:
        """See `Accounts.check`."""
        self.open(provider, keys)
        if "host" not in KINDS[provider].needed:
            return
        try:
            await check_public_host(
                keys["host"],
                https_only=not self._settings.development,
                private_allowed=self._settings.merchant_private_hosts,
            )
        except HostRefused as refusal:
            raise refused_field("host", str(refusal)) from refusal
