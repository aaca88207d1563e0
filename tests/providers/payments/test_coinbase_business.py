"""Coinbase Business beyond the contract suite: signed headers, tokens and keys, and prices in money."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from core import json
from providers.http import HttpClient
from providers.payments import (
    BadPayload,
    BadSignature,
    PaymentStatus,
    ProviderUnavailable,
    RefundRequest,
    RefundStatus,
    SignatureFault,
)
from providers.payments.coinbase_business import SIGNATURE_HEADER, CoinbaseBusinessProvider
from tests.fakes import coinbase_business_api
from tests.providers.payments.harness import NOW, Delivery, FixedClock, invoice_request, request
from tests.providers.payments.harness_one_time import BusinessHarness
from tests.providers.payments.receiving import receive, states, verify

# providers.md 2.4: signed by hand after the formula of Coinbase's documentation.
VECTOR_TIME = 1728394718
VECTOR_HEADERS = {
    "Content-Type": "application/json",
    "X-Event-Id": "evt_1",
    "X-Event-Type": "checkout.payment.success",
    "X-Hook0-Signature": (
        f"t={VECTOR_TIME},v0={'0' * 64},h=content-type x-event-id x-event-type,"
        "v1=12dd20d4f7084db510ac070ad4f1042e89b31438932a97a07a88d3ca816146e9"
    ),
}
VECTOR_BODY = b'{"id":"6890"}'

# The clock of these tests stands still somewhere else than the library's.
UNTIMED: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}


def adapter(key_secret: str, *secrets: str) -> CoinbaseBusinessProvider:
    return CoinbaseBusinessProvider(
        HttpClient(clock=FixedClock()),
        key_id="k",
        key_secret=key_secret,
        webhook_secrets=secrets,
        clock=FixedClock(),
    )


class TestSignature:
    """Whose webhooks are believed."""

    def test_the_known_vector(self, coinbase_business: BusinessHarness) -> None:
        provider = adapter(coinbase_business.fake.key_secret, "new", "secret")
        at = datetime.fromtimestamp(VECTOR_TIME, UTC)

        # The signature holds, so what is missed is the event's type, which that body does not have.
        with pytest.raises(BadPayload):
            provider.verify(body=VECTOR_BODY, headers=VECTOR_HEADERS, now=at)
        with pytest.raises(BadSignature):
            provider.verify(body=VECTOR_BODY + b" ", headers=VECTOR_HEADERS, now=at)
        with pytest.raises(BadSignature) as stale:
            provider.verify(body=VECTOR_BODY, headers=VECTOR_HEADERS, now=at + timedelta(seconds=301))
        assert stale.value.fault is SignatureFault.STALE

    def test_the_fake_signs_it_too(self, coinbase_business: BusinessHarness) -> None:
        headers = coinbase_business.fake.sign(
            VECTOR_BODY,
            at=VECTOR_TIME,
            secret="secret",
            x_event_id="evt_1",
            x_event_type="checkout.payment.success",
        )

        assert headers[SIGNATURE_HEADER].rpartition(",")[2] == VECTOR_HEADERS[SIGNATURE_HEADER].rpartition(",")[2]

    @pytest.mark.parametrize("name", ["content-type", "x-event-id"])
    async def test_a_signed_header_cannot_be_changed(self, coinbase_business: BusinessHarness, name: str) -> None:
        body = coinbase_business.other_event()
        headers = coinbase_business.fake.sign(body, x_event_id="evt_7")
        assert (await verify(coinbase_business, Delivery(body, headers))).event_id == "evt_7"

        with pytest.raises(BadSignature) as refused:
            await verify(coinbase_business, Delivery(body, {**headers, name: "another"}))

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE

    async def test_an_id_that_is_not_signed_is_not_used(self, coinbase_business: BusinessHarness) -> None:
        delivery = coinbase_business.deliver(coinbase_business.other_event())

        first = await verify(coinbase_business, Delivery(delivery.body, {**delivery.headers, "X-Event-Id": "a"}))
        second = await verify(coinbase_business, Delivery(delivery.body, {**delivery.headers, "X-Event-Id": "b"}))

        assert first.event_id == second.event_id

    @pytest.mark.parametrize("change", [("h=", "x="), (",v1=", ",h=x-other,v1="), ("h=content-type", "h=")])
    async def test_the_list_of_headers_must_be_one(
        self, coinbase_business: BusinessHarness, change: tuple[str, str]
    ) -> None:
        delivery = coinbase_business.deliver(coinbase_business.other_event())
        value = delivery.headers[SIGNATURE_HEADER].replace(*change)

        with pytest.raises(BadSignature) as refused:
            await verify(coinbase_business, Delivery(delivery.body, {**delivery.headers, SIGNATURE_HEADER: value}))

        assert refused.value.fault is SignatureFault.INVALID_HEADER

    def test_without_a_secret_nothing_is_believed(self, coinbase_business: BusinessHarness) -> None:
        with pytest.raises(BadSignature) as refused:
            adapter(coinbase_business.fake.key_secret).verify(body=VECTOR_BODY, headers=VECTOR_HEADERS, now=NOW)

        assert refused.value.fault is SignatureFault.NOT_CONFIGURED


class TestKeys:
    """The API key, and the token that each request carries."""

    def test_an_ec_key_signs_too(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()

        # As it stands in an environment variable: on one line, with its line ends written out.
        token = adapter(pem.replace("\n", "\\n"))._token("GET", "/api/v1/checkouts/1")

        claims = jwt.decode(token, key.public_key(), algorithms=["ES256"], options=UNTIMED)
        assert claims["uris"] == ["GET business.coinbase.com/api/v1/checkouts/1"]
        assert claims["exp"] - claims["nbf"] == 120

    @pytest.mark.parametrize("secret", ["", "nonsense", "AAAA"])
    def test_refuses_what_is_no_key(self, secret: str) -> None:
        with pytest.raises(ValueError, match="CDP API key"):
            adapter(secret)

    def test_refuses_another_kind_of_key(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with pytest.raises(ValueError, match="CDP API key"):
            adapter(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    async def test_each_request_has_a_token_of_its_own(self, coinbase_business: BusinessHarness) -> None:
        await coinbase_business.provider.create_invoice(invoice_request())
        await coinbase_business.provider.create_invoice(invoice_request())

        tokens = [seen.headers["Authorization"] for seen in coinbase_business.fake.requests]
        assert len(set(tokens)) == 2

    async def test_a_wrong_key_needs_an_operator(self, coinbase_business: BusinessHarness) -> None:
        stranger = CoinbaseBusinessProvider(
            coinbase_business.client(),
            key_id=coinbase_business_api.KEY_ID,
            key_secret=coinbase_business_api.FakeBusiness().key_secret,
            webhook_secrets=(),
            clock=FixedClock(),
            api_base=coinbase_business.fake.base_url,
        )
        with pytest.raises(ProviderUnavailable) as failed:
            await stranger.create_checkout(request())

        assert not failed.value.retryable

    async def test_an_id_of_another_version_becomes_a_key_all_the_same(
        self, coinbase_business: BusinessHarness
    ) -> None:
        asked = invoice_request(invoice_id=UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"))

        first = await coinbase_business.provider.create_invoice(asked)
        second = await coinbase_business.provider.create_invoice(asked)

        assert first.session_id == second.session_id


class TestMoney:
    """Prices in money, paid in USDC."""

    async def test_what_was_asked_comes_back_in_its_own_currency(self, coinbase_business: BusinessHarness) -> None:
        created = await coinbase_business.provider.create_invoice(invoice_request(amount="100.00", currency="EUR"))
        assert coinbase_business.fake.checkouts[created.session_id]["amount"] == "108.00"
        coinbase_business.fake.pay(created.session_id)

        state = await coinbase_business.provider.fetch_payment(created.session_id)

        assert state is not None
        assert (state.asked, state.received, state.currency) == (Decimal("100.00"), Decimal("100.00"), "EUR")

    async def test_money_on_its_way_buys_nothing(self, coinbase_business: BusinessHarness) -> None:
        created = await coinbase_business.provider.create_invoice(invoice_request())
        coinbase_business.fake.see(created.session_id)

        state = await coinbase_business.provider.fetch_payment(created.session_id)

        assert state is not None
        assert state.status is PaymentStatus.PROCESSING

    @pytest.mark.parametrize(("succeed", "refunded"), [(True, "30.00"), (False, "0")])
    async def test_refunds_are_pending_until_told(
        self, coinbase_business: BusinessHarness, *, succeed: bool, refunded: str
    ) -> None:
        created = await coinbase_business.provider.create_invoice(invoice_request(currency="EUR"))
        coinbase_business.fake.pay(created.session_id)
        made = await coinbase_business.provider.refund(
            RefundRequest(
                refund_id=uuid4(),
                session_id=created.session_id,
                payment_ref=None,
                amount=Decimal("30.00"),
                currency="eur",
                refunded_before=Decimal(0),
            )
        )
        under_way = await coinbase_business.provider.fetch_payment(created.session_id)

        events = coinbase_business.fake.complete_refunds(created.session_id, succeed=succeed)
        (told,) = await states(coinbase_business, [json.dumps(event) for event in events])

        assert made.status is RefundStatus.PENDING
        assert under_way is not None
        assert under_way.refunded == Decimal("30.00")
        assert (told.status, told.refunded) == (PaymentStatus.PAID, Decimal(refunded))


async def test_deliveries_of_one_event_have_one_id(coinbase_business: BusinessHarness) -> None:
    created = await coinbase_business.provider.create_checkout(request())
    (event,) = coinbase_business.fake.pay(created.session_id)

    first = await receive(coinbase_business, json.dumps(event))
    second = await receive(coinbase_business, json.dumps(event))
    other = await receive(coinbase_business, json.dumps({**event, "eventType": "checkout.refund.success"}))

    assert first.event_id == second.event_id != other.event_id


async def test_asking_again_later_asks_for_the_same(coinbase_business: BusinessHarness) -> None:
    wanted = request()
    first = await coinbase_business.provider.create_checkout(wanted)
    coinbase_business.clock.at += timedelta(seconds=90)

    assert await coinbase_business.provider.create_checkout(wanted) == first
