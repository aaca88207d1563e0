"""One Socket.IO connection, from its handshake until it is over. It is never used again."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import ClientError, ClientSession
from socketio import AsyncClient
from socketio.exceptions import SocketIOError

from erpmax_client.errors import RequestRefused, Unreachable, retry_after_of

# A peer that answers nothing must not delay the next connection.
_GOODBYE_S = 1.0


class Refusal(Exception):
    """The server has answered CONNECT with CONNECT_ERROR; `code` is empty if it gave none."""

    def __init__(self, answer: object) -> None:
        fields = answer if isinstance(answer, Mapping) else {}
        data = fields.get("data")
        details: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        self.message = str(fields.get("message", answer))
        self.code = str(details.get("code", ""))
        self.retry_after_s = retry_after_of(details)
        super().__init__(f"{self.code} {self.message}")


class Connection:
    """Connects to one namespace and calls `hear(name, arguments)` with each event, in the order of arrival."""

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        transports: Sequence[str],
        http_factory: Callable[[], ClientSession],
        hear: Callable[[str, Sequence[Any]], None],
    ) -> None:
        self._url = url
        self._namespace = namespace
        self._transports = list(transports)
        self._hear = hear
        self._refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._socket = AsyncClient(reconnection=False, handle_sigint=False, http_session=http_factory)
        # Plain functions: the library runs each packet in a task of its own, and only what never awaits keeps order.
        self._socket.on("*", self._heard, namespace=namespace)
        self._socket.on("connect_error", self._refuse, namespace=namespace)

    async def open(self, auth: Mapping[str, Any]) -> None:
        """Ask to be let in; the answer is heard later. Raises Unreachable."""
        try:
            # Not waiting here, because the library would overlook what the server says before `connect` returns.
            await self._socket.connect(
                self._url,
                headers={},
                auth=dict(auth),
                transports=self._transports,
                namespaces=[self._namespace],
                wait=False,
            )
        # The library lets a malformed answer of whatever listens at this address through as it found it.
        except (SocketIOError, ClientError, OSError, TypeError, ValueError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error

    async def over(self) -> None:
        """Wait until the connection has ended; raises Refusal if the server would not have it."""
        # The library's own `wait` would, when cancelled, take the reader down with it.
        either: set[asyncio.Future[Any]] = {self._socket.eio.read_loop_task, self._refused}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._refused.done():
            raise Refusal(self._refused.result())

    async def call(self, event: str, data: Any, *, timeout_s: float) -> Mapping[str, Any]:
        """Send an event and return its acknowledgement; raises RequestRefused and Unreachable."""
        try:
            answer = await self._socket.call(event, data, namespace=self._namespace, timeout=timeout_s)
        except SocketIOError as error:
            raise Unreachable(f"{event} was not answered ({error or type(error).__name__})") from error
        if isinstance(answer, Mapping) and answer.get("ok") is True:
            return answer
        raise _refusal_of(event, answer)

    async def close(self) -> None:
        """Leave, politely if the server listens."""
        with suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._socket.disconnect()
        await self._socket.eio.disconnect(abort=True)

    def _heard(self, name: str, *arguments: Any) -> None:
        self._hear(name, arguments)

    def _refuse(self, answer: object = None) -> None:
        if not self._refused.done():
            self._refused.set_result(answer)


def _refusal_of(event: str, answer: object) -> RequestRefused:
    error = answer.get("error") if isinstance(answer, Mapping) else None
    if not isinstance(error, Mapping):
        return RequestRefused("UNEXPECTED_ANSWER", f"{event} was answered {answer!r}", details={})
    return RequestRefused(str(error.get("code", "UNKNOWN")), str(error.get("message", "")), details=error)
