"""Requests that aiohttp refuses by itself, sent byte by byte to the running server: one error body, no alarm."""

import asyncio
import json
import logging
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.running import Orchestrator
from tests.support.waiting import until

LOGIN = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n"

UNREADABLE: dict[str, tuple[bytes, int, str]] = {
    "unknown method": (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
    "no HTTP at all": (b"hello\r\n\r\n", 400, "BAD_REQUEST"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "BAD_REQUEST"),
    "unknown version": (b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
    "no path": (b"GET health HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
    "half a URL": (b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400, "BAD_REQUEST"),
    "two hosts": (HEALTH + b"Host: y\r\n\r\n", 400, "BAD_REQUEST"),
    "header without a colon": (HEALTH + b"secret header\r\n\r\n", 400, "BAD_REQUEST"),
    "header with a space in its name": (HEALTH + b"X Y: z\r\n\r\n", 400, "BAD_REQUEST"),
    "length that is no number": (LOGIN + b"Content-Length: x\r\n\r\n", 400, "BAD_REQUEST"),
    "two lengths": (LOGIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400, "BAD_REQUEST"),
    "broken chunk": (LOGIN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "BAD_REQUEST"),
    "too many headers": (HEALTH + b"X: y\r\n" * 200 + b"\r\n", 400, "BAD_REQUEST"),
    "URL too long": (b"GET /" + b"a" * 8100 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "URI_TOO_LONG"),
    "header too long": (HEALTH + b"X: " + b"y" * 8200 + b"\r\n\r\n", 431, "HEADER_TOO_LARGE"),
    "path as a header too long": (HEALTH + b"X: /" + b"y" * 8200 + b"\r\n\r\n", 431, "HEADER_TOO_LARGE"),
    "unknown expectation": (LOGIN + b"Expect: foo\r\nContent-Length: 2\r\n\r\n{}", 417, "EXPECTATION_FAILED"),
    "unknown expectation nowhere": (b"GET /no HTTP/1.1\r\nHost: x\r\nExpect: 1\r\n\r\n", 417, "EXPECTATION_FAILED"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, after which the server has closed the connection."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]

    def is_refusal(self, status: int, code: str) -> bool:
        """Whether this is the one error body (contract.md 1.3)."""
        assert (self.status, self.body["error"]["code"]) == (status, code), self
        assert self.headers["content-type"] == "application/json"
        text = self.body["message"]
        assert self.body == {
            "status": "error",
            "data": None,
            "message": text,
            "detail": text,
            "error": {"code": code, "message": text, "details": {}},
        }
        assert "secret" not in text
        return bool(self.headers["x-request-id"])


@asynccontextmanager
async def connection(orchestrator: Orchestrator) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Bytes to and from the server, for ten seconds at most."""
    reader, writer = await asyncio.open_connection(orchestrator.settings.host, orchestrator.settings.port)
    async with asyncio.timeout(10):
        yield reader, writer
    writer.close()
    await writer.wait_closed()


async def told(orchestrator: Orchestrator, request: bytes, *, after: bytes = b"") -> Answer:
    """Send a request, on a connection where `after` was answered already, and read until the server closes it."""
    async with connection(orchestrator) as (reader, writer):
        if after:
            writer.write(after)
            await reader.readuntil(b"}")
        writer.write(request)
        answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(status=int(first.split(" ")[1]), headers=headers, body=json.loads(body))


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What we log; neither here nor in aiohttp's own log is a client's fault an error."""
    with capture_logs() as lines:
        yield lines
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(("request_bytes", "status", "code"), UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_request_that_cannot_be_read(
    orchestrator: Orchestrator, request_bytes: bytes, status: int, code: str
) -> None:
    assert (await told(orchestrator, request_bytes)).is_refusal(status, code)


async def test_a_connection_that_was_fine_until_now(orchestrator: Orchestrator) -> None:
    answer = await told(orchestrator, b"GET / HTTP/1.1\r\n\r\n", after=HEALTH + b"\r\n")
    assert answer.is_refusal(400, "BAD_REQUEST")


async def test_an_expectation_that_is_not_met_keeps_the_id_of_its_request(orchestrator: Orchestrator) -> None:
    answer = await told(orchestrator, HEALTH + b"Expect: foo\r\nX-Request-ID: mine\r\n\r\n")
    assert answer.is_refusal(417, "EXPECTATION_FAILED")
    assert answer.headers["x-request-id"] == "mine"


async def test_the_expectation_that_clients_really_have_is_met(orchestrator: Orchestrator) -> None:
    async with connection(orchestrator) as (reader, writer):
        await announce(reader, writer)
        writer.write(b"{}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 422 ")


async def test_a_client_that_hangs_up_is_not_taken_for_an_outage(orchestrator: Orchestrator, lines: list[Any]) -> None:
    async with connection(orchestrator) as (reader, writer):
        await announce(reader, writer)
        writer.write(b"{")
    await until(lambda: any(line.get("path") == "/api/v1/auth/login" for line in lines))
    (line,) = [line for line in lines if "status" in line]
    assert (line["event"], line["status"]) == ("request", 400)
    assert not any("away" in line["event"] for line in lines)


async def announce(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin a request for which the server is then waiting."""
    writer.write(LOGIN + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("head", [LOGIN, HEALTH], ids=["read", "unread"])
async def test_a_body_packed_by_a_codec_that_is_not_there(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    # A library that is installed beside us may have brought the codec along.
    monkeypatch.setattr("aiohttp.http_parser.HAS_BROTLI", False)
    answer = await told(orchestrator, head + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}")
    assert answer.is_refusal(415, "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("path", [b"/api/v1/auth/login", b"/api/v1/billing/webhook/stripe"], ids=["login", "webhook"])
@pytest.mark.parametrize(
    "body", [b"this is not packed at all", zlib.compress(b'{"email": "x"}')], ids=["plain", "another coding"]
)
async def test_a_body_that_cannot_be_unpacked(orchestrator: Orchestrator, path: bytes, body: bytes) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
    answer = await told(orchestrator, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.is_refusal(400, "BAD_REQUEST")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_body_that_cannot_be_unpacked_and_that_nobody_reads(orchestrator: Orchestrator, method: bytes) -> None:
    head = method + b" /nowhere HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 30\r\n\r\n"
    assert (await told(orchestrator, head + b"this is not packed at all")).is_refusal(404, "NOT_FOUND")
