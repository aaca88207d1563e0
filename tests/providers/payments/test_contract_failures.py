"""What goes wrong on the way to a provider, and what every adapter makes of it."""

import copy
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from core import json
from core.errors import ErrorKind
from providers.payments import (
    EventPage,
    PaymentProvider,
    PaymentState,
    ProviderRejected,
    ProviderUnavailable,
    RefundRequest,
    Terms,
)
from tests.fakes import btcpay_api, coinbase_commerce_api, liqpay_api, paypal_api, stripe_api
from tests.fakes.paypal_api import FakePayPal
from tests.fakes.server import Fault
from tests.providers.payments.harness import NOW, NetworkHarness, invoice_request, request
from tests.providers.payments.receiving import states

SECRETS = (
    stripe_api.SECRET_KEY,
    liqpay_api.PRIVATE_KEY,
    paypal_api.CLIENT_SECRET,
    btcpay_api.API_KEY,
    coinbase_commerce_api.API_KEY,
    "4242424242424242",
)
BREAKDOWNS = [
    Fault(status=500, body='{"error": {"type": "api_error", "message": "4242424242424242"}}'),
    Fault(status=502, body="<html>Bad gateway</html>"),
    Fault(status=503),
    Fault(status=200, body="<html>Login to the wifi</html>"),
    Fault(status=200, body="null"),
    Fault(status=200, body='"text"'),
    Fault(status=200, body="NaN"),
    Fault(status=200, body='{"id":'),
    Fault(status=200, body="[" * 100_000),
    Fault(status=200, body='{"id": "a\\u0000"}'),
    Fault(status=302, headers={"Location": "https://example.com/login"}),
    Fault(cut="middle"),
    Fault(cut="before"),
]


@dataclass
class Call:
    """One operation of an adapter, on what was prepared while all was well."""

    name: str
    make: Callable[[PaymentProvider], Awaitable[object]]


async def calls(network: NetworkHarness) -> list[Call]:
    """Prepare every operation that this provider has and that asks it something."""
    provider = network.provider
    paid = await provider.create_invoice(invoice_request())
    await states(network, network.paid(paid))
    opened = await provider.create_invoice(invoice_request())
    refund = RefundRequest(
        refund_id=uuid4(),
        session_id=paid.session_id,
        payment_ref=None,
        amount=Decimal("10.00"),
        currency="USD",
        refunded_before=Decimal(0),
    )
    asked = invoice_request()
    times: dict[str, Any] = {"since": NOW - timedelta(hours=1), "until": NOW + timedelta(minutes=1)}
    found = [
        Call("fetch", lambda using: using.fetch_payment(paid.session_id)),
        Call("list", lambda using: using.list_events(**times)),
    ]
    if not network.is_offline_creation:
        found.append(Call("create", lambda using: using.create_invoice(asked)))
    if provider.capabilities.refund:
        found.append(Call("refund", lambda using: using.refund(refund)))
    if provider.capabilities.withdraw:
        found.append(Call("withdraw", lambda using: using.withdraw(opened.session_id)))
    if isinstance(network.fake, FakePayPal):
        network.fake.approve(opened.session_id)
        found.append(Call("capture", lambda using: using.capture(opened.session_id)))
    if provider.capabilities.recurring:
        found += await calls_of_plans(network)
    return found


async def calls_of_plans(network: NetworkHarness) -> list[Call]:
    """Prepare every operation of a provider that charges by itself, of which Stripe is the one."""
    provider, fake = network.provider, network.fake
    assert isinstance(fake, stripe_api.FakeStripe)
    begun = await provider.create_checkout(request())
    fake.pay_checkout(begun.session_id)
    (subscription_ref,) = fake.subscriptions
    charge = fake.charge_of(subscription_ref)
    # A bill that is open, so that there is something to collect.
    fake.renew(subscription_ref, paid=False)
    bill: str = fake.subscriptions[subscription_ref]["latest_invoice"]
    terms = Terms(
        amount=Decimal("99.00"), currency="USD", billing_period="yearly", charge_from=NOW + timedelta(days=365)
    )
    asked = request()
    return [
        Call("create_checkout", lambda using: using.create_checkout(asked)),
        Call("cancel", lambda using: using.cancel(subscription_ref, at_period_end=True)),
        Call("resume", lambda using: using.resume(subscription_ref)),
        Call("reprice", lambda using: using.reprice(subscription_ref, terms)),
        Call("collect", lambda using: using.collect(bill)),
        Call("fetch_fee", lambda using: using.fetch_fee(charge["payment_intent"])),
        Call("fetch_refunded", lambda using: using.fetch_refunded(charge["id"])),
        Call("fetch_subscription", lambda using: using.fetch_subscription(subscription_ref)),
    ]


@pytest.mark.parametrize("fault", BREAKDOWNS, ids=lambda fault: f"{fault.status} {fault.cut} {fault.body[:20]}")
async def test_a_broken_provider_is_unavailable(network: NetworkHarness, fault: Fault) -> None:
    prepared = await calls(network)
    hasty = network.patient(attempts=1)
    network.fake.always = fault
    for call in prepared:
        with pytest.raises(ProviderUnavailable) as failed:
            await call.make(hasty)

        assert failed.value.retryable, call.name
        assert failed.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize("body", ["{}", "[]"])
async def test_an_empty_answer_is_never_taken_for_a_good_one(network: NetworkHarness, body: str) -> None:
    prepared = await calls(network)
    hasty = network.patient(attempts=1)
    network.fake.always = Fault(status=200, body=body)
    for call in prepared:
        # BTCPay Server really answers with nothing but a list.
        is_good = call.name == "list" and body == "[]" and isinstance(network.fake, btcpay_api.FakeBtcPay)
        if call.name != "withdraw" and not is_good:
            with pytest.raises(ProviderUnavailable):
                await call.make(hasty)


async def test_one_that_does_not_listen_is_unavailable(network: NetworkHarness) -> None:
    prepared = await calls(network)
    hasty = network.patient(attempts=1)
    await network.fake.go_down()
    for call in prepared:
        with pytest.raises(ProviderUnavailable) as failed:
            await call.make(hasty)

        assert failed.value.retryable, call.name


async def test_one_that_is_slow_is_unavailable_within_the_time(network: NetworkHarness) -> None:
    prepared = await calls(network)
    hasty = network.patient(attempt_s=0.1, total_s=0.25, attempts=2)
    network.fake.always = Fault(delay_s=5.0)
    for call in prepared:
        started = time.perf_counter()
        with pytest.raises(ProviderUnavailable) as failed:
            await call.make(hasty)

        assert failed.value.retryable
        # Far less than the provider would have taken, and room enough for a machine that is busy.
        assert time.perf_counter() - started < 3.0


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, headers={"Retry-After": "0"}),
        Fault(status=429, headers={"Retry-After": "0", "Stripe-Should-Retry": "true"}),
        Fault(cut="before"),
    ],
    ids=lambda fault: f"{fault.status} {fault.cut}",
)
async def test_passing_faults_are_repeated(network: NetworkHarness, fault: Fault) -> None:
    for call in await calls(network):
        network.fake.faults.append(fault)

        await call.make(network.provider)

        assert not network.fake.faults, call.name


async def test_too_many_requests_say_when_to_come_back(network: NetworkHarness) -> None:
    prepared = await calls(network)
    hasty = network.patient(attempts=1)
    body = '{"error": {"type": "invalid_request_error", "code": "rate_limit"}}'
    network.fake.always = Fault(status=429, body=body, headers={"Retry-After": "77"})
    for call in prepared:
        with pytest.raises(ProviderUnavailable) as failed:
            await call.make(hasty)

        assert (failed.value.retryable, failed.value.retry_after_s) == (True, 77), call.name


async def test_a_wait_beyond_the_time_is_not_waited(network: NetworkHarness) -> None:
    for call in await calls(network):
        network.fake.faults.append(Fault(status=429, body="{}", headers={"Retry-After": "3600"}))
        with pytest.raises(ProviderUnavailable):
            await call.make(network.patient(total_s=2.0))


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_need_an_operator(network: NetworkHarness, status: int) -> None:
    prepared = await calls(network)
    network.fake.always = Fault(status=status, body='{"error": {"message": "sk_live_abc is not allowed"}}')
    for call in prepared:
        with pytest.raises(ProviderUnavailable) as failed:
            await call.make(network.provider)

        assert not failed.value.retryable, call.name
        assert "sk_live" not in str(failed.value)


async def test_a_refusal_is_told_without_its_words(network: NetworkHarness) -> None:
    body = '{"error": {"type": "invalid_request_error", "message": "4242424242424242"}, "name": "4242 4242", "code": 1}'
    prepared = await calls(network)
    network.fake.always = Fault(status=400, body=body)
    for call in prepared:
        with pytest.raises(ProviderRejected) as refused:
            await call.make(network.provider)

        assert "4242" not in str(refused.value), call.name
        assert "4242" not in str(refused.value.details)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
async def test_a_lost_answer_does_not_make_two_sessions(network: NetworkHarness, at: int) -> None:
    if network.is_offline_creation:
        return
    asked = invoice_request()
    await network.provider.create_invoice(invoice_request())
    before = len(network.sessions())
    network.fake.faults.extend([*[Fault()] * at, Fault(cut="after")])

    with suppress(ProviderUnavailable):
        await network.provider.create_invoice(asked)
    network.fake.faults.clear()
    await network.provider.create_invoice(asked)

    assert len(network.sessions()) == before + 1


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
async def test_a_lost_answer_does_not_refund_twice(network: NetworkHarness, at: int) -> None:
    refund = next((call for call in await calls(network) if call.name == "refund"), None)
    if refund is None:
        return
    network.fake.faults.extend([*[Fault()] * at, Fault(cut="after")])
    with suppress(ProviderUnavailable):
        await refund.make(network.provider)
    network.fake.faults.clear()

    await refund.make(network.provider)

    # Another 39.99 is all that is left of 49.99, so nothing was given back twice.
    fake = network.fake
    if isinstance(fake, btcpay_api.FakeBtcPay):
        assert [made["amount"] for made in fake.pull_payments.values()] == ["10.00"]
        return
    paid = await network.provider.fetch_payment(network.sessions()[0])
    assert paid is not None
    assert paid.refunded == Decimal("10.00")


async def test_one_that_keeps_failing_is_left_alone_for_a_while(network: NetworkHarness) -> None:
    fetch = (await calls(network))[0]
    careful = network.patient(attempts=1, circuit_failures=2)
    await fetch.make(careful)
    network.fake.always = Fault(status=500)
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            await fetch.make(careful)
    seen = len(network.fake.requests)

    with pytest.raises(ProviderUnavailable) as left_alone:
        await fetch.make(careful)

    assert len(network.fake.requests) == seen
    assert (left_alone.value.retryable, left_alone.value.retry_after_s) == (True, 30)
    network.clock.at += timedelta(seconds=31)
    with pytest.raises(ProviderUnavailable):
        await fetch.make(careful)
    assert len(network.fake.requests) == seen + 1, "one call tries, and closes nothing"
    network.fake.always = None
    network.clock.at += timedelta(seconds=31)
    await fetch.make(careful)
    await fetch.make(careful)


async def test_refusals_do_not_count_as_failures(network: NetworkHarness) -> None:
    careful = network.patient(attempts=1, circuit_failures=1)
    network.fake.always = Fault(status=404, body='{"error": {"code": "resource_missing"}, "code": "invoice-not-found"}')
    for _ in range(3):
        with suppress(ProviderRejected, ProviderUnavailable):
            await careful.fetch_payment("unknown")
    network.fake.always = None

    fetch = (await calls(network))[0]
    assert isinstance(await fetch.make(careful), PaymentState)


@pytest.mark.parametrize("fault", [BREAKDOWNS[0], Fault(status=401), Fault(status=400, body='{"code": "x"}')])
async def test_nothing_secret_is_logged(
    network: NetworkHarness, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = await calls(network)
    hasty = network.patient(attempts=1)
    network.fake.always = fault
    with caplog.at_level(logging.DEBUG):
        for call in prepared:
            with suppress(ProviderUnavailable, ProviderRejected):
                await call.make(hasty)

    told = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("providers"))
    assert network.provider.name in told
    assert not [secret for secret in SECRETS if secret in told]
    assert "«Чай»" not in told


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    """Walk every place inside a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield value, key
            yield from _places(item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield value, index
            yield from _places(item)


@pytest.mark.parametrize("place", [0, 1], ids=["fetch", "list"])
@pytest.mark.parametrize("junk", [None, 7, -1, "junk", "-1", [], {}, ["x"], True, 1e300, "1e9999"], ids=repr)
async def test_whatever_an_answer_garbles_is_no_crash(network: NetworkHarness, junk: object, place: int) -> None:
    fetch = (await calls(network))[place]
    hasty = network.patient(attempts=1)
    await fetch.make(hasty)
    first = len(network.fake.replies)
    await fetch.make(hasty)
    replies = [copy.deepcopy(reply.content) for reply in network.fake.replies[first:]]
    for turn, good in enumerate(replies):
        for index in range(len(list(_places(good)))):
            bad = copy.deepcopy(good)
            holder, key = list(_places(bad))[index]
            holder[key] = junk
            network.fake.faults.extend([*[Fault()] * turn, Fault(status=200, body=json.dumps_text(bad))])
            with suppress(ProviderUnavailable, ProviderRejected):
                assert isinstance(await fetch.make(hasty), PaymentState | EventPage | None)
            network.fake.faults.clear()
