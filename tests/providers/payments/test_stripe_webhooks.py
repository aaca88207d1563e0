"""Whose webhooks Stripe's adapter believes, beyond the contract suite."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from core.errors import ErrorKind
from providers.payments import BadPayload, BadSignature, CheckoutPaid, PayloadFault, SignatureFault, VerifiedEvent
from providers.payments.stripe_adapter import StripeProvider
from tests.fakes.stripe_api import FakeStripe
from tests.providers.payments.harness import NOW, StripeHarness, request

# providers.md 2.1: the SDK's own test body, signed by hand. The SDK's tests compute theirs and so prove less.
VECTOR_BODY = b"""{
  "id": "evt_test_webhook",
  "object": "event",
  "data": { "object": { "id": "rdr_123", "object": "terminal.reader" } }
}"""
VECTOR_SECRET = "whsec_test_secret"
VECTOR_TIME = 1614265330
VECTOR_V1 = "117f2d4aa1697fc9f837f2feca4e5e23ec790ffa7b6b669073d3677ae48c4b5f"


class TestSignature:
    """Stripe's signature beyond the contract suite."""

    def test_the_known_vector(self) -> None:
        adapter = StripeProvider(secret_key="sk_test_x", webhook_secrets=(VECTOR_SECRET,))
        header = {"Stripe-Signature": f"t={VECTOR_TIME},v1={VECTOR_V1}"}
        at = datetime.fromtimestamp(VECTOR_TIME, UTC)

        # The signature holds, so what is missed is the event's type, which that body does not have.
        with pytest.raises(BadPayload) as refused:
            adapter.verify(body=VECTOR_BODY, headers=header, now=at)
        assert refused.value.fault is PayloadFault.MISSING_FIELDS
        assert refused.value.text == "Stripe event missing required fields"
        with pytest.raises(BadSignature):
            adapter.verify(body=VECTOR_BODY + b"\n", headers=header, now=at)

    def test_the_fake_signs_the_known_vector(self) -> None:
        header = FakeStripe(webhook_secret=VECTOR_SECRET).sign(VECTOR_BODY, at=VECTOR_TIME)

        assert header.split(",")[:2] == [f"t={VECTOR_TIME}", f"v1={VECTOR_V1}"]

    @pytest.mark.parametrize("signer", ["whsec_new", "whsec_old"])
    def test_a_secret_can_be_rolled(self, signer: str) -> None:
        adapter = StripeProvider(secret_key="sk_test_x", webhook_secrets=("whsec_new", "whsec_old"))
        body = b'{"id": "evt_1", "type": "x"}'
        header = FakeStripe(webhook_secret=signer).sign(body, at=int(NOW.timestamp()))

        assert adapter.verify(body=body, headers={"Stripe-Signature": header}, now=NOW).event_id == "evt_1"

    def test_without_a_secret_nothing_is_believed(self) -> None:
        adapter = StripeProvider(secret_key="sk_test_x", webhook_secrets=())

        with pytest.raises(BadSignature) as refused:
            adapter.verify(body=b"{}", headers={"Stripe-Signature": "t=1,v1=ab"}, now=NOW)

        assert refused.value.fault is SignatureFault.NOT_CONFIGURED
        assert refused.value.text == "Stripe webhook secret is not configured"

    @pytest.mark.parametrize(
        ("spoil", "text"),
        [
            (lambda value: "", "Invalid Stripe-Signature header"),
            (lambda value: value.replace("v1=", "v1=0"), "Invalid Stripe webhook signature"),
        ],
    )
    def test_refusals_have_the_texts_of_the_contract(
        self, stripe: StripeHarness, spoil: Callable[[str], str], text: str
    ) -> None:
        value = stripe.headers(b"{}")["Stripe-Signature"]

        with pytest.raises(BadSignature) as refused:
            stripe.provider.verify(body=b"{}", headers={"Stripe-Signature": spoil(value)}, now=NOW)

        assert refused.value.text == text
        assert refused.value.kind is ErrorKind.BAD_REQUEST

    def test_thin_events_are_refused(self, stripe: StripeHarness) -> None:
        body = b'{"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.error"}'

        with pytest.raises(BadPayload) as refused:
            stripe.provider.verify(body=body, headers=stripe.headers(body), now=NOW)

        assert refused.value.text == "Invalid Stripe webhook payload"

    def test_a_connected_accounts_event_says_so(self, stripe: StripeHarness) -> None:
        body = b'{"id": "evt_1", "object": "event", "type": "x", "account": "acct_9"}'

        assert stripe.provider.verify(body=body, headers=stripe.headers(body), now=NOW).account == "acct_9"


class TestModes:
    """Test money must never buy anything real."""

    @pytest.mark.parametrize(
        ("key", "livemode", "counts"),
        [
            ("sk_live_x", True, True),
            ("sk_live_x", False, False),
            ("rk_live_x", False, False),
            ("sk_test_x", False, True),
        ],
    )
    async def test_a_live_key_ignores_test_events(
        self, stripe: StripeHarness, key: str, *, livemode: bool, counts: bool
    ) -> None:
        created = await stripe.provider.create_checkout(request())
        payload = stripe.fake.pay_checkout(created.session_id)[-1] | {"livemode": livemode}
        event = VerifiedEvent(event_id="evt_1", account="", type=payload["type"], occurred_at=NOW, payload=payload)

        found = StripeProvider(secret_key=key, webhook_secrets=()).interpret(event)

        assert [type(fact) for fact in found] == ([CheckoutPaid] if counts else [])
