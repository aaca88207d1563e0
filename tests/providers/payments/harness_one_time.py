"""The other sides of the providers without subscriptions."""

import base64
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from core import json
from providers.http import HttpClient, HttpPolicy
from providers.payments import CheckoutCreated, PaymentProvider
from providers.payments.btcpay import BtcPayProvider
from providers.payments.coinbase_business import CoinbaseBusinessProvider
from providers.payments.coinbase_commerce import CoinbaseCommerceProvider
from providers.payments.liqpay import LiqPayProvider
from providers.payments.paypal import PayPalProvider
from tests.fakes import btcpay_api, coinbase_business_api, coinbase_commerce_api, liqpay_api, paypal_api, paypal_ca
from tests.fakes.server import FakeServer
from tests.providers.payments.harness import NOW, Amounts, Delivery, FixedClock


def quick_policy(**limits: float) -> HttpPolicy:
    """Make a policy that does not make tests wait."""
    return HttpPolicy(
        attempt_s=limits.get("attempt_s", 5.0),
        total_s=limits.get("total_s", 10.0),
        attempts=int(limits.get("attempts", 3)),
        backoff_base_s=0.01,
        backoff_cap_s=0.02,
        circuit_failures=int(limits.get("circuit_failures", 1000)),
    )


class OneTimeHarness(ABC):
    """What these harnesses share: one HTTP client per adapter, closed at the end."""

    fake: FakeServer
    payable: Amounts = (("49.99", "USD"), ("12.00", "eur"))
    lifetime = timedelta(hours=24)
    oldest: timedelta | None = None
    names_customers = False
    keeps_subscriptions = False
    is_offline_creation = False

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self.clock = FixedClock()
        fake._clock = lambda: self.clock.now().timestamp()
        self._clients: list[HttpClient] = []
        self.provider = self.patient()

    def client(self, **limits: float) -> HttpClient:
        """Make a client that is closed with the harness."""
        client = HttpClient(quick_policy(**limits), clock=self.clock)
        self._clients.append(client)
        return client

    def patient(self, **limits: float) -> PaymentProvider:
        return self.build(self.client(**limits))

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    @abstractmethod
    def build(self, http: HttpClient) -> PaymentProvider:
        """Build an adapter on the fake."""

    def unsigned(self, content: bytes) -> Delivery:
        return Delivery(content, {})


class LiqPayHarness(OneTimeHarness):
    """The hosted page is an address; the payer comes with it when something is to happen."""

    fake: liqpay_api.FakeLiqPay
    payable: Amounts = (("49.99", "USD"), ("1999.90", "UAH"), ("12", "eur"))
    is_offline_creation = True

    def build(self, http: HttpClient) -> LiqPayProvider:
        return LiqPayProvider(
            http,
            public_key=liqpay_api.PUBLIC_KEY,
            private_key=liqpay_api.PRIVATE_KEY,
            webhook_url="https://api.example.com/hook",
            clock=self.clock,
            api_base=self.fake.base_url,
        )

    def sessions(self) -> Sequence[str]:
        return list(self.fake.orders)

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        data = base64.b64encode(content).decode()
        return Delivery(self.fake.form(data, key="another key" if forged else liqpay_api.PRIVATE_KEY), {})

    def unsigned(self, content: bytes) -> Delivery:
        return Delivery(b"data=e30%3D", {})

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return self._contents(self._arrive(created), "success")

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        return self._contents(self._arrive(created), "failure")

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return []

    def _arrive(self, created: CheckoutCreated) -> str:
        self.fake.arrive(created.url)
        return created.session_id

    def _contents(self, order_id: str, status: str) -> list[bytes]:
        self.fake.pay(order_id, status)
        return [json.dumps(self.fake.orders[order_id])]

    def other_event(self, event_id: str = "evt_1") -> bytes:
        return json.dumps({"action": "pay", "status": "success", "order_id": event_id, "amount": 1})

    def nameless_events(self) -> list[bytes]:
        return [
            json.dumps(fields)
            for fields in (
                {},
                {"status": "success"},
                {"order_id": "1"},
                {"status": 7, "order_id": "1"},
                {"status": "success", "order_id": "o" * 256},
                {"status": "success", "order_id": "1", "end_date": "yesterday"},
                {"status": "success", "order_id": "1", "end_date": 10**18},
            )
        ]


class PayPalHarness(OneTimeHarness):
    """An order, its approval, and the certificate behind the signature."""

    fake: paypal_api.FakePayPal
    payable: Amounts = (("49.99", "USD"), ("4900", "JPY"), ("12.30", "eur"))
    lifetime = timedelta(hours=3)
    oldest: timedelta | None = timedelta(days=3, seconds=300)

    def build(self, http: HttpClient) -> PayPalProvider:
        return PayPalProvider(
            http,
            client_id=paypal_api.CLIENT_ID,
            client_secret=paypal_api.CLIENT_SECRET,
            webhook_ids=(paypal_api.WEBHOOK_ID,),
            clock=self.clock,
            api_base=self.fake.base_url,
            trust_roots=paypal_ca.roots(),
        )

    def sessions(self) -> Sequence[str]:
        return list(self.fake.orders)

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        signer = paypal_ca.signer("stranger") if forged else None
        return Delivery(content, self.fake.sign(content, at=int(at.timestamp()), signer=signer))

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.encode(event) for event in self.fake.approve(created.session_id)]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        self.fake.hold_next = True
        events = self.fake.approve(created.session_id) + self.fake.capture(created.session_id)
        events += self.fake.decide(created.session_id, arrives=False)
        return [self.fake.encode(event) for event in events]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return []

    def other_event(self, event_id: str = "evt_1") -> bytes:
        return _event({"id": event_id, "event_type": "VAULT.CREDIT-CARD.CREATED", "resource": {}})

    def nameless_events(self) -> list[bytes]:
        return [
            _event(fields)
            for fields in (
                {},
                {"id": "WH-1"},
                {"event_type": "x"},
                {"id": 7, "event_type": "x"},
                {"id": "WH-1", "event_type": "x", "create_time": "yesterday"},
            )
        ]


class BtcPayHarness(OneTimeHarness):
    """A store whose invoices are paid in coins."""

    fake: btcpay_api.FakeBtcPay
    payable: Amounts = (("49.99", "USD"), ("4900", "JPY"), ("12.340", "KWD"), ("990.00", "rub"))
    lifetime = timedelta(hours=1)

    def build(self, http: HttpClient) -> BtcPayProvider:
        return BtcPayProvider(
            http,
            base_url=self.fake.base_url + "/",
            api_key=btcpay_api.API_KEY,
            store_id=btcpay_api.STORE,
            webhook_secrets=(btcpay_api.WEBHOOK_SECRET,),
        )

    def sessions(self) -> Sequence[str]:
        return list(self.fake.invoices)

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        secret = "of somebody else" if forged else btcpay_api.WEBHOOK_SECRET
        return Delivery(content, {"BTCPay-Sig": self.fake.sign(content, secret=secret)})

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.encode(event) for event in self.fake.pay(created.session_id)]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        events = self.fake.pay(created.session_id, certain=False) + self.fake.invalidate(created.session_id)
        return [self.fake.encode(event) for event in events]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.encode(event) for event in self.fake.expire(created.session_id)]

    def other_event(self, event_id: str = "evt_1") -> bytes:
        return _event({"deliveryId": event_id, "type": "PayoutCreated", "timestamp": 1_700_000_000})

    def nameless_events(self) -> list[bytes]:
        return [
            _event(fields)
            for fields in (
                {},
                {"deliveryId": "1"},
                {"type": "InvoiceSettled"},
                {"deliveryId": 7, "type": "InvoiceSettled"},
                {"deliveryId": "1", "type": "InvoiceSettled", "timestamp": "yesterday"},
            )
        ]


class CommerceHarness(OneTimeHarness):
    """Charges and their timeline."""

    fake: coinbase_commerce_api.FakeCommerce
    payable: Amounts = (("49.99", "USD"), ("4900", "JPY"), ("12.340", "KWD"))
    lifetime = timedelta(hours=48)

    def build(self, http: HttpClient) -> CoinbaseCommerceProvider:
        return CoinbaseCommerceProvider(
            http,
            api_key=coinbase_commerce_api.API_KEY,
            webhook_secrets=(coinbase_commerce_api.WEBHOOK_SECRET,),
            api_base=self.fake.base_url,
        )

    def sessions(self) -> Sequence[str]:
        return list(self.fake.charges)

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        secret = "of somebody else" if forged else coinbase_commerce_api.WEBHOOK_SECRET
        return Delivery(content, {"X-CC-Webhook-Signature": self.fake.sign(content, secret=secret)})

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.deliver(event) for event in self.fake.pay(created.session_id)]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.deliver(event) for event in self.fake.fail(created.session_id)]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return [self.fake.deliver(event) for event in self.fake.expire(created.session_id)]

    def other_event(self, event_id: str = "evt_1") -> bytes:
        return self.fake.deliver({"id": event_id, "type": "invoice:created", "data": {"id": "1"}})

    def nameless_events(self) -> list[bytes]:
        return [
            b"{}",
            *(
                self.fake.deliver(fields)
                for fields in (
                    {},
                    {"id": "1"},
                    {"type": "charge:created"},
                    {"id": 7, "type": "charge:created"},
                    {"id": "1", "type": "charge:created", "created_at": 5},
                )
            ),
        ]


class BusinessHarness(OneTimeHarness):
    """Single-use checkouts, with a token per request and headers that are signed too."""

    fake: coinbase_business_api.FakeBusiness
    payable: Amounts = (("49.99", "USD"), ("12.00", "eur"), ("5", "USDC"))
    oldest: timedelta | None = timedelta(seconds=300)

    def build(self, http: HttpClient) -> CoinbaseBusinessProvider:
        return CoinbaseBusinessProvider(
            http,
            key_id=coinbase_business_api.KEY_ID,
            key_secret=self.fake.key_secret,
            webhook_secrets=(coinbase_business_api.WEBHOOK_SECRET,),
            clock=self.clock,
            api_base=self.fake.base_url,
        )

    def sessions(self) -> Sequence[str]:
        return list(self.fake.checkouts)

    def deliver(self, content: bytes, *, at: datetime = NOW, forged: bool = False) -> Delivery:
        secret = "of somebody else" if forged else coinbase_business_api.WEBHOOK_SECRET
        return Delivery(content, self.fake.sign(content, at=int(at.timestamp()), secret=secret))

    def paid(self, created: CheckoutCreated) -> list[bytes]:
        return [_event(event) for event in self.fake.pay(created.session_id)]

    def declined(self, created: CheckoutCreated) -> list[bytes]:
        return [_event(event) for event in self.fake.fail(created.session_id)]

    def expired(self, created: CheckoutCreated) -> list[bytes]:
        return [_event(event) for event in self.fake.expire(created.session_id)]

    def other_event(self, event_id: str = "evt_1") -> bytes:
        return _event({"id": event_id, "eventType": "wallet.activity.detected"})

    def nameless_events(self) -> list[bytes]:
        return [
            _event(fields)
            for fields in (
                {},
                {"id": "1"},
                {"eventType": "checkout.payment.success"},
                {"id": 7, "eventType": "checkout.payment.success"},
                {"id": "1", "eventType": "checkout.payment.success", "updatedAt": "yesterday"},
            )
        ]


def _event(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields)
