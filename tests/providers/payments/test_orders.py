"""Our ids on their way through a provider, and amounts on theirs."""

from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import exponent
from providers.payments import BadPayload, OrderTags, ProviderRejected, Purchase
from providers.payments.orders import (
    amount_text,
    compact_tags,
    read_compact_tags,
    read_tags,
    refuse_refund_beyond,
    tags_as_metadata,
    tags_of_metadata,
)
from providers.payments.reading import Node

ORDER = UUID("6a2f41a3-c54c-4fce-8f2d-3f7f4f1a9b0c")
TENANT = UUID("0b7cf5b1-6a52-4d0a-9c3b-0d0c1f3f7a11")
PLAN = UUID("5f0d2a3e-90f5-4a70-8f0e-4a3c1de1b222")


@st.composite
def tags(draw: st.DrawFn) -> OrderTags:
    order_id, tenant_id = draw(st.uuids()), draw(st.uuids())
    if draw(st.booleans()):
        return OrderTags(order_id=order_id, tenant_id=tenant_id, purchase=None)
    purchase = Purchase(
        checkout_id=order_id,
        tenant_id=tenant_id,
        plan_id=draw(st.uuids()),
        billing_period=draw(st.sampled_from(("monthly", "yearly"))),
    )
    return OrderTags(order_id=order_id, tenant_id=tenant_id, purchase=purchase)


@given(sent=tags())
def test_our_ids_come_back(sent: OrderTags) -> None:
    compact, metadata = compact_tags(sent), tags_as_metadata(sent)

    assert read_compact_tags(compact) == sent
    assert read_tags(Node(metadata, "metadata")) == sent
    # PayPal keeps 127 characters, Coinbase 100 in each value, LiqPay lets them into an order's id.
    assert len(compact) <= 104
    assert all(len(value) <= 100 for value in metadata.values())


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "17",
        "o1",
        "o1-17-18",
        f"o2-{ORDER.hex}-{TENANT.hex}",
        f"o1-{ORDER.hex}-{TENANT.hex}-{PLAN.hex}",
        f"o1-{ORDER.hex}-{TENANT.hex}-{PLAN.hex}-w",
        f"o1-{ORDER.hex}-{TENANT.hex}-{PLAN.hex}-m-x",
        f"o1-{ORDER.hex}-{TENANT.hex}-plan-m",
    ],
)
def test_what_is_not_ours_is_nobodys(text: str | None) -> None:
    assert read_compact_tags(text) is None


@pytest.mark.parametrize(
    "change",
    [
        {"order_id": "17"},
        {"order_id": None},
        {"tenant_id": 17},
        {"plan_id": "gold"},
        {"billing_period": "weekly"},
        {"billing_period": None},
    ],
)
def test_garbled_ids_are_refused_or_nobodys(change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "order_id": str(ORDER),
        "tenant_id": str(TENANT),
        "plan_id": str(PLAN),
        "billing_period": "monthly",
    }
    node = Node(good | change, "metadata")

    assert tags_of_metadata(node) is None
    with pytest.raises(BadPayload):
        read_tags(node)


def test_no_ids_at_all_are_nobodys() -> None:
    assert tags_of_metadata(None) is None
    assert tags_of_metadata(Node({}, "metadata")) is None


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("49.9", "USD", "49.90"),
        ("5", "JPY", "5"),
        ("5.00", "JPY", "5"),
        ("12.34", "KWD", "12.340"),
        ("1E+3", "USD", "1000.00"),
        ("0.01", "EUR", "0.01"),
    ],
)
def test_amounts_have_their_currencys_decimals(amount: str, currency: str, text: str) -> None:
    assert amount_text(Decimal(amount), currency, currencies=None) == text


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("0", "USD"), ("-1", "USD"), ("0.001", "USD"), ("0.5", "JPY"), ("NaN", "USD"), ("sNaN", "USD"), ("1E+12", "USD")],
)
def test_what_cannot_be_asked_for(amount: str, currency: str) -> None:
    with pytest.raises(ProviderRejected) as refused:
        amount_text(Decimal(amount), currency, currencies=frozenset({"USD", "JPY"}))

    assert refused.value.details == {"reason": "amount_not_payable"}


@given(minor=st.integers(1, 10**13), currency=st.sampled_from(("USD", "JPY", "KWD", "ISK", "XAF")))
def test_not_a_minor_unit_is_lost(minor: int, currency: str) -> None:
    amount = Decimal(minor).scaleb(-exponent(currency))
    if amount >= Decimal(10) ** 12:
        return

    text = amount_text(amount, currency, currencies=None)

    assert Decimal(text) == amount
    assert "E" not in text
    assert len(text.partition(".")[2]) == exponent(currency)


@pytest.mark.parametrize("amount", ["0", "-1", "10.01", "NaN", "Infinity"])
def test_no_more_goes_back_than_is_left(amount: str) -> None:
    refuse_refund_beyond(Decimal("10.00"), Decimal("10.00"))

    with pytest.raises(ProviderRejected):
        refuse_refund_beyond(Decimal(amount), Decimal("10.00"))
