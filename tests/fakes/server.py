"""What the fakes of HTTP APIs have in common: a real server on a local port, which goes wrong to order."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

# A provider's objects are open dictionaries; a fake that typed them would be a second SDK.
Obj = dict[str, Any]


@dataclass
class Fault:
    """What goes wrong with one request.

    `status` and `body` answer instead of the API; `delay_s` waits first, `answer_delay_s` after the work and before
    the answer. `cut` is where the connection breaks: `before` anything is done, `after` the work but before the answer,
    or in the `middle` of the answer's body.
    """

    status: int | None = None
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    answer_delay_s: float = 0.0
    cut: str | None = None


@dataclass
class Seen:
    """One request as it arrived; `params` are its parameters, decoded the way the provider decodes them."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    params: Obj


@dataclass
class Reply:
    """What the API answers: an object as JSON, or bytes as they are."""

    status: int
    content: object
    headers: dict[str, str] = field(default_factory=dict)


class FakeServer:
    """A provider's API. Use as an async context manager; `base_url` is then where it answers.

    `faults` are taken up one per request, in order. `always` goes wrong with every request once they are used up.
    """

    indent: int | None = None
    """How the API lays out its JSON."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.base_url = ""
        self.requests: list[Seen] = []
        self.replies: list[Reply] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self._clock = clock
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.go_down()

    async def go_down(self) -> None:
        """Stop listening; whoever calls now is refused the connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def now(self) -> int:
        return int(self._clock())

    def decode(self, request: web.Request, body: str) -> Obj:
        """Decode the parameters of a request."""
        if request.content_type == "application/json" and body:
            decoded: Obj = json.loads(body)
            return decoded
        return dict(request.query)

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        """Do what the request asks for."""
        raise NotImplementedError

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Deliver a webhook; return the status of the answer."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            await answer.read()
            return answer.status

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        seen = Seen(request.method, request.path, dict(request.headers), body, self.decode(request, body))
        self.requests.append(seen)
        fault = self.faults.popleft() if self.faults else self.always or Fault()
        await asyncio.sleep(fault.delay_s)
        if fault.cut == "before":
            return _cut(request)
        if fault.status is not None:
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers)
        reply = self.answer(request, seen)
        self.replies.append(reply)
        await asyncio.sleep(fault.answer_delay_s)
        if fault.cut == "after":
            return _cut(request)
        content = (
            reply.content
            if isinstance(reply.content, bytes)
            else b""
            if reply.content is None
            else json.dumps(reply.content, indent=self.indent).encode()
        )
        response = web.StreamResponse(
            status=reply.status, headers={"Content-Type": "application/json", **reply.headers}
        )
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[: len(content) // 2] if fault.cut == "middle" else content)
        return _cut(request) if fault.cut == "middle" else response


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
