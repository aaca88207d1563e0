"""AsyncAPI 3.0, made from the event catalogue: what is heard on each namespace and what may be sent."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from models.tenants import Role
from namespaces.names import ALL, SUBJECTS
from services.events import CATALOGUE, EPHEMERAL, ROOT_TWINS, DomainEvent, EphemeralFact

Json = dict[str, Any]


class Connected(BaseModel):
    """Said once to a socket after its CONNECT."""

    message: str
    user_id: UUID | None = Field(description="None for an API key")
    tenant_id: UUID | None
    epoch: str | None = Field(description="The life of the tenant's stream that numbers belong to")
    seq: int | None = Field(description="Everything after this number comes on this socket, in order")


class Pong(BaseModel):
    """The answer to `ping`; carries no data."""


class NotificationRead(BaseModel):
    """A client says that its user has read a notification; acknowledged with `{ok: true}`."""

    notification_id: UUID


class Fault(BaseModel):
    """Said besides the acknowledgement when an event of the client is refused."""

    message: str


class Reset(BaseModel):
    """What was missed cannot be told completely: load the present state and go on from `head`."""

    reason: Literal["epoch", "pruned", "future", "too_many", "invalid"]
    epoch: str
    head: int


class Place(BaseModel):
    """Where in the stream a recovering client is; the position is the event's only argument, a string."""


class Expiring(BaseModel):
    """The socket's token ends soon; answer with `auth:refresh`."""

    expires_at: datetime
    in_s: int


class Ended(BaseModel):
    """The socket is closed, and why."""

    code: str
    message: str


class RoleChanged(BaseModel):
    """The user has another role in the tenant."""

    role: Role


class Presence(BaseModel):
    """How many of the tenant's people are online, and for owners and admins who."""

    online: int
    users: list[UUID] | None = None


class RefreshToken(BaseModel):
    """Go on with another token of the same user and tenant; acknowledged with `{ok, expires_at}`."""

    token: str


class Sync(BaseModel):
    """Ask for the events after a number; acknowledged with `{ok, events, epoch, head, next_after_seq, more}`."""

    after_seq: int = Field(ge=0)
    limit: int = Field(default=500, ge=1, le=1000)
    epoch: str = ""


class WhoIsOnline(BaseModel):
    """Ask who is online; acknowledged with `{ok, online, users}`."""


class Delivered(BaseModel):
    """What every logged event carries besides its own fields."""

    event_id: UUID
    seq: int = Field(ge=1, description="The event's number in the tenant's stream")


SERVER_SAYS: dict[str, type[BaseModel]] = {
    "connected": Connected,
    "pong": Pong,
    "error": Fault,
    "notification_read_confirmed": NotificationRead,
    "rt:reset": Reset,
    "rt:pos": Place,
    "auth:expiring": Expiring,
    "auth:expired": Ended,
    "auth:revoked": Ended,
    "auth:changed": RoleChanged,
}
ROOTS_SAY: dict[str, type[BaseModel]] = {"presence:changed": Presence}
CLIENT_SAYS: dict[str, type[BaseModel]] = {
    "ping": Pong,
    "notification_read": NotificationRead,
    "auth:refresh": RefreshToken,
    "sync": Sync,
    "presence": WhoIsOnline,
}


def build_asyncapi(*, version: str, host: str) -> Json:
    """Describe the Socket.IO side of the server; `host` is `name[:port]`."""
    messages = {**{event.event: _logged(event) for event in CATALOGUE}, **_twins(), **_plain()}
    messages |= {event.event: _message(event.event, event) for event in EPHEMERAL}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "ERPMax Orchestrator events",
            "version": version,
            "description": "Socket.IO 5 over Engine.IO 4 at /socket.io/ and /ws/socket.io/. "
            "Connect with auth {token}, an access token or an API key; see docs/realtime.md.",
        },
        "servers": {"main": {"host": host, "protocol": "socket.io"}},
        "channels": {namespace: _channel(namespace) for namespace in ALL},
        "operations": _operations(),
        "components": {"messages": messages},
    }


def heard_on(namespace: str) -> list[str]:
    """Return the names of the events that are heard on a namespace."""
    subject = namespace.removeprefix("/ws")
    told: tuple[type[DomainEvent | EphemeralFact], ...] = (*CATALOGUE, *EPHEMERAL)
    own = [event.event for event in told if subject not in SUBJECTS or event.namespace == subject]
    return [*own, *([] if subject in SUBJECTS else (*ROOT_TWINS.values(), *ROOTS_SAY)), *SERVER_SAYS]


def _channel(namespace: str) -> Json:
    names = [*heard_on(namespace), *CLIENT_SAYS]
    return {
        "address": namespace,
        "messages": {name: {"$ref": f"#/components/messages/{_pointer(name)}"} for name in names},
    }


def _operations() -> Json:
    operations: Json = {}
    for namespace in ALL:
        operations[f"hear {namespace}"] = _operation("send", namespace, heard_on(namespace))
        operations[f"tell {namespace}"] = _operation("receive", namespace, list(CLIENT_SAYS))
    return operations


def _operation(action: str, namespace: str, names: list[str]) -> Json:
    channel = f"#/channels/{_pointer(namespace)}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{_pointer(name)}"} for name in names],
    }


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _logged(event: type[DomainEvent]) -> Json:
    schema = event.model_json_schema(mode="serialization")
    extra = Delivered.model_json_schema()
    schema["properties"] = {**schema["properties"], **extra["properties"]}
    schema["required"] = [*schema.get("required", []), *extra["required"]]
    return {"name": event.event, "summary": (event.__doc__ or "").split("\n", 1)[0], "payload": schema}


def _twins() -> Json:
    by_name = {event.event: event for event in CATALOGUE}
    return {twin: {**_logged(by_name[name]), "name": twin} for name, twin in ROOT_TWINS.items()}


def _plain() -> Json:
    named = {**SERVER_SAYS, **ROOTS_SAY, **CLIENT_SAYS}
    return {name: _message(name, model) for name, model in named.items()}


def _message(name: str, model: type[BaseModel]) -> Json:
    summary = (model.__doc__ or "").split("\n", 1)[0]
    return {"name": name, "summary": summary, "payload": model.model_json_schema()}
