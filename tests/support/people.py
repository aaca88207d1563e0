"""People who use the server over REST, as a client of theirs would."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from aiohttp import ClientSession

Answer = tuple[int, Any]


@dataclass(slots=True)
class Person:
    """Somebody signed in to one tenant."""

    http: ClientSession
    url: str
    email: str
    password: str
    token: str
    refresh_token: str
    user_id: UUID
    tenant_id: UUID
    registration: dict[str, Any]

    async def request(self, method: str, path: str, *, json: object = None, **options: Any) -> Answer:
        """Send a request as this person; a path without a slash is relative to /api/v1."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return await request(self.http, method, address(self.url, path), json=json, headers=headers, **options)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, json: object = None, **options: Any) -> Answer:
        return await self.request("POST", path, json=json, **options)

    async def patch(self, path: str, json: object = None, **options: Any) -> Answer:
        return await self.request("PATCH", path, json=json, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.request("DELETE", path, **options)


def address(url: str, path: str) -> str:
    """Return the whole address of a path; one without a leading slash lies under /api/v1."""
    return f"{url}{path}" if path.startswith("/") else f"{url}/api/v1/{path}"


async def request(http: ClientSession, method: str, url: str, **options: Any) -> Answer:
    """Send a request and return its status and its JSON (or text, when it is none)."""
    async with http.request(method, url, **options) as response:
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, await response.text()


RegisterCompany = Callable[..., Awaitable[Person]]


def company_factory(http: ClientSession, url: str) -> RegisterCompany:
    """Return a coroutine that registers a company with a unique name and signs its owner in."""

    async def register(name: str = "Company", full_name: str = "Olga Owner") -> Person:
        unique = uuid4().hex[:12]
        body = {
            "email": f"owner-{unique}@example.org",
            "password": "correct horse",
            "full_name": full_name,
            "company_name": f"{name} {unique}",
        }
        status, answer = await request(http, "POST", address(url, "auth/register"), json=body)
        assert status == 201, answer
        data = answer["data"]
        return Person(
            http=http,
            url=url,
            email=body["email"],
            password=body["password"],
            token=data["access_token"],
            refresh_token=data["refresh_token"],
            user_id=UUID(data["user"]["id"]),
            tenant_id=UUID(data["current_tenant"]["id"]),
            registration=data,
        )

    return register
