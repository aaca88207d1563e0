"""Telling a tenant's people who of them is online, whenever that has changed."""

import asyncio
from uuid import UUID

import structlog

from namespaces.delivery import Delivery
from namespaces.seats import Seats
from realtime.presence import PresenceBoard

# Changes are gathered for this long: people often come with several sockets, and go only to come back.
_GATHER_S = 0.25

logger = structlog.get_logger(__name__)


class PresenceAnnouncer:
    """Says `presence:changed` to the sockets of this instance; every instance does so for its own."""

    def __init__(self, *, board: PresenceBoard, seats: Seats, delivery: Delivery) -> None:
        self._board = board
        self._seats = seats
        self._delivery = delivery
        self._changed: set[UUID] = set()
        self._told: dict[UUID, frozenset[UUID]] = {}
        self._wake = asyncio.Event()
        board.on_change = self.change

    def change(self, tenant_id: UUID) -> None:
        """Have a tenant's people told, soon."""
        self._changed.add(tenant_id)
        self._wake.set()

    async def run(self) -> None:
        """Tell, for as long as the process lives."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER_S)
            self._wake.clear()
            changed, self._changed = self._changed, set()
            for tenant_id in changed:
                try:
                    await self._tell(tenant_id)
                except Exception:
                    # One tenant's fault must not silence the others.
                    logger.exception("presence not told", tenant_id=str(tenant_id))

    async def _tell(self, tenant_id: UUID) -> None:
        online = await self._board.online(tenant_id)
        if not self._seats.count(tenant_id):
            self._told.pop(tenant_id, None)
        elif self._told.get(tenant_id) != online:
            self._told[tenant_id] = online
            self._delivery.presence(tenant_id, online)
