"""LiqPay beyond the contract suite: its vectors, its form, its statuses, and replays."""

import base64
from dataclasses import replace
from decimal import Decimal
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import pytest

from core import json
from providers.http import HttpClient
from providers.payments import (
    BadPayload,
    BadSignature,
    CheckoutPaid,
    PayloadFault,
    PaymentRefunded,
    PaymentStatus,
    ProviderRejected,
    ProviderUnavailable,
    RefundRequest,
    RefundStatus,
    SignatureFault,
    VerifiedEvent,
)
from providers.payments.liqpay import LiqPayProvider
from tests.fakes import liqpay_api
from tests.fakes.server import Fault
from tests.providers.payments.harness import NOW, FixedClock, invoice_request, request
from tests.providers.payments.harness_one_time import LiqPayHarness
from tests.providers.payments.receiving import facts, states

# LiqPay's documentation: the callback's sample, and the checkout's, whose base64 is wrapped into three lines.
CALLBACK_SIGNATURE = "tp+ZLmKm1/E83dIzUpx5ljcttP4="
CHECKOUT_LINES = (
    "eyAidmVyc2lvbiIgOiAzLCAicHVibGljX2tleSIgOiAieW91cl9wdWJsaWNfa2V5IiwgImFjdGlv",
    "biIgOiAicGF5IiwgImFtb3VudCIgOiAxLCAiY3VycmVuY3kiIDogIlVTRCIsICJkZXNjcmlwdGlv",
    "biIgOiAiZGVzY3JpcHRpb24gdGV4dCIsICJvcmRlcl9pZCIgOiAib3JkZXJfaWRfMSIgfQ==",
)
WRAPPED_SIGNATURE = "QvJD5u9Fg55PCx/Hdz6lzWtYwcI="
UNWRAPPED_SIGNATURE = "MPgGw632itnbRVDSd/KyNEGrAsQ="


def documented(http: HttpClient) -> LiqPayProvider:
    return LiqPayProvider(
        http,
        public_key="your_public_key",
        private_key="your_private_key",
        webhook_url="https://x",
        clock=FixedClock(),
    )


def form(data: str, signature: str) -> bytes:
    return urlencode({"data": data, "signature": signature}).encode()


def verify(provider: LiqPayProvider, body: bytes) -> VerifiedEvent:
    return provider.verify(body=body, headers={}, now=NOW)


class TestVectors:
    """The signatures that LiqPay itself has published (providers.md 2.2)."""

    def test_the_callbacks(self) -> None:
        provider = documented(HttpClient(clock=FixedClock()))

        # The signature holds, so what is missed is JSON, which that sample does not hold.
        with pytest.raises(BadPayload) as refused:
            verify(provider, form("base64_post_string", CALLBACK_SIGNATURE))
        assert refused.value.fault is PayloadFault.NOT_AN_EVENT
        with pytest.raises(BadSignature):
            verify(provider, form("base64_post_string", CALLBACK_SIGNATURE[::-1]))

    @pytest.mark.parametrize(
        ("data", "signature"),
        [("\n".join(CHECKOUT_LINES), WRAPPED_SIGNATURE), ("".join(CHECKOUT_LINES), UNWRAPPED_SIGNATURE)],
    )
    def test_the_checkouts_over_exactly_the_text_that_came(self, data: str, signature: str) -> None:
        provider = documented(HttpClient(clock=FixedClock()))

        # It is no callback, for it has no status; but it is signed and it is read.
        with pytest.raises(BadPayload) as refused:
            verify(provider, form(data, signature))
        assert refused.value.fault is PayloadFault.MISSING_FIELDS
        with pytest.raises(BadSignature):
            verify(provider, form(data + "\n", signature))

    def test_the_fake_signs_them_too(self) -> None:
        assert liqpay_api.sign("base64_post_string", key="your_private_key") == CALLBACK_SIGNATURE
        assert liqpay_api.sign("\n".join(CHECKOUT_LINES), key="your_private_key") == WRAPPED_SIGNATURE
        assert liqpay_api.sign("".join(CHECKOUT_LINES), key="your_private_key") == UNWRAPPED_SIGNATURE


class TestForm:
    """The form that a callback is."""

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"data=a",
            b"signature=a",
            b"data=a&data=b&signature=c",
            b"data=a&signature=b&signature=c",
            b"\xff\xfe",
            b"&".join(b"x=1" for _ in range(50)),
            b'{"data": "a", "signature": "b"}',
        ],
    )
    def test_refuses_what_is_no_such_form(self, liqpay: LiqPayHarness, body: bytes) -> None:
        with pytest.raises(BadSignature) as refused:
            liqpay.provider.verify(body=body, headers={}, now=NOW)

        assert refused.value.fault is SignatureFault.INVALID_HEADER

    def test_refuses_data_that_is_no_base64(self, liqpay: LiqPayHarness) -> None:
        with pytest.raises(BadPayload):
            liqpay.provider.verify(body=liqpay.fake.form("é!"), headers={}, now=NOW)

    async def test_the_fakes_own_callback_is_believed(self, liqpay: LiqPayHarness) -> None:
        created = await liqpay.provider.create_checkout(request())
        liqpay.fake.arrive(created.url)
        (body,) = liqpay.fake.pay(created.session_id)

        event = liqpay.provider.verify(body=body, headers={}, now=NOW)

        assert event.type == "pay.success"
        assert event.occurred_at == NOW
        assert liqpay.provider.to_fetch(event) == created.session_id

    def test_without_a_key_nothing_is_believed(self) -> None:
        provider = LiqPayProvider(
            HttpClient(clock=FixedClock()), public_key="", private_key="", webhook_url="", clock=FixedClock()
        )
        with pytest.raises(BadSignature) as refused:
            verify(provider, form("e30=", "x"))

        assert refused.value.fault is SignatureFault.NOT_CONFIGURED


class TestAddress:
    """The address that a payer is sent to."""

    async def test_carries_everything_signed(self, liqpay: LiqPayHarness) -> None:
        asked = request(amount="49.9", currency="uah")

        created = await liqpay.provider.create_checkout(asked)

        query = parse_qs(urlsplit(created.url).query)
        params = json.loads_exact(base64.b64decode(query["data"][0]))
        assert query["signature"] == [liqpay_api.sign(query["data"][0])]
        assert params == {
            "version": 3,
            "public_key": liqpay_api.PUBLIC_KEY,
            "action": "pay",
            "amount": Decimal("49.90"),
            "currency": "UAH",
            "description": "Professional «Про» & more",
            "order_id": created.session_id,
            "server_url": "https://api.example.com/hook",
            "result_url": "https://app.example.com/ok?a=1&b=2",
            "language": "uk",
            "expired_date": "2026-11-21 12:00:00",
        }
        assert not liqpay.fake.requests

    async def test_an_order_whose_payer_never_came_is_unknown(self, liqpay: LiqPayHarness) -> None:
        created = await liqpay.provider.create_checkout(request())

        assert await liqpay.provider.fetch_payment(created.session_id) is None
        with pytest.raises(ProviderRejected) as refused:
            await liqpay.provider.capture(created.session_id)
        assert refused.value.details == {"reason": "resource_missing"}


class TestStatuses:
    """LiqPay's words for a payment."""

    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("success", PaymentStatus.PAID),
            ("failure", PaymentStatus.FAILED),
            ("error", PaymentStatus.FAILED),
            ("otp_verify", PaymentStatus.PENDING),
            ("3ds_verify", PaymentStatus.PENDING),
            ("captcha_verify", PaymentStatus.PENDING),
            ("processing", PaymentStatus.PROCESSING),
            ("wait_accept", PaymentStatus.PROCESSING),
            ("wait_secure", PaymentStatus.PROCESSING),
            ("hold_wait", PaymentStatus.PROCESSING),
            ("sandbox", PaymentStatus.FAILED),
            ("subscribed", PaymentStatus.PENDING),
            ("a word of tomorrow", PaymentStatus.PENDING),
        ],
    )
    async def test_only_success_is_paid(self, liqpay: LiqPayHarness, word: str, status: PaymentStatus) -> None:
        created = await liqpay.provider.create_checkout(request())
        liqpay.fake.arrive(created.url)
        liqpay.fake.pay(created.session_id, word)

        state = await liqpay.provider.fetch_payment(created.session_id)

        assert state is not None
        assert (state.status, state.provider_status, state.is_test) == (status, word, word == "sandbox")

    async def test_play_money_counts_where_everything_is_play(self, liqpay: LiqPayHarness) -> None:
        playing = LiqPayProvider(
            liqpay.client(),
            public_key=liqpay_api.PUBLIC_KEY,
            private_key=liqpay_api.PRIVATE_KEY,
            webhook_url="https://x",
            clock=FixedClock(),
            sandbox=True,
            api_base=liqpay.fake.base_url,
        )
        created = await playing.create_checkout(request())
        assert '"sandbox":1' in base64.b64decode(parse_qs(urlsplit(created.url).query)["data"][0]).decode()
        liqpay.fake.arrive(created.url)
        liqpay.fake.pay(created.session_id, "sandbox")

        state = await playing.fetch_payment(created.session_id)

        assert state is not None
        assert (state.status, state.is_test) == (PaymentStatus.PAID, True)

    async def test_a_replayed_callback_changes_nothing(self, liqpay: LiqPayHarness) -> None:
        created = await liqpay.provider.create_checkout(request())
        (old,) = liqpay.paid(created)
        liqpay.fake.give_back(created.session_id, 49.99)

        found = await facts(liqpay, [old])

        # What is told is what is so now, and not what the old callback said.
        assert [type(fact) for fact in found] == [CheckoutPaid, PaymentRefunded]
        (refund,) = [fact for fact in found if isinstance(fact, PaymentRefunded)]
        assert (refund.refunded_total, refund.charged) == (Decimal("49.99"), Decimal("49.99"))

    async def test_each_change_is_another_event(self, liqpay: LiqPayHarness) -> None:
        created = await liqpay.provider.create_checkout(request())
        liqpay.fake.arrive(created.url)
        bodies = [
            *liqpay.fake.pay(created.session_id, "wait_accept"),
            *liqpay.fake.pay(created.session_id),
            *liqpay.fake.give_back(created.session_id, 10),
            *liqpay.fake.give_back(created.session_id, 10),
        ]

        ids = [liqpay.provider.verify(body=body, headers={}, now=NOW).event_id for body in bodies]

        assert len(set(ids)) == 4

    async def test_a_callback_about_somebody_elses_order_is_nothing(self, liqpay: LiqPayHarness) -> None:
        created = await liqpay.provider.create_checkout(request())
        order = liqpay.fake.arrive(created.url)
        liqpay.fake.orders["shop-17"] = {**order, "order_id": "shop-17", "status": "success"}

        content = json.dumps(liqpay.fake.orders["shop-17"])

        assert await facts(liqpay, [content]) == []
        (state,) = await states(liqpay, [content])
        assert state.tags is None


class TestRefund:
    """Refunds without idempotency keys."""

    async def paid(self, liqpay: LiqPayHarness) -> RefundRequest:
        created = await liqpay.provider.create_invoice(invoice_request())
        liqpay.paid(created)
        return RefundRequest(
            refund_id=uuid4(),
            session_id=created.session_id,
            payment_ref=None,
            amount=Decimal("10.00"),
            currency="USD",
            refunded_before=Decimal(0),
        )

    async def test_is_not_made_when_liqpay_disagrees_about_what_went_back(self, liqpay: LiqPayHarness) -> None:
        asked = await self.paid(liqpay)
        liqpay.fake.give_back(asked.session_id, 3)

        with pytest.raises(ProviderRejected) as refused:
            await liqpay.provider.refund(asked)

        assert refused.value.details == {"reason": "refund_not_possible"}
        assert liqpay.fake.orders[asked.session_id]["refund_amount"] == 3

    async def test_a_refund_that_waits_for_money_is_pending(self, liqpay: LiqPayHarness) -> None:
        asked = await self.paid(liqpay)
        body = '{"action": "refund", "result": "ok", "status": "success", "wait_amount": true}'
        liqpay.fake.faults.extend([Fault(), Fault(status=200, body=body)])

        made = await liqpay.provider.refund(asked)

        assert made.status is RefundStatus.PENDING

    async def test_a_refusal_is_told_by_its_code(self, liqpay: LiqPayHarness) -> None:
        asked = await self.paid(liqpay)
        refusal = '{"result": "error", "status": "error", "err_code": "err_refund", "err_description": "x"}'
        liqpay.fake.faults.extend([Fault(), Fault(status=200, body=refusal)])

        with pytest.raises(ProviderRejected) as refused:
            await liqpay.provider.refund(asked)

        assert refused.value.details == {"reason": "err_refund"}

    async def test_never_of_a_payment_that_failed(self, liqpay: LiqPayHarness) -> None:
        asked = await self.paid(liqpay)
        liqpay.fake.orders[asked.session_id]["status"] = "failure"

        with pytest.raises(ProviderRejected):
            await liqpay.provider.refund(replace(asked, amount=Decimal("1.00")))


async def test_wrong_keys_need_an_operator(liqpay: LiqPayHarness) -> None:
    stranger = LiqPayProvider(
        liqpay.client(),
        public_key="another",
        private_key="another",
        webhook_url="https://x",
        clock=FixedClock(),
        api_base=liqpay.fake.base_url,
    )
    with pytest.raises(ProviderUnavailable) as failed:
        await stranger.fetch_payment("o1-1")

    assert not failed.value.retryable
