"""What every answer carries, and that nobody may keep the server waiting for ever."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.web import TCPSite
from structlog.testing import capture_logs

from server import http as server_http
from server.settings import Settings
from server.web import create_app
from server.wiring import Part, build
from tests.support.people import RegisterCompany
from tests.support.running import Orchestrator

CLOSED = "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/api/v1/auth/me", 401), ("/nowhere", 404), ("/openapi.json", 200)]
)
async def test_every_answer_is_protected(
    orchestrator: Orchestrator, http: ClientSession, path: str, status: int
) -> None:
    async with http.get(orchestrator.url + path) as response:
        assert response.status == status
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"] == CLOSED
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert "Strict-Transport-Security" not in response.headers, "this server is reached without TLS"


async def test_pages_keep_their_own_policy(orchestrator: Orchestrator, http: ClientSession) -> None:
    async with http.get(f"{orchestrator.url}/dashboard") as response:
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]
        assert response.headers.getall("Content-Security-Policy") == [response.headers["Content-Security-Policy"]]


async def test_answers_of_the_api_are_not_kept(company: RegisterCompany) -> None:
    owner = await company()
    headers = {"Authorization": f"Bearer {owner.token}"}
    async with owner.http.get(f"{owner.url}/api/v1/auth/me", headers=headers) as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")


async def test_the_reason_of_a_cross_origin_refusal_is_logged(orchestrator: Orchestrator, http: ClientSession) -> None:
    headers = {"Origin": "https://evil.example.org", "Access-Control-Request-Method": "POST"}
    with capture_logs() as lines:
        async with http.options(f"{orchestrator.url}/api/v1/auth/login", headers=headers) as response:
            assert response.status == 403
    [line] = [line for line in lines if line["event"] == "cross-origin request refused"]
    assert line["origin"] == "https://evil.example.org"
    assert "origin" in line["reason"]


@pytest.fixture
async def hasty(
    settings: Settings, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, int]]:
    """A server behind TLS on this run's database that waits for nobody; yields host and port."""
    monkeypatch.setattr(server_http, "_IDLE_S", 0.3)
    changed = settings.model_copy(update={"request_timeout_s": 0.3, "public_url": "https://erp.example.org"})
    async with build(changed, orchestrator.house.engine, Part(web=True)) as house:
        runner = server_http.Runner(create_app(house), shutdown_timeout=1)
        await runner.setup()
        site = TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][:2]
        await runner.cleanup()


async def said(address: tuple[str, int], request: bytes, *, until: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await (reader.readuntil(until) if until else reader.read())
    writer.close()
    return answer


@pytest.mark.parametrize("beginning", [b"", b"POST /api/v1/auth/login HTTP/1.1\r\nHo"], ids=["nothing", "half a head"])
async def test_who_sends_no_whole_head_is_let_go(hasty: tuple[str, int], beginning: bytes) -> None:
    assert await said(hasty, beginning) == b""


async def test_who_sends_no_whole_body_is_told_so_and_let_go(hasty: tuple[str, int]) -> None:
    head = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    answer = await said(hasty, head + b"Content-Length: 50\r\n\r\n" + b'{"email"', until=b"}}}")
    first, _, body = answer.partition(b"\r\n\r\n")
    told: dict[str, Any] = json.loads(body)
    assert first.startswith(b"HTTP/1.1 408 ")
    assert told["error"]["code"] == "REQUEST_TIMEOUT"
    assert b"\r\nStrict-Transport-Security: max-age=31536000\r\n" in first
