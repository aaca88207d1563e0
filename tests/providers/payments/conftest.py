"""Providers under test, each with its other side."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.stripe_api import FakeStripe
from tests.providers.payments.harness import NOW, Harness, SandboxHarness, StripeHarness


@pytest.fixture
async def stripe() -> AsyncIterator[StripeHarness]:
    """Stripe as the official SDK reaches it, an empty account per test."""
    async with FakeStripe(clock=NOW.timestamp) as fake:
        harness = StripeHarness(fake)
        yield harness
        await harness.provider.aclose()


@pytest.fixture
def sandbox() -> SandboxHarness:
    """The provider of development."""
    return SandboxHarness()


@pytest.fixture(params=["stripe", "sandbox"])
async def harness(request: pytest.FixtureRequest, stripe: StripeHarness, sandbox: SandboxHarness) -> Harness:
    """Every adapter in turn."""
    adapters: dict[str, Harness] = {"stripe": stripe, "sandbox": sandbox}
    return adapters[request.param]
