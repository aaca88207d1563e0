"""Renewals, failures, refunds and disputes: the money book and what it does to the subscription."""

import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from models.billing import InvoiceStatus, PaymentEventType, Subscription, SubscriptionStatus
from models.documents import Document
from models.inbox import InboxState
from models.journal import Account
from services.billing.journal import balances
from tests.fakes.stripe_objects import Obj
from tests.support.billing import PLATFORM, Shop, Till, moment


def of_kind(events: list[Obj], kind: str) -> Obj:
    return next(event for event in events if event["type"] == kind)


def item_of(till: Till, subscription_id: str) -> Obj:
    item: Obj = till.stripe.subscriptions[subscription_id]["items"]["data"][0]
    return item


async def test_a_renewal_extends_the_period_and_books_once(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    events = till.stripe.renew(subscription_id)
    await till.take(*events, *events)
    subscription = await till.subscription(shop)
    item = item_of(till, subscription_id)
    assert subscription.status is SubscriptionStatus.ACTIVE
    assert subscription.current_period_start == moment(item["current_period_start"])
    assert subscription.current_period_end == moment(item["current_period_end"])
    assert [payment.amount for payment in await till.payments(shop)] == [Decimal("49.99"), Decimal("49.99")]
    assert len(await till.bills(shop)) == 2
    assert len(till.heard(shop, "payment:received")) == 2


async def test_the_renewals_invoice_alone_is_enough(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    paid = of_kind(till.stripe.renew(subscription_id), "invoice.paid")
    # The metadata is what the first ancestor looked for and never found (contract.md 4.4).
    paid["data"]["object"]["parent"]["subscription_details"]["metadata"] = {}
    await till.take(paid)
    subscription = await till.subscription(shop)
    assert subscription.current_period_end == moment(item_of(till, subscription_id)["current_period_end"])


async def test_a_renewal_found_by_the_customer_alone(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    row = await till.subscription(shop)
    await till.change(Subscription, row.id, external_subscription_id=None, checkout_id=None)
    (checkout,) = await till.checkouts(shop)
    await till.change(type(checkout), checkout.id, subscription_ref=None)
    till.travel(days=31)
    paid = of_kind(till.stripe.renew(subscription_id), "invoice.paid")
    paid["data"]["object"]["parent"]["subscription_details"]["metadata"] = {}
    await till.take(paid)
    subscription = await till.subscription(shop)
    assert subscription.external_subscription_id == subscription_id
    assert subscription.current_period_end == moment(item_of(till, subscription_id)["current_period_end"])


async def test_a_trials_customer_waits_for_its_checkout(till: Till, shop: Shop) -> None:
    other = await till.shop()
    subscription_id = await till.buy(other)
    customer = till.stripe.subscriptions[subscription_id]["customer"]
    row = await till.subscription(shop)
    await till.change(Subscription, row.id, payment_provider="stripe", external_customer_id=customer)
    paid = of_kind(till.stripe.renew(subscription_id), "invoice.paid")
    paid["data"]["object"]["parent"]["subscription_details"] = {"subscription": "sub_unknown", "metadata": {}}
    await till.take(paid)
    assert (await till.event_row(paid["id"])).last_error == "unknown subscription"
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL


async def test_a_renewal_that_does_not_tell_its_period_adds_one(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    row = await till.subscription(shop)
    start = row.current_period_end
    till.travel(days=31)
    paid = of_kind(till.stripe.renew(subscription_id), "invoice.paid")
    paid["data"]["object"]["lines"]["data"] = []
    again = {**paid, "id": paid["id"] + "again"}
    await till.take(paid, again)
    subscription = await till.subscription(shop)
    assert subscription.current_period_start == start
    assert timedelta(days=28) <= subscription.current_period_end - start <= timedelta(days=31)


async def test_a_first_invoice_that_does_not_tell_its_period_waits_for_the_checkout(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    paid = of_kind(events, "invoice.paid")
    paid["data"]["object"]["lines"]["data"] = []
    await till.take(paid)
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    completed = of_kind(events, "checkout.session.completed")
    await till.take(completed)
    await till.retry(paid)
    subscription = await till.subscription(shop)
    assert subscription.status is SubscriptionStatus.ACTIVE
    assert subscription.current_period_start == moment(completed["created"])
    assert len(await till.payments(shop)) == 1


async def test_a_failed_renewal_and_its_recovery(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id, paid=False))
    assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
    failed = (await till.payments(shop))[-1]
    assert (failed.event_type, failed.amount) == (PaymentEventType.PAYMENT_FAILED, Decimal("49.99"))
    assert [bill.status for bill in await till.bills(shop)].count(InvoiceStatus.FAILED) == 1
    assert (await till.notifications(shop))[-1].title == "Payment failed"
    till.travel(days=3)
    invoice = till.stripe.invoices[till.stripe.subscriptions[subscription_id]["latest_invoice"]]
    till.stripe.subscriptions[subscription_id]["status"] = "active"
    updated = till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id])
    await till.take(*till.stripe._settle(invoice), updated)
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE
    assert [bill.status for bill in await till.bills(shop)] == [InvoiceStatus.PAID, InvoiceStatus.PAID]


async def test_a_failed_first_invoice_leaves_the_subscription_alone(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner, plan="business")
    await till.take(*till.stripe.pay_checkout(view.session_id, delayed=True))
    await till.buy(shop, plan="starter")
    failed = of_kind(till.stripe.settle_checkout(view.session_id, arrives=False), "invoice.payment_failed")
    await till.take(failed)
    assert (await till.event_row(failed["id"])).state is InboxState.HANDLED
    view_now = await till.view(shop.owner)
    assert (view_now.status, view_now.plan.slug) == (SubscriptionStatus.ACTIVE, "starter")


async def test_the_provider_ends_the_subscription(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=5)
    await till.take(*till.stripe.end_subscription(subscription_id))
    subscription = await till.subscription(shop)
    ended_at = moment(till.stripe.subscriptions[subscription_id]["ended_at"])
    assert subscription.status is SubscriptionStatus.CANCELLED
    assert subscription.cancelled_at == subscription.current_period_end == ended_at
    assert (await till.notifications(shop))[-1].title == "Subscription cancelled"
    assert till.heard(shop, "subscription:updated")[-1].payload["status"] == "cancelled"


async def test_the_provider_gives_up_collecting(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=40)
    till.stripe.subscriptions[subscription_id]["status"] = "unpaid"
    await till.take(till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id]))
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
    assert (await till.notifications(shop))[-1].title == "Subscription expired"


async def test_a_cancellation_in_the_providers_portal_and_back(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    for wanted in (True, False):
        till.travel(minutes=1)
        till.stripe.subscriptions[subscription_id]["cancel_at_period_end"] = wanted
        await till.take(till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id]))
        view = await till.view(shop.owner)
        assert (view.cancel_at_period_end, view.cancelled_at is not None) == (wanted, wanted)
        assert view.canceled_at == view.cancelled_at


async def test_refunds_are_booked_as_what_each_adds(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    charge = till.stripe.charge_of(subscription_id)
    first, second = till.stripe.refund(charge["id"], 1000), till.stripe.refund(charge["id"], 500)
    await till.take(*first, *first, *second)
    refunds = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.REFUND]
    assert [refund.amount for refund in refunds] == [Decimal("10.00"), Decimal("5.00")]
    assert (await till.notifications(shop))[-1].message == "5.00 USD was refunded."
    # Money back is no end of the subscription.
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_refund_totals_in_the_wrong_order_are_the_same_refunds(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    charge = till.stripe.charge_of(subscription_id)
    first, second = till.stripe.refund(charge["id"], 1000), till.stripe.refund(charge["id"], 500)
    await till.take(*second, *first)
    refunds = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.REFUND]
    assert sorted(refund.amount for refund in refunds) == [Decimal("5.00"), Decimal("10.00")]


async def test_a_refund_that_fails_later_is_taken_back(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    charge = till.stripe.charge_of(subscription_id)
    await till.take(*till.stripe.refund(charge["id"], 1000))
    till.travel(days=5)
    failed = till.stripe.fail_refund(charge["id"], 1000)
    await till.take(*failed, *failed)
    assert await refunds_of(till, shop) == [Decimal(0)]
    assert [invoice.status for invoice in await till.invoices(shop.owner)] == ["paid"]
    assert (await balances_of(till, shop))[Account.REFUNDS, "USD"] == 0
    assert shown_papers(await till.papers(shop)) == [
        ("invoice", "49.99"),
        ("credit_note", "-10.00"),
        ("cancellation", "10.00"),
    ]
    told = [note.message for note in await till.notifications(shop) if note.data["news"] == "refund_failed"]
    assert set(told) == {"A refund of 10.00 USD did not arrive and was taken back."}
    assert (await till.audit(shop)).count("payment.refund_failed") == 1

    # It is given back once more, to the same total as before.
    till.travel(days=1)
    await till.take(*till.stripe.refund(charge["id"], 1000))
    assert await refunds_of(till, shop) == [Decimal("10.00")]
    assert (await balances_of(till, shop))[Account.REFUNDS, "USD"] == Decimal("10.00")
    assert shown_papers(await till.papers(shop))[3:] == [("credit_note", "-10.00")]


async def test_one_of_two_refunds_fails(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    charge = till.stripe.charge_of(subscription_id)
    await till.take(*till.stripe.refund(charge["id"], 1000), *till.stripe.refund(charge["id"], 500))
    till.travel(days=5)
    await till.take(*till.stripe.fail_refund(charge["id"], 1000))
    assert sum(await refunds_of(till, shop)) == Decimal("5.00")
    assert (await balances_of(till, shop))[Account.REFUNDS, "USD"] == Decimal("5.00")
    papers = shown_papers(await till.papers(shop))
    assert papers[:3] == [("invoice", "49.99"), ("credit_note", "-10.00"), ("credit_note", "-5.00")]
    assert sorted(papers[3:]) == [("cancellation", "5.00"), ("cancellation", "5.00")]


async def refunds_of(till: Till, shop: Shop) -> list[Decimal]:
    return [row.amount for row in await till.payments(shop) if row.event_type is PaymentEventType.REFUND]


async def balances_of(till: Till, shop: Shop) -> dict[tuple[Account, str], Decimal]:
    async with till.units(PLATFORM) as uow:
        return await balances(uow, shop.tenant_id)


def shown_papers(papers: Sequence[Document]) -> list[tuple[str, str]]:
    return [(paper.kind.value, f"{paper.total:.2f}") for paper in papers]


async def test_a_refund_that_overtakes_its_payment_waits(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    paid = till.stripe.pay_checkout(view.session_id)
    charge = till.stripe.charge_of(till.stripe.sessions[view.session_id]["subscription"])
    (refund,) = till.stripe.refund(charge["id"], 4999)
    await till.take(refund)
    assert (await till.event_row(refund["id"])).last_error == "unknown payment"
    await till.take(*paid)
    await till.retry(*paid, refund)
    assert (await till.event_row(refund["id"])).state is InboxState.HANDLED
    assert [invoice.status for invoice in await till.invoices(shop.owner)].count("refunded") == 1


async def test_a_dispute_is_one_chargeback_however_often_it_is_told(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    charge = till.stripe.charge_of(subscription_id)
    opened = till.stripe.open_dispute(charge["id"])
    dispute_id = opened[0]["data"]["object"]["id"]
    closed = till.stripe.close_dispute(dispute_id, "lost")
    again = till.stripe.close_dispute(dispute_id, "lost")
    await till.take(*opened, *closed, *again)
    told = [action for action in await till.audit(shop) if "disput" in action]
    assert told == ["payment.disputed", "payment.dispute_closed"]
    (chargeback,) = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.CHARGEBACK]
    assert (chargeback.amount, chargeback.event_metadata["outcome"]) == (Decimal("49.99"), "lost")
    assert [row.title for row in await till.notifications(shop)][-4:] == [
        "Payment disputed",
        "Payment disputed",
        "Dispute closed",
        "Dispute closed",
    ]
    invoice = next(item for item in await till.invoices(shop.owner) if item.status == "disputed")
    assert (invoice.event_type, invoice.paid_at) == (PaymentEventType.CHARGEBACK, None)


async def test_a_dispute_that_is_told_backwards(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    opened = till.stripe.open_dispute(till.stripe.charge_of(subscription_id)["id"])
    closed = till.stripe.close_dispute(opened[0]["data"]["object"]["id"], "won")
    await till.take(*closed, *opened)
    (chargeback,) = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.CHARGEBACK]
    assert chargeback.event_metadata["outcome"] == "won"


async def test_an_inquiry_moves_no_money(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    opened = till.stripe.open_dispute(till.stripe.charge_of(subscription_id)["id"], inquiry=True)
    await till.take(*opened, *till.stripe.close_dispute(opened[0]["data"]["object"]["id"], "warning_closed"))
    assert len(await till.payments(shop)) == 1
    assert (await till.audit(shop))[-2:] == ["payment.disputed", "payment.dispute_closed"]


async def test_money_for_a_replaced_subscription_is_booked_and_nothing_else(till: Till, shop: Shop) -> None:
    # Both pages are paid before anybody hears of it, or the other one would be closed.
    starter, business = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "business")]
    told = till.stripe.pay_checkout(starter.session_id)
    till.travel(minutes=1)
    await till.take(*told, *till.stripe.pay_checkout(business.session_id))
    old, new = (till.stripe.sessions[view.session_id]["subscription"] for view in (starter, business))
    till.travel(days=31)
    till.stripe.subscriptions[old]["status"] = "active"
    events = till.stripe.renew(old)
    failing = till.stripe.renew(old, paid=False)
    await till.take(*events, *failing)
    subscription = await till.subscription(shop)
    assert (subscription.external_subscription_id, subscription.status) == (new, SubscriptionStatus.ACTIVE)
    assert subscription.current_period_end == moment(item_of(till, new)["current_period_end"])
    assert "payment.for_replaced_subscription" in await till.audit(shop)
    assert len(await till.payments(shop)) == 4


async def test_a_free_invoice_extends_without_a_payment(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    paid = of_kind(till.stripe.renew(subscription_id), "invoice.paid")
    paid["data"]["object"]["amount_paid"] = 0
    await till.take(paid)
    subscription = await till.subscription(shop)
    assert subscription.current_period_end == moment(item_of(till, subscription_id)["current_period_end"])
    assert len(await till.payments(shop)) == 1


async def test_a_bill_for_something_else_does_not_renew(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=20)
    before = await till.subscription(shop)
    paid = of_kind(till.stripe.renew(subscription_id), "invoice.paid")
    paid["data"]["object"].update(billing_reason="manual", amount_paid=700)
    paid["data"]["object"]["lines"]["data"] = []
    await till.take(paid)
    after = await till.subscription(shop)
    assert after.current_period_end == before.current_period_end
    assert (await till.payments(shop))[-1].amount == Decimal("7.00")


@pytest.mark.parametrize("seed", range(6))
async def test_a_long_story_in_any_order(till: Till, seed: int) -> None:
    """Two months, a failed attempt, a refund, a dispute and the end: told in order and shuffled, the books agree."""

    async def live(shop: Shop, shuffle: random.Random | None) -> dict[str, Any]:
        view = await till.checkout(shop.owner)
        events = till.stripe.pay_checkout(view.session_id)
        subscription_id = till.stripe.sessions[view.session_id]["subscription"]
        charge = till.stripe.charge_of(subscription_id)
        seconds = [0] * len(events)
        for day, more in (
            (30, till.stripe.renew(subscription_id, paid=False)),
            (
                33,
                till.stripe._settle(till.stripe.invoices[till.stripe.subscriptions[subscription_id]["latest_invoice"]]),
            ),
            (40, till.stripe.refund(charge["id"], 1000)),
            (41, till.stripe.open_dispute(charge["id"])),
            (60, till.stripe.renew(subscription_id)),
            (70, till.stripe.end_subscription(subscription_id)),
        ):
            events += more
            seconds += [day * 86_400] * len(more)
        for place, (event, second) in enumerate(zip(events, seconds, strict=True)):
            event["created"] = frozen + second + place
        if shuffle is not None:
            shuffle.shuffle(events)
        await till.take(*events)
        for _ in range(4):
            await till.retry(*events)
        assert {(await till.event_row(event["id"])).state for event in events} == {InboxState.HANDLED}
        state = await till.state(shop)
        subscription = state["subscription"]
        return {
            "status": subscription["status"],
            "end": subscription["current_period_end"],
            "ended": subscription["cancelled_at"],
            "money": sorted((row["event_type"], row["amount"], row["created_at"]) for row in state["payments"]),
            "bills": sorted((row["amount"], row["status"], row["period_end"]) for row in state["invoices"]),
        }

    frozen = int(till.now.timestamp())
    till.stripe._clock = lambda: frozen
    told = await live(await till.shop(), None)
    assert told["status"] is SubscriptionStatus.CANCELLED
    assert len(told["money"]) == 6
    assert await live(await till.shop(), random.Random(seed)) == told


async def test_a_bill_that_is_withdrawn_is_void_unless_it_was_paid(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    failed = of_kind(till.stripe.renew(subscription_id, paid=False), "invoice.payment_failed")
    invoice = {**failed["data"]["object"], "status": "void"}
    voided = till.stripe._event("invoice.voided", invoice)
    (paid,) = await till.bills(shop)
    first = till.stripe.invoices[paid.provider_invoice_id]
    # In the wrong order, and once for a bill that was paid.
    await till.take(voided, failed, till.stripe._event("invoice.voided", first))
    assert {bill.provider_invoice_id: bill.status for bill in await till.bills(shop)} == {
        invoice["id"]: InvoiceStatus.VOID,
        first["id"]: InvoiceStatus.PAID,
    }
