"""Authority: whom a token names, whether that still holds, and what happens to open sockets when it no longer does."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog

from core.addresses import counted_address
from core.clock import Clock
from core.errors import DomainError, ErrorKind, PermissionDenied
from namespaces.delivery import Delivery
from namespaces.seats import Expiry, Seat, Seats
from realtime.engine.manager import Broadcaster
from realtime.engine.session import Reason
from realtime.log import NumberedEvent
from realtime.rooms import managers_room
from services.api_keys.errors import ApiKeyRevoked
from services.auth.recognition import Recognition
from services.closed_tenants import TenantDeleted, TenantSuspended
from services.identity import Principal
from services.standing import AuthorityChanged, Standing

logger = structlog.get_logger(__name__)


# Counts a look at an API key by who has it looked at; raises RateLimited.
LimitLooks = Callable[[str], Awaitable[None]]


class SessionRevoked(DomainError):
    """The sign-in that the socket's token belongs to is over."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "SESSION_REVOKED"
    message = "The session has ended; sign in again"


class TenantAccessRevoked(PermissionDenied):
    """The user belongs to the tenant no longer."""

    code = "TENANT_ACCESS_REVOKED"
    message = "You no longer belong to this tenant"


class AccountSwitchedOff(PermissionDenied):
    """The platform has switched the user's account off."""

    code = "USER_INACTIVE"
    message = "Your account has been switched off"


class TokenMismatch(PermissionDenied):
    """A socket was given a token of another user or tenant."""

    code = "TOKEN_MISMATCH"
    message = "The token belongs to another user or tenant"


_ENDINGS: dict[str, type[DomainError]] = {
    ending.code: ending
    for ending in (
        SessionRevoked,
        ApiKeyRevoked,
        AccountSwitchedOff,
        TenantAccessRevoked,
        TenantSuspended,
        TenantDeleted,
    )
}


class Authority:
    """Recognises people by their tokens, and ends their seats when they lose what the tokens say."""

    def __init__(
        self,
        *,
        recognition: Recognition,
        limit_looks: LimitLooks,
        standing: Standing,
        seats: Seats,
        delivery: Delivery,
        manager: Broadcaster,
        clock: Clock,
        call_later: Callable[[float, Callable[[], None]], None],
        run: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._recognition = recognition
        self._limit_looks = limit_looks
        self._standing = standing
        self._seats = seats
        self._delivery = delivery
        self._manager = manager
        self._clock = clock
        self._run = run
        self._expiry = Expiry(call_later)
        self._expiry.on_near = self._announce_expiry
        self._expiry.on_over = self._expire

    async def recognise(self, token: str, asker: str) -> tuple[Principal, datetime | None]:
        """Return whom a token names and until when, if it ends; raises RateLimited and what `Recognition.read` raises.

        `asker` is an address, or who is known already: whoever makes keys up would otherwise have the database asked as
        often as they like.
        """
        if self._recognition.must_look(token):
            await self._limit_looks(counted_address(asker))
        return await self._recognition.read(token)

    async def confirm(self, seat: Seat, token: str) -> None:
        """Have a seat that was taken with a token hold, or raise why it does not.

        Only when something has changed that may concern its owner is the database asked.
        """
        self._seats.move(seat, await self._recognition.prove(seat.principal, token, in_open_tenant=True))
        if seat.ended is not None:
            raise seat.ended

    def watch(self, seat: Seat) -> None:
        """See to it that a seat does not outlive its token."""
        self._expiry.watch(seat, self._clock.now())

    def forget(self, seat: Seat) -> None:
        """Watch a seat no longer."""
        self._expiry.forget(seat)

    async def refresh(self, seat: Seat, token: str) -> datetime | None:
        """Let a seat go on with another token of the same user and tenant; returns until when, if it ends.

        Raises TokenMismatch, and what `recognise` and `confirm` raise; the seat is then as it was.
        """
        known = seat.principal
        principal, expires_at = await self.recognise(token, str(known.user_id))
        if (principal.user_id, principal.tenant_id) != (known.user_id, known.tenant_id):
            raise TokenMismatch
        principal = await self._recognition.prove(principal, token, in_open_tenant=True)
        if seat.ended is not None:
            raise seat.ended
        self._change_role(seat, principal)
        self._expiry.forget(seat)
        seat.expires_at = expires_at
        self._expiry.watch(seat, self._clock.now())
        return expires_at

    def hear(self, event: NumberedEvent) -> int:
        """Take in an event of the platform's stream; returns how many seats it concerned."""
        change = self._standing.note(dict(event.payload), event.created_at)
        if change is None:
            return 0
        seats = self._concerned(change)
        for seat in seats:
            if change.change == "place_changed" and change.role is not None:
                self._change_role(seat, replace(seat.principal, role=change.role))
                self._delivery.say(seat, "auth:changed", {"role": change.role})
            else:
                self._end(seat, _ENDINGS.get(change.code, SessionRevoked)())
        return len(seats)

    def distrust(self) -> None:
        """Take nobody at their word any more, because the platform's stream can no longer be relied on."""
        self._standing.distrust()

    def _concerned(self, change: AuthorityChanged) -> list[Seat]:
        if change.change == "sessions_ended":
            return [seat for session_id in change.session_ids for seat in self._seats.of_session(session_id)]
        if change.in_tenant is None:
            return []
        seats = self._seats.of_tenant(change.in_tenant)
        if change.change == "place_changed":
            return [seat for seat in seats if seat.principal.user_id == change.user_id]
        return seats

    def _change_role(self, seat: Seat, principal: Principal) -> None:
        self._seats.move(seat, principal)
        if principal.tenant_id is None or not seat.live:
            return
        room = managers_room(principal.tenant_id)
        if principal.manages:
            self._manager.enter(seat.member, seat.namespace, room)
        else:
            self._manager.exit(seat.member, seat.namespace, room)

    def _end(self, seat: Seat, why: DomainError) -> None:
        if seat.ended is not None:
            return
        seat.ended = why
        if seat.member.connected:
            logger.info("socket ended", sid=seat.sid, code=why.code)
            self._delivery.say(seat, "auth:revoked", {"code": why.code, "message": why.text})
            # The socket goes in a turn of the loop of its own, and must hear nothing more until then.
            for room in seat.member.rooms:
                self._manager.exit(seat.member, seat.namespace, room)
            self._run(self._manager.server.disconnect(seat.sid, seat.namespace, ignore_queue=True))

    def _announce_expiry(self, seat: Seat, expires_at: datetime) -> None:
        left_s = max(0, round((expires_at - self._clock.now()).total_seconds()))
        self._delivery.say(seat, "auth:expiring", {"expires_at": expires_at, "in_s": left_s})

    def _expire(self, seat: Seat) -> None:
        if seat.member.connected:
            self._delivery.say(seat, "auth:expired", {"code": "TOKEN_EXPIRED", "message": "Token has expired"})
            # Its client shall come back by itself, with a fresh token, so that the connection is closed under it.
            seat.member.session.close(Reason.TRANSPORT_CLOSE)
