"""Ears on the wire: python-socketio clients that remember what they heard."""

import asyncio
from collections.abc import Callable
from typing import Any

import socketio


class Listener:
    """A client on one or more namespaces; `heard` holds (namespace, event, payload) in the order of arrival."""

    def __init__(self, *, reconnection: bool = False) -> None:
        self.client = socketio.AsyncClient(reconnection=reconnection, reconnection_delay=0.1)
        self.heard: list[tuple[str, str, Any]] = []

    async def connect(self, url: str, token: str, *namespaces: str, **options: Any) -> "Listener":
        """Connect and wait for `connected` on every namespace."""
        for namespace in namespaces or ("/",):
            self.client.on("*", handler=self._remember(namespace), namespace=namespace)
        options.setdefault("auth", {"token": token})
        options.setdefault("transports", ["websocket"])
        await self.client.connect(url, namespaces=list(namespaces or ("/",)), wait_timeout=10, **options)
        await self.until(lambda: len(self.of("connected")) == len(namespaces or ("/",)))
        return self

    def of(self, event: str, namespace: str | None = None) -> list[Any]:
        """Return the payloads of an event, in one namespace or in all."""
        return [body for place, name, body in self.heard if name == event and namespace in (None, place)]

    def logged(self, namespace: str) -> list[tuple[int, str]]:
        """Return (seq, event) of everything from the event log heard on a namespace."""
        return [
            (body["seq"], name)
            for place, name, body in self.heard
            if place == namespace and isinstance(body, dict) and "event_id" in body
        ]

    async def until(self, true: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait until something is so, or fail telling what was heard."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"heard only {[(place, name) for place, name, _ in self.heard]}") from None

    async def close(self) -> None:
        await self.client.disconnect()

    def _remember(self, namespace: str) -> Callable[..., Any]:
        async def remember(event: str, *arguments: Any) -> None:
            self.heard.append((namespace, event, arguments[0] if arguments else None))

        return remember
