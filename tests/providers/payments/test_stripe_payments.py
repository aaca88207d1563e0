"""Stripe's single payments: what is asked for, fetched and given back."""

from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest

from providers.payments import (
    CheckoutPaid,
    Fee,
    PaymentRefunded,
    PaymentStatus,
    ProviderRejected,
    RefundRequest,
    RefundStatus,
    facts_of_payment,
)
from providers.payments.facts import Source
from providers.payments.stripe_adapter import StripeProvider
from tests.providers.payments.harness import NOW, StripeHarness, invoice_request, request
from tests.providers.payments.receiving import facts, receive, states
from tests.providers.payments.stripe_story import event_of


def refund_of(session_id: str, amount: str = "10.00", payment_ref: str | None = None) -> RefundRequest:
    return RefundRequest(
        refund_id=uuid4(),
        session_id=session_id,
        payment_ref=payment_ref,
        amount=Decimal(amount),
        currency="USD",
        refunded_before=Decimal(0),
    )


class TestInvoice:
    """One payment."""

    async def test_is_one_form_with_everything(self, stripe: StripeHarness) -> None:
        asked = invoice_request(amount="500", currency="JPY")

        await stripe.provider.create_invoice(asked)

        (seen,) = stripe.fake.requests
        ids = {"order_id": str(asked.invoice_id), "tenant_id": str(asked.tenant_id)}
        assert seen.headers["Idempotency-Key"] == f"invoice-{asked.invoice_id}"
        assert seen.params == {
            "mode": "payment",
            "line_items": [
                {
                    "quantity": "1",
                    "price_data": {
                        "currency": "jpy",
                        "unit_amount": "500",
                        "product_data": {"name": "Order 17: «Чай» & more"},
                    },
                }
            ],
            "client_reference_id": str(asked.invoice_id),
            "metadata": ids,
            "payment_intent_data": {"metadata": ids},
            "success_url": asked.success_url,
            "cancel_url": asked.cancel_url,
            "customer_email": "buyer@example.com",
        }

    async def test_without_an_address_there_is_none(self, stripe: StripeHarness) -> None:
        await stripe.provider.create_invoice(replace(invoice_request(), customer_email=None))

        assert "customer_email" not in stripe.fake.requests[0].params

    async def test_its_refund_leads_to_it(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_invoice(invoice_request())
        paid = stripe.fake.pay_checkout(created.session_id)
        events = stripe.fake.refund(event_of(paid, "charge.succeeded")["data"]["object"]["id"], 999)
        content = stripe.fake.encode(events[0])

        (state,) = await states(stripe, [content])

        assert (state.session_id, state.refunded) == (created.session_id, Decimal("9.99"))
        # Nobody's subscription was refunded.
        assert await facts(stripe, [content]) == []

    async def test_a_live_key_looks_at_no_test_payment(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_invoice(invoice_request())
        (event,) = [
            await receive(stripe, stripe.fake.encode(event))
            for event in stripe.fake.pay_checkout(created.session_id)
            if event["type"] == "checkout.session.completed"
        ]
        live = StripeProvider(secret_key="sk_live_x", webhook_secrets=())

        assert stripe.provider.to_fetch(event) == created.session_id
        assert live.to_fetch(event) is None
        await live.aclose()


class TestFetch:
    """A session's present state."""

    async def test_a_plans_state_tells_what_its_webhook_told(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())
        told = await facts(stripe, stripe.paid(created))

        state = await stripe.provider.fetch_payment(created.session_id)

        assert state is not None
        (by_webhook,) = [fact for fact in told if isinstance(fact, CheckoutPaid)]
        (by_fetch,) = facts_of_payment(state, Source(provider="stripe", event_id="x", occurred_at=NOW))
        assert isinstance(by_fetch, CheckoutPaid)
        # Its webhook knows neither by what it was paid nor what Stripe kept; another one tells.
        assert by_fetch == replace(by_webhook, event_id="x", payment_ref=by_fetch.payment_ref, fee=by_fetch.fee)
        assert by_fetch.fee == Fee(amount=Decimal("1.75"), currency="USD")
        assert by_fetch.payment_ref == stripe.fake.charges[next(iter(stripe.fake.charges))]["payment_intent"]

    async def test_refunds_of_a_plan_show(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())
        stripe.paid(created)
        stripe.fake.refund(next(iter(stripe.fake.charges)), 1000)

        state = await stripe.provider.fetch_payment(created.session_id)

        assert state is not None
        found = facts_of_payment(state, Source(provider="stripe", event_id="x", occurred_at=NOW))
        assert [fact.refunded_total for fact in found if isinstance(fact, PaymentRefunded)] == [Decimal("10.00")]

    async def test_slow_money_is_on_its_way(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())
        stripe.fake.pay_checkout(created.session_id, delayed=True)

        state = await stripe.provider.fetch_payment(created.session_id)

        assert state is not None
        assert (state.status, state.provider_status) == (PaymentStatus.PROCESSING, "complete/unpaid")

    async def test_sessions_of_others_have_no_tags(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())
        for metadata in ({}, {"tenant_id": "x"}, {"order_id": "17"}):
            stripe.fake.sessions[created.session_id]["metadata"] = metadata

            state = await stripe.provider.fetch_payment(created.session_id)

            assert state is not None
            assert state.tags is None

    async def test_a_payment_without_a_session_is_unknown(self, stripe: StripeHarness) -> None:
        assert await stripe.provider.fetch_payment("pi_unknown") is None

    async def test_play_money_says_so(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())

        state = await stripe.provider.fetch_payment(created.session_id)

        assert state is not None
        assert state.is_test


class TestRefund:
    """Giving back by the payment's own reference."""

    async def test_a_known_payment_is_not_looked_up(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_invoice(invoice_request())
        stripe.paid(created)
        payment_ref = next(iter(stripe.fake.payments))
        stripe.fake.requests.clear()
        asked = refund_of(created.session_id, payment_ref=payment_ref)

        made = await stripe.provider.refund(asked)

        (seen,) = stripe.fake.requests
        assert seen.headers["Idempotency-Key"] == f"refund-{asked.refund_id}"
        assert seen.params == {
            "payment_intent": payment_ref,
            "amount": "1000",
            "metadata": {"refund_id": str(asked.refund_id)},
        }
        assert (made.status, made.amount) == (RefundStatus.SUCCEEDED, Decimal("10.00"))

    async def test_the_first_payment_of_a_plan_is_found_by_its_invoice(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())
        stripe.paid(created)

        made = await stripe.provider.refund(refund_of(created.session_id))

        assert made.amount == Decimal("10.00")

    async def test_what_went_back_already_does_not_go_back_again(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_invoice(invoice_request())
        stripe.paid(created)
        await stripe.provider.refund(refund_of(created.session_id, "49.99"))

        with pytest.raises(ProviderRejected) as refused:
            await stripe.provider.refund(refund_of(created.session_id, "1.00"))

        assert refused.value.details == {"reason": "charge_already_refunded"}
