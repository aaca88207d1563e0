"""The HTTP client of the adapters, against a real server that goes wrong to order."""

import asyncio
import email.utils
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from aiohttp import web

from providers.http import HttpAnswer, HttpClient, HttpFailure, HttpPolicy, HttpThrottled, HttpUnavailable
from tests.fakes.server import FakeServer, Fault, Reply, Seen

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class Clock:
    def now(self) -> datetime:
        return NOW


class Echo(FakeServer):
    """Answers with what it was asked, or with what a test puts into `content`."""

    content: bytes | None = None

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        return Reply(200, self.content or {"method": seen.method, "body": seen.body}, {"Set-Cookie": "a=b"})


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with Echo() as server:
        yield server


def client(**policy: float) -> HttpClient:
    return HttpClient(
        HttpPolicy(**{"backoff_base_s": 0.01, "backoff_cap_s": 0.02, **policy}),  # type: ignore[arg-type]
        clock=Clock(),
    )


async def ask(http: HttpClient, echo: Echo, *, repeatable: bool = True) -> HttpAnswer:
    return await http.request("echo", "POST", echo.base_url + "/x", repeatable=repeatable, body=b"hello")


async def test_carries_a_request_and_its_answer(echo: Echo) -> None:
    http = client()
    answer = await http.request("echo", "PUT", echo.base_url, repeatable=True, headers={"X-A": "1"}, body=b"hello")
    await http.aclose()
    await http.aclose()

    assert (answer.status, answer.json()) == (200, {"method": "PUT", "body": "hello"})
    assert answer.headers["content-type"] == "application/json"
    assert echo.requests[0].headers["X-A"] == "1"


async def test_keeps_no_cookies_and_follows_nobody(echo: Echo) -> None:
    http = client()
    await ask(http, echo)
    echo.faults.append(Fault(status=307, headers={"Location": echo.base_url + "/elsewhere"}))

    answer = await ask(http, echo)
    await http.aclose()

    assert answer.status == 307
    assert [seen.path for seen in echo.requests] == ["/x", "/x"]
    assert not [seen for seen in echo.requests if "Cookie" in seen.headers]


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429), Fault(status=408), Fault(cut="middle")])
async def test_repeats_what_may_be_repeated(echo: Echo, fault: Fault) -> None:
    http = client()
    echo.faults.extend([fault, fault])

    answer = await ask(http, echo)
    await http.aclose()

    assert answer.status == 200
    assert [seen.body for seen in echo.requests] == ["hello"] * 3


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(cut="before"), Fault(cut="after"), Fault(cut="middle")])
async def test_does_not_repeat_what_may_have_had_an_effect(echo: Echo, fault: Fault) -> None:
    http = client()
    echo.faults.append(fault)

    with pytest.raises(HttpUnavailable):
        await ask(http, echo, repeatable=False)
    await http.aclose()

    assert len(echo.requests) == 1


async def test_repeats_anything_that_surely_had_no_effect(echo: Echo) -> None:
    http = client()
    echo.faults.append(Fault(status=429))

    assert (await ask(http, echo, repeatable=False)).status == 200
    await http.aclose()


async def test_the_switch_turns_all_repeating_off(echo: Echo) -> None:
    http = client(retry_enabled=False)
    echo.faults.append(Fault(status=500))

    with pytest.raises(HttpUnavailable):
        await ask(http, echo)
    await http.aclose()

    assert len(echo.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("999999999999", 86_400),
        (email.utils.format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (email.utils.format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("soon", None),
        ("", None),
        ("-5", None),
    ],
)
async def test_reads_when_to_come_back(echo: Echo, value: str, seconds: int | None) -> None:
    http = client(attempts=1)
    echo.faults.append(Fault(status=429, headers={"Retry-After": value}))

    with pytest.raises(HttpThrottled) as failed:
        await ask(http, echo)
    await http.aclose()

    assert failed.value.retry_after_s == seconds


async def test_waits_as_long_as_it_was_asked_to(echo: Echo) -> None:
    http = client()
    echo.faults.append(Fault(status=503, headers={"Retry-After": "1"}))
    loop = asyncio.get_running_loop()
    started = loop.time()

    await ask(http, echo)
    await http.aclose()

    assert loop.time() - started >= 1


async def test_does_not_wait_beyond_its_time(echo: Echo) -> None:
    http = client(total_s=5)
    echo.faults.append(Fault(status=503, headers={"Retry-After": "60"}))

    with pytest.raises(HttpUnavailable) as failed:
        await ask(http, echo)
    await http.aclose()

    assert failed.value.retry_after_s == 60
    assert len(echo.requests) == 1


async def test_the_whole_call_is_bounded(echo: Echo) -> None:
    http = client(attempt_s=60, total_s=0.1)
    echo.always = Fault(delay_s=5)

    with pytest.raises(HttpUnavailable, match="no answer in time"):
        await ask(http, echo)
    await http.aclose()


async def test_long_answers_are_cut_off(echo: Echo) -> None:
    http = client(max_answer_bytes=1000, attempts=1)
    echo.content = b"x" * 1000
    assert len((await ask(http, echo)).body) == 1000
    echo.content = b"x" * 1001

    with pytest.raises(HttpUnavailable):
        await ask(http, echo)
    await http.aclose()


async def test_one_service_that_fails_does_not_close_another(echo: Echo) -> None:
    http = client(attempts=1, circuit_failures=1)
    echo.faults.append(Fault(status=500))
    with pytest.raises(HttpUnavailable):
        await ask(http, echo)

    with pytest.raises(HttpUnavailable, match="left alone"):
        await ask(http, echo)
    assert (await http.request("other", "GET", echo.base_url, repeatable=True)).status == 200
    await http.aclose()


async def test_being_throttled_opens_no_circuit(echo: Echo) -> None:
    http = client(attempts=1, circuit_failures=1)
    echo.faults.extend([Fault(status=429)] * 3)
    for _ in range(3):
        with pytest.raises(HttpThrottled):
            await ask(http, echo)

    assert (await ask(http, echo)).status == 200
    await http.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[", "http://", "ftp://example.com", "nonsense"])
async def test_an_address_that_leads_nowhere_is_unavailable(url: str) -> None:
    http = client(attempts=1)
    with pytest.raises(HttpFailure):
        await http.request("nowhere", "GET", url, repeatable=True)
    await http.aclose()


def test_numbers_keep_their_digits() -> None:
    answer = HttpAnswer(200, {}, b'{"a": 49.990, "b": 1, "c": 1e2}')

    assert answer.json() == {"a": Decimal("49.990"), "b": 1, "c": Decimal(100)}
    assert str(answer.json()["a"]) == "49.990"


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"Infinity", b'"\\u0000"', b"[" * 100_000, b"\xff"])
def test_what_is_no_json_that_can_be_stored(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        HttpAnswer(200, {}, body).json()
