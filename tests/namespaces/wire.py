"""A client of one namespace, packet by packet: what stock clients hide, and what only a forger would send."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

_EPHEMERAL = ("presence:changed", "job:log")


class Wire:
    """One websocket connection in one namespace; `heard` holds the arguments of each event, its name first.

    `answer` is what CONNECT was answered with, or `refusal`.
    """

    def __init__(self, socket: ClientWebSocketResponse, namespace: str) -> None:
        self._socket = socket
        self._place = "" if namespace == "/" else f"{namespace},"
        self._reading = asyncio.create_task(self._read())
        self._may_read = asyncio.Event()
        self._may_read.set()
        self.answer: dict[str, Any] | None = None
        self.refusal: Any = None
        self.heard: list[list[Any]] = []
        self.acks: list[Any] = []
        self.open = True

    @classmethod
    async def enter(cls, http: ClientSession, url: str, token: str, namespace: str = "/", **auth: Any) -> Self:
        """Connect with this auth payload and wait for the answer."""
        socket = await http.ws_connect(f"{url}/socket.io/?EIO=4&transport=websocket", max_msg_size=0)
        wire = cls(socket, namespace)
        await socket.send_str(f"40{wire._place}{json.dumps({'token': token, **auth})}")
        await wire.until(lambda: wire.answer or wire.refusal or not wire.open)
        return wire

    def of(self, event: str) -> list[list[Any]]:
        """Return the arguments of every event of this name."""
        return [arguments for name, *arguments in self.heard if name == event]

    @property
    def names(self) -> list[str]:
        """The names of the events that were heard, in the order of arrival, but for those that come when they like."""
        return [name for name, *_ in self.heard if name not in _EPHEMERAL]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events of the log that were heard, in the order of arrival."""
        return [first["seq"] for first in self._payloads() if "event_id" in first]

    @property
    def position(self) -> str:
        """What npm's client would send as its offset: the last trailing string of an event."""
        return next(str(words[-1]) for words in reversed(self.heard) if isinstance(words[-1], str))

    async def say(self, event: str, *arguments: Any) -> Any:
        """Send an event and return what it is acknowledged with."""
        number = len(self.acks)
        await self._socket.send_str(f"42{self._place}{number}{json.dumps([event, *arguments])}")
        await self.until(lambda: len(self.acks) > number)
        return self.acks[number]

    def pause(self) -> None:
        """Read nothing any more, as a client whose machine sleeps."""
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    async def until(self, true: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait until something is so, or fail telling what was heard."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"heard only {self.names[-50:]}, {self.numbers[-5:]}") from None

    async def hears(self, count: int) -> None:
        """Wait until so many events of the log were heard."""
        await self.until(lambda: len(self.numbers) >= count)

    async def drop(self) -> None:
        """Leave without a word."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        transport = self._socket.get_extra_info("socket") and self._socket._response.connection
        if transport is not None and transport.transport is not None:
            transport.transport.abort()
        self.open = False

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                await self._take(message.data)
            await self._may_read.wait()
        self.open = False

    async def _take(self, text: str) -> None:
        if text == "2":
            await self._socket.send_str("3")
        if not text.startswith("4"):
            return
        kind, body = text[1], text[2:].removeprefix(self._place)
        if kind == "0":
            self.answer = json.loads(body)
        elif kind == "4":
            self.refusal = json.loads(body)
        elif kind == "2":
            self.heard.append(json.loads(body))
        elif kind == "3":
            self.acks.append(json.loads(body[body.index("[") :])[0])
        elif kind == "1":
            self.heard.append(["disconnect"])

    def _payloads(self) -> list[dict[str, Any]]:
        return [words[1] for words in self.heard if len(words) > 1 and isinstance(words[1], dict)]
