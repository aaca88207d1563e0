"""The application as browsers meet it: CORS (contract.md 1.6), request ids and errors on the running server."""

import re
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession

from handlers.rest import Access
from server.web import endpoints
from tests.support.people import RegisterCompany
from tests.support.running import Orchestrator

ORIGIN = "http://localhost:3000"
STRANGER = "https://evil.example.org"


def a_path(template: str) -> str:
    """Fill the places of a path with something that may stand there."""
    return re.sub(r"\{[^}]*\}", str(UUID(int=1)), template)


def preflight(method: str, origin: str = ORIGIN) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization, content-type, x-request-id",
    }


class TestCors:
    async def test_every_endpoint_answers_the_preflight_of_its_method(
        self, orchestrator: Orchestrator, http: ClientSession
    ) -> None:
        refused = []
        for endpoint in endpoints(development=True):
            url = orchestrator.url + a_path(endpoint.path)
            async with http.options(url, headers=preflight(endpoint.method)) as response:
                allowed = response.headers.get("Access-Control-Allow-Origin") == ORIGIN
                if response.status != 200 or not allowed:
                    refused.append((endpoint.method, endpoint.path, response.status))
        assert refused == []

    async def test_a_preflight_tells_what_is_allowed(self, orchestrator: Orchestrator, http: ClientSession) -> None:
        async with http.options(f"{orchestrator.url}/api/v1/auth/login", headers=preflight("POST")) as response:
            headers = response.headers
            assert response.status == 200
        assert headers["Access-Control-Allow-Origin"] == ORIGIN
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert headers["Access-Control-Max-Age"] == "600"
        assert "POST" in headers["Access-Control-Allow-Methods"]
        allowed = {name.strip().lower() for name in headers["Access-Control-Allow-Headers"].split(",")}
        assert {"authorization", "content-type", "x-request-id"} <= allowed
        assert headers["X-Request-ID"]

    async def test_an_answer_may_be_read_with_credentials(
        self, orchestrator: Orchestrator, http: ClientSession
    ) -> None:
        async with http.get(f"{orchestrator.url}/api/v1/billing/plans", headers={"Origin": ORIGIN}) as response:
            headers = response.headers
            assert response.status == 200
        assert headers["Access-Control-Allow-Origin"] == ORIGIN, "never * where credentials are sent"
        assert headers["Access-Control-Allow-Credentials"] == "true"
        exposed = {name.strip() for name in headers["Access-Control-Expose-Headers"].split(",")}
        assert {"Content-Range", "X-Content-Range"} <= exposed

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/api/v1/auth/me", 401),
            ("POST", "/api/v1/auth/login", 422),
            ("GET", f"/api/v1/tenants/{UUID(int=1)}", 401),
        ],
    )
    async def test_refusals_may_be_read_too(
        self, orchestrator: Orchestrator, http: ClientSession, method: str, path: str, status: int
    ) -> None:
        """A browser shows a page nothing of an answer without these headers, not even its status."""
        async with http.request(method, orchestrator.url + path, headers={"Origin": ORIGIN}) as response:
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN

    @pytest.mark.parametrize("origin", [STRANGER, "null", "http://localhost:3000.evil.example.org", "localhost:3000"])
    async def test_other_origins_are_not_let_in(
        self, orchestrator: Orchestrator, http: ClientSession, origin: str
    ) -> None:
        url = f"{orchestrator.url}/api/v1/auth/login"
        async with http.options(url, headers=preflight("POST", origin)) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers
        async with http.get(f"{orchestrator.url}/health", headers={"Origin": origin}) as response:
            assert response.status == 200
            assert "Access-Control-Allow-Origin" not in response.headers

    @pytest.mark.parametrize("path", ["/socket.io/", "/ws/socket.io/"])
    async def test_sockets_are_open_to_the_same_origins(
        self, orchestrator: Orchestrator, http: ClientSession, path: str
    ) -> None:
        url = f"{orchestrator.url}{path}?EIO=4&transport=polling"
        async with http.get(url, headers={"Origin": ORIGIN}) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert response.headers["Access-Control-Allow-Credentials"] == "true"
        async with http.get(url, headers={"Origin": STRANGER}) as response:
            assert response.status in (400, 403)
        async with http.get(url) as response:
            assert response.status == 200, "phones send no origin"


class TestEveryEndpoint:
    async def test_that_is_not_public_asks_for_a_token(self, orchestrator: Orchestrator, http: ClientSession) -> None:
        found: dict[str, list[tuple[str, str, Any]]] = {"open": [], "odd": []}
        for endpoint in endpoints(development=True):
            if endpoint.access in (Access.PUBLIC, Access.OPTIONAL):
                continue
            async with http.request(endpoint.method, orchestrator.url + a_path(endpoint.path)) as response:
                body = await response.json()
                if response.status != 401 or response.headers.get("WWW-Authenticate") != "Bearer":
                    found["open"].append((endpoint.method, endpoint.path, response.status))
                if body.get("detail") != "Not authenticated" or "X-Request-ID" not in response.headers:
                    found["odd"].append((endpoint.method, endpoint.path, body))
        assert found == {"open": [], "odd": []}

    async def test_survives_a_body_that_is_none(
        self, orchestrator: Orchestrator, company: RegisterCompany, http: ClientSession
    ) -> None:
        person = await company()
        headers = {"Authorization": f"Bearer {person.token}", "Content-Type": "application/json"}
        bodies = (b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"\\u0000": 1}', b"[" * 600 + b"]" * 600)
        for endpoint in endpoints(development=True):
            if endpoint.body is None or endpoint.path.endswith("/logout"):
                continue
            for body in bodies:
                url = orchestrator.url + a_path(endpoint.path)
                async with http.request(endpoint.method, url, data=body, headers=headers) as response:
                    assert response.status < 500, (endpoint.method, endpoint.path, body[:20])
                    told = await response.json()
                    if response.status >= 400:
                        assert told["detail"] == told["message"] == told["error"]["message"]


async def test_what_is_not_there(orchestrator: Orchestrator, http: ClientSession) -> None:
    for path in ("/nowhere", "/api/v1", "/api/v2/auth/login", "/assets/x/../../setup.cfg", "/assets/x/nothing.js"):
        async with http.get(orchestrator.url + path) as response:
            assert response.status == 404, path
            assert (await response.json())["error"]["code"] == "NOT_FOUND"
            assert response.headers["X-Request-ID"]


async def test_methods_that_a_path_does_not_know(orchestrator: Orchestrator, http: ClientSession) -> None:
    async with http.delete(f"{orchestrator.url}/health") as response:
        assert response.status == 405
        assert (await response.json())["error"]["code"] == "METHOD_NOT_ALLOWED"
        assert "GET" in response.headers["Allow"]


async def test_the_running_server_limits_bodies(orchestrator: Orchestrator, http: ClientSession) -> None:
    data = BytesIO(b'{"email":"' + b"x" * orchestrator.settings.max_body_bytes + b'"}')
    async with http.post(f"{orchestrator.url}/api/v1/auth/login", data=data) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "PAYLOAD_TOO_LARGE"
