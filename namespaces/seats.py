"""Who sits on which socket of this instance, and the place in the log that each tenant's sockets share."""

from uuid import UUID

from realtime.follower import Follower
from services.identity import Actor


class Seats:
    """The actors of this instance's sockets, by socket id."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._actors: dict[str, Actor] = {}

    async def take(self, sid: str, actor: Actor) -> None:
        """Seat an actor; from here on the tenant's events reach this instance."""
        if actor.tenant_id is not None:
            await self._follower.join(actor.tenant_id)
        self._actors[sid] = actor

    def actor(self, sid: str) -> Actor | None:
        """Return who sits there."""
        return self._actors.get(sid)

    def leave(self, sid: str) -> None:
        """Free a seat; freeing an empty one does nothing."""
        actor = self._actors.pop(sid, None)
        tenant_id: UUID | None = actor.tenant_id if actor else None
        if tenant_id is not None:
            self._follower.leave(tenant_id)
