"""PayPal beyond the contract suite: captures, disputes, and its own decimals."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from providers.payments import (
    CheckoutFailed,
    CheckoutPaid,
    CheckoutPending,
    DisputeClosed,
    DisputeOpened,
    PaymentRefunded,
    PaymentStatus,
    ProviderRejected,
    ProviderUnavailable,
    RefundRequest,
    settle_payment,
)
from providers.payments.paypal import PayPalProvider
from tests.fakes.server import Fault, Obj
from tests.providers.payments.harness import invoice_request, request
from tests.providers.payments.harness_one_time import PayPalHarness
from tests.providers.payments.receiving import facts


def contents(paypal: PayPalHarness, events: list[Obj]) -> list[bytes]:
    return [paypal.fake.encode(event) for event in events]


class TestCapture:
    """Approved is not paid."""

    async def test_the_money_is_taken_when_the_approval_is_told(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        before = await paypal.provider.fetch_payment(created.session_id)
        approved = contents(paypal, paypal.fake.approve(created.session_id))
        waiting = await paypal.provider.fetch_payment(created.session_id)

        found = await facts(paypal, approved)

        assert before is not None
        assert waiting is not None
        assert (before.status, waiting.status) == (PaymentStatus.PENDING, PaymentStatus.APPROVED)
        (paid,) = [fact for fact in found if isinstance(fact, CheckoutPaid)]
        assert (
            paid.payment_ref
            == paypal.fake.orders[created.session_id]["purchase_units"][0]["payments"]["captures"][0]["id"]
        )
        assert paid.customer_ref == "QYR5Z8XDVJNXQ"

    async def test_nobody_is_charged_twice(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        approved = contents(paypal, paypal.fake.approve(created.session_id))

        await facts(paypal, approved * 3)
        await paypal.provider.capture(created.session_id)

        captures = [seen for seen in paypal.fake.requests if seen.path.endswith("/capture")]
        assert len(captures) == 1

    async def test_somebody_who_was_faster_is_as_good(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        paypal.fake.approve(created.session_id)
        stale = dict(paypal.fake.orders[created.session_id])
        paypal.fake.capture(created.session_id)
        # Our own look at the order was a moment too early.
        paypal.fake.faults.extend([Fault(), Fault(status=200, body=paypal.fake.encode(stale).decode())])

        state = await paypal.patient().capture(created.session_id)

        assert state.status is PaymentStatus.PAID

    async def test_a_declined_payer_may_try_again(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        approved = contents(paypal, paypal.fake.approve(created.session_id))
        paypal.fake.decline_next = True

        assert await facts(paypal, approved) == []
        with pytest.raises(ProviderRejected) as refused:
            paypal.fake.decline_next = True
            await paypal.provider.capture(created.session_id)
        assert refused.value.details == {"reason": "INSTRUMENT_DECLINED"}
        assert [type(fact) for fact in await facts(paypal, approved)] == [CheckoutPaid]

    async def test_somebody_elses_order_is_left_to_them(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        paypal.fake.orders[created.session_id]["purchase_units"][0]["custom_id"] = "their own"
        approved = contents(paypal, paypal.fake.approve(created.session_id))

        assert await facts(paypal, approved) == []
        assert not [seen for seen in paypal.fake.requests if seen.path.endswith("/capture")]

    async def test_one_invoice_is_paid_once(self, paypal: PayPalHarness) -> None:
        asked = invoice_request()
        first = await paypal.provider.create_invoice(asked)
        # PayPal forgets our keys after some hours, and a second order for the same invoice can be made.
        paypal.fake._replays.clear()
        second = await paypal.provider.create_invoice(asked)
        for created in (first, second):
            paypal.fake.approve(created.session_id)
        await settle_payment(paypal.provider, first.session_id)

        with pytest.raises(ProviderRejected) as refused:
            await paypal.provider.capture(second.session_id)

        assert refused.value.details == {"reason": "DUPLICATE_INVOICE_ID"}

    @pytest.mark.parametrize("arrives", [True, False])
    async def test_money_that_is_held_buys_nothing_yet(self, paypal: PayPalHarness, *, arrives: bool) -> None:
        created = await paypal.provider.create_checkout(request())
        paypal.fake.hold_next = True
        held = await facts(paypal, contents(paypal, paypal.fake.approve(created.session_id)))

        decided = await facts(paypal, contents(paypal, paypal.fake.decide(created.session_id, arrives=arrives)))

        assert [type(fact) for fact in held] == [CheckoutPending]
        assert [type(fact) for fact in decided] == [CheckoutPaid if arrives else CheckoutFailed]


class TestEvents:
    """What leads where."""

    async def test_a_refund_leads_to_its_order(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        await facts(paypal, contents(paypal, paypal.fake.approve(created.session_id)))
        await paypal.provider.refund(
            RefundRequest(
                refund_id=uuid4(),
                session_id=created.session_id,
                payment_ref=None,
                amount=Decimal("9.99"),
                currency="USD",
                refunded_before=Decimal(0),
            )
        )
        (told,) = [event for event in paypal.fake.events if event["event_type"] == "PAYMENT.CAPTURE.REFUNDED"]

        found = await facts(paypal, contents(paypal, [told]))

        assert [type(fact) for fact in found] == [CheckoutPaid, PaymentRefunded]
        (refund,) = [fact for fact in found if isinstance(fact, PaymentRefunded)]
        assert (refund.refunded_total, refund.charged) == (Decimal("9.99"), Decimal("49.99"))

    async def test_a_capture_without_its_order_leads_to_it_all_the_same(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        paypal.fake.approve(created.session_id)
        (event,) = paypal.fake.capture(created.session_id)
        del event["resource"]["supplementary_data"]

        found = await facts(paypal, contents(paypal, [event]))

        assert [type(fact) for fact in found] == [CheckoutPaid]

    async def test_a_capture_of_no_order_is_nothing_of_ours(self, paypal: PayPalHarness) -> None:
        event = {
            "id": "WH-1",
            "event_type": "PAYMENT.CAPTURE.COMPLETED",
            "resource": {"id": "8MC585209K746392H"},
        }
        assert await facts(paypal, [paypal.fake.encode(event)]) == []

    async def test_a_reversal_takes_all_of_it_back(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        await facts(paypal, contents(paypal, paypal.fake.approve(created.session_id)))

        found = await facts(paypal, contents(paypal, paypal.fake.reverse(created.session_id)))

        (refund,) = [fact for fact in found if isinstance(fact, PaymentRefunded)]
        assert refund.refunded_total == Decimal("49.99")

    @pytest.mark.parametrize(
        ("code", "outcome"),
        [
            ("RESOLVED_BUYER_FAVOUR", "lost"),
            ("RESOLVED_SELLER_FAVOUR", "won"),
            ("RESOLVED_WITH_PAYOUT", "won"),
            ("CANCELED_BY_BUYER", "won"),
            ("ACCEPTED", "lost"),
        ],
    )
    async def test_disputes_name_their_payment(self, paypal: PayPalHarness, code: str, outcome: str) -> None:
        created = await paypal.provider.create_checkout(request())
        (paid, *_) = await facts(paypal, contents(paypal, paypal.fake.approve(created.session_id)))
        assert isinstance(paid, CheckoutPaid)
        events = paypal.fake.dispute(created.session_id) + paypal.fake.dispute(created.session_id, outcome=code)

        opened, closed = await facts(paypal, contents(paypal, events))

        assert isinstance(opened, DisputeOpened)
        assert isinstance(closed, DisputeClosed)
        assert opened.payment_ref == closed.payment_ref == paid.payment_ref
        assert opened.dispute_ref == closed.dispute_ref
        assert (opened.amount, opened.currency, opened.inquiry) == (Decimal("49.99"), "USD", False)
        assert closed.outcome == outcome

    async def test_an_inquiry_only_asks(self, paypal: PayPalHarness) -> None:
        created = await paypal.provider.create_checkout(request())
        await facts(paypal, contents(paypal, paypal.fake.approve(created.session_id)))

        (opened,) = await facts(paypal, contents(paypal, paypal.fake.dispute(created.session_id, stage="INQUIRY")))

        assert isinstance(opened, DisputeOpened)
        assert opened.inquiry


class TestWire:
    """The requests, as PayPal sees them."""

    async def test_an_order_carries_everything(self, paypal: PayPalHarness) -> None:
        asked = request()

        created = await paypal.provider.create_checkout(asked)

        token, order = paypal.fake.requests
        assert token.body == "grant_type=client_credentials"
        assert order.headers["PayPal-Request-Id"] == f"order-{asked.checkout_id}"
        assert order.headers["Prefer"] == "return=representation"
        (unit,) = order.params["purchase_units"]
        assert unit["invoice_id"] == str(asked.checkout_id)
        assert unit["amount"] == {"currency_code": "USD", "value": "49.99"}
        assert len(unit["custom_id"]) <= 127
        context = order.params["payment_source"]["paypal"]["experience_context"]
        assert (context["return_url"], context["cancel_url"]) == (asked.success_url, asked.cancel_url)
        assert created.url.endswith(created.session_id)

    @pytest.mark.parametrize(("amount", "currency", "value"), [("4900", "JPY", "4900"), ("1200.00", "HUF", "1200")])
    async def test_it_has_its_own_mind_of_decimals(
        self, paypal: PayPalHarness, amount: str, currency: str, value: str
    ) -> None:
        await paypal.provider.create_checkout(request(amount=amount, currency=currency))
        assert paypal.fake.requests[-1].params["purchase_units"][0]["amount"]["value"] == value

        with pytest.raises(ProviderRejected):
            await paypal.provider.create_checkout(request(amount="0.50", currency="HUF"))

    async def test_a_token_serves_until_it_runs_out(self, paypal: PayPalHarness) -> None:
        for _ in range(3):
            await paypal.provider.create_checkout(request())
        assert len(paypal.fake.tokens) == 1
        paypal.clock.at += timedelta(seconds=31_668)

        await paypal.provider.create_checkout(request())

        assert len(paypal.fake.tokens) == 2

    async def test_a_token_that_was_revoked_is_replaced(self, paypal: PayPalHarness) -> None:
        await paypal.provider.create_checkout(request())
        paypal.fake.tokens.clear()

        await paypal.provider.create_checkout(request())

        assert len(paypal.fake.orders) == 2

    async def test_wrong_credentials_need_an_operator(self, paypal: PayPalHarness) -> None:
        stranger = PayPalProvider(
            paypal.client(),
            client_id="a",
            client_secret="b",
            webhook_ids=(),
            clock=paypal.clock,
            api_base=paypal.fake.base_url,
        )
        with pytest.raises(ProviderUnavailable) as failed:
            await stranger.create_checkout(request())

        assert not failed.value.retryable
