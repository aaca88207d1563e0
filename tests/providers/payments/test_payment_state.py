"""A payment's state in the words of facts."""

from dataclasses import replace
from decimal import Decimal

import pytest

from providers.payments import (
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutPending,
    OrderTags,
    PaymentRefunded,
    PaymentState,
    PaymentStatus,
    Purchase,
    facts_of_payment,
)
from providers.payments.facts import Source
from tests.providers.payments.harness import NOW, PLAN, TENANT

SOURCE = Source(provider="btcpay", event_id="evt_1", occurred_at=NOW)
PURCHASE = Purchase(checkout_id=PLAN, tenant_id=TENANT, plan_id=PLAN, billing_period="monthly")
PAID = PaymentState(
    session_id="inv_1",
    tags=OrderTags(order_id=PLAN, tenant_id=TENANT, purchase=PURCHASE),
    status=PaymentStatus.PAID,
    provider_status="Settled",
    asked=Decimal("10.00"),
    received=Decimal("10.00"),
    refunded=Decimal(0),
    currency="USD",
    payment_key="inv_1",
    payment_ref="pay_1",
    invoice_ref=None,
    subscription_ref=None,
    customer_ref=None,
    is_late=False,
    is_test=False,
    changed_at=NOW,
)


@pytest.mark.parametrize(
    ("status", "kinds"),
    [
        (PaymentStatus.PENDING, []),
        (PaymentStatus.APPROVED, []),
        (PaymentStatus.PROCESSING, [CheckoutPending]),
        (PaymentStatus.PAID, [CheckoutPaid]),
        (PaymentStatus.UNDERPAID, [CheckoutExpired]),
        (PaymentStatus.EXPIRED, [CheckoutExpired]),
        (PaymentStatus.CANCELLED, [CheckoutExpired]),
        (PaymentStatus.FAILED, [CheckoutFailed]),
    ],
)
def test_only_paid_is_paid(status: PaymentStatus, kinds: list[type]) -> None:
    assert [type(fact) for fact in facts_of_payment(replace(PAID, status=status), SOURCE)] == kinds


def test_what_buys_no_plan_has_no_facts() -> None:
    order = OrderTags(order_id=PLAN, tenant_id=TENANT, purchase=None)

    assert facts_of_payment(replace(PAID, tags=order), SOURCE) == ()
    assert facts_of_payment(replace(PAID, tags=None), SOURCE) == ()


def test_what_is_over_is_told_apart() -> None:
    over = replace(PAID, received=Decimal("12.50"))

    (paid,) = facts_of_payment(over, SOURCE)

    assert isinstance(paid, CheckoutPaid)
    assert paid.amount == Decimal("10.00")
    assert over.overpaid == Decimal("2.50")
    assert replace(over, status=PaymentStatus.PROCESSING).overpaid == 0
    assert replace(over, received=Decimal("9.00")).overpaid == 0


@pytest.mark.parametrize(("refunded", "told"), [("4.00", "4.00"), ("10.00", "10.00"), ("11.00", "10.00")])
def test_a_refund_is_told_as_the_running_total(refunded: str, told: str) -> None:
    paid, refund = facts_of_payment(replace(PAID, refunded=Decimal(refunded)), SOURCE)

    assert isinstance(paid, CheckoutPaid)
    assert isinstance(refund, PaymentRefunded)
    assert (refund.refunded_total, refund.charged) == (Decimal(told), Decimal("10.00"))
    assert (refund.payment_ref, refund.charge_ref) == ("pay_1", "pay_1")
