"""What the contract suite needs of each provider's other side: somebody who pays, and a signing hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from core import json
from providers.circuit import Circuit
from providers.payments import CheckoutCreated, CheckoutRequest, InvoiceRequest, PaymentProvider
from providers.payments.sandbox import SIGNATURE_HEADER, TOKEN_PARAMETER, SandboxProvider
from providers.payments.sandbox_events import declined_event, expired_event, paid_event
from providers.payments.sandbox_session import SandboxSession
from providers.payments.stripe_adapter import StripeProvider
from providers.payments.stripe_calls import counts_against_stripe
from tests.fakes.server import FakeServer
from tests.fakes.stripe_api import FakeStripe

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TENANT = UUID("0b7cf5b1-6a52-4d0a-9c3b-0d0c1f3f7a11")
PLAN = UUID("5f0d2a3e-90f5-4a70-8f0e-4a3c1de1b222")

Amounts = Sequence[tuple[str, str]]


@dataclass
class FixedClock:
    """A clock that stands still until a test moves it."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


def request(
    *,
    amount: str = "49.99",
    currency: str = "USD",
    checkout_id: UUID | None = None,
    customer_email: str | None = "owner@example.com",
    customer_ref: str | None = None,
    success_url: str = "https://app.example.com/ok?a=1&b=2",
) -> CheckoutRequest:
    return CheckoutRequest(
        checkout_id=checkout_id or uuid4(),
        begun_at=NOW,
        tenant_id=TENANT,
        plan_id=PLAN,
        plan_name="Professional «Про» & more",
        billing_period="yearly",
        amount=Decimal(amount),
        currency=currency,
        customer_email=customer_email,
        customer_ref=customer_ref,
        success_url=success_url,
        cancel_url="https://app.example.com/cancelled",
    )


def invoice_request(*, amount: str = "49.99", currency: str = "USD", invoice_id: UUID | None = None) -> InvoiceRequest:
    return InvoiceRequest(
        invoice_id=invoice_id or uuid4(),
        begun_at=NOW,
        tenant_id=TENANT,
        description="Order 17: «Чай» & more",
        amount=Decimal(amount),
        currency=currency,
        customer_email="buyer@example.com",
        success_url="https://shop.example.com/thanks?order=17",
        cancel_url="https://shop.example.com/cart",
    )


@dataclass(frozen=True)
class Delivery:
    """A webhook as it arrives."""

    body: bytes
    headers: dict[str, str]


class Harness(Protocol):
    """One provider and its other side.

    `payable` are amounts that the provider takes; `lifetime` is how long its page is open; `oldest` is how old a
    signature may be, None where no time is signed. `names_customers` and `keeps_subscriptions` tell what its paid
    facts carry. Events are told as their content; `deliver` makes requests of them.
    """

    provider: PaymentProvider
    payable: Amounts
    lifetime: timedelta
    oldest: timedelta | None
    names_customers: bool
    keeps_subscriptions: bool

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        """Sign `content` as the provider would at `at`, or with a secret that is not the provider's."""

    def unsigned(self, content: bytes) -> Delivery:
        """Send `content` without a signature."""

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        """Let somebody pay; return every event that the provider sends."""

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        """Let the payment fail; return every event."""

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        """Let time run out; return every event."""

    def other_event(self, event_id: str = "evt_1") -> bytes:
        """Build an event that is no business of ours; one with another id is another event."""

    def nameless_events(self) -> list[bytes]:
        """Build events that lack an id or a type, or garble them or the time."""


class NetworkHarness(Harness, Protocol):
    """One provider that is reached over the network.

    `is_offline_creation` tells that opening a session asks nobody.
    """

    fake: FakeServer
    clock: FixedClock
    is_offline_creation: bool

    def sessions(self) -> Sequence[str]:
        """List the sessions that the provider holds."""

    def patient(self, **limits: float) -> PaymentProvider:
        """Build a second adapter with other limits: `attempt_s`, `total_s`, `attempts`, `circuit_failures`."""


_STRIPE_LIKE_NAMELESS: Sequence[Mapping[str, object]] = (
    {},
    {"id": "evt_1"},
    {"type": "x"},
    {"id": "", "type": "x"},
    {"id": 7, "type": "x"},
    {"id": "evt_1", "type": None},
    {"id": "e" * 256, "type": "x"},
    {"id": "evt_1", "type": "x", "created": "yesterday"},
    {"id": "evt_1", "type": "x", "created": 10**18},
)
_ANY_AMOUNT: Amounts = (
    ("49.99", "USD"),
    ("0", "EUR"),
    ("4900", "JPY"),
    ("12.340", "KWD"),
    ("1250", "ISK"),
    ("990.00", "rub"),
)


class StripeHarness:
    """The official SDK against the fake API."""

    payable = _ANY_AMOUNT
    lifetime = timedelta(hours=24)
    oldest: timedelta | None = timedelta(seconds=300)
    names_customers = True
    keeps_subscriptions = True
    is_offline_creation = False

    def __init__(self, fake: FakeStripe) -> None:
        self.fake = fake
        self.clock = FixedClock()
        self._adapters: list[PaymentProvider] = []
        self.provider = self.patient()

    def patient(self, **limits: float) -> PaymentProvider:
        circuit = Circuit(
            failures=int(limits.get("circuit_failures", 1000)),
            pause=timedelta(seconds=30),
            is_failure=counts_against_stripe,
            clock=self.clock,
        )
        adapter = StripeProvider(
            secret_key=self.fake.secret_key,
            webhook_secrets=(self.fake.webhook_secret,),
            api_base=self.fake.base_url,
            timeout_s=limits.get("total_s", 30.0),
            max_network_retries=int(limits.get("attempts", 3)) - 1,
            circuit=circuit,
        )
        self._adapters.append(adapter)
        return adapter

    async def close(self) -> None:
        for adapter in self._adapters:
            await adapter.aclose()

    def sessions(self) -> Sequence[str]:
        return list(self.fake.sessions)

    def headers(self, body: bytes, *, at: datetime = NOW, forged: bool = False) -> dict[str, str]:
        secret = "whsec_of_somebody_else" if forged else None
        return {"Stripe-Signature": self.fake.sign(body, at=int(at.timestamp()), secret=secret)}

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        return Delivery(content, self.headers(content, at=at, forged=forged))

    def unsigned(self, content: bytes) -> Delivery:
        return Delivery(content, {})

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.encode(event) for event in self.fake.pay_checkout(created.session_id)]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        events = self.fake.pay_checkout(created.session_id, delayed=True)
        events += self.fake.settle_checkout(created.session_id, arrives=False)
        return [self.fake.encode(event) for event in events]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.encode(event) for event in self.fake.expire_checkout(created.session_id)]

    def envelope(self, fields: Mapping[str, object]) -> bytes:
        return json.dumps({"object": "event", **fields})

    def other_event(self, event_id: str = "evt_1") -> bytes:
        return self.envelope({"id": event_id, "type": "mandate.updated", "created": 1, "data": {"object": {}}})

    def nameless_events(self) -> list[bytes]:
        return [self.envelope(fields) for fields in _STRIPE_LIKE_NAMELESS]


class SandboxHarness:
    """The sandbox, with its hosted page played by this class."""

    payable = _ANY_AMOUNT
    lifetime = timedelta(hours=24)
    oldest: timedelta | None = timedelta(seconds=300)
    names_customers = True
    keeps_subscriptions = True

    def __init__(self) -> None:
        self.sandbox = SandboxProvider("a secret of development", "http://localhost:8000/", clock=FixedClock())
        self.provider: PaymentProvider = self.sandbox
        self._stranger = SandboxProvider("another secret", "http://localhost:8000", clock=FixedClock())

    def headers(self, body: bytes, *, at: datetime = NOW, forged: bool = False) -> dict[str, str]:
        return {SIGNATURE_HEADER: (self._stranger if forged else self.sandbox).sign(body, at)}

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        return Delivery(content, self.headers(content, at=at, forged=forged))

    def unsigned(self, content: bytes) -> Delivery:
        return Delivery(content, {})

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [paid_event(self.open(created), at=NOW)]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        return [declined_event(self.open(created), at=NOW)]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return [expired_event(self.open(created), at=NOW + timedelta(days=1))]

    def other_event(self, event_id: str = "evt_1") -> bytes:
        return json.dumps({"id": event_id, "type": "mandate.updated", "created": 1})

    def nameless_events(self) -> list[bytes]:
        return [json.dumps(fields) for fields in _STRIPE_LIKE_NAMELESS]

    def open(self, created: CheckoutCreated) -> SandboxSession:
        """Do what the page does with its address."""
        address = urlsplit(created.url)
        assert address.path == f"/sandbox/pay/{created.session_id}"
        (token,) = parse_qs(address.query)[TOKEN_PARAMETER]
        return self.sandbox.open_session(created.session_id, token)
