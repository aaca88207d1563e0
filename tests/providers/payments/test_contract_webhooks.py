"""Whose webhooks are believed, and when: the part of the contract that keeps strangers out, on every adapter."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from providers.payments import BadPayload, BadSignature, PayloadFault, SignatureFault
from tests.providers.payments.harness import NOW, Delivery, Harness, request
from tests.providers.payments.receiving import receive, verify


class TestVerify:
    """Who may send events."""

    async def test_event_ids_are_told_apart_and_stay(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        contents = [*harness.paid(created), harness.other_event("evt_1"), harness.other_event("evt_2")]

        first = [(await receive(harness, content)).event_id for content in contents]
        again = [(await receive(harness, content)).event_id for content in contents]

        assert len(set(first)) == len(contents)
        assert first == again
        assert all(0 < len(event_id) <= 255 for event_id in first)

    async def test_what_is_stored_is_all_that_came(self, harness: Harness) -> None:
        created = await harness.provider.create_checkout(request())
        for content in harness.paid(created):
            event = await receive(harness, content)

            assert event.payload
            assert event.account == ""
            assert event.occurred_at == NOW

    @pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
    async def test_header_names_have_no_case(self, harness: Harness, spell: Callable[[str], str]) -> None:
        delivery = harness.deliver(harness.other_event())
        headers = {"Accept": "*/*", **{spell(name): value for name, value in delivery.headers.items()}}

        assert (await verify(harness, Delivery(delivery.body, headers))).event_id

    async def test_refuses_a_stranger(self, harness: Harness) -> None:
        with pytest.raises(BadSignature) as refused:
            await verify(harness, harness.deliver(harness.other_event(), forged=True))

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE

    @pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
    async def test_refuses_a_changed_body(self, harness: Harness, place: float) -> None:
        delivery = harness.deliver(harness.other_event())
        index = int(len(delivery.body) * place)
        other = b"A" if delivery.body[index : index + 1] != b"A" else b"B"

        with pytest.raises(BadSignature) as refused:
            changed = delivery.body[:index] + other + delivery.body[index + 1 :]
            await verify(harness, Delivery(changed, delivery.headers))

        assert refused.value.fault in (SignatureFault.INVALID_SIGNATURE, SignatureFault.INVALID_HEADER)

    async def test_refuses_a_body_that_is_longer(self, harness: Harness) -> None:
        delivery = harness.deliver(harness.other_event())

        with pytest.raises(BadSignature):
            await verify(harness, Delivery(delivery.body + b" ", delivery.headers))

    async def test_the_bytes_count_and_not_their_meaning(self, harness: Harness) -> None:
        spaced = harness.other_event().replace(b'":', b'"  :  ')

        assert (await verify(harness, harness.deliver(spaced))).event_id

    async def test_refuses_a_missing_signature(self, harness: Harness) -> None:
        with pytest.raises(BadSignature) as refused:
            await verify(harness, harness.unsigned(harness.other_event()))

        assert refused.value.fault is SignatureFault.INVALID_HEADER

    @pytest.mark.parametrize("value", ["", "nonsense", "sha256=", "t=1,v1=ab", "é", "\udce9", ",,=,", "0" * 5000])
    async def test_refuses_garbled_headers(self, harness: Harness, value: str) -> None:
        delivery = harness.deliver(harness.other_event())
        for name in delivery.headers:
            if name in {"content-type", "PAYPAL-TRANSMISSION-ID"}:
                continue
            with pytest.raises(BadSignature):
                await verify(harness, Delivery(delivery.body, {**delivery.headers, name: value}))

    @pytest.mark.parametrize(
        "content",
        [b"", b"not json", b"[]", b"null", b'"text"', b"12", b'{"id":', b'{"id": "a\\u0000", "type": "x"}'],
    )
    async def test_refuses_signed_bodies_that_are_no_events(self, harness: Harness, content: bytes) -> None:
        with pytest.raises(BadPayload) as refused:
            await verify(harness, harness.deliver(content))

        assert refused.value.fault is PayloadFault.NOT_AN_EVENT

    @pytest.mark.parametrize("depth", [1_000, 5_000])
    async def test_refuses_absurd_nesting(self, harness: Harness, depth: int) -> None:
        content = b'{"id": "evt_1", "type": "x", "data": ' + b"[" * depth + b"]" * depth + b"}"

        with pytest.raises(BadPayload) as refused:
            await verify(harness, harness.deliver(content))

        assert refused.value.fault is PayloadFault.NOT_AN_EVENT

    async def test_refuses_events_without_their_identity(self, harness: Harness) -> None:
        for content in harness.nameless_events():
            with pytest.raises(BadPayload) as refused:
                await verify(harness, harness.deliver(content))

            assert refused.value.fault is PayloadFault.MISSING_FIELDS


class TestSignedTime:
    """When events may arrive, where the provider signs the time."""

    @pytest.mark.parametrize("age_s", [-300, -1, 0, 1, 300])
    async def test_accepts_within_the_tolerance(self, timed: Harness, age_s: int) -> None:
        delivery = timed.deliver(timed.other_event())

        assert (await verify(timed, delivery, now=NOW + timedelta(seconds=age_s))).event_id

    async def test_refuses_what_is_too_old(self, timed: Harness) -> None:
        assert timed.oldest is not None
        delivery = timed.deliver(timed.other_event())

        assert (await verify(timed, delivery, now=NOW + timed.oldest)).event_id
        for age in (timed.oldest + timedelta(seconds=1), timedelta(days=30)):
            with pytest.raises(BadSignature) as refused:
                await verify(timed, delivery, now=NOW + age)
            assert refused.value.fault is SignatureFault.STALE

    async def test_refuses_the_future(self, timed: Harness) -> None:
        delivery = timed.deliver(timed.other_event())

        with pytest.raises(BadSignature) as refused:
            await verify(timed, delivery, now=NOW - timedelta(seconds=301))

        assert refused.value.fault is SignatureFault.FUTURE


class TestStampedHeader:
    """The header `t=...,v1=...` that Stripe made common."""

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
    async def test_refuses_a_malformed_header(self, stamped: Harness, value: str) -> None:
        (name,) = stamped.deliver(b"{}").headers

        with pytest.raises(BadSignature) as refused:
            await verify(stamped, Delivery(b"{}", {name: value}))

        assert refused.value.fault is SignatureFault.INVALID_HEADER

    async def test_any_of_several_signatures_will_do(self, stamped: Harness) -> None:
        delivery = stamped.deliver(stamped.other_event())
        ((name, value),) = delivery.headers.items()
        moment, good = value.split(",")[:2]
        headers = {name: f"{moment},v0=00,v1={'0' * 64}, {good},v1=zz,v2=x"}

        assert (await verify(stamped, Delivery(delivery.body, headers))).event_id == "evt_1"

    async def test_one_good_signature_does_not_cover_another_time(self, stamped: Harness) -> None:
        delivery = stamped.deliver(stamped.other_event(), at=NOW - timedelta(hours=1))
        ((name, value),) = delivery.headers.items()
        renewed = value.replace(value.split(",")[0], f"t={int(NOW.timestamp())}")

        with pytest.raises(BadSignature) as refused:
            await verify(stamped, Delivery(delivery.body, {name: renewed}))

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE

    async def test_an_event_without_a_time_happened_when_it_was_signed(self, stamped: Harness) -> None:
        at = NOW - timedelta(seconds=200)

        event = await verify(stamped, stamped.deliver(b'{"id": "evt_1", "type": "x"}', at=at))

        assert event.occurred_at == at


class TestRolledSecrets:
    """While a secret is exchanged, the old one and the new one are both believed, and later the new one alone."""

    @pytest.mark.parametrize("is_first", [True, False])
    async def test_each_of_several_secrets_will_do(self, rolled: Harness, *, is_first: bool) -> None:
        believe(rolled, lambda known: (*known, "another") if is_first else ("another", *known))

        assert (await verify(rolled, rolled.deliver(rolled.other_event()))).event_id

    async def test_one_that_was_taken_away_is_no_good(self, rolled: Harness) -> None:
        believe(rolled, lambda _: ("another",))

        with pytest.raises(BadSignature) as refused:
            await verify(rolled, rolled.deliver(rolled.other_event()))
        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE


def believe(harness: Harness, secrets: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
    """Change the secrets that an adapter was built with."""
    (name,) = {"_webhook_secrets", "_webhook_ids"} & set(vars(harness.provider))
    setattr(harness.provider, name, secrets(getattr(harness.provider, name)))
