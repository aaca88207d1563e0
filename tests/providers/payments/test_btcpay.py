"""BTCPay beyond the contract suite: the cases of providers.md 1.2, flags that lie, and servers of two ages."""

import itertools
from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import uuid4

import pytest

from providers.http import HttpClient
from providers.payments import (
    BadSignature,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutPending,
    PaymentState,
    PaymentStatus,
    ProviderRejected,
    RefundRequest,
    RefundStatus,
    SignatureFault,
)
from providers.payments.btcpay import BtcPayProvider
from tests.fakes.btcpay_api import FakeBtcPay
from tests.fakes.server import Obj
from tests.providers.payments.harness import NOW, FixedClock, invoice_request, request
from tests.providers.payments.harness_one_time import BtcPayHarness
from tests.providers.payments.receiving import facts, receive

# providers.md 2.5, after the pattern of BTCPay Server's own WebhooksTests.cs.
VECTOR_BODY = b'{"type":"InvoiceSettled","invoiceId":"abc","storeId":"s1"}'
VECTOR_SIGNATURE = "sha256=f096efc988e666bdc236fedc961eb1befc359af951abca3652b109cffd1196a9"

HOUR = 3600
LATE = int(NOW.timestamp()) + 2 * HOUR


def adapter(*secrets: str) -> BtcPayProvider:
    return BtcPayProvider(
        HttpClient(clock=FixedClock()), base_url="https://x", api_key="k", store_id="s1", webhook_secrets=secrets
    )


@pytest.fixture
async def older() -> AsyncIterator[BtcPayHarness]:
    """A server of before 2.4."""
    async with FakeBtcPay(clock=NOW.timestamp, is_older=True) as fake:
        harness = BtcPayHarness(fake)
        yield harness
        await harness.close()


async def opened(btcpay: BtcPayHarness) -> str:
    return (await btcpay.provider.create_checkout(request())).session_id


async def state_of(btcpay: BtcPayHarness, invoice_id: str) -> PaymentState:
    state = await btcpay.provider.fetch_payment(invoice_id)
    assert state is not None
    return state


def contents(btcpay: BtcPayHarness, events: list[Obj]) -> list[bytes]:
    return [btcpay.fake.encode(event) for event in events]


class TestSignature:
    """Whose webhooks are believed."""

    def test_the_known_vector(self) -> None:
        # The signature holds, so what is missed is the delivery's id, which that body does not have.
        with pytest.raises(Exception, match="missing required fields"):
            adapter("old", "HelloWorld").verify(body=VECTOR_BODY, headers={"btcpay-sig": VECTOR_SIGNATURE}, now=NOW)
        with pytest.raises(BadSignature):
            adapter("HelloWorld").verify(body=VECTOR_BODY + b"\n", headers={"BTCPay-Sig": VECTOR_SIGNATURE}, now=NOW)

    def test_the_fake_signs_it_too(self) -> None:
        assert FakeBtcPay().sign(VECTOR_BODY) == VECTOR_SIGNATURE

    def test_the_prefix_belongs_to_it(self) -> None:
        with pytest.raises(BadSignature) as refused:
            adapter("HelloWorld").verify(
                body=VECTOR_BODY, headers={"BTCPay-Sig": VECTOR_SIGNATURE.removeprefix("sha256=")}, now=NOW
            )
        assert refused.value.fault is SignatureFault.INVALID_HEADER

    def test_without_a_secret_nothing_is_believed(self) -> None:
        with pytest.raises(BadSignature) as refused:
            adapter().verify(body=VECTOR_BODY, headers={"BTCPay-Sig": VECTOR_SIGNATURE}, now=NOW)
        assert refused.value.fault is SignatureFault.NOT_CONFIGURED

    async def test_a_redelivery_is_the_same_event(self, btcpay: BtcPayHarness) -> None:
        event = btcpay.fake.pay(await opened(btcpay))[0]

        first = await receive(btcpay, btcpay.fake.encode(event))
        second = await receive(btcpay, btcpay.fake.encode(btcpay.fake.redeliver(event)))

        assert first.event_id == second.event_id
        assert first.payload["deliveryId"] != second.payload["deliveryId"]


class TestTable:
    """The table of providers.md 1.2."""

    async def test_underpaid_in_time_then_topped_up(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        first = btcpay.fake.pay(invoice_id, "0.4")
        part = await state_of(btcpay, invoice_id)
        second = btcpay.fake.pay(invoice_id, "0.6")
        whole = await state_of(btcpay, invoice_id)

        assert (part.status, part.received) == (PaymentStatus.PENDING, Decimal("20.00"))
        assert (whole.status, whole.received, whole.is_late) == (PaymentStatus.PAID, Decimal("49.99"), False)
        found = await facts(btcpay, contents(btcpay, first + second))
        assert {type(fact) for fact in found} == {CheckoutPaid}

    async def test_underpaid_and_expired(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        events = btcpay.fake.pay(invoice_id, "0.5") + btcpay.fake.expire(invoice_id)

        state = await state_of(btcpay, invoice_id)

        assert (state.status, state.provider_status) == (PaymentStatus.UNDERPAID, "Expired/PaidPartial")
        assert (state.received, state.overpaid) == (Decimal("25.00"), Decimal(0))
        assert {type(fact) for fact in await facts(btcpay, contents(btcpay, events))} == {CheckoutExpired}

    async def test_expired_then_paid_in_full_late(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        events = btcpay.fake.expire(invoice_id)
        before = await state_of(btcpay, invoice_id)
        events += btcpay.fake.pay(invoice_id, at=LATE, certain=False)
        seen = await state_of(btcpay, invoice_id)
        events += btcpay.fake.confirm(invoice_id)
        after = await state_of(btcpay, invoice_id)

        assert not [event for event in events if event["type"] == "InvoiceSettled"]
        assert (before.status, before.is_late) == (PaymentStatus.EXPIRED, False)
        assert (seen.status, seen.is_late) == (PaymentStatus.PROCESSING, True)
        assert (after.status, after.is_late, after.received) == (PaymentStatus.PAID, True, Decimal("49.99"))
        assert after.changed_at.timestamp() == LATE

    async def test_underpaid_then_the_rest_late(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        btcpay.fake.pay(invoice_id, "0.5")
        btcpay.fake.expire(invoice_id)
        btcpay.fake.pay(invoice_id, "0.5", at=LATE)

        state = await state_of(btcpay, invoice_id)

        assert (state.status, state.is_late) == (PaymentStatus.PAID, True)

    async def test_overpaid(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        events = btcpay.fake.pay(invoice_id, "1.5")

        state = await state_of(btcpay, invoice_id)

        assert state.status is PaymentStatus.PAID
        assert state.overpaid == Decimal("25.00")
        (paid, *_) = [fact for fact in await facts(btcpay, contents(btcpay, events)) if isinstance(fact, CheckoutPaid)]
        assert paid.amount == Decimal("49.99")

    async def test_overpaid_late(self, btcpay: BtcPayHarness) -> None:
        # The server's flag says nothing of it (#4146).
        invoice_id = await opened(btcpay)
        btcpay.fake.expire(invoice_id)
        btcpay.fake.pay(invoice_id, "2", at=LATE)

        state = await state_of(btcpay, invoice_id)

        assert (state.status, state.is_late, state.overpaid) == (PaymentStatus.PAID, True, Decimal("49.99"))

    async def test_replaced_or_never_confirmed(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        seen = await facts(btcpay, contents(btcpay, btcpay.fake.pay(invoice_id, certain=False)))
        lost = await facts(btcpay, contents(btcpay, btcpay.fake.invalidate(invoice_id)))

        assert {type(fact) for fact in seen} == {CheckoutPending}
        assert {type(fact) for fact in lost} == {CheckoutFailed}
        assert (await state_of(btcpay, invoice_id)).received == 0

    async def test_two_invoices_of_one_order_are_two_payments(self, btcpay: BtcPayHarness) -> None:
        asked = request()
        first = await btcpay.provider.create_checkout(asked)
        # Two first requests at once may both find nothing; the server then holds two.
        twin = {**btcpay.fake.invoices[first.session_id], "id": "twin"}
        btcpay.fake.invoices["twin"] = twin
        btcpay.fake._payments["twin"] = []
        btcpay.fake.pay(first.session_id)
        btcpay.fake.pay("twin")

        one, other = await state_of(btcpay, first.session_id), await state_of(btcpay, "twin")

        assert one.tags == other.tags
        assert one.payment_key != other.payment_key
        assert (one.status, other.status) == (PaymentStatus.PAID, PaymentStatus.PAID)

    async def test_an_operators_word_counts(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        btcpay.fake.mark_settled(invoice_id)

        state = await state_of(btcpay, invoice_id)

        assert (state.status, state.received) == (PaymentStatus.PAID, Decimal("49.99"))

    async def test_every_order_of_arrival_ends_in_the_same_place(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        events = btcpay.fake.expire(invoice_id) + btcpay.fake.pay(invoice_id, at=LATE)
        assert len(events) == 4
        ends = set()
        for order in itertools.permutations(contents(btcpay, events)):
            found = await facts(btcpay, list(order))
            ends.add(frozenset((type(fact), fact.occurred_at) for fact in found))

        assert len(ends) == 1


class TestServers:
    """Servers of different ages, and other stores on them."""

    async def test_an_older_server_knows_invoices_below_their_store(self, older: BtcPayHarness) -> None:
        invoice_id = await opened(older)
        older.fake.pay(invoice_id)

        assert (await state_of(older, invoice_id)).status is PaymentStatus.PAID
        older.fake.requests.clear()
        assert await older.provider.fetch_payment("unknown") is None
        # Once it is known, nobody asks at the other address again.
        assert [seen.path.split("/")[3] for seen in older.fake.requests] == ["stores"]

    async def test_another_stores_invoice_is_not_ours(self, btcpay: BtcPayHarness) -> None:
        invoice_id = await opened(btcpay)
        event = {**btcpay.fake.pay(invoice_id)[0], "storeId": "another"}
        btcpay.fake.invoices[invoice_id]["storeId"] = "another"

        assert btcpay.provider.to_fetch(await receive(btcpay, btcpay.fake.encode(event))) is None
        assert await btcpay.provider.fetch_payment(invoice_id) is None

    async def test_what_is_asked_for(self, btcpay: BtcPayHarness) -> None:
        asked = request(amount="990", currency="rub")

        invoice_id = (await btcpay.provider.create_checkout(asked)).session_id

        assert btcpay.fake.requests[-1].params == {
            "amount": "990.00",
            "currency": "RUB",
            "metadata": {
                "orderId": str(asked.checkout_id),
                "itemDesc": asked.plan_name,
                "buyerEmail": "owner@example.com",
                "order_id": str(asked.checkout_id),
                "tenant_id": str(asked.tenant_id),
                "plan_id": str(asked.plan_id),
                "billing_period": "yearly",
            },
            "checkout": {
                "expirationMinutes": 60,
                "redirectURL": asked.success_url,
                "redirectAutomatically": False,
            },
        }
        assert invoice_id in btcpay.fake.invoices


class TestRefund:
    """Refunds are promises that the payer claims."""

    def refund(self, session_id: str, amount: str) -> RefundRequest:
        return RefundRequest(
            refund_id=uuid4(),
            session_id=session_id,
            payment_ref=None,
            amount=Decimal(amount),
            currency="USD",
            refunded_before=Decimal(0),
        )

    async def test_the_payer_is_told_where_to_claim_it(self, btcpay: BtcPayHarness) -> None:
        created = await btcpay.provider.create_invoice(invoice_request())
        btcpay.fake.pay(created.session_id)

        made = await btcpay.provider.refund(self.refund(created.session_id, "20.00"))

        assert made.status is RefundStatus.PENDING
        assert made.claim_url is not None
        assert made.claim_url.endswith(made.refund_ref)
        assert btcpay.fake.requests[-1].params["payoutMethodId"] == "BTC-CHAIN"

    async def test_what_came_short_can_go_back(self, btcpay: BtcPayHarness) -> None:
        created = await btcpay.provider.create_invoice(invoice_request())
        btcpay.fake.pay(created.session_id, "0.5")
        btcpay.fake.expire(created.session_id)

        assert (await btcpay.provider.refund(self.refund(created.session_id, "25.00"))).amount == Decimal("25.00")
        with pytest.raises(ProviderRejected):
            await btcpay.provider.refund(self.refund(created.session_id, "25.01"))


async def test_what_is_being_paid_is_not_withdrawn(btcpay: BtcPayHarness) -> None:
    invoice_id = await opened(btcpay)
    btcpay.fake.pay(invoice_id, "0.1")

    with pytest.raises(ProviderRejected) as refused:
        await btcpay.provider.withdraw(invoice_id)

    assert refused.value.details == {"reason": "being_paid"}
