"""Reception: what happens when a socket comes, and when it goes."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from core.errors import DomainError, ErrorKind
from namespaces.authority import Authority
from namespaces.delivery import Delivery
from namespaces.entitlement import counted_as, require_hearing
from namespaces.quotas import Quotas
from namespaces.recovery import Recovery
from namespaces.seats import Seat, Seats
from realtime.engine.manager import Broadcaster, Member
from realtime.engine.socketio_server import SocketIoServer
from realtime.follower import Follower
from realtime.log import NO_EVENTS, StreamState
from realtime.position import Position
from realtime.presence import PresenceBoard
from realtime.rooms import entitled_rooms, user_room
from services.api_keys.form import is_key
from services.auth import read_bearer
from services.identity import NotAuthenticated

WELCOME = "Successfully connected to ERPMax Orchestrator"


class KeyInAddress(DomainError):
    """An API key came in the query, which every proxy on the way writes down; an access token is soon worth nothing."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "API_KEY_IN_ADDRESS"
    message = "Send the API key in auth or in a header, never in the address"


class Reception:
    """Shows sockets to their seats and sees them out."""

    def __init__(
        self,
        *,
        sio: SocketIoServer,
        seats: Seats,
        authority: Authority,
        recovery: Recovery,
        quotas: Quotas,
        presence: PresenceBoard,
        delivery: Delivery,
        follower: Follower,
    ) -> None:
        self._sio = sio
        self._manager: Broadcaster = sio.manager
        self._seats = seats
        self._authority = authority
        self._recovery = recovery
        self._quotas = quotas
        self._presence = presence
        self._delivery = delivery
        self._follower = follower

    async def admit(self, member: Member, namespace: str, environ: Mapping[str, Any], auth: object) -> dict[str, str]:
        """Seat a socket and welcome it; returns what its CONNECT answer holds beside the id.

        Raises NotAuthenticated and its kin, ScopeRequired, TooManyConnections, RateLimited, and whatever the database
        raises.
        """
        token = _token(environ, auth)
        principal, expires_at = await self._authority.recognise(token, environ["REMOTE_ADDR"])
        require_hearing(principal, namespace)
        seat = Seat(member, namespace, principal, expires_at)
        member.positioned = (
            isinstance(auth, Mapping) and auth.get("recovery") is True and principal.tenant_id is not None
        )
        try:
            await self._quotas.admit(principal.tenant_id)
            await self._seats.take(seat)
            await self._authority.confirm(seat, token)
            return await self._welcome(seat, auth)
        except BaseException:
            self.see_out(member)
            raise

    def see_out(self, member: Member) -> None:
        """Free the seat of a socket that has gone, or was never admitted."""
        seat = self._seats.leave(member)
        if seat is None:
            return
        self._authority.forget(seat)
        if seat.live and seat.principal.tenant_id is not None:
            self._presence.leave(seat.principal.tenant_id, counted_as(seat.principal))

    async def _welcome(self, seat: Seat, auth: object) -> dict[str, str]:
        resumption = self._recovery.read(seat, auth)
        reason = await self._recovery.refusal(seat, resumption)
        if seat.ended is not None:
            raise seat.ended
        # From here on nothing is awaited: what is delivered from now on is either in the tail or comes live.
        state = self._state(seat)
        resumes = reason is None and resumption.after is not None
        if resumes and resumption.sid is not None:
            self._manager.resume(seat.member, seat.namespace, resumption.sid)
        place = Position(state.epoch, resumption.after.seq if resumes and resumption.after else state.head)
        self._greet(seat, place, lost=reason is not None)
        self._authority.watch(seat)
        if reason is not None:
            self._delivery.reset(seat, reason, state)
        if resumes and place.seq < state.head:
            self._sio.engine.run(
                self._recovery.replay(
                    seat, place.seq, live=lambda: self._go_live(seat), lost=lambda why: self._start_anew(seat, why)
                )
            )
        else:
            self._go_live(seat)
        self._manager.enter(seat.member, seat.namespace, user_room(seat.principal.user_id))
        return {"pid": self._recovery.pid(seat)} if seat.member.positioned else {}

    def _greet(self, seat: Seat, place: Position, *, lost: bool) -> None:
        principal = seat.principal
        known = principal.tenant_id is not None
        greeting = {
            "message": WELCOME,
            "user_id": principal.person_id,
            "tenant_id": principal.tenant_id,
            "epoch": place.epoch if known else None,
            "seq": place.seq if known else None,
        }
        # Where a reset follows, only that moves the client on: cut off in between, it would never hear of it.
        self._delivery.say(seat, "connected", greeting, position=None if lost else str(place))

    def _go_live(self, seat: Seat) -> None:
        principal = seat.principal
        if principal.tenant_id is None:
            return
        for room in entitled_rooms(principal.tenant_id, principal.user_id, manager=principal.manages):
            self._manager.enter(seat.member, seat.namespace, room)
        seat.live = True
        state = self._state(seat)
        self._delivery.place(seat, Position(state.epoch, state.head))
        self._presence.arrive(principal.tenant_id, counted_as(principal))

    def _start_anew(self, seat: Seat, reason: str) -> None:
        self._delivery.reset(seat, reason, self._state(seat))
        self._go_live(seat)

    def _state(self, seat: Seat) -> StreamState:
        tenant_id = seat.principal.tenant_id
        return self._follower.state(tenant_id) if tenant_id is not None else NO_EVENTS


def _token(environ: Mapping[str, Any], auth: object) -> str:
    """Find the access token or API key where clients put it (contract.md 7.2).

    Raises NotAuthenticated, and KeyInAddress.
    """
    given = auth.get("token") if isinstance(auth, Mapping) else None
    query = parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
    if is_key(read_bearer(query)):
        raise KeyInAddress
    for text in (given, query, environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY")):
        if isinstance(text, str) and text.strip():
            return read_bearer(text)
    raise NotAuthenticated
