"""Listening with the Python client, and remembering where one was."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from erpmax_client import (
    Event,
    OrchestratorClient,
    Position,
    Tokens,
)

from tests.clients.conftest import Log, sign_in
from tests.support.people import Person
from tests.support.waiting import until


class Ear:
    """Reads a client to its end and remembers what it was handed."""

    def __init__(self, client: OrchestratorClient) -> None:
        self.client = client
        self.heard: list[Event] = []
        self.reading = asyncio.create_task(self._read())

    @property
    def numbers(self) -> list[tuple[int, str]]:
        return [(event.seq or 0, event.name) for event in self.heard]

    async def hears(self, log: Log, after: int, seconds: float = 20.0) -> None:
        """Wait until it was handed what is owed after a number, and nothing else."""
        owed = await log.owed(after)
        await self.has_heard(len(owed), seconds)
        assert self.numbers == owed

    async def has_heard(self, count: int, seconds: float = 20.0) -> None:
        """Wait until it was handed so many events."""
        await until(lambda: len(self.heard) >= count, seconds)

    async def _read(self) -> None:
        async for event in self.client.events():
            self.heard.append(event)


@asynccontextmanager
async def listening(url: str, person: Person, **options: Any) -> AsyncIterator[Ear]:
    """Sign in with a password, connect, and read in the background."""
    async with OrchestratorClient(url, email=person.email, password=person.password, **options) as client:
        ear = Ear(client)
        try:
            yield ear
        finally:
            ear.reading.cancel()
            await asyncio.wait({ear.reading})


class Memory:
    """A position store that outlives its clients."""

    def __init__(self, position: Position | None = None) -> None:
        self.position = position

    async def load(self) -> Position | None:
        return self.position

    async def save(self, position: Position) -> None:
        self.position = position


async def tokens_of(person: Person) -> Tokens:
    """Begin one more session of a person."""
    session = await sign_in(person)
    return Tokens(session.access, session.refresh)
