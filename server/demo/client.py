"""A REST client as a partner would write it: a base address, a bearer token, and the data out of the envelope."""

from collections.abc import Mapping
from typing import TypeVar

from aiohttp import ClientError, ClientResponse, ClientSession
from pydantic import BaseModel, TypeAdapter, ValidationError

from server.demo.failure import StepFailed

T = TypeVar("T")


class Envelope(BaseModel):
    """The answer around the data, with what it holds when the server refuses (contract.md 1.1, 1.3)."""

    status: str
    data: object = None
    message: str | None = None


class RestClient:
    """Calls `{url}/api/v1/…`; `token` is sent once it is known.

    Every method raises StepFailed when the server cannot be reached, refuses, or answers in another shape.
    """

    def __init__(self, http: ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self.token: str | None = None

    async def get(self, path: str, shape: type[T]) -> T:
        """Read one thing (or, with `list[…]`, many)."""
        return await self._call("GET", path, None, shape)

    async def post(self, path: str, body: Mapping[str, object] | None, shape: type[T]) -> T:
        """Do something; `body` None sends none."""
        return await self._call("POST", path, body, shape)

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None, shape: type[T]) -> T:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        asked = f"{method} /api/v1/{path}"
        try:
            async with self._http.request(method, f"{self._url}/api/v1/{path}", json=body, headers=headers) as response:
                return await _read(response, asked, shape)
        except (ClientError, OSError) as error:
            raise StepFailed(f"{asked}: {str(error) or type(error).__name__}") from error


async def _read(response: ClientResponse, asked: str, shape: type[T]) -> T:
    text = await response.text()
    try:
        envelope = Envelope.model_validate_json(text)
    except ValidationError as error:
        raise StepFailed(f"{asked} answered {response.status} without the envelope: {text[:200]}") from error
    if not response.ok:
        raise StepFailed(f"{asked} answered {response.status}: {envelope.message}")
    try:
        return TypeAdapter(shape).validate_python(envelope.data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise StepFailed(f"{asked} answered in another shape: {problems}") from error
