"""What the contract suite needs of each provider's other side: somebody who pays, and a signing hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from core import json
from providers.payments import CheckoutCreated, CheckoutRequest, PaymentProvider
from providers.payments.sandbox import (
    SIGNATURE_HEADER,
    TOKEN_PARAMETER,
    SandboxProvider,
    SandboxSession,
    declined_event,
    expired_event,
    paid_event,
)
from providers.payments.stripe_adapter import StripeProvider
from tests.fakes.stripe_api import FakeStripe

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TENANT = UUID("0b7cf5b1-6a52-4d0a-9c3b-0d0c1f3f7a11")
PLAN = UUID("5f0d2a3e-90f5-4a70-8f0e-4a3c1de1b222")


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


class Harness(Protocol):
    """One provider and its other side."""

    provider: PaymentProvider

    def headers(self, body: bytes, *, at: datetime = NOW, forged: bool = False) -> dict[str, str]:
        """Sign `body` as the provider would at `at`, or with a secret that is not the provider's."""

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        """Let somebody pay; return every event that the provider sends."""

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        """Let the payment fail; return every event."""

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        """Let time run out; return every event."""

    def envelope(self, fields: Mapping[str, object]) -> bytes:
        """Build a body in the provider's envelope."""


class StripeHarness:
    """The official SDK against the fake API."""

    def __init__(self, fake: FakeStripe) -> None:
        self.fake = fake
        self.provider: PaymentProvider = StripeProvider(
            secret_key=fake.secret_key, webhook_secrets=(fake.webhook_secret,), api_base=fake.base_url
        )

    def headers(self, body: bytes, *, at: datetime = NOW, forged: bool = False) -> dict[str, str]:
        secret = "whsec_of_somebody_else" if forged else None
        return {"Stripe-Signature": self.fake.sign(body, at=int(at.timestamp()), secret=secret)}

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


class SandboxHarness:
    """The sandbox, with its hosted page played by this class."""

    def __init__(self) -> None:
        self.sandbox = SandboxProvider("a secret of development", "http://localhost:8000/", clock=FixedClock())
        self.provider: PaymentProvider = self.sandbox
        self._stranger = SandboxProvider("another secret", "http://localhost:8000", clock=FixedClock())

    def headers(self, body: bytes, *, at: datetime = NOW, forged: bool = False) -> dict[str, str]:
        return {SIGNATURE_HEADER: (self._stranger if forged else self.sandbox).sign(body, at)}

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [paid_event(self.open(created), at=NOW)]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        return [declined_event(self.open(created), at=NOW)]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return [expired_event(self.open(created), at=NOW + timedelta(days=1))]

    def envelope(self, fields: Mapping[str, object]) -> bytes:
        return json.dumps(fields)

    def open(self, created: CheckoutCreated) -> SandboxSession:
        """Do what the page does with its address."""
        address = urlsplit(created.url)
        assert address.path == f"/sandbox/pay/{created.session_id}"
        (token,) = parse_qs(address.query)[TOKEN_PARAMETER]
        return self.sandbox.open_session(created.session_id, token)
