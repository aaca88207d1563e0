"""PayPal's webhooks: whose certificates are believed, and what a signature is made of."""

import asyncio
import base64
import zlib
from datetime import timedelta

import pytest

from providers.http import HttpClient
from providers.payments import (
    BadSignature,
    ProviderUnavailable,
    SignatureFault,
)
from providers.payments.paypal import LIVE_API_BASE, PayPalProvider
from providers.payments.paypal_webhooks import Certificates
from tests.fakes import paypal_api, paypal_ca
from tests.fakes.server import Fault
from tests.providers.payments.harness import NOW, Delivery, FixedClock, request
from tests.providers.payments.harness_one_time import PayPalHarness
from tests.providers.payments.receiving import receive, verify

CERTS = "/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77"


def fetched(paypal: PayPalHarness) -> int:
    return len([seen for seen in paypal.fake.requests if "/certs/" in seen.path])


def test_the_checksum_is_the_known_one() -> None:
    # providers.md 2.3; PayPal signs it as an unsigned decimal.
    assert zlib.crc32(b'{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED"}') == 2325436976


class TestCertificates:
    """Whose certificates are believed."""

    @pytest.mark.parametrize("kind", ["stranger", "self-signed", "other-host", "expired"])
    async def test_only_one_that_a_trusted_root_vouches_for(self, paypal: PayPalHarness, kind: str) -> None:
        body = paypal.other_event()
        headers = paypal.fake.sign(body, signer=paypal_ca.signer(kind))

        with pytest.raises(BadSignature) as refused:
            await verify(paypal, Delivery(body, headers))

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE
        # One that was refused is not asked for again and again.
        with pytest.raises(BadSignature):
            await verify(paypal, Delivery(body, headers))
        assert fetched(paypal) == 1

    async def test_one_that_was_refused_gets_another_chance_later(self, paypal: PayPalHarness) -> None:
        paypal.fake.faults.append(Fault(status=404))
        delivery = paypal.deliver(paypal.other_event())
        with pytest.raises(BadSignature):
            await verify(paypal, delivery)
        paypal.clock.at += timedelta(minutes=5)

        assert (await verify(paypal, delivery)).event_id == "evt_1"

    async def test_is_fetched_once(self, paypal: PayPalHarness) -> None:
        for number in range(3):
            await verify(paypal, paypal.deliver(paypal.other_event(f"evt_{number}")))

        assert fetched(paypal) == 1

    async def test_one_that_has_run_out_is_fetched_again(self, paypal: PayPalHarness) -> None:
        await verify(paypal, paypal.deliver(paypal.other_event()))
        later = NOW + timedelta(days=3650)
        paypal.clock.at = later

        with pytest.raises(BadSignature):
            await verify(paypal, paypal.deliver(paypal.other_event(), at=later), now=later)

        assert fetched(paypal) == 2

    async def test_nothing_is_believed_before_it_is_prepared(self, paypal: PayPalHarness) -> None:
        delivery = paypal.deliver(paypal.other_event())

        with pytest.raises(BadSignature):
            paypal.provider.verify(body=delivery.body, headers=delivery.headers, now=NOW)

    async def test_while_it_cannot_be_had_the_delivery_must_come_again(self, paypal: PayPalHarness) -> None:
        delivery = paypal.deliver(paypal.other_event())
        paypal.fake.always = Fault(status=503)

        with pytest.raises(ProviderUnavailable):
            await paypal.provider.prepare(delivery.headers)

    async def test_whoever_has_one_waits_for_no_strangers(self, paypal: PayPalHarness) -> None:
        await verify(paypal, paypal.deliver(paypal.other_event()))
        paypal.fake.always = Fault(delay_s=30)
        stranger = {"PAYPAL-CERT-URL": paypal.fake.base_url + "/v1/notifications/certs/CERT-strange"}
        waiting = asyncio.create_task(paypal.provider.prepare(stranger))
        await asyncio.sleep(0.1)

        async with asyncio.timeout(5):
            assert (await verify(paypal, paypal.deliver(paypal.other_event("evt_2")))).event_id == "evt_2"

        waiting.cancel()

    async def test_strangers_push_no_good_one_out(self, paypal: PayPalHarness) -> None:
        await verify(paypal, paypal.deliver(paypal.other_event()))
        for number in range(17):
            url = f"{paypal.fake.base_url}/v1/notifications/certs/CERT-{number}"
            await paypal.provider.prepare({"PAYPAL-CERT-URL": url})
        asked = fetched(paypal)
        await verify(paypal, paypal.deliver(paypal.other_event("evt_2")))

        assert fetched(paypal) == asked

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example.com" + CERTS,
            "https://paypal.com.evil.example.com" + CERTS,
            "https://evilpaypal.com" + CERTS,
            "http://api.paypal.com" + CERTS,
            "https://anything.paypal.com" + CERTS,
            "https://api.paypal.com:8443" + CERTS,
            "https://user@api.paypal.com" + CERTS,
            "https://api.paypal.com" + CERTS + "?x=1",
            "https://api.paypal.com/v1/notifications/certs/../../../x",
            "https://api.paypal.com/v1/other/CERT-1",
            "https://api.paypal.com:port" + CERTS,
            "https://[" + CERTS,
            "file:///etc/passwd",
            "",
        ],
    )
    async def test_nobody_elses_address_is_followed(self, url: str) -> None:
        class Refusing(HttpClient):
            async def request(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
                pytest.fail(f"asked for {args}")

        certificates = Certificates(
            Refusing(clock=FixedClock()), roots=paypal_ca.roots(), api_base=LIVE_API_BASE, clock=FixedClock()
        )

        await certificates.fetch(url)

        assert certificates.find(url) is None

    def test_the_roots_of_browsers_are_the_default(self) -> None:
        provider = PayPalProvider(
            HttpClient(clock=FixedClock()), client_id="a", client_secret="b", webhook_ids=(), clock=FixedClock()
        )
        with pytest.raises(BadSignature) as refused:
            provider.verify(body=b"{}", headers={}, now=NOW)

        assert refused.value.fault is SignatureFault.NOT_CONFIGURED


class TestSignature:
    """What is signed beside the body."""

    @pytest.mark.parametrize(
        "change",
        [
            {"PAYPAL-TRANSMISSION-ID": "another"},
            {"PAYPAL-TRANSMISSION-TIME": "2026-11-20T12:00:01Z"},
            {"PAYPAL-TRANSMISSION-SIG": base64.b64encode(b"x" * 256).decode()},
        ],
    )
    async def test_cannot_be_changed(self, paypal: PayPalHarness, change: dict[str, str]) -> None:
        delivery = paypal.deliver(paypal.other_event())

        with pytest.raises(BadSignature) as refused:
            await verify(paypal, Delivery(delivery.body, {**delivery.headers, **change}))

        assert refused.value.fault is SignatureFault.INVALID_SIGNATURE

    @pytest.mark.parametrize(
        "change",
        [
            {"PAYPAL-AUTH-ALGO": "SHA1withRSA"},
            {"PAYPAL-AUTH-ALGO": "none"},
            {"PAYPAL-TRANSMISSION-TIME": "2026-11-20T12:00:00"},
            {"PAYPAL-TRANSMISSION-TIME": "0001-01-01T00:00:00+14:00"},
            {"PAYPAL-TRANSMISSION-SIG": "not base64"},
            {"PAYPAL-TRANSMISSION-ID": ""},
        ],
    )
    async def test_must_be_whole(self, paypal: PayPalHarness, change: dict[str, str]) -> None:
        delivery = paypal.deliver(paypal.other_event())

        with pytest.raises(BadSignature) as refused:
            await verify(paypal, Delivery(delivery.body, {**delivery.headers, **change}))

        assert refused.value.fault is SignatureFault.INVALID_HEADER

    async def test_another_webhooks_delivery_is_not_ours(self, paypal: PayPalHarness) -> None:
        other = PayPalProvider(
            paypal.client(),
            client_id=paypal_api.CLIENT_ID,
            client_secret=paypal_api.CLIENT_SECRET,
            webhook_ids=("ANOTHER",),
            clock=paypal.clock,
            api_base=paypal.fake.base_url,
            trust_roots=paypal_ca.roots(),
        )
        delivery = paypal.deliver(paypal.other_event())
        await other.prepare(delivery.headers)

        with pytest.raises(BadSignature):
            other.verify(body=delivery.body, headers=delivery.headers, now=NOW)


async def test_one_event_has_one_id(paypal: PayPalHarness) -> None:
    created = await paypal.provider.create_checkout(request())
    (event,) = paypal.fake.approve(created.session_id)

    first = await receive(paypal, paypal.fake.encode(event))
    second = await receive(paypal, paypal.fake.encode(event))

    assert first.event_id == second.event_id == event["id"]
