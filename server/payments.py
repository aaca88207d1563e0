"""The payment providers that this installation has keys for; only here and in merchants.py are their adapters named."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from core.clock import Clock
from providers.circuit import Circuit
from providers.http import HttpClient, HttpPolicy
from providers.payments import (
    PaymentProvider,
    btcpay,
    coinbase_business,
    coinbase_commerce,
    paypal,
    split_secrets,
    stripe_adapter,
)
from providers.payments.btcpay import BtcPayProvider
from providers.payments.coinbase_business import CoinbaseBusinessProvider
from providers.payments.coinbase_commerce import CoinbaseCommerceProvider
from providers.payments.liqpay import LiqPayProvider
from providers.payments.paypal import PayPalProvider
from providers.payments.sandbox import SandboxProvider
from providers.payments.stripe_adapter import StripeProvider
from providers.payments.stripe_calls import counts_against_stripe
from server.keys import secret_key
from server.settings import ConfigurationError, Settings

SANDBOX: Final = "sandbox"
# Before the name was given to two products, `coinbase` was the older one (contract.md 4.6).
_COINBASES: Final = ("coinbase_commerce", "coinbase_business")
# Every provider that may be given keys, with the header that its webhooks are known by.
KNOWN: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "stripe": stripe_adapter.SIGNATURE_HEADER,
        "liqpay": None,
        "paypal": paypal.SIGNATURE_HEADER,
        "btcpay": btcpay.SIGNATURE_HEADER,
        "coinbase_commerce": coinbase_commerce.SIGNATURE_HEADER,
        "coinbase_business": coinbase_business.SIGNATURE_HEADER,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """The providers by name, further names for them, and the one that is meant when none is named."""

    providers: dict[str, PaymentProvider]
    aliases: Mapping[str, str]
    default: str


def open_payments(settings: Settings, http: HttpClient, *, clock: Clock) -> Payments:
    """Make an adapter for every provider that the settings have keys for.

    Raises:
        ConfigurationError: a key cannot be read.
    """
    makers: dict[str, Callable[[], PaymentProvider]] = {
        "stripe": lambda: _stripe(settings, http.policy, clock),
        "liqpay": lambda: _liqpay(settings, http, clock),
        "paypal": lambda: _paypal(settings, http, clock),
        "btcpay": lambda: _btcpay(settings, http),
        "coinbase_commerce": lambda: _commerce(settings, http),
        "coinbase_business": lambda: _business(settings, http, clock),
    }
    providers = {name: makers[name]() for name in settings.payment_providers}
    if settings.development:
        providers[SANDBOX] = SandboxProvider(secret_key(settings), settings.public_base, clock=clock)
    coinbase = next((name for name in _COINBASES if name in providers), None)
    aliases = {} if coinbase is None else {"coinbase": coinbase}
    wanted = aliases.get(settings.payment_provider, settings.payment_provider)
    return Payments(providers=providers, aliases=aliases, default=wanted or next(iter(providers), SANDBOX))


def _stripe(settings: Settings, policy: HttpPolicy, clock: Clock) -> StripeProvider:
    return StripeProvider(
        secret_key=settings.stripe_secret_key.get_secret_value(),
        webhook_secrets=split_secrets(settings.stripe_webhook_secret.get_secret_value()),
        api_base=settings.stripe_api_base,
        # Whoever asked may ask again; the SDK's own repetitions would hide from the circuit how Stripe fares.
        max_network_retries=0,
        circuit=Circuit(
            failures=policy.circuit_failures,
            pause=timedelta(seconds=policy.circuit_pause_s),
            is_failure=counts_against_stripe,
            clock=clock,
        ),
    )


def _liqpay(settings: Settings, http: HttpClient, clock: Clock) -> LiqPayProvider:
    return LiqPayProvider(
        http,
        public_key=settings.liqpay_public_key,
        private_key=settings.liqpay_private_key.get_secret_value(),
        webhook_url=f"{settings.public_base}/api/v1/billing/webhook/liqpay",
        clock=clock,
        sandbox=settings.liqpay_sandbox,
        api_base=settings.liqpay_api_base,
    )


def _paypal(settings: Settings, http: HttpClient, clock: Clock) -> PayPalProvider:
    roots = settings.paypal_ca_file
    try:
        trust_roots = Path(roots).read_bytes() if roots else None
    except OSError as error:
        raise ConfigurationError(f"PAYPAL_CA_FILE cannot be read: {error}") from error
    return PayPalProvider(
        http,
        client_id=settings.paypal_client_id,
        client_secret=settings.paypal_client_secret.get_secret_value(),
        webhook_ids=split_secrets(settings.paypal_webhook_id),
        clock=clock,
        api_base=settings.paypal_api_base,
        trust_roots=trust_roots,
    )


def _btcpay(settings: Settings, http: HttpClient) -> BtcPayProvider:
    return BtcPayProvider(
        http,
        base_url=settings.btcpay_host,
        api_key=settings.btcpay_api_key.get_secret_value(),
        store_id=settings.btcpay_store_id,
        webhook_secrets=split_secrets(settings.btcpay_webhook_secret.get_secret_value()),
    )


def _commerce(settings: Settings, http: HttpClient) -> CoinbaseCommerceProvider:
    return CoinbaseCommerceProvider(
        http,
        api_key=settings.coinbase_api_key.get_secret_value(),
        webhook_secrets=split_secrets(settings.coinbase_webhook_secret.get_secret_value()),
        api_base=settings.coinbase_api_base,
    )


def _business(settings: Settings, http: HttpClient, clock: Clock) -> CoinbaseBusinessProvider:
    try:
        return CoinbaseBusinessProvider(
            http,
            key_id=settings.coinbase_business_key_id,
            key_secret=settings.coinbase_business_key_secret.get_secret_value(),
            webhook_secrets=split_secrets(settings.coinbase_business_webhook_secret.get_secret_value()),
            clock=clock,
            api_base=settings.coinbase_business_api_base,
        )
    except ValueError as error:
        raise ConfigurationError(f"COINBASE_BUSINESS_KEY_SECRET cannot be read: {error}") from error
