"""Quotas: how many sockets a tenant may have, how fast they may come, and how much they may say."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import structlog

from core.errors import DomainError, ErrorKind, RateLimited
from namespaces.seats import Seat, Seats
from realtime.limits import Bucket, SocketLimits
from realtime.meter import Meter
from realtime.presence import PresenceBoard

# When to try again while a tenant has all the sockets it may have, in seconds.
_FULL_RETRY_S = 30
# A client that was refused so many times more often than it was heard is not listening, and is cut off.
_PATIENCE = 200
# Limits are read anew after this long, in seconds, because not every change of a plan is an event.
_FRESH_S = 60.0

LoadLimits = Callable[[UUID], Awaitable[SocketLimits]]

logger = structlog.get_logger(__name__)


class TooManyConnections(DomainError):
    """The tenant has as many sockets open as its plan allows."""

    kind = ErrorKind.RATE_LIMITED
    code = "TOO_MANY_CONNECTIONS"
    message = "The tenant has too many open connections"


class EventTooLarge(DomainError):
    """An event is larger than the tenant's plan allows."""

    kind = ErrorKind.TOO_LARGE
    code = "PAYLOAD_TOO_LARGE"
    message = "The event is too large"


class _Account:
    """One tenant's limits, when they were read, and what is left of them here."""

    def __init__(self, limits: SocketLimits, now: float) -> None:
        self.limits = limits
        self.read_at = now
        self.connects = Bucket(limits.connects_per_s, now)
        self.events = Bucket(limits.events_per_s, now)


class Quotas:
    """Keeps an account for each tenant with sockets here.

    Each instance grants its share of a rate, which is that of one among all that are alive; the number of sockets is
    that of all instances together, as far as the presence board knows.
    """

    def __init__(self, *, load: LoadLimits, seats: Seats, presence: PresenceBoard, meter: Meter) -> None:
        self._load = load
        self._seats = seats
        self._presence = presence
        self._meter = meter
        self._accounts: dict[UUID, _Account] = {}
        self._reading: dict[UUID, asyncio.Task[_Account]] = {}
        # Whose limits have changed while they were being read.
        self._outdated: set[UUID] = set()

    async def admit(self, tenant_id: UUID | None) -> None:
        """Let one more socket of a tenant in; raises RateLimited and TooManyConnections with `retry_after_s`."""
        if tenant_id is None:
            return
        account = await self._account(tenant_id)
        await self._presence.learn(tenant_id)
        # From here on nothing is awaited until the socket is counted: of two that come at once, both are.
        wait_s = account.connects.take(self._now(), rate=self._share(account.limits.connects_per_s))
        if wait_s:
            self._meter.throttles["connects"] += 1
            raise RateLimited("Too many connections at once", retry_after_s=wait_s)
        allowed = account.limits.connections
        if 0 <= allowed <= self._seats.count(tenant_id) + self._presence.sockets_elsewhere(tenant_id):
            self._meter.throttles["connections"] += 1
            raise TooManyConnections(retry_after_s=_FULL_RETRY_S)

    def refusal(self, seat: Seat, size: int) -> DomainError | None:
        """Return why an event of `size` bytes is not heard, if it is not; who goes on and on is cut off."""
        refusal = self._judge(seat, size)
        if refusal is None:
            seat.strikes = max(0, seat.strikes - 1)
            return None
        self._meter.throttles[refusal.code.lower()] += 1
        seat.strikes += 1
        if seat.strikes >= _PATIENCE and seat.member.session.open:
            self._meter.closes["too_fast"] += 1
            logger.info("socket cut off", sid=seat.sid, code=refusal.code)
            seat.cut_off()
        return refusal

    def change(self, tenant_id: UUID) -> None:
        """Have a tenant's limits read anew, because its plan has changed; they then hold for its open sockets too."""
        if tenant_id in self._reading:
            self._outdated.add(tenant_id)
        elif tenant_id in self._accounts:
            self._read_soon(tenant_id)

    def close(self, tenant_id: UUID) -> None:
        """Forget a tenant that has no sockets here any more."""
        self._accounts.pop(tenant_id, None)

    def _judge(self, seat: Seat, size: int) -> DomainError | None:
        account = self._accounts.get(seat.principal.tenant_id) if seat.principal.tenant_id is not None else None
        if account is None:
            return None
        limits, now = account.limits, self._now()
        if 0 <= limits.payload_bytes < size:
            return EventTooLarge()
        seat.bucket = seat.bucket or Bucket(limits.socket_events_per_s, now)
        wait_s = seat.bucket.take(now, rate=limits.socket_events_per_s)
        wait_s = wait_s or account.events.take(now, rate=self._share(limits.events_per_s))
        return RateLimited(retry_after_s=wait_s) if wait_s else None

    async def _account(self, tenant_id: UUID) -> _Account:
        account = self._accounts.get(tenant_id)
        if account is None:
            # One look for all who wait, and a client that goes away meanwhile does not end it for the others.
            self._read_soon(tenant_id)
            return await asyncio.shield(self._reading[tenant_id])
        if self._now() - account.read_at > _FRESH_S:
            self._read_soon(tenant_id)
        return account

    def _read_soon(self, tenant_id: UUID) -> None:
        if tenant_id not in self._reading:
            reading = self._reading[tenant_id] = asyncio.create_task(self._read(tenant_id))
            reading.add_done_callback(partial(self._end_reading, tenant_id))

    def _end_reading(self, tenant_id: UUID, reading: "asyncio.Task[_Account]") -> None:
        del self._reading[tenant_id]
        if tenant_id in self._outdated:
            self._outdated.discard(tenant_id)
            self._read_soon(tenant_id)
        if reading.cancelled() or (error := reading.exception()) is None:
            return
        if isinstance(error, DomainError):
            # The tenant is closed, as whoever comes next shall hear instead of being let in by what was known before.
            self._accounts.pop(tenant_id, None)
        else:
            logger.warning("limits not read", tenant_id=str(tenant_id), error=repr(error))

    async def _read(self, tenant_id: UUID) -> _Account:
        limits = await self._load(tenant_id)
        while tenant_id in self._outdated:
            self._outdated.discard(tenant_id)
            limits = await self._load(tenant_id)
        account = self._accounts.get(tenant_id)
        if account is None:
            account = self._accounts[tenant_id] = _Account(limits, self._now())
        account.limits, account.read_at = limits, self._now()
        return account

    def _share(self, rate: int) -> float:
        return rate if rate < 0 else rate / max(1, self._presence.instances())

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
