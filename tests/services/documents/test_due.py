"""Which papers are due: each fact once, whatever came first, and the tax to the cent."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import exponent, round_money
from models.billing import PaymentEvent, PaymentEventType
from models.documents import Document
from services.documents.due import due_papers, tax_of
from services.documents.issuing import _tax

pytestmark = pytest.mark.embedded

NOW = datetime(2026, 11, 20, tzinfo=UTC)
currencies = st.sampled_from(["USD", "JPY", "KWD"])
rates = st.decimals(0, 99, places=3)


def movement(kind: PaymentEventType, amount: str, *, currency: str = "USD", **metadata: str) -> PaymentEvent:
    return PaymentEvent(
        id=uuid4(),
        event_type=kind,
        amount=Decimal(amount),
        currency=currency,
        fact_key=uuid4().hex,
        created_at=NOW,
        event_metadata=metadata,
    )


def paid(amount: str = "49.99", currency: str = "USD") -> PaymentEvent:
    return movement(PaymentEventType.PAYMENT_SUCCESS, amount, currency=currency)


def refunded(amount: str, total: str) -> PaymentEvent:
    return movement(PaymentEventType.REFUND, amount, refunded_total=total)


def disputed(amount: str, **outcome: str) -> PaymentEvent:
    return movement(PaymentEventType.CHARGEBACK, amount, **outcome)


def issue(payment: PaymentEvent, movements: Sequence[PaymentEvent], issued: list[Document]) -> list[Document]:
    """Issue what is due; returns what was new."""
    new = [
        Document(
            id=uuid4(),
            kind=due.kind,
            reason=due.reason,
            movement_id=due.movement.id,
            part=due.part,
            total=due.total,
            tax=Decimal(0),
        )
        for due in due_papers(payment, movements, issued)
    ]
    issued += new
    return new


def told(papers: Sequence[Document]) -> list[tuple[str, str]]:
    return [(paper.kind.value, str(paper.total)) for paper in papers]


def test_a_payment_has_one_invoice() -> None:
    payment, issued = paid(), list[Document]()
    assert told(issue(payment, [], issued)) == [("invoice", "49.99")]
    assert issue(payment, [], issued) == []


def test_each_refund_has_a_credit_note() -> None:
    payment, issued = paid(), list[Document]()
    first, second = refunded("10.00", "10.00"), refunded("39.99", "49.99")
    assert told(issue(payment, [first], issued)) == [("invoice", "49.99"), ("credit_note", "-10.00")]
    assert told(issue(payment, [second, first], issued)) == [("credit_note", "-39.99")]
    assert issued[-1].movement_id == second.id


def test_a_total_that_comes_late_is_in_the_credit_note_of_the_higher_one_already() -> None:
    payment, issued = paid(), list[Document]()
    issue(payment, [refunded("15.00", "15.00")], issued)
    # The money book splits the higher total when it hears of the lower one.
    assert issue(payment, [refunded("10.00", "10.00"), refunded("5.00", "15.00")], issued) == []
    assert told(issued) == [("invoice", "49.99"), ("credit_note", "-15.00")]


def test_a_won_dispute_cancels_its_credit_note_even_when_its_end_is_all_that_is_heard() -> None:
    payment = paid()
    at_once: list[Document] = []
    issue(payment, [disputed("20.00", outcome="won")], at_once)
    in_turn: list[Document] = []
    dispute = disputed("20.00")
    issue(payment, [dispute], in_turn)
    dispute.event_metadata = {"outcome": "won"}
    issue(payment, [dispute], in_turn)
    assert told(at_once) == told(in_turn)
    assert told(in_turn) == [("invoice", "49.99"), ("credit_note", "-20.00"), ("cancellation", "20.00")]


@pytest.mark.parametrize(
    ("corrected", "kind", "step"), [("25.00", "credit_note", "-5.00"), ("15.00", "cancellation", "5.00")]
)
def test_a_dispute_that_turns_out_to_be_another_amount_gets_a_further_paper(
    corrected: str, kind: str, step: str
) -> None:
    payment, dispute, issued = paid(), disputed("20.00"), list[Document]()
    issue(payment, [dispute], issued)
    dispute.amount = Decimal(corrected)
    (further,) = issue(payment, [dispute], issued)
    assert (further.kind.value, str(further.total), further.part) == (kind, step, 2)
    assert issue(payment, [dispute], issued) == []


def test_a_dispute_beside_a_refund_takes_back_no_more_than_was_invoiced() -> None:
    payment, issued = paid(), list[Document]()
    refund, dispute = refunded("10.00", "10.00"), disputed("49.99")
    issue(payment, [refund, dispute], issued)
    assert told(issued) == [("invoice", "49.99"), ("credit_note", "-10.00"), ("credit_note", "-39.99")]
    # What is refunded after all is no part of the dispute's credit note any more.
    refund.amount, refund.event_metadata = Decimal("15.00"), {"refunded_total": "15.00"}
    assert told(issue(payment, [refund, dispute], issued)) == [("credit_note", "-5.00"), ("cancellation", "5.00")]
    dispute.event_metadata = {"outcome": "won"}
    assert told(issue(payment, [refund, dispute], issued)) == [("cancellation", "34.99")]
    assert issue(payment, [refund, dispute], issued) == []


def test_every_order_of_payment_refund_and_disputes_leaves_the_same_papers() -> None:
    payment = paid()
    movements = [refunded("10.00", "10.00"), disputed("5.00", outcome="won"), disputed("7.00", outcome="lost")]
    found = set()
    for order in itertools.permutations(movements):
        issued: list[Document] = []
        for count in range(len(order) + 1):
            issue(payment, order[:count], issued)
        found.add(tuple(sorted((str(paper.movement_id), *told([paper])[0]) for paper in issued)))
    assert len(found) == 1


def test_an_amount_finer_than_its_currency_is_issued_once() -> None:
    payment, issued = paid("100.50", "JPY"), list[Document]()
    assert told(issue(payment, [], issued)) == [("invoice", "101")]
    assert issue(payment, [], issued) == []


@pytest.mark.parametrize(
    ("total", "rate", "currency", "tax"),
    [
        ("49.99", "20", "USD", "8.33"),
        ("120", "20", "JPY", "20"),
        ("0.03", "20", "USD", "0.01"),
        ("-0.03", "20", "USD", "-0.01"),
        ("1.000", "7.7", "KWD", "0.071"),
        ("49.99", "0", "USD", "0.00"),
    ],
)
def test_the_tax_within_a_price(total: str, rate: str, currency: str, tax: str) -> None:
    assert str(tax_of(Decimal(total), Decimal(rate), currency)) == tax


@given(price=st.integers(1, 10**7), cuts=st.lists(st.integers(1, 10**6), max_size=8), rate=rates, currency=currencies)
def test_all_papers_together_hold_the_tax_on_what_was_kept(
    price: int, cuts: list[int], rate: Decimal, currency: str
) -> None:
    unit = Decimal(1).scaleb(-exponent(currency))
    steps = [price * unit]
    for cut in cuts:
        steps.append(-min(cut * unit, sum(steps, Decimal(0))))
    steps.append(-sum(steps, Decimal(0)))
    papers: list[Document] = []
    for step in steps:
        tax = _tax(step, papers, rate, currency)
        assert tax == round_money(tax, currency)
        papers.append(Document(total=step, tax=tax, net=step - tax))
        kept = sum((paper.total for paper in papers), Decimal(0))
        assert sum(paper.tax for paper in papers) == tax_of(kept, rate, currency)
    assert sum(paper.tax for paper in papers) == sum(paper.net for paper in papers) == 0
