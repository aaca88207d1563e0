"""The one namespace class behind all eight names: the same identity as REST, the same events everywhere.

Every answer to a client's event is a coded acknowledgement, `{ok: true, ...}` or `{ok: false, error: {code, message}}`;
an exception is logged with the id that the client is given and never ends the connection.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import structlog
from socketio import AsyncNamespace
from socketio.exceptions import ConnectionRefusedError as Refused

from core.errors import DomainError, ErrorKind, InvalidInput, Unavailable
from namespaces.seats import Seats
from realtime.rooms import member_room, tenant_room, user_room
from services.identity import Actor, NotAuthenticated, require_tenant
from services.registry import Services
from services.unit_of_work import PlatformScope, RequestTrace, TenantScope, UnitOfWorkFactory

Ack = dict[str, Any]

WELCOME = "Successfully connected to ERPMax Orchestrator"

logger = structlog.get_logger(__name__)


class UnknownEvent(DomainError):
    """The client sent an event that this server does not know."""

    kind = ErrorKind.BAD_REQUEST
    code = "UNKNOWN_EVENT"
    message = "Unknown event"


class OrchestratorNamespace(AsyncNamespace):  # type: ignore[misc]
    """A Socket.IO namespace whose sockets belong to signed-in users."""

    def __init__(self, namespace: str, *, units: UnitOfWorkFactory, services: Services, seats: Seats) -> None:
        super().__init__(namespace)
        self._units = units
        self._services = services
        self._seats = seats
        self._handlers: Mapping[str, Callable[[str, object], Awaitable[Ack]]] = {
            "ping": self._ping,
            "notification_read": self._notification_read,
        }

    async def trigger_event(self, event: str, *args: Any) -> Any:
        """Dispatch by an explicit table, so that no method becomes an event by its name."""
        if event == "connect":
            return await self._connect(*args)
        if event == "disconnect":
            self._seats.leave(args[0])
            return None
        sid, *payload = args
        return await self._answer(event, sid, payload[0] if payload else None)

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: object = None) -> None:
        try:
            async with self._units(PlatformScope("a token names the user before any tenant is known")) as uow:
                actor = await self._services.auth.authenticate(uow, _token(environ, auth))
            await self._seats.take(sid, actor)
            await self._welcome(sid, actor)
        except DomainError as error:
            self._seats.leave(sid)
            raise Refused(error.text, {"code": error.code}) from error
        except Exception as error:
            self._seats.leave(sid)
            error_id = uuid4().hex
            logger.exception("connect failed", error_id=error_id)
            raise Refused(Unavailable.message, {"code": Unavailable.code, "request_id": error_id}) from error

    async def _welcome(self, sid: str, actor: Actor) -> None:
        await self.enter_room(sid, user_room(actor.user_id))
        if actor.tenant_id is not None:
            await self.enter_room(sid, tenant_room(actor.tenant_id))
            await self.enter_room(sid, member_room(actor.tenant_id, actor.user_id))
        greeting = {"message": WELCOME, "user_id": actor.user_id, "tenant_id": actor.tenant_id}
        await self._tell(sid, "connected", greeting)

    async def _answer(self, event: str, sid: str, payload: object) -> Ack:
        try:
            handler = self._handlers.get(event)
            if handler is None:
                raise UnknownEvent
            return await handler(sid, payload)
        except DomainError as error:
            return {"ok": False, "error": {"code": error.code, "message": error.text}}
        except Exception:
            error_id = uuid4().hex
            logger.exception("event failed", event_name=event, error_id=error_id)
            return {"ok": False, "error": {"code": "INTERNAL", "message": "Internal error", "request_id": error_id}}

    async def _tell(self, sid: str, event: str, payload: Mapping[str, object] | None = None) -> None:
        # The socket is on this instance, so the other instances need not be asked.
        await self.emit(event, payload, to=sid, ignore_queue=True)

    def _actor(self, sid: str) -> Actor:
        actor = self._seats.actor(sid)
        if actor is None:
            raise NotAuthenticated
        return actor

    async def _ping(self, sid: str, _: object) -> Ack:
        await self._tell(sid, "pong")
        return {"ok": True}

    async def _notification_read(self, sid: str, payload: object) -> Ack:
        try:
            notification_id = _notification_id(payload)
        except InvalidInput as error:
            await self._tell(sid, "error", {"message": error.text})
            raise
        actor = self._actor(sid)
        async with self._units(TenantScope(require_tenant(actor)), trace=RequestTrace(request_id=sid)) as uow:
            await self._services.notifications.mark_read(uow, actor, notification_id)
        await self._tell(sid, "notification_read_confirmed", {"notification_id": notification_id})
        return {"ok": True}


def _token(environ: Mapping[str, Any], auth: object) -> str:
    """Find the access token where clients put it (contract.md 7.2); raises NotAuthenticated."""
    given = auth.get("token") if isinstance(auth, Mapping) else None
    query = parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
    for text in (given, query, environ.get("HTTP_AUTHORIZATION")):
        if isinstance(text, str) and text.strip():
            return text.strip().removeprefix("Bearer ").removeprefix("bearer ").strip()
    raise NotAuthenticated


def _notification_id(payload: object) -> UUID:
    value = payload.get("notification_id") if isinstance(payload, Mapping) else None
    if not value:
        raise InvalidInput("notification_id required")
    try:
        return UUID(str(value))
    except ValueError as error:
        raise InvalidInput("notification_id must be a UUID") from error
