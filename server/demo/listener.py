"""A Socket.IO client that remembers everything it hears, in order."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from socketio import AsyncClient
from socketio.exceptions import SocketIOError

from server.demo.failure import StepFailed

_ANSWER_S = 5

# Said by the server to a single socket; they are not events of the tenant and carry no number.
_GREETING = "connected"
_CONFIRMED = "notification_read_confirmed"


class Fields(BaseModel):
    """The fields of an event that the demo reads; `event_id` and `seq` are in all of them (contract.md 7.3)."""

    model_config = ConfigDict(frozen=True)

    event_id: UUID
    seq: int
    job_id: UUID | None = None
    progress: int | None = None
    message: str | None = None
    error: str | None = None
    status: str | None = None
    plan: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """One event as it came in on one namespace."""

    namespace: str
    name: str
    fields: Fields


class Listener:
    """One client: a dashboard or a phone, connected to some namespaces over one connection.

    `on_heard`, when set, is called with each event at once. A connection that breaks makes every wait fail, because
    what was said meanwhile would be missed.
    """

    def __init__(self, name: str, *, namespaces: Sequence[str], transports: Sequence[str]) -> None:
        self.name = name
        self.namespaces = tuple(namespaces)
        self.heard: list[Heard] = []
        self.confirmed: set[str] = set()
        self.on_heard: Callable[[Heard], None] | None = None
        self._transports = list(transports)
        self._greeted: set[str] = set()
        self._fault: str | None = None
        self._news = asyncio.Event()
        self._socket = AsyncClient(reconnection=False, handle_sigint=False)
        for namespace in self.namespaces:
            self._socket.on("*", partial(self._hear, namespace), namespace=namespace)
            self._socket.on("connect_error", partial(self._refused, namespace), namespace=namespace)
            self._socket.on("disconnect", self._lost, namespace=namespace)

    async def connect(self, url: str, token: str) -> None:
        """Connect to every namespace and wait until each has greeted; raises StepFailed."""
        try:
            await self._socket.connect(
                url,
                auth={"token": token},
                namespaces=list(self.namespaces),
                transports=self._transports,
                wait_timeout=_ANSWER_S,
            )
        except SocketIOError as error:
            raise StepFailed(f"{self.name}: {self._fault or error}") from error
        await self.until(lambda: self._greeted.issuperset(self.namespaces))

    async def wait_for(self, match: Callable[[Heard], bool]) -> Heard:
        """Return the first event, past or future, that matches; raises StepFailed when the connection breaks."""
        await self.until(lambda: any(map(match, self.heard)))
        return next(filter(match, self.heard))

    async def mark_read(self, notification_id: UUID) -> None:
        """Say that the user has read a notification, and wait for the acknowledgement and the confirmation."""
        namespace = self.namespaces[0]
        try:
            payload = {"notification_id": str(notification_id)}
            answer = await self._socket.call("notification_read", payload, namespace=namespace, timeout=_ANSWER_S)
        except SocketIOError as error:
            raise StepFailed(f"{self.name}: notification_read was not acknowledged ({error})") from error
        if answer != {"ok": True}:
            raise StepFailed(f"{self.name}: notification_read was answered {answer}")
        await self.until(lambda: str(notification_id) in self.confirmed)

    async def close(self) -> None:
        """Leave; a connection that never came to be is left as well."""
        await self._socket.disconnect()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until what was heard makes `done` true; raises StepFailed when the connection breaks."""
        while not done():
            if self._fault:
                raise StepFailed(f"{self.name}: {self._fault}")
            self._news.clear()
            await self._news.wait()

    async def _hear(self, namespace: str, name: str, payload: Any = None) -> None:
        self._news.set()
        if name == _GREETING:
            self._greeted.add(namespace)
        elif name == _CONFIRMED:
            self.confirmed.add(payload["notification_id"])
        else:
            self._remember(namespace, name, payload)

    def _remember(self, namespace: str, name: str, payload: object) -> None:
        try:
            heard = Heard(namespace, name, Fields.model_validate(payload))
        except ValidationError:
            self._fault = f"{name} on {namespace} has another shape: {payload}"
            return
        self.heard.append(heard)
        if self.on_heard is not None:
            self.on_heard(heard)

    async def _refused(self, namespace: str, reason: object = None) -> None:
        self._fault = f"{namespace} refused the connection: {reason}"
        self._news.set()

    async def _lost(self, reason: object = None) -> None:
        self._fault = self._fault or f"the connection was lost ({reason})"
        self._news.set()
