"""The contract of `providers/payments/contract.py`, run on every adapter.

A new adapter joins by a harness in `harness.py` and its name in the `harness` fixture.
"""

import copy
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from core import json
from providers.payments import (
    BadPayload,
    BadSignature,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    Fact,
    PayloadFault,
    ProviderRejected,
    Purchase,
    SignatureFault,
)
from tests.providers.payments.harness import NOW, PLAN, TENANT, Harness, request


def facts(harness: Harness, bodies: list[bytes]) -> list[Fact]:
    """Receive bodies the way the webhook route and the worker do, the inbox between them included."""
    found: list[Fact] = []
    for body in bodies:
        event = harness.provider.verify(body=body, headers=harness.headers(body), now=NOW)
        stored = dataclasses.replace(event, payload=json.loads(json.dumps(event.payload)))
        found += harness.provider.interpret(stored)
    return found


class TestCreateCheckout:
    """Opening a checkout."""

    async def test_answers_with_a_session_that_waits_for_its_payer(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        assert created.url.startswith(("http://", "https://"))
        assert 0 < len(created.session_id) <= 255
        assert created.expires_at == NOW + timedelta(hours=24)

    async def test_is_idempotent_by_our_own_id(self, harness: Harness) -> None:
        asked = request()

        first = await harness.provider.create_checkout(asked)
        second = await harness.provider.create_checkout(asked)
        other = await harness.provider.create_checkout(request())

        assert first.session_id == second.session_id
        assert other.session_id != first.session_id

    @pytest.mark.parametrize(
        ("amount", "currency"),
        [
            ("49.99", "USD"),
            ("0", "EUR"),
            ("4900", "JPY"),
            ("12.340", "KWD"),
            ("1250", "ISK"),
            ("990.00", "rub"),
        ],
    )
    async def test_money_comes_back_as_it_was_asked(self, harness: Harness, amount: str, currency: str) -> None:
        created = await harness.provider.create_checkout(request(amount=amount, currency=currency))
        (paid,) = [fact for fact in facts(harness, harness.paid(created)) if isinstance(fact, CheckoutPaid)]

        assert isinstance(paid.amount, Decimal)
        assert paid.amount == Decimal(amount)
        assert paid.currency == currency.upper()

    @pytest.mark.parametrize(
        ("amount", "currency"),
        [
            ("49.999", "USD"),
            ("4900.5", "JPY"),
            ("12.3456", "KWD"),
            ("-1", "USD"),
            ("NaN", "USD"),
            ("Infinity", "USD"),
        ],
    )
    async def test_never_rounds_a_price(self, harness: Harness, amount: str, currency: str) -> None:
        with pytest.raises(ProviderRejected) as refused:
            await harness.provider.create_checkout(request(amount=amount, currency=currency))

        assert refused.value.details == {"reason": "amount_not_payable"}


class TestFacts:
    """What the provider's events say."""

    async def test_a_payment_names_what_was_bought_by_whom(self, harness: Harness) -> None:
        asked = request()
        created = await harness.provider.create_checkout(asked)

        (paid,) = [fact for fact in facts(harness, harness.paid(created)) if isinstance(fact, CheckoutPaid)]

        assert paid.provider == harness.provider.name
        assert paid.occurred_at == NOW
        assert paid.session_id == created.session_id
        assert paid.purchase == Purchase(
            checkout_id=asked.checkout_id, tenant_id=TENANT, plan_id=PLAN, billing_period="yearly"
        )
        assert paid.subscription_ref
        assert paid.customer_ref
        assert paid.payment_key

    async def test_a_known_customer_stays_the_same(self, harness: Harness) -> None:
        first = await harness.provider.create_checkout(request())
        (before,) = [fact for fact in facts(harness, harness.paid(first)) if isinstance(fact, CheckoutPaid)]

        second = await harness.provider.create_checkout(request(customer_ref=before.customer_ref))
        (after,) = [fact for fact in facts(harness, harness.paid(second)) if isinstance(fact, CheckoutPaid)]

        assert after.customer_ref == before.customer_ref

    async def test_a_failed_payment_is_never_a_paid_one(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        found = facts(harness, harness.declined(created))

        (failed,) = [fact for fact in found if isinstance(fact, CheckoutFailed)]
        assert (failed.session_id, failed.amount) == (created.session_id, Decimal("49.99"))
        assert not [fact for fact in found if isinstance(fact, CheckoutPaid)]

    async def test_expiry_is_told(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        (expired,) = facts(harness, harness.expired(created))

        assert isinstance(expired, CheckoutExpired)
        assert expired.session_id == created.session_id
        assert expired.purchase.tenant_id == TENANT

    async def test_money_of_one_payment_has_one_key(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())

        keys = {getattr(fact, "payment_key", None) for fact in facts(harness, harness.paid(created))} - {None}

        assert len(keys) == 1

    async def test_interpreting_is_pure(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        for body in harness.paid(created):
            event = harness.provider.verify(body=body, headers=harness.headers(body), now=NOW)
            before = copy.deepcopy(event)

            assert harness.provider.interpret(event) == harness.provider.interpret(event)
            assert event == before

    async def test_other_events_are_no_business_of_ours(self, harness: Harness) -> None:
        body = harness.envelope({"id": "evt_1", "type": "mandate.updated", "created": 1, "data": {"object": {}}})

        assert facts(harness, [body]) == []


class TestVerify:
    """Who may send events, and when."""

    async def test_event_ids_are_told_apart_and_stay(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        bodies = harness.paid(created)

        ids = [harness.provider.verify(body=body, headers=harness.headers(body), now=NOW).event_id for body in bodies]

        assert len(set(ids)) == len(bodies)

    @pytest.mark.parametrize("age_s", [-300, -1, 0, 1, 300])
    def test_accepts_within_the_tolerance(self, harness: Harness, age_s: int) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x", "created": 1_700_000_000})

        event = harness.provider.verify(body=body, headers=harness.headers(body), now=NOW + timedelta(seconds=age_s))

        assert (event.event_id, event.type, event.account) == ("evt_1", "x", "")
        assert event.occurred_at.timestamp() == 1_700_000_000

    @pytest.mark.parametrize(
        ("age_s", "fault"),
        [(301, SignatureFault.STALE), (86_400, SignatureFault.STALE), (-301, SignatureFault.FUTURE)],
    )
    def test_refuses_outside_the_tolerance(self, harness: Harness, age_s: int, fault: SignatureFault) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x"})

        with pytest.raises(BadSignature) as refused:
            harness.provider.verify(body=body, headers=harness.headers(body), now=NOW + timedelta(seconds=age_s))

        assert refused.value.fault is fault

    @pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
    def test_header_names_have_no_case(self, harness: Harness, spell: Callable[[str], str]) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x"})
        headers = {spell(name): value for name, value in harness.headers(body).items()}

        assert harness.provider.verify(body=body, headers={"Accept": "*/*", **headers}, now=NOW).type == "x"

    def test_refuses_a_stranger(self, harness: Harness) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x"})

        with pytest.raises(BadSignature) as refused:
            harness.provider.verify(body=body, headers=harness.headers(body, forged=True), now=NOW)

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE

    @pytest.mark.parametrize(
        "tamper",
        [
            lambda body: body + b" ",
            lambda body: body.replace(b"evt_1", b"evt_2"),
            lambda _: b"",
            lambda _: b"\xff\xfe",
        ],
        ids=["longer", "changed", "empty", "not text"],
    )
    def test_refuses_other_bytes(self, harness: Harness, tamper: Callable[[bytes], bytes]) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x"})

        with pytest.raises(BadSignature) as refused:
            harness.provider.verify(body=tamper(body), headers=harness.headers(body), now=NOW)

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE

    def test_refuses_a_missing_header(self, harness: Harness) -> None:
        with pytest.raises(BadSignature) as refused:
            harness.provider.verify(body=b"{}", headers={}, now=NOW)

        assert refused.value.fault is SignatureFault.INVALID_HEADER

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "nonsense",
            "t=,v1=ab",
            "t=now,v1=ab",
            "t=-1,v1=ab",
            "t=1.5,v1=ab",
            "t=" + "9" * 400 + ",v1=ab",
            "t=1",
            "t=1,v1=",
            "t=1,v0=ab",
            "v1=ab",
            "t=1,t=2,v1=ab",
            "t=1,v1=é",
            "t=1,v1=\udce9",
            "t=\u0661,v1=ab",
            ",,,=,=,",
        ],
    )
    def test_refuses_a_malformed_header(self, harness: Harness, value: str) -> None:
        (name,) = harness.headers(b"{}")

        with pytest.raises(BadSignature) as refused:
            harness.provider.verify(body=b"{}", headers={name: value}, now=NOW)

        assert refused.value.fault is SignatureFault.INVALID_HEADER

    def test_any_of_several_signatures_will_do(self, harness: Harness) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x"})
        ((name, value),) = harness.headers(body).items()
        moment, good = value.split(",")[:2]
        headers = {name: f"{moment},v0=00,v1={'0' * 64}, {good},v1=zz,v2=x"}

        assert harness.provider.verify(body=body, headers=headers, now=NOW).event_id == "evt_1"

    def test_one_good_signature_does_not_cover_another_time(self, harness: Harness) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x"})
        ((name, value),) = harness.headers(body, at=NOW - timedelta(hours=1)).items()
        renewed = value.replace(value.split(",")[0], f"t={int(NOW.timestamp())}")

        with pytest.raises(BadSignature) as refused:
            harness.provider.verify(body=body, headers={name: renewed}, now=NOW)

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE

    @pytest.mark.parametrize(
        "body",
        [b"", b"not json", b"[]", b"null", b'"text"', b"12", b'{"id":', b'{"id": "a\\u0000", "type": "x"}'],
    )
    def test_refuses_signed_bodies_that_are_no_events(self, harness: Harness, body: bytes) -> None:
        with pytest.raises(BadPayload) as refused:
            harness.provider.verify(body=body, headers=harness.headers(body), now=NOW)

        assert refused.value.fault is PayloadFault.NOT_AN_EVENT

    @pytest.mark.parametrize("depth", [1_000, 5_000])
    def test_refuses_absurd_nesting(self, harness: Harness, depth: int) -> None:
        body = b'{"id": "evt_1", "type": "x", "data": ' + b"[" * depth + b"]" * depth + b"}"

        with pytest.raises(BadPayload) as refused:
            harness.provider.verify(body=body, headers=harness.headers(body), now=NOW)

        assert refused.value.fault is PayloadFault.NOT_AN_EVENT

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"id": "evt_1"},
            {"type": "x"},
            {"id": "", "type": "x"},
            {"id": 7, "type": "x"},
            {"id": "evt_1", "type": None},
            {"id": "e" * 256, "type": "x"},
            {"id": "evt_1", "type": "x", "created": "yesterday"},
            {"id": "evt_1", "type": "x", "created": 10**18},
        ],
    )
    def test_refuses_events_without_their_identity(self, harness: Harness, fields: dict[str, object]) -> None:
        body = harness.envelope(fields)

        with pytest.raises(BadPayload) as refused:
            harness.provider.verify(body=body, headers=harness.headers(body), now=NOW)

        assert refused.value.fault is PayloadFault.MISSING_FIELDS

    def test_an_event_without_a_time_happened_when_it_was_signed(self, harness: Harness) -> None:
        body = harness.envelope({"id": "evt_1", "type": "x"})
        at = NOW - timedelta(seconds=200)

        event = harness.provider.verify(body=body, headers=harness.headers(body, at=at), now=NOW)

        assert event.occurred_at == at


class TestCancel:
    """Ending a subscription."""

    async def test_twice_and_both_ways(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        (paid,) = [fact for fact in facts(harness, harness.paid(created)) if isinstance(fact, CheckoutPaid)]
        assert paid.subscription_ref is not None

        for at_period_end in (True, True, False, False, True):
            await harness.provider.cancel(paid.subscription_ref, at_period_end=at_period_end)

    @pytest.mark.parametrize("at_period_end", [True, False])
    @pytest.mark.parametrize("ref", ["sub_unknown", "sbx_sub_unknown", "../customers", "sbx_sub_" + "0" * 64, ""])
    async def test_refuses_what_it_does_not_know(self, harness: Harness, ref: str, *, at_period_end: bool) -> None:
        with pytest.raises(ProviderRejected):
            await harness.provider.cancel(ref, at_period_end=at_period_end)
