"""What Stripe's events are read as: the story of a subscription, told by the fake."""

from decimal import Decimal

import pytest

from core import json
from providers.payments import (
    BadPayload,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutPending,
    DisputeClosed,
    DisputeOpened,
    DisputeOutcome,
    InvoicePaid,
    InvoicePaymentFailed,
    PaymentLinked,
    PaymentRefunded,
    RefundFailed,
    SubscriptionChanged,
    SubscriptionEnded,
    SubscriptionStatus,
)
from providers.payments.facts import GoneBack
from tests.fakes import stripe_objects
from tests.providers.payments.harness import NOW, PLAN, TENANT, StripeHarness, request
from tests.providers.payments.stripe_story import event_of, moment, paid_checkout, read


class TestStory:
    """A subscription from its first payment to its end."""

    async def test_the_first_payment(self, stripe: StripeHarness) -> None:
        events, subscription = await paid_checkout(stripe)

        changed, invoiced, linked, paid = read(stripe, events)

        assert isinstance(changed, SubscriptionChanged)
        assert changed.state.status == "active"
        assert isinstance(invoiced, InvoicePaid)
        assert isinstance(linked, PaymentLinked)
        assert isinstance(paid, CheckoutPaid)
        assert paid.subscription_ref == invoiced.subscription_ref == subscription["id"]
        assert paid.customer_ref == invoiced.customer_ref == subscription["customer"]
        assert paid.payment_key == invoiced.payment_key == paid.invoice_ref == linked.invoice_ref
        assert paid.amount == invoiced.amount == Decimal("49.99")
        assert linked.payment_ref == stripe.fake.charge_of(subscription["id"])["payment_intent"]
        # Sessions in subscription mode and invoices of the pinned version do not name the payment.
        assert paid.payment_ref is None
        assert invoiced.payment_ref is None

    async def test_a_renewal_needs_no_metadata_of_the_session(self, stripe: StripeHarness) -> None:
        _, subscription = await paid_checkout(stripe)
        item = subscription["items"]["data"][0]
        ended = item["current_period_end"]

        invoiced, _, changed = read(stripe, stripe.fake.renew(subscription["id"]))

        assert isinstance(invoiced, InvoicePaid)
        assert invoiced.billing_reason == "renewal"
        assert invoiced.purchase is not None
        assert (invoiced.purchase.tenant_id, invoiced.purchase.plan_id) == (TENANT, PLAN)
        assert invoiced.purchase.billing_period == "yearly"
        assert (invoiced.period_start, invoiced.period_end) == (moment(ended), moment(item["current_period_end"]))
        assert invoiced.number == "F4K3-0002"
        assert invoiced.hosted_invoice_url
        assert isinstance(changed, SubscriptionChanged)
        assert changed.state.period_start == moment(ended)

    async def test_a_failed_renewal_and_the_end(self, stripe: StripeHarness) -> None:
        _, subscription = await paid_checkout(stripe)

        failed, changed = read(stripe, stripe.fake.renew(subscription["id"], paid=False))
        (ended,) = read(stripe, stripe.fake.end_subscription(subscription["id"]))

        assert isinstance(failed, InvoicePaymentFailed)
        assert failed.subscription_ref == subscription["id"]
        assert (failed.amount, failed.currency) == (Decimal("49.99"), "USD")
        assert (failed.attempt_count, failed.billing_reason) == (1, "renewal")
        assert failed.next_attempt_at is not None
        assert failed.purchase is not None
        assert isinstance(changed, SubscriptionChanged)
        assert changed.state.status == "past_due"
        assert isinstance(ended, SubscriptionEnded)
        assert (ended.subscription_ref, ended.ended_at) == (subscription["id"], NOW)

    async def test_an_end_without_a_time_is_when_it_was_told(self, stripe: StripeHarness) -> None:
        _, subscription = await paid_checkout(stripe)
        (event,) = stripe.fake.end_subscription(subscription["id"])
        del event["data"]["object"]["ended_at"]

        (ended,) = read(stripe, [event])

        assert isinstance(ended, SubscriptionEnded)
        assert ended.ended_at == ended.occurred_at == NOW

    async def test_slow_money_activates_nothing_until_it_arrives(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())

        before = read(stripe, stripe.fake.pay_checkout(created.session_id, delayed=True))
        after = read(stripe, stripe.fake.settle_checkout(created.session_id, arrives=True))

        assert [type(fact) for fact in before] == [SubscriptionChanged, CheckoutPending]
        assert [type(fact) for fact in after] == [InvoicePaid, PaymentLinked, CheckoutPaid]

    async def test_slow_money_that_never_comes(self, stripe: StripeHarness) -> None:
        created = await stripe.provider.create_checkout(request())
        stripe.fake.pay_checkout(created.session_id, delayed=True)

        failed, checkout = read(stripe, stripe.fake.settle_checkout(created.session_id, arrives=False))

        assert isinstance(failed, InvoicePaymentFailed)
        assert failed.billing_reason == "start"
        assert isinstance(checkout, CheckoutFailed)
        assert checkout.amount == Decimal("49.99")

    async def test_refunds_tell_the_running_total(self, stripe: StripeHarness) -> None:
        _, subscription = await paid_checkout(stripe)
        charge = stripe.fake.charge_of(subscription["id"])

        events = stripe.fake.refund(charge["id"], 1000) + stripe.fake.refund(charge["id"], 3999)
        found = read(stripe, events)

        totals = [fact.refunded_total for fact in found if isinstance(fact, PaymentRefunded)]
        assert totals == [Decimal("10.00"), Decimal("49.99")]
        last = found[-1]
        assert isinstance(last, PaymentRefunded)
        assert last.charged == last.refunded_total
        assert (last.payment_ref, last.charge_ref) == (charge["payment_intent"], charge["id"])
        assert last.customer_ref == subscription["customer"]

    @pytest.mark.parametrize("by", ["charge", "payment_intent"])
    async def test_a_refund_that_failed_has_the_running_total_asked_for(self, stripe: StripeHarness, by: str) -> None:
        _, subscription = await paid_checkout(stripe)
        charge = stripe.fake.charge_of(subscription["id"])
        stripe.fake.refund(charge["id"], 1000)
        stripe.fake.refund(charge["id"], 500)

        found = read(stripe, stripe.fake.fail_refund(charge["id"], 1000))

        assert [type(fact) for fact in found] == [RefundFailed] * 3
        (failed,) = {fact.refund_ref for fact in found if isinstance(fact, RefundFailed)}
        left = GoneBack(total=Decimal("5.00"), failed=frozenset({failed}))
        assert await stripe.provider.fetch_refunded(charge[by] if by != "charge" else charge["id"]) == left
        assert await stripe.provider.fetch_refunded("ch_nobody") is None

    async def test_a_refund_that_arrives_is_no_news(self, stripe: StripeHarness) -> None:
        _, subscription = await paid_checkout(stripe)
        refund = stripe_objects.refund(stripe.fake.charge_of(subscription["id"]), 1000, {}, now=stripe.fake.now())

        assert read(stripe, [stripe.fake._event("refund.updated", refund)]) == []

    @pytest.mark.parametrize(
        ("status", "outcome", "inquiry"),
        [("won", "won", False), ("lost", "lost", False), ("prevented", "won", False), ("warning_closed", "won", True)],
    )
    async def test_disputes(
        self, stripe: StripeHarness, status: str, outcome: DisputeOutcome, *, inquiry: bool
    ) -> None:
        _, subscription = await paid_checkout(stripe)
        charge = stripe.fake.charge_of(subscription["id"])

        (opened,) = read(stripe, stripe.fake.open_dispute(charge["id"], inquiry=inquiry))
        (dispute_ref,) = stripe.fake.disputes
        (closed,) = read(stripe, stripe.fake.close_dispute(dispute_ref, status))

        assert isinstance(opened, DisputeOpened)
        assert isinstance(closed, DisputeClosed)
        assert opened.dispute_ref == closed.dispute_ref == dispute_ref
        assert opened.payment_ref == closed.payment_ref == charge["payment_intent"]
        assert (opened.amount, opened.reason) == (Decimal("49.99"), "fraudulent")
        assert opened.inquiry is closed.inquiry is inquiry
        assert closed.outcome == outcome
        assert opened.beside_refunds
        assert closed.beside_refunds
        assert closed.returned == 0

    @pytest.mark.parametrize(
        ("currency", "rate", "returned"), [("usd", 1, "10.00"), ("eur", 2, "10.00")], ids=["own currency", "converted"]
    )
    async def test_a_lost_dispute_gives_back_what_was_refunded(
        self, stripe: StripeHarness, currency: str, rate: int, returned: str
    ) -> None:
        _, subscription = await paid_checkout(stripe)
        charge = stripe.fake.charge_of(subscription["id"])
        stripe.fake.refund(charge["id"], 1000)
        stripe.fake.open_dispute(charge["id"])
        (dispute_ref,) = stripe.fake.disputes
        stripe.fake.close_dispute(dispute_ref, "lost")
        (event,) = stripe.fake.return_refunded(dispute_ref)
        for entry in event["data"]["object"]["balance_transactions"]:
            entry.update(currency=currency, amount=entry["amount"] * rate)

        (closed,) = read(stripe, [event])

        assert isinstance(closed, DisputeClosed)
        assert (closed.outcome, closed.amount, closed.returned) == ("lost", Decimal("49.99"), Decimal(returned))
        # The fee is told by the decision.
        assert closed.fee is None

    async def test_what_is_won_comes_back_by_the_decision(self, stripe: StripeHarness) -> None:
        _, subscription = await paid_checkout(stripe)
        stripe.fake.open_dispute(stripe.fake.charge_of(subscription["id"])["id"])
        (dispute_ref,) = stripe.fake.disputes
        (closed,) = stripe.fake.close_dispute(dispute_ref, "won")

        assert read(stripe, [closed | {"type": "charge.dispute.funds_reinstated"}]) == []


class TestSubscriptionStates:
    """Stripe's statuses in ours."""

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("trialing", "trial"),
            ("active", "active"),
            ("past_due", "past_due"),
            ("unpaid", "expired"),
            ("paused", "expired"),
            ("canceled", "cancelled"),
        ],
    )
    async def test_each_status(self, stripe: StripeHarness, theirs: str, ours: SubscriptionStatus) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "customer.subscription.created")
        event["type"] = "customer.subscription.updated"
        event["data"]["object"]["status"] = theirs

        (changed,) = read(stripe, [event])

        assert isinstance(changed, SubscriptionChanged)
        assert (changed.state.status, changed.state.provider_status) == (ours, theirs)

    @pytest.mark.parametrize("kind", ["created", "updated", "deleted"])
    @pytest.mark.parametrize("status", ["incomplete", "incomplete_expired"])
    async def test_one_that_never_began_changes_nothing(self, stripe: StripeHarness, kind: str, status: str) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "customer.subscription.created")
        event["type"] = f"customer.subscription.{kind}"
        event["data"]["object"]["status"] = status

        assert read(stripe, [event]) == []

    async def test_an_unknown_status_is_not_guessed(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "customer.subscription.created")
        event["data"]["object"]["status"] = "hibernating"

        with pytest.raises(BadPayload, match=r"event\.data\.object\.status is not a known status"):
            read(stripe, [event])

    @pytest.mark.parametrize(("flag", "cancel_at"), [(True, None), (False, 1_800_000_000), (True, 1_800_000_000)])
    async def test_both_ways_of_ending_later(self, stripe: StripeHarness, *, flag: bool, cancel_at: int | None) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "customer.subscription.created")
        event["data"]["object"].update(cancel_at_period_end=flag, cancel_at=cancel_at)

        (changed,) = read(stripe, [event])

        assert isinstance(changed, SubscriptionChanged)
        assert changed.state.cancel_at_period_end
        assert changed.state.cancel_at == (moment(cancel_at) if cancel_at else None)

    @pytest.mark.parametrize("metadata", [None, {}, {"tenant_id": "x"}, {"tenant_id": str(TENANT)}, {"note": "hi"}])
    async def test_edited_metadata_does_not_stop_anything(
        self, stripe: StripeHarness, metadata: dict[str, str] | None
    ) -> None:
        events, subscription = await paid_checkout(stripe)
        event = event_of(events, "customer.subscription.created")
        event["data"]["object"]["metadata"] = metadata

        (changed,) = read(stripe, [event])

        assert isinstance(changed, SubscriptionChanged)
        assert changed.state.purchase is None
        assert changed.state.subscription_ref == subscription["id"]

    async def test_periods_stood_on_the_subscription_before_basil(self, stripe: StripeHarness) -> None:
        events, _ = await paid_checkout(stripe)
        event = event_of(events, "customer.subscription.created")
        subscription = event["data"]["object"]
        for key in ("current_period_start", "current_period_end"):
            subscription[key] = subscription["items"]["data"][0].pop(key)

        (changed,) = read(stripe, [event])

        assert isinstance(changed, SubscriptionChanged)
        assert changed.state.period_start == NOW
        assert changed.state.period_end == NOW.replace(year=2027)


class TestDoubleTelling:
    """Events that repeat what another one tells stay unread."""

    @pytest.mark.parametrize(
        "kind",
        [
            "invoice.payment_succeeded",
            "refund.created",
            "refund.updated",
            "charge.refund.updated",
            "charge.dispute.updated",
            "charge.succeeded",
            "payment_intent.succeeded",
        ],
    )
    async def test_unread(self, stripe: StripeHarness, kind: str) -> None:
        events, subscription = await paid_checkout(stripe)
        events += stripe.fake.refund(stripe.fake.charge_of(subscription["id"])["id"], 100)

        assert read(stripe, [event | {"type": kind} for event in events]) == []


@pytest.mark.parametrize(
    ("kind", "spoil", "problem"),
    [
        ("charge.refunded", {"amount_refunded": -1}, "amount_refunded is negative"),
        ("charge.refunded", {"amount_refunded": 10.5}, "amount_refunded is not an integer"),
        ("charge.refunded", {"amount_refunded": True}, "amount_refunded is not an integer"),
        ("charge.refunded", {"currency": "dollars"}, "currency is not a currency code"),
        ("charge.refunded", {"currency": "u5d"}, "currency is not a currency code"),
        ("charge.refunded", {"currency": None}, "currency is missing"),
        ("charge.refunded", {"id": ""}, "id is not an id"),
        ("charge.dispute.created", {"payment_intent": None, "charge": None}, "charge is missing"),
        ("charge.dispute.created", {"status": "x" * 5000}, "status is not a short text"),
        ("charge.dispute.closed", {"status": "under_review"}, "status is not a closed one"),
        ("invoice.paid", {"subscription": "sub_1", "lines": {"data": "none"}}, "lines is not a list"),
        ("invoice.paid", {"subscription": "sub_1", "lines": {"data": [7]}}, "lines holds something else than objects"),
        ("invoice.paid", {"subscription": "sub_1", "parent": 7}, "parent is not an object"),
        (
            "customer.subscription.updated",
            {"status": "active", "cancel_at_period_end": 1},
            "cancel_at_period_end is not a flag",
        ),
    ],
)
async def test_refusals_name_the_place(
    stripe: StripeHarness, kind: str, spoil: dict[str, object], problem: str
) -> None:
    _, subscription = await paid_checkout(stripe)
    charge = stripe.fake.charge_of(subscription["id"])
    (event,) = (
        stripe.fake.refund(charge["id"], 100) if kind == "charge.refunded" else stripe.fake.open_dispute(charge["id"])
    )
    event["type"] = kind
    event["data"]["object"].update(spoil)

    with pytest.raises(BadPayload) as refused:
        read(stripe, [event])

    assert refused.value.text == f"event.data.object.{problem}"


@pytest.mark.parametrize("data", [None, {}, [], {"object": None}, {"object": []}, {"object": "in_1"}])
def test_an_event_without_its_object_is_refused(stripe: StripeHarness, data: object) -> None:
    body = json.dumps({"id": "evt_1", "type": "invoice.paid", "data": data})
    event = stripe.provider.verify(body=body, headers=stripe.headers(body), now=NOW)

    with pytest.raises(BadPayload):
        stripe.provider.interpret(event)
