"""Which payment providers an installation gets from its settings."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from core.clock import SystemClock
from providers.http import HttpClient
from server.payments import KNOWN, Payments, open_payments
from server.settings import ConfigurationError, Settings
from tests.fakes.coinbase_business_api import FakeBusiness


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(clock=SystemClock())
    yield client
    await client.aclose()


def opened(http: HttpClient, folder: Path, **values: Any) -> Payments:
    settings = Settings(_env_file=None, data_dir=folder, **values)
    return open_payments(settings, http, clock=SystemClock())


async def test_without_keys_there_is_the_sandbox(http: HttpClient, tmp_path: Path) -> None:
    payments = opened(http, tmp_path)
    assert (list(payments.providers), payments.default) == (["sandbox"], "sandbox")


async def test_every_provider_that_has_keys(http: HttpClient, tmp_path: Path) -> None:
    payments = opened(
        http,
        tmp_path,
        payment_provider="coinbase",
        stripe_secret_key=SecretStr("sk_test_x"),
        liqpay_public_key="i1",
        liqpay_private_key=SecretStr("x"),
        paypal_client_id="x",
        paypal_client_secret=SecretStr("x"),
        btcpay_host="https://btcpay.example",
        btcpay_api_key=SecretStr("x"),
        btcpay_store_id="x",
        coinbase_business_key_id="x",
        coinbase_business_key_secret=SecretStr(FakeBusiness().key_secret),
    )
    headers = {name: provider.capabilities.signature_header for name, provider in payments.providers.items()}
    assert {**KNOWN, **headers} == {**KNOWN, "sandbox": headers["sandbox"]}
    expected = ["stripe", "liqpay", "paypal", "btcpay", "coinbase_business", "sandbox"]
    assert list(payments.providers) == expected
    assert [provider.name for provider in payments.providers.values()] == expected
    # The older Coinbase has no keys here, so the name means the newer one.
    assert (payments.default, payments.aliases) == ("coinbase_business", {"coinbase": "coinbase_business"})
    await payments.providers["stripe"].aclose()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"coinbase_business_key_id": "x", "coinbase_business_key_secret": SecretStr("x")}, "COINBASE_BUSINESS_KEY"),
        (
            {"paypal_client_id": "x", "paypal_client_secret": SecretStr("x"), "paypal_ca_file": "/nowhere.pem"},
            "PAYPAL_CA_FILE",
        ),
    ],
)
async def test_keys_that_cannot_be_read_stop_the_start(
    http: HttpClient, tmp_path: Path, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        opened(http, tmp_path, **values)
