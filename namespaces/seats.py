"""Who sits on which socket of this instance, until when, and the ways to find them."""

from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from core.errors import DomainError
from realtime.engine.manager import Member
from realtime.engine.session import Reason
from realtime.follower import Follower
from realtime.limits import Bucket
from services.identity import Principal

# How long before its token expires a socket is asked for a new one, in seconds.
EXPIRY_NOTICE_S = 30


class Seat:
    """One socket and whom it belongs to.

    It is `live` once it has had what it missed; `ended` tells why it has to go, once it has to. What it came with ends
    at `expires_at`; an API key may have no end.
    """

    __slots__ = ("bucket", "ended", "expires_at", "live", "member", "namespace", "principal", "strikes")

    def __init__(self, member: Member, namespace: str, principal: Principal, expires_at: datetime | None) -> None:
        self.member = member
        self.namespace = namespace
        self.principal = principal
        self.expires_at = expires_at
        self.live = False
        self.ended: DomainError | None = None
        self.bucket: Bucket | None = None
        # How often in a row it was told that it says too much.
        self.strikes = 0

    @property
    def sid(self) -> str:
        return self.member.sid

    def cut_off(self) -> None:
        """End the connection of a client that does not keep to the rules."""
        self.member.session.close(Reason.TRANSPORT_ERROR)


class Seats:
    """The seats of this instance, by socket, tenant and session."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._by_member: dict[Member, Seat] = {}
        self._by_tenant: dict[UUID, set[Seat]] = {}
        self._by_session: dict[UUID, set[Seat]] = {}

    async def take(self, seat: Seat) -> None:
        """Seat somebody, and have the tenant's events reach this instance; raises what the database raises."""
        tenant_id = seat.principal.tenant_id
        # Listed first, so that whatever ends the session from here on finds the seat.
        self._by_member[seat.member] = seat
        self._by_session.setdefault(seat.principal.session_id, set()).add(seat)
        if tenant_id is None:
            return
        self._by_tenant.setdefault(tenant_id, set()).add(seat)
        try:
            await self._follower.join(tenant_id)
        except BaseException:
            self._unlist(seat)
            raise

    def of(self, member: Member) -> Seat | None:
        """Return whoever sits there."""
        return self._by_member.get(member)

    def of_tenant(self, tenant_id: UUID) -> list[Seat]:
        return list(self._by_tenant.get(tenant_id, ()))

    def of_session(self, session_id: UUID) -> list[Seat]:
        return list(self._by_session.get(session_id, ()))

    def tenants(self) -> list[UUID]:
        """Return the tenants who have sockets here."""
        return list(self._by_tenant)

    def count(self, tenant_id: UUID) -> int:
        """Return how many of the tenant's sockets are here."""
        return len(self._by_tenant.get(tenant_id, ()))

    def all(self) -> Iterable[Seat]:
        return self._by_member.values()

    def leave(self, member: Member) -> Seat | None:
        """Free a seat and return it; freeing an empty one does nothing."""
        seat = self._by_member.get(member)
        if seat is None:
            return None
        self._unlist(seat)
        if seat.principal.tenant_id is not None:
            self._follower.leave(seat.principal.tenant_id)
        return seat

    def move(self, seat: Seat, principal: Principal) -> None:
        """Let a seat go on under another session of the same user and tenant, or with another role."""
        _discard(self._by_session, seat.principal.session_id, seat)
        seat.principal = principal
        self._by_session.setdefault(principal.session_id, set()).add(seat)

    def _unlist(self, seat: Seat) -> None:
        self._by_member.pop(seat.member, None)
        _discard(self._by_session, seat.principal.session_id, seat)
        if seat.principal.tenant_id is not None:
            _discard(self._by_tenant, seat.principal.tenant_id, seat)


def _discard(index: dict[UUID, set[Seat]], key: UUID, seat: Seat) -> None:
    seats = index.get(key)
    if seats is not None:
        seats.discard(seat)
        if not seats:
            del index[key]


class Expiry:
    """Finds the seats whose token is about to expire, and those whose token has.

    Seats are kept by the second of their expiry, and the engine's timer wheel is asked once for each second that
    somebody's token ends in, however many those are.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], None]) -> None:
        self._call_later = call_later
        self._seats: dict[int, set[Seat]] = {}
        self.on_near: Callable[[Seat, datetime], None] = lambda _, __: None
        self.on_over: Callable[[Seat], None] = lambda _: None

    def watch(self, seat: Seat, now: datetime) -> None:
        """Watch a seat from now on, until its token expires or it is forgotten."""
        expires_at = seat.expires_at
        if expires_at is None:
            return
        second = _second(expires_at)
        seats = self._seats.get(second)
        if seats is None:
            seats = self._seats[second] = set()
            left = second - now.timestamp()
            if left > EXPIRY_NOTICE_S:
                self._call_later(left - EXPIRY_NOTICE_S, lambda: self._near(second))
            self._call_later(max(left, 0.0), lambda: self._over(second))
        seats.add(seat)
        left = expires_at.timestamp() - now.timestamp()
        if left <= EXPIRY_NOTICE_S:
            self._call_later(0.0, lambda: self.on_near(seat, expires_at))

    def forget(self, seat: Seat) -> None:
        """Watch a seat no longer."""
        seats = self._seats.get(_second(seat.expires_at)) if seat.expires_at is not None else None
        if seats is not None:
            seats.discard(seat)

    def _near(self, second: int) -> None:
        for seat in list(self._seats.get(second, ())):
            if seat.expires_at is not None:
                self.on_near(seat, seat.expires_at)

    def _over(self, second: int) -> None:
        for seat in self._seats.pop(second, ()):
            self.on_over(seat)


def _second(moment: datetime) -> int:
    return int(moment.timestamp())
