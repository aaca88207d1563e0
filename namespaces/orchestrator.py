"""The one namespace class behind all eight names: the same identity as REST, the same events everywhere.

Every answer to a client's event is a coded acknowledgement, `{ok: true, ...}` or `{ok: false, error: {code, message}}`;
an exception is logged with the id that the client is given and never ends the connection.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import structlog
from socketio import AsyncNamespace
from socketio.exceptions import ConnectionRefusedError as Refused

from core.errors import DomainError, ErrorKind, InvalidInput, Unavailable
from namespaces.authority import Authority
from namespaces.delivery import Delivery
from namespaces.entitlement import require_saying
from namespaces.names import subject_of
from namespaces.reception import Reception
from namespaces.seats import Seat, Seats
from realtime.engine.manager import Member
from realtime.engine.session import Reason
from realtime.position import Position
from realtime.presence import PresenceBoard
from services.history import MAX_PAGE
from services.identity import NotAuthenticated, require_tenant
from services.permissions import Permission
from services.registry import Services
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWorkFactory

Ack = dict[str, Any]

_SYNC_PAGE = 500

logger = structlog.get_logger(__name__)


class UnknownEvent(DomainError):
    """The client sent an event that this server does not know."""

    kind = ErrorKind.BAD_REQUEST
    code = "UNKNOWN_EVENT"
    message = "Unknown event"


class OrchestratorNamespace(AsyncNamespace):  # type: ignore[misc]
    """A Socket.IO namespace whose sockets belong to signed-in users."""

    def __init__(
        self,
        namespace: str,
        *,
        units: UnitOfWorkFactory,
        services: Services,
        seats: Seats,
        reception: Reception,
        authority: Authority,
        delivery: Delivery,
        presence: PresenceBoard,
    ) -> None:
        super().__init__(namespace)
        self._units = units
        self._services = services
        self._seats = seats
        self._reception = reception
        self._authority = authority
        self._delivery = delivery
        self._presence = presence
        self._handlers: Mapping[str, Callable[[Seat, object], Awaitable[Ack]]] = {
            "ping": self._ping,
            "notification_read": self._notification_read,
            "sync": self._sync,
            "presence": self._who_is_online,
            "auth:refresh": self._refresh,
        }

    @property
    def client_events(self) -> frozenset[str]:
        """The names of the events that clients may send."""
        return frozenset(self._handlers)

    async def trigger_event(self, event: str, *args: Any) -> Any:
        """Dispatch by an explicit table, so that no method becomes an event by its name."""
        sid, *payload = args
        member: Member | None = self.server.manager.member(sid, self.namespace)
        if member is None:
            return None
        if event == "connect":
            return await self._connect(member, *payload)
        if event == "disconnect":
            self._reception.see_out(member)
            return None
        return await self._answer(event, member, payload[0] if payload else None)

    async def _connect(self, member: Member, environ: Mapping[str, Any], auth: object = None) -> Mapping[str, str]:
        try:
            return await self._reception.admit(member, self.namespace, environ, auth)
        except DomainError as error:
            if isinstance(error, Unavailable):
                _send_back(member)
            raise Refused(error.text, {"code": error.code, **_retry_after(error)}) from error
        except Exception as error:
            error_id = uuid4().hex
            logger.exception("connect failed", error_id=error_id)
            _send_back(member)
            raise Refused(Unavailable.message, {"code": Unavailable.code, "request_id": error_id}) from error

    async def _answer(self, event: str, member: Member, payload: object) -> Ack:
        try:
            handler = self._handlers.get(event)
            if handler is None:
                raise UnknownEvent
            seat = self._seats.of(member)
            if seat is None:
                raise NotAuthenticated
            require_saying(seat.principal, event)
            return await handler(seat, payload)
        except DomainError as error:
            return refused(error)
        except Exception:
            error_id = uuid4().hex
            logger.exception("event failed", event_name=event, error_id=error_id)
            return {"ok": False, "error": {"code": "INTERNAL", "message": "Internal error", "request_id": error_id}}

    async def _ping(self, seat: Seat, _: object) -> Ack:
        self._delivery.say(seat, "pong", None)
        return {"ok": True}

    async def _notification_read(self, seat: Seat, payload: object) -> Ack:
        try:
            notification_id = _notification_id(payload)
        except InvalidInput as error:
            self._delivery.say(seat, "error", {"message": error.text})
            raise
        scope = TenantScope(require_tenant(seat.principal))
        trace = RequestTrace(source="socket", request_id=seat.sid, impersonator_id=seat.principal.impersonator_id)
        async with self._units(scope, trace=trace) as uow:
            await self._services.notifications.mark_read(uow, seat.principal, notification_id)
        self._delivery.say(seat, "notification_read_confirmed", {"notification_id": notification_id})
        return {"ok": True}

    async def _sync(self, seat: Seat, payload: object) -> Ack:
        position, limit = _position(payload)
        page = await self._services.history.page(
            seat.principal, position, limit=limit, namespace=subject_of(seat.namespace)
        )
        return {"ok": True, **page.model_dump()}

    async def _who_is_online(self, seat: Seat, _: object) -> Ack:
        online = await self._presence.online(require_tenant(seat.principal))
        users = {"users": sorted(map(str, online))} if seat.principal.may(Permission.PRESENCE_READ) else {}
        return {"ok": True, "online": len(online), **users}

    async def _refresh(self, seat: Seat, payload: object) -> Ack:
        token = payload.get("token") if isinstance(payload, Mapping) else None
        if not isinstance(token, str) or not token:
            raise InvalidInput("token required")
        return {"ok": True, "expires_at": await self._authority.refresh(seat, token)}


def refused(error: DomainError) -> Ack:
    """Acknowledge an event that was refused."""
    told = {"code": error.code, "message": error.text, **error.details, **_retry_after(error)}
    return {"ok": False, "error": told}


def _send_back(member: Member) -> None:
    """Close the connection of a client that the server cannot let in at the moment, through no fault of its own.

    Once refused, npm's client stays away until its application calls `connect`; from a closed connection it comes back.
    """
    member.session.close(Reason.TRANSPORT_CLOSE)


def _retry_after(error: DomainError) -> dict[str, int]:
    return {} if error.retry_after_s is None else {"retry_after": error.retry_after_s}


def _notification_id(payload: object) -> UUID:
    value = payload.get("notification_id") if isinstance(payload, Mapping) else None
    if not value:
        raise InvalidInput("notification_id required")
    try:
        return UUID(str(value))
    except ValueError as error:
        raise InvalidInput("notification_id must be a UUID") from error


def _position(payload: object) -> tuple[Position, int]:
    """Read the payload of `sync`: where the client is, and how many events it wants at most."""
    given = payload if isinstance(payload, Mapping) else {}
    after, epoch, limit = given.get("after_seq"), given.get("epoch"), given.get("limit", _SYNC_PAGE)
    if isinstance(after, bool) or not isinstance(after, int) or not 0 <= after < 2**63:
        raise InvalidInput("after_seq must be a number of the stream, or 0")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit must be between 1 and {MAX_PAGE}")
    if epoch is not None and not isinstance(epoch, str):
        raise InvalidInput("epoch must be text")
    return Position(epoch or "", after), limit
