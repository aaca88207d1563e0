"""Somebody who follows the server with the Python client and remembers everything that is heard, in order."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from erpmax_client import Event, OrchestratorClient, OrchestratorError, Tokens
from pydantic import BaseModel, ConfigDict, ValidationError

from server.demo.failure import StepFailed

# Said by the server to a single socket; it is no event of the tenant and carries no number.
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
    """A dashboard or a phone, with a client for each namespace that it follows.

    `on_heard`, when set, is called with each event at once. A connection that breaks is no fault, for the client
    hears afterwards what it missed; one that ends for good makes every wait fail.
    """

    def __init__(self, name: str, *, namespaces: Sequence[str], transports: Sequence[str]) -> None:
        self.name = name
        self.namespaces = tuple(namespaces)
        self.heard: list[Heard] = []
        self.confirmed: set[str] = set()
        self.on_heard: Callable[[Heard], None] | None = None
        self._transports = tuple(transports)
        self._clients: dict[str, OrchestratorClient] = {}
        self._reading: list[asyncio.Task[None]] = []
        self._open = AsyncExitStack()
        self._fault: str | None = None
        self._news = asyncio.Event()

    async def connect(self, url: str, token: str) -> None:
        """Connect to every namespace; raises StepFailed."""
        for namespace in self.namespaces:
            client = OrchestratorClient(
                url, tokens=Tokens(token), namespace=namespace, transports=self._transports, connect_timeout_s=5
            )
            try:
                await self._open.enter_async_context(client)
            except OrchestratorError as error:
                raise StepFailed(f"{self.name}: {namespace} refused the connection: {error}") from error
            self._clients[namespace] = client
            self._reading.append(asyncio.create_task(self._read(namespace, client)))

    async def wait_for(self, match: Callable[[Heard], bool]) -> Heard:
        """Return the first event, past or future, that matches; raises StepFailed when a client ends."""
        await self.until(lambda: any(map(match, self.heard)))
        return next(filter(match, self.heard))

    async def mark_read(self, notification_id: UUID) -> None:
        """Say that the user has read a notification, and wait for the acknowledgement and the confirmation."""
        client = self._clients[self.namespaces[0]]
        try:
            await client.call("notification_read", {"notification_id": str(notification_id)})
        except OrchestratorError as error:
            raise StepFailed(f"{self.name}: notification_read was not acknowledged ({error})") from error
        await self.until(lambda: str(notification_id) in self.confirmed)

    async def close(self) -> None:
        """Leave; a connection that never came to be is left as well."""
        await self._open.aclose()
        await asyncio.gather(*self._reading)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until what was heard makes `done` true; raises StepFailed when a client ends."""
        while not done():
            if self._fault:
                raise StepFailed(f"{self.name}: {self._fault}")
            self._news.clear()
            await self._news.wait()

    async def _read(self, namespace: str, client: OrchestratorClient) -> None:
        try:
            async for event in client.events(ephemeral=True):
                self._hear(namespace, event)
                self._news.set()
        except OrchestratorError as error:
            self._fault = f"{namespace} ended: {error}"
            self._news.set()

    def _hear(self, namespace: str, event: Event) -> None:
        if event.name == _CONFIRMED:
            self.confirmed.add(event.data["notification_id"])
        if event.seq is None:
            return
        try:
            heard = Heard(namespace, event.name, Fields.model_validate(event.data))
        except ValidationError:
            self._fault = f"{event.name} on {namespace} has another shape: {event.data}"
            return
        self.heard.append(heard)
        if self.on_heard is not None:
            self.on_heard(heard)
