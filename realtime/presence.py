"""Presence: which of a tenant's people are online, on all instances together."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol
from uuid import UUID

# Stands for all of a tenant's machines: their sockets are counted, but nobody is online for them.
MACHINES = UUID(int=0)


class PresenceBoard(Protocol):
    """Where instances note who is connected to them. `on_change` is told which tenant's people have changed."""

    on_change: Callable[[UUID], None]

    def arrive(self, tenant_id: UUID, user_id: UUID) -> None:
        """Note one more socket of a user, or of `MACHINES`, on this instance."""
        ...

    def leave(self, tenant_id: UUID, user_id: UUID) -> None:
        """Note one socket less."""
        ...

    async def learn(self, tenant_id: UUID) -> None:
        """Find out how many sockets a tenant has elsewhere, before the first one is let in here."""
        ...

    async def online(self, tenant_id: UUID) -> frozenset[UUID]:
        """Return the users who are connected anywhere."""
        ...

    def sockets_elsewhere(self, tenant_id: UUID) -> int:
        """Return how many of the tenant's sockets the other instances have, as far as is known."""
        ...

    def instances(self) -> int:
        """Return how many instances are alive, this one included, as far as is known."""
        ...


class LocalBoard:
    """The board of an instance that is alone."""

    def __init__(self) -> None:
        self.on_change: Callable[[UUID], None] = lambda _: None
        self._here: dict[UUID, Counter[UUID]] = {}

    def arrive(self, tenant_id: UUID, user_id: UUID) -> None:
        users = self._here.setdefault(tenant_id, Counter())
        users[user_id] += 1
        if users[user_id] == 1:
            self.on_change(tenant_id)

    def leave(self, tenant_id: UUID, user_id: UUID) -> None:
        users = self._here[tenant_id]
        users[user_id] -= 1
        if not users[user_id]:
            del users[user_id]
            self.on_change(tenant_id)
        if not users:
            del self._here[tenant_id]

    def here(self, tenant_id: UUID) -> Mapping[UUID, int]:
        """Return the users who are connected to this instance, and with how many sockets."""
        return self._here.get(tenant_id, {})

    async def learn(self, tenant_id: UUID) -> None:
        """There is nobody elsewhere."""

    async def online(self, tenant_id: UUID) -> frozenset[UUID]:
        return frozenset(self.here(tenant_id)) - {MACHINES}

    def sockets_elsewhere(self, tenant_id: UUID) -> int:  # noqa: ARG002 - the board's signature
        return 0

    def instances(self) -> int:
        return 1
