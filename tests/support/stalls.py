"""Providers beside a till: each with its fake, on the till's own clock."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from providers.payments import CheckoutCreated, Reading, read_event
from providers.payments.sandbox import SandboxProvider
from providers.payments.sandbox_events import declined_event, expired_event, paid_event
from services.billing.views import CheckoutView
from services.unit_of_work import RequestTrace
from tests.fakes.btcpay_api import FakeBtcPay
from tests.fakes.coinbase_business_api import FakeBusiness
from tests.fakes.coinbase_commerce_api import FakeCommerce
from tests.fakes.liqpay_api import FakeLiqPay
from tests.fakes.paypal_api import FakePayPal
from tests.providers.payments.harness import Delivery, SandboxHarness, StripeHarness
from tests.providers.payments.harness_one_time import (
    BtcPayHarness,
    BusinessHarness,
    CommerceHarness,
    LiqPayHarness,
    OneTimeHarness,
    PayPalHarness,
)
from tests.support.billing import Shop, Till
from tests.support.clock import MovableClock

STALLS: dict[str, tuple[Any, Any]] = {
    "liqpay": (FakeLiqPay, LiqPayHarness),
    "paypal": (FakePayPal, PayPalHarness),
    "btcpay": (FakeBtcPay, BtcPayHarness),
    "coinbase_commerce": (FakeCommerce, CommerceHarness),
    "coinbase_business": (FakeBusiness, BusinessHarness),
}
ALL_PROVIDERS = ("stripe", *STALLS, "sandbox")


class _Clock(Protocol):
    def now(self) -> datetime: ...


class LiveSandbox(SandboxHarness):
    """The sandbox on a clock that goes: whoever has its secret is its other side."""

    def __init__(self, sandbox: SandboxProvider, clock: _Clock) -> None:
        super().__init__()
        self.sandbox = self.provider = sandbox
        self._clock = clock

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [paid_event(self.open(created), at=self._clock.now())]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        return [declined_event(self.open(created), at=self._clock.now())]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return [expired_event(self.open(created), at=self._clock.now())]


@asynccontextmanager
async def open_harness(name: str, clock: _Clock) -> AsyncIterator[Any]:
    """Yield a provider's other side and its adapter, both on `clock`."""
    fake_type, harness_type = STALLS[name]
    async with fake_type(clock=lambda: clock.now().timestamp()) as fake:
        harness: OneTimeHarness = harness_type(fake)
        harness.clock = clock  # type: ignore[assignment]
        harness.provider = harness.patient()
        try:
            yield harness
        finally:
            await harness.close()


class _TillsStripe:
    """The till's own Stripe with the manners of a harness."""

    def __init__(self, till: Till) -> None:
        self.fake = till.stripe
        self.provider = till.providers["stripe"]

    def deliver(self, content: bytes, *, at: datetime) -> Delivery:
        return Delivery(content, {"Stripe-Signature": self.fake.sign(content, at=int(at.timestamp()))})

    paid = StripeHarness.paid


@dataclass(slots=True)
class Stall:
    """One provider at which the tenants of a till can buy."""

    till: Till
    harness: Any

    @property
    def name(self) -> str:
        name: str = self.harness.provider.name
        return name

    @property
    def fake(self) -> Any:
        return self.harness.fake

    async def begin(self, shop: Shop, **order: Any) -> CheckoutCreated:
        """Begin to buy a plan."""
        return as_created(await self.till.checkout(shop.owner, provider=self.name, **order), self.till.clock)

    async def bring(self, content: bytes) -> bool:
        """Deliver an event; returns whether it was new."""
        sent = self.harness.deliver(content, at=self.till.now)
        return await self.till.billing.receive(self.name, body=sent.body, headers=sent.headers, trace=RequestTrace())

    async def take(self, contents: Sequence[bytes]) -> None:
        """Deliver events and let the worker apply each."""
        for content in contents:
            await self.bring(content)
            await self.till.work()

    async def read(self, content: bytes) -> Reading:
        """Tell what an event means at this moment, as the worker would."""
        sent = self.harness.deliver(content, at=self.till.now)
        provider = self.harness.provider
        await provider.prepare(sent.headers)
        return await read_event(provider, provider.verify(body=sent.body, headers=sent.headers, now=self.till.now))


@asynccontextmanager
async def open_stall(till: Till, name: str) -> AsyncIterator[Stall]:
    """Yield a provider at which the tenants of `till` can buy."""
    if name == "sandbox":
        yield Stall(till, LiveSandbox(till.sandbox, till.clock))
        return
    if name == "stripe":
        yield Stall(till, _TillsStripe(till))
        return
    async with open_harness(name, till.clock) as harness:
        till.providers[name] = harness.provider
        yield Stall(till, harness)


def as_created(view: CheckoutView, clock: MovableClock) -> CheckoutCreated:
    """Return a checkout as its provider's harness wants it."""
    return CheckoutCreated(
        session_id=view.session_id,
        url=view.checkout_url,
        customer_ref=None,
        expires_at=clock.now() + timedelta(hours=1),
    )
