"""Providers under test, each with its other side."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.btcpay_api import FakeBtcPay
from tests.fakes.coinbase_business_api import FakeBusiness
from tests.fakes.coinbase_commerce_api import FakeCommerce
from tests.fakes.liqpay_api import FakeLiqPay
from tests.fakes.paypal_api import FakePayPal
from tests.fakes.stripe_api import FakeStripe
from tests.providers.payments.harness import NOW, Harness, NetworkHarness, SandboxHarness, StripeHarness
from tests.providers.payments.harness_one_time import (
    BtcPayHarness,
    BusinessHarness,
    CommerceHarness,
    LiqPayHarness,
    PayPalHarness,
)

ONE_TIME = ("liqpay", "paypal", "btcpay", "coinbase_commerce", "coinbase_business")
NETWORKED = ("stripe", *ONE_TIME)
TIMED = ("stripe", "sandbox", "paypal", "coinbase_business")
STAMPED = ("stripe", "sandbox")
# LiqPay signs with its one key, and the sandbox with the server's own.
ROLLED = ("stripe", "paypal", "btcpay", "coinbase_commerce", "coinbase_business")


@pytest.fixture
async def stripe() -> AsyncIterator[StripeHarness]:
    """Stripe as the official SDK reaches it, an empty account per test."""
    async with FakeStripe(clock=NOW.timestamp) as fake:
        harness = StripeHarness(fake)
        yield harness
        await harness.close()


@pytest.fixture
def sandbox() -> SandboxHarness:
    """The provider of development."""
    return SandboxHarness()


@pytest.fixture
async def liqpay() -> AsyncIterator[LiqPayHarness]:
    async with FakeLiqPay(clock=NOW.timestamp) as fake:
        harness = LiqPayHarness(fake)
        yield harness
        await harness.close()


@pytest.fixture
async def paypal() -> AsyncIterator[PayPalHarness]:
    async with FakePayPal(clock=NOW.timestamp) as fake:
        harness = PayPalHarness(fake)
        yield harness
        await harness.close()


@pytest.fixture
async def btcpay() -> AsyncIterator[BtcPayHarness]:
    async with FakeBtcPay(clock=NOW.timestamp) as fake:
        harness = BtcPayHarness(fake)
        yield harness
        await harness.close()


@pytest.fixture
async def coinbase_commerce() -> AsyncIterator[CommerceHarness]:
    async with FakeCommerce(clock=NOW.timestamp) as fake:
        harness = CommerceHarness(fake)
        yield harness
        await harness.close()


@pytest.fixture
async def coinbase_business() -> AsyncIterator[BusinessHarness]:
    async with FakeBusiness(clock=NOW.timestamp) as fake:
        harness = BusinessHarness(fake)
        yield harness
        await harness.close()


@pytest.fixture(params=["sandbox", *NETWORKED])
def harness(request: pytest.FixtureRequest) -> Harness:
    """Every adapter in turn."""
    found: Harness = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=TIMED)
def timed(request: pytest.FixtureRequest) -> Harness:
    """Every adapter whose provider signs the time."""
    found: Harness = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=STAMPED)
def stamped(request: pytest.FixtureRequest) -> Harness:
    """Every adapter whose header is Stripe's own form."""
    found: Harness = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=ROLLED)
def rolled(request: pytest.FixtureRequest) -> Harness:
    """Every adapter whose secret can be rolled."""
    found: Harness = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=NETWORKED)
def network(request: pytest.FixtureRequest) -> NetworkHarness:
    """Every adapter that is reached over the network."""
    found: NetworkHarness = request.getfixturevalue(request.param)
    return found
