"""An HTTP server whose answers can be made to fail: what the fakes of the messengers have in common."""

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

Obj = dict[str, Any]


@dataclass
class Fault:
    """What goes wrong with one request.

    `status` and `body` answer instead of the API. `hang` never answers. `cut` breaks the connection: `before` anything
    is done, `after` the work but before the answer, or in the `middle` of the answer.
    """

    status: int | None = None
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: str | None = None


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Obj


@dataclass
class Result:
    """What the API itself answers."""

    status: int
    body: Obj
    headers: dict[str, str] = field(default_factory=dict)


class FakeHttpServer:
    """Use as an async context manager; `base_url` is then where it answers. Faults meet requests in their order."""

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[Seen] = []
        self.faults: deque[Fault] = deque()
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.go_down()

    async def go_down(self) -> None:
        """Stop listening, so that nobody can connect any longer."""
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def deliver(self, update: object, url: str, *, headers: dict[str, str]) -> int:
        """POST one webhook call; return the status of the answer."""
        body = update if isinstance(update, bytes) else json.dumps(update, ensure_ascii=False).encode()
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=body, headers={"Content-Type": "application/json", **headers}) as answer,
        ):
            await answer.read()
            return answer.status

    async def work(self, seen: Seen) -> Result:
        """Do what a request asks for."""
        raise NotImplementedError

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw) if raw else {}
        assert isinstance(body, dict)
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers), body)
        self.requests.append(seen)
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.hang:
            await self._closing.wait()
        if fault.cut == "before":
            return _cut(request)
        if fault.status is not None:
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers)
        result = await self.work(seen)
        if fault.cut == "after":
            return _cut(request)
        encoded = json.dumps(result.body, ensure_ascii=False).encode()
        own = {"Content-Type": "application/json; charset=utf-8", "Set-Cookie": "web_ui_lang=ru; Path=/"}
        headers = {**own, **result.headers}
        if fault.cut == "middle":
            response = web.StreamResponse(
                status=result.status, headers={**headers, "Content-Length": str(len(encoded))}
            )
            await response.prepare(request)
            await response.write(encoded[: len(encoded) // 2])
            return _cut(request)
        return web.Response(status=result.status, body=encoded, headers=headers)


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
