"""The register of breached passwords: told five digits of a hash and no more, and missed by nobody when it is away."""

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from providers.breaches import RangeRegister
from tests.fakes.breach_register import FakeBreachRegister

KNOWN = "correct horse battery staple"


@pytest.fixture
async def fake() -> AsyncIterator[FakeBreachRegister]:
    async with FakeBreachRegister(KNOWN, "пароль") as fake:
        yield fake


@pytest.fixture
def register(http: ClientSession, fake: FakeBreachRegister) -> RangeRegister:
    return RangeRegister(http, base_url=fake.base_url)


async def test_knows_what_was_breached_and_nothing_else(register: RangeRegister) -> None:
    assert [await register.knows(word) for word in (KNOWN, "пароль", KNOWN + "!", "", "\ud800")] == [
        True,
        True,
        False,
        False,
        False,
    ]


async def test_is_told_five_digits_of_the_hash(register: RangeRegister, fake: FakeBreachRegister) -> None:
    await register.knows(KNOWN)
    [path] = fake.asked
    assert re.fullmatch("/range/[0-9A-F]{5}", path)
    assert path[-5:] == hashlib.sha1(KNOWN.encode(), usedforsecurity=False).hexdigest()[:5].upper()


async def test_an_answer_without_an_end_is_cut_off(http: ClientSession) -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while sent < 64 * 1024 * 1024:
            await answer.write(b"0" * 65536)
            sent += 65536
        return answer

    app = web.Application()
    app.router.add_get("/{path:.*}", pour)
    async with TestServer(app) as server:
        assert not await RangeRegister(http, base_url=str(server.make_url("")).rstrip("/")).knows(KNOWN)
    assert sent < 16 * 1024 * 1024


async def test_padding_is_no_find(http: ClientSession, fake: FakeBreachRegister) -> None:
    """A line with a count of zero is noise that was asked for, also when it happens to be ours."""
    rest = hashlib.sha1(KNOWN.encode(), usedforsecurity=False).hexdigest().upper()[5:]
    fake.broken = web.Response(text=f"{rest}:0\r\n{rest}:\r\n{rest}")
    assert not await RangeRegister(http, base_url=fake.base_url).knows(KNOWN)


@pytest.mark.parametrize(
    "broken",
    [
        {"status": 503},
        {"status": 429},
        {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
        {"body": b"\xff\xfe"},
        {"text": ""},
    ],
    ids=["503", "429", "redirect", "no text", "empty"],
)
async def test_a_register_that_fails_stops_nobody(
    register: RangeRegister, fake: FakeBreachRegister, broken: dict[str, Any]
) -> None:
    fake.broken = web.Response(**broken)
    assert not await register.knows(KNOWN)


async def test_a_register_that_is_away_stops_nobody(http: ClientSession, fake: FakeBreachRegister) -> None:
    assert not await RangeRegister(http, base_url="http://127.0.0.1:1").knows(KNOWN)
