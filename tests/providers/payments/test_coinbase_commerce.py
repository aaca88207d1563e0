"""Coinbase Commerce beyond the contract suite: its official vector, and money that is not what was asked."""

from decimal import Decimal

import pytest

from core import json
from providers.http import HttpClient
from providers.payments import BadSignature, PaymentStatus, ProviderRejected, SignatureFault
from providers.payments.coinbase_commerce import CoinbaseCommerceProvider
from tests.fakes.server import Fault
from tests.providers.payments.harness import NOW, FixedClock, invoice_request, request
from tests.providers.payments.harness_one_time import CommerceHarness
from tests.providers.payments.receiving import facts, receive, states

# The body that Coinbase's own SDKs sign in their tests (providers.md 2.4).
VECTOR_BODY = (
    b'{"id":1,"scheduled_for":"2017-01-31T20:50:02Z","attempt_number":1,"event":{'
    b'"id":"24934862-d980-46cb-9402-43c81b0cdba6","type":"charge:created","api_version":"2018-03-22",'
    b'"created_at":"2017-01-31T20:49:02Z","data":{"code":"66BEOV2A","name":"The Sovereign Individual",'
    b'"description":"Mastering the Transition to the Information Age",'
    b'"hosted_url":"https://commerce.coinbase.com/charges/66BEOV2A","created_at":"2017-01-31T20:49:02Z",'
    b'"expires_at":"2017-01-31T21:04:02Z","timeline":[{"time":"2017-01-31T20:49:02Z","status":"NEW"}],'
    b'"metadata":{},"pricing_type":"no_price","payments":[],"addresses":{'
    b'"bitcoin":"0000000000000000000000000000000000","ethereum":"0x0000000000000000000000000000000000000000",'
    b'"litecoin":"3000000000000000000000000000000000",'
    b'"bitcoincash":"bitcoincash:000000000000000000000000000000000000000000"}}}}'
)
VECTOR_SECRET = "30291a20-0bd1-4267-9b0f-e6e7b123c0bf"
VECTOR_SIGNATURE = "8be7742c7d372f08a6a3224edadf18a22b65fa9e28f3f2de97376cdaa092590d"


def adapter(*secrets: str) -> CoinbaseCommerceProvider:
    return CoinbaseCommerceProvider(HttpClient(clock=FixedClock()), api_key="x", webhook_secrets=secrets)


class TestSignature:
    """Whose webhooks are believed."""

    def test_the_official_vector(self) -> None:
        headers = {"X-CC-Webhook-Signature": VECTOR_SIGNATURE}

        event = adapter(VECTOR_SECRET).verify(body=VECTOR_BODY, headers=headers, now=NOW)

        assert event.event_id == "24934862-d980-46cb-9402-43c81b0cdba6"
        assert (event.type, event.occurred_at.isoformat()) == ("charge:created", "2017-01-31T20:49:02+00:00")
        # It is a donation, which nobody asked for.
        assert adapter(VECTOR_SECRET).to_fetch(event) is None
        # A charge of those days has a code and no id; both lead to it.
        event.payload["event"]["data"]["pricing_type"] = "fixed_price"  # type: ignore[index]
        assert adapter(VECTOR_SECRET).to_fetch(event) == "66BEOV2A"
        with pytest.raises(BadSignature):
            adapter(VECTOR_SECRET).verify(body=VECTOR_BODY + b"\n", headers=headers, now=NOW)

    @pytest.mark.parametrize("secrets", [(VECTOR_SECRET, "new"), ("new", VECTOR_SECRET)])
    def test_a_secret_can_be_rolled(self, secrets: tuple[str, ...]) -> None:
        headers = {"X-CC-Webhook-Signature": VECTOR_SIGNATURE.upper()}

        assert adapter(*secrets).verify(body=VECTOR_BODY, headers=headers, now=NOW).type == "charge:created"

    def test_without_a_secret_nothing_is_believed(self) -> None:
        with pytest.raises(BadSignature) as refused:
            adapter().verify(body=VECTOR_BODY, headers={"X-CC-Webhook-Signature": VECTOR_SIGNATURE}, now=NOW)

        assert refused.value.fault is SignatureFault.NOT_CONFIGURED

    async def test_another_attempt_is_the_same_event(self, coinbase_commerce: CommerceHarness) -> None:
        created = await coinbase_commerce.provider.create_checkout(request())
        event, *_ = coinbase_commerce.fake.pay(created.session_id)

        first = await receive(coinbase_commerce, coinbase_commerce.fake.deliver(event))
        second = await receive(coinbase_commerce, coinbase_commerce.fake.deliver(event, attempt=2))

        assert first.event_id == second.event_id
        assert first.payload["id"] != second.payload["id"]


class TestMoney:
    """Money that is not what was asked (providers.md 1.2)."""

    @pytest.mark.parametrize(
        ("amount", "status", "overpaid"),
        [("49.98", PaymentStatus.UNDERPAID, "0"), ("50.00", PaymentStatus.PAID, "0.01")],
    )
    async def test_amounts_decide(
        self, coinbase_commerce: CommerceHarness, amount: str, status: PaymentStatus, overpaid: str
    ) -> None:
        created = await coinbase_commerce.provider.create_invoice(invoice_request())
        events = coinbase_commerce.fake.pay(created.session_id, amount)

        found = await states(coinbase_commerce, [coinbase_commerce.fake.deliver(event) for event in events])

        assert {state.status for state in found} == {status}
        assert {(state.received, state.overpaid) for state in found} == {(Decimal(amount), Decimal(overpaid))}

    async def test_late_money_is_told_as_late(self, coinbase_commerce: CommerceHarness) -> None:
        created = await coinbase_commerce.provider.create_invoice(invoice_request())
        coinbase_commerce.fake.expire(created.session_id)
        coinbase_commerce.fake.pay_late(created.session_id)

        state = await coinbase_commerce.provider.fetch_payment(created.session_id)

        assert state is not None
        assert (state.status, state.is_late) == (PaymentStatus.PAID, True)
        assert state.provider_status == "UNRESOLVED/DELAYED"

    async def test_what_an_operator_resolved_is_paid(self, coinbase_commerce: CommerceHarness) -> None:
        created = await coinbase_commerce.provider.create_invoice(invoice_request())
        coinbase_commerce.fake.pay(created.session_id, "49.00")
        coinbase_commerce.fake.resolve(created.session_id)

        state = await coinbase_commerce.provider.fetch_payment(created.session_id)

        assert state is not None
        assert (state.status, state.received, state.overpaid) == (PaymentStatus.PAID, Decimal("49.99"), Decimal(0))

    async def test_unconfirmed_money_buys_nothing(self, coinbase_commerce: CommerceHarness) -> None:
        created = await coinbase_commerce.provider.create_invoice(invoice_request())
        coinbase_commerce.fake.see(created.session_id)

        state = await coinbase_commerce.provider.fetch_payment(created.session_id)

        assert state is not None
        assert (state.status, state.received) == (PaymentStatus.PROCESSING, Decimal("49.99"))
        with pytest.raises(ProviderRejected):
            await coinbase_commerce.provider.withdraw(created.session_id)

    async def test_a_transfer_that_failed_counts_for_nothing(self, coinbase_commerce: CommerceHarness) -> None:
        created = await coinbase_commerce.provider.create_invoice(invoice_request())
        coinbase_commerce.fake.see(created.session_id)
        charge = coinbase_commerce.fake.charges[created.session_id]
        charge["payments"][0]["status"] = "failed"
        coinbase_commerce.fake.fail(created.session_id)

        state = await coinbase_commerce.provider.fetch_payment(created.session_id)

        assert state is not None
        assert (state.status, state.received) == (PaymentStatus.FAILED, Decimal(0))


async def test_a_donation_is_nothing_of_ours(coinbase_commerce: CommerceHarness) -> None:
    body = json.dumps_text({"data": {"id": "c1", "pricing_type": "no_price", "metadata": {}, "timeline": []}})
    coinbase_commerce.fake.faults.append(Fault(status=200, body=body))

    assert await coinbase_commerce.provider.fetch_payment("c1") is None


async def test_somebody_elses_charge_gives_no_facts(coinbase_commerce: CommerceHarness) -> None:
    created = await coinbase_commerce.provider.create_checkout(request())
    coinbase_commerce.fake.charges[created.session_id]["metadata"] = {"order_id": "17"}

    assert await facts(coinbase_commerce, coinbase_commerce.paid(created)) == []


async def test_a_charge_that_a_lost_answer_hid_is_found_again(coinbase_commerce: CommerceHarness) -> None:
    asked = request()
    first = await coinbase_commerce.provider.create_checkout(asked)
    for _ in range(5):
        await coinbase_commerce.provider.create_checkout(request())

    assert (await coinbase_commerce.provider.create_checkout(asked)).session_id == first.session_id
