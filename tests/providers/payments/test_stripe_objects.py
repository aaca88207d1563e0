"""Sessions and invoices of every shape: of older API versions, expanded, other people's, garbled."""

import copy
from decimal import Decimal

import pytest

from providers.payments import BadPayload, BillingReason, CheckoutPaid, InvoicePaid, Purchase
from tests.providers.payments.harness import NOW, PLAN, TENANT, StripeHarness
from tests.providers.payments.stripe_story import event_of, paid_checkout, read


class TestSessions:
    """Checkouts that are ours, are not, or are garbled."""

    @pytest.mark.parametrize("kind", ["completed", "async_payment_succeeded", "async_payment_failed", "expired"])
    async def test_other_peoples_sessions_are_ignored(self, stripe: StripeHarness, kind: str) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "checkout.session.completed") | {"type": f"checkout.session.{kind}"}

        for metadata in (None, {}, {"order": "7"}):
            event["data"]["object"]["metadata"] = metadata
            assert read(stripe, [event]) == []

    async def test_sessions_of_the_system_before_have_no_checkout_id(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "checkout.session.completed")
        del event["data"]["object"]["metadata"]["checkout_id"]

        (paid,) = read(stripe, [event])

        assert isinstance(paid, CheckoutPaid)
        assert paid.purchase == Purchase(checkout_id=None, tenant_id=TENANT, plan_id=PLAN, billing_period="yearly")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("tenant_id", "42"),
            ("plan_id", None),
            ("plan_id", "gold"),
            ("checkout_id", "1"),
            ("billing_period", "weekly"),
            ("billing_period", None),
        ],
    )
    async def test_a_garbled_one_is_refused(self, stripe: StripeHarness, key: str, value: str | None) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "checkout.session.completed")
        event["data"]["object"]["metadata"][key] = value

        with pytest.raises(BadPayload, match=f"metadata.{key}"):
            read(stripe, [event])

    async def test_without_its_payment_status_it_is_not_taken_for_paid(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "checkout.session.completed")
        del event["data"]["object"]["payment_status"]

        with pytest.raises(BadPayload, match="payment_status is missing"):
            read(stripe, [event])

    async def test_a_free_checkout_counts_as_paid(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "checkout.session.completed")
        event["data"]["object"].update(payment_status="no_payment_required", amount_total=0, invoice=None)

        (paid,) = read(stripe, [event])

        assert isinstance(paid, CheckoutPaid)
        assert paid.amount == 0
        assert paid.payment_key == paid.session_id

    async def test_expanded_references_and_the_other_amount(self, stripe: StripeHarness) -> None:
        events, subscription = await paid_checkout(stripe)
        event = event_of(events, "checkout.session.completed")
        session = event["data"]["object"]
        session["amount_paid"] = session.pop("amount_total")
        session["subscription"] = subscription
        session["payment_intent"] = {"id": "pi_1", "object": "payment_intent"}

        (paid,) = read(stripe, [event])

        assert isinstance(paid, CheckoutPaid)
        assert paid.subscription_ref == subscription["id"]
        assert paid.payment_ref == "pi_1"
        assert paid.payment_key == paid.invoice_ref
        assert paid.amount == Decimal("49.99")

    async def test_without_an_invoice_the_payment_is_the_key(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "checkout.session.completed")
        event["data"]["object"].update(invoice=None, payment_intent="pi_1")

        (paid,) = read(stripe, [event])

        assert isinstance(paid, CheckoutPaid)
        assert paid.payment_key == "pi_1"


class TestInvoices:
    """Invoices of every shape."""

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("subscription_create", "start"),
            ("subscription_cycle", "renewal"),
            ("subscription_update", "change"),
            ("manual", "other"),
            (None, "other"),
        ],
    )
    async def test_reasons(self, stripe: StripeHarness, theirs: str | None, ours: BillingReason) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "invoice.paid")
        event["data"]["object"]["billing_reason"] = theirs

        (paid,) = read(stripe, [event])

        assert isinstance(paid, InvoicePaid)
        assert paid.billing_reason == ours

    @pytest.mark.parametrize("kind", ["invoice.paid", "invoice.payment_failed"])
    async def test_an_invoice_of_no_subscription_is_not_ours(self, stripe: StripeHarness, kind: str) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "invoice.paid") | {"type": kind}
        event["data"]["object"]["parent"] = None

        assert read(stripe, [event]) == []

    async def test_the_shape_before_basil(self, stripe: StripeHarness) -> None:
        events, subscription = await paid_checkout(stripe)
        event = event_of(events, "invoice.paid")
        invoice = event["data"]["object"]
        details = invoice.pop("parent")["subscription_details"]
        invoice["subscription"] = details["subscription"]
        invoice["subscription_details"] = {"metadata": details["metadata"]}
        invoice["payment_intent"] = "pi_1"
        invoice["charge"] = "ch_1"
        line = invoice["lines"]["data"][0]
        del line["parent"]
        line["type"] = "subscription"

        (paid,) = read(stripe, [event])

        assert isinstance(paid, InvoicePaid)
        assert paid.subscription_ref == subscription["id"]
        assert paid.payment_ref == "pi_1"
        assert paid.purchase is not None
        assert paid.purchase.plan_id == PLAN
        assert paid.period_end == NOW.replace(year=2027)

    async def test_expanded_payments_name_the_payment(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        link = event_of(events, "invoice_payment.paid")["data"]["object"]
        event = event_of(events, "invoice.paid")
        event["data"]["object"]["payments"] = {"data": [link | {"status": "canceled", "payment": None}, link]}

        (paid,) = read(stripe, [event])

        assert isinstance(paid, InvoicePaid)
        assert paid.payment_ref == link["payment"]["payment_intent"]

    async def test_the_period_is_that_of_the_line_that_reaches_furthest(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "invoice.paid")
        lines = event["data"]["object"]["lines"]["data"]
        proration = copy.deepcopy(lines[0])
        # It begins last and ends first, as the rest of a period that a change of plan cut short does.
        proration["period"] = {"start": int(NOW.timestamp()) + 60, "end": int(NOW.timestamp()) + 120}
        extra = copy.deepcopy(lines[0])
        extra["parent"] = {"type": "invoice_item_details", "invoice_item_details": {}}
        extra["period"] = {"start": 1_700_000_000, "end": 4_000_000_000}
        lines[:] = [proration, *lines, extra]

        (paid,) = read(stripe, [event])

        assert isinstance(paid, InvoicePaid)
        assert (paid.period_start, paid.period_end) == (NOW, NOW.replace(year=2027))

    async def test_an_invoice_may_buy_no_period(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "invoice.paid")
        event["data"]["object"]["lines"] = None

        (paid,) = read(stripe, [event])

        assert isinstance(paid, InvoicePaid)
        assert (paid.period_start, paid.period_end) == (None, None)

    async def test_an_invoice_paid_outside_stripe_links_to_nothing(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "invoice_payment.paid")
        event["data"]["object"]["payment"] = {"type": "payment_record", "payment_record": "pr_1"}

        assert read(stripe, [event]) == []
