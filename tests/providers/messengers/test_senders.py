"""What every sender does, whichever messenger it speaks to: codes arrive, and each failure is a statement."""

import traceback
from contextlib import aclosing

import pytest
from structlog.testing import capture_logs

from core.errors import ErrorKind
from providers.messengers import CodeSender, MessengerBusy, MessengerUnavailable
from tests.fakes.messenger_http import Fault
from tests.providers.messengers.harness import CODE, IMPATIENT_S, SenderHarness


async def test_a_code_arrives(harness: SenderHarness) -> None:
    async with aclosing(harness.sender()) as sender:
        sent = await sender.send(await harness.known(sender))

    assert harness.codes() == [CODE]
    assert 0 < len(sent.reference) <= 255


async def test_many_codes_go_over_one_sender(harness: SenderHarness) -> None:
    async with aclosing(harness.sender()) as sender:
        message = await harness.known(sender)
        references = {(await sender.send(message)).reference for _ in range(5)}

    assert harness.codes() == [CODE] * 5
    assert len(references) == 5


async def test_closing_twice_is_fine(harness: SenderHarness) -> None:
    unused, used = harness.sender(), harness.sender()
    await used.send(await harness.known(used))
    for sender in (unused, used):
        await sender.aclose()
        await sender.aclose()


async def test_too_many_says_when_to_come_back(harness: SenderHarness) -> None:
    async with aclosing(harness.sender()) as sender:
        message = await harness.known(sender)
        harness.busy(7)
        with pytest.raises(MessengerBusy) as refusal:
            await sender.send(message)

    assert (refusal.value.retry_after_s, refusal.value.kind, refusal.value.code) == (
        7,
        ErrorKind.RATE_LIMITED,
        "RATE_LIMITED",
    )
    assert harness.codes() == []


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({"Retry-After": "12"}, "<html>slow down</html>", 12),
        ({}, "<html>slow down</html>", 1),
        ({"Retry-After": "Fri, 20 Nov 2026 07:28:00 GMT"}, "", 1),
        ({"Retry-After": "0"}, "{}", 1),
        ({"Retry-After": "9" * 500}, "{}", 1),
        ({"Retry-After": "999999999"}, "{}", 86400),
        ({}, '{"ok":false,"parameters":{"retry_after":-5}}', 1),
        ({}, '{"ok":false,"parameters":{"retry_after":"soon"}}', 1),
        ({}, '{"ok":false,"parameters":[9]}', 1),
    ],
    ids=str,
)
async def test_a_proxy_may_say_it_too(harness: SenderHarness, headers: dict[str, str], body: str, wait_s: int) -> None:
    async with aclosing(harness.sender()) as sender:
        message = await harness.known(sender)
        harness.fake.faults.append(Fault(status=429, headers=headers, body=body))
        with pytest.raises(MessengerBusy) as refusal:
            await sender.send(message)

    assert refusal.value.retry_after_s == wait_s


BROKEN = {
    "nothing before the work": Fault(cut="before"),
    "nothing after the work": Fault(cut="after"),
    "half an answer": Fault(cut="middle"),
    "500": Fault(status=500, body='{"ok":false,"error":"INTERNAL"}'),
    "502 of a proxy": Fault(status=502, body="<html>Bad Gateway</html>"),
    "503": Fault(status=503, body='{"code":"service.unavailable","message":"later"}'),
    "another page": Fault(status=200, body="<html>hello</html>"),
    "no JSON": Fault(status=200, body='{"ok": tru'),
    "no object": Fault(status=200, body='["ok"]'),
    "an empty answer": Fault(status=200, body=""),
    "an object of another kind": Fault(status=200, body='{"hello": "world"}'),
    "an answer of another shape": Fault(status=200, body='{"ok": true, "result": "fine", "message": "fine"}'),
    "deep nonsense": Fault(status=200, body="[" * 100_000),
    # It says yes to everybody, and would be believed if it were shorter.
    "an endless answer": Fault(
        status=200, body='{"ok": true, "result": {"request_id": "r"}, "message": {}, "x": "' + "x" * 1_000_000 + '"}'
    ),
    "a redirect": Fault(status=302, headers={"Location": "/elsewhere"}),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_messenger_is_unavailable_for_now(harness: SenderHarness, fault: Fault) -> None:
    async with aclosing(harness.sender()) as sender:
        message = await harness.known(sender)
        harness.fake.faults.extend([fault] * 3)
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message)

        assert refusal.value.retryable
        assert (refusal.value.kind, refusal.value.code) == (ErrorKind.UNAVAILABLE, "UNAVAILABLE")
        assert not any(seen.path == "/elsewhere" for seen in harness.fake.requests)

        # The same sender goes on when the messenger is well again.
        harness.fake.faults.clear()
        await sender.send(message)


async def test_a_messenger_that_is_down_is_unavailable(harness: SenderHarness) -> None:
    async with aclosing(harness.sender()) as sender:
        message = await harness.known(sender)
        await harness.fake.go_down()
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message)

    assert refusal.value.retryable


async def test_a_messenger_that_does_not_answer_is_not_waited_for(harness: SenderHarness) -> None:
    async with aclosing(harness.sender(timeout_s=IMPATIENT_S)) as sender:
        message = await harness.known(sender)
        harness.fake.faults.extend([Fault(hang=True)] * 3)
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message)

    assert refusal.value.retryable


async def test_refused_credentials_are_for_the_operator(harness: SenderHarness) -> None:
    async with aclosing(harness.sender(token="another-token")) as sender:
        message = await harness.known(sender)
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message)

    assert not refusal.value.retryable
    assert harness.codes() == []


async def test_nothing_personal_and_no_secret_is_logged_or_shown(harness: SenderHarness) -> None:
    async def failing(sender: CodeSender) -> str:
        with pytest.raises((MessengerUnavailable, MessengerBusy)) as refusal:
            await sender.send(message)
        return "".join(traceback.format_exception(refusal.value)) + repr(refusal.value)

    with capture_logs() as logs:
        async with aclosing(harness.sender()) as sender:
            message = await harness.known(sender)
            await sender.send(message)
            shown = [repr(message)]
            for fault in (
                Fault(cut="before"),
                Fault(status=500, body=CODE),
                Fault(status=302, headers={"Location": "http://127.0.0.1:1/"}),
                Fault(status=400, body='{"ok":false,"error":"' + message.phone + '","message":"' + CODE + '"}'),
            ):
                harness.fake.faults.extend([fault] * 2)
                shown.append(await failing(sender))
                harness.fake.faults.clear()
            harness.busy(7)
            shown.append(await failing(sender))
            await harness.fake.go_down()
            shown.append(await failing(sender))

    assert any(entry.get("recipient", "").endswith("*67") for entry in logs)
    assert len(logs) >= 6
    for secret in harness.secrets:
        assert secret not in repr(logs)
        assert secret not in repr(shown)


async def test_cookies_are_not_kept(harness: SenderHarness) -> None:
    # From an address without a name nobody takes cookies.
    harness.fake.base_url = harness.fake.base_url.replace("127.0.0.1", "localhost")
    async with aclosing(harness.sender()) as sender:
        message = await harness.known(sender)
        await sender.send(message)
        await sender.send(message)

    assert not any("Cookie" in seen.headers for seen in harness.fake.requests)


def test_senders_have_names_and_are_for_production(harness: SenderHarness) -> None:
    sender = harness.sender()
    assert sender.name in {"telegram_gateway", "telegram_bot", "max_bot"}
    assert not sender.capabilities.development_only
    assert (sender.capabilities.reach == "phone") is (sender.name == "telegram_gateway")


async def test_an_address_that_is_none_is_unavailable_and_not_shown(harness: SenderHarness) -> None:
    harness.fake.base_url = "http://[broken"
    async with aclosing(harness.sender()) as sender:
        message = await harness.known(sender)
        with pytest.raises(MessengerUnavailable) as refusal:
            await sender.send(message)
    shown = "".join(traceback.format_exception(refusal.value))
    assert not any(secret in shown for secret in harness.secrets)
