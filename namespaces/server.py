"""The Socket.IO server of the product: the engine at both paths, its namespaces, and all that happens to a socket."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aiohttp import web

from core.clock import Clock
from models.events import PLATFORM
from namespaces.announcer import PresenceAnnouncer
from namespaces.authority import Authority, LimitLooks
from namespaces.delivery import Delivery, Reminder
from namespaces.names import ALL
from namespaces.orchestrator import OrchestratorNamespace, refused
from namespaces.quotas import LoadLimits, Quotas
from namespaces.reception import Reception
from namespaces.recovery import Recovery
from namespaces.seats import Seats
from realtime.engine.manager import Broadcaster, Member
from realtime.engine.server import EngineOptions
from realtime.engine.socketio_server import AddressOf, SocketIoServer
from realtime.exchange import EphemeralEvent
from realtime.follower import Follower
from realtime.log import EventLog, NumberedEvent
from realtime.meter import Meter
from realtime.position import PidDesk
from realtime.presence import PresenceBoard
from services.auth.recognition import Recognition
from services.events import SubscriptionUpdated
from services.registry import Services
from services.standing import Standing
from services.unit_of_work import UnitOfWorkFactory

# The documented endpoint and the one under which the first ancestor mounted its server (contract.md 7.1).
PATHS = ("socket.io", "ws/socket.io")
_MAX_MESSAGE_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the sockets of a web process live on."""

    units: UnitOfWorkFactory
    services: Services
    recognition: Recognition
    follower: Follower
    log: EventLog
    presence: PresenceBoard
    standing: Standing
    pids: PidDesk
    clock: Clock
    load_limits: LoadLimits
    limit_looks: LimitLooks
    address_of: AddressOf
    meter: Meter


class SocketServer:
    """Serves the namespaces and delivers to this instance's sockets."""

    def __init__(self, parts: Parts, *, manager: Broadcaster, origins: Sequence[str]) -> None:
        self.sio = SocketIoServer(
            manager,
            EngineOptions(origins=tuple(origins), max_payload=_MAX_MESSAGE_BYTES),
            address_of=parts.address_of,
        )
        engine, follower, meter = self.sio.engine, parts.follower, parts.meter
        manager.meter, engine.closes = meter, meter.closes
        self._delivery = Delivery(manager, meter=meter)
        self._follower = follower
        self.seats = Seats(follower)
        self._authority = Authority(
            recognition=parts.recognition,
            limit_looks=parts.limit_looks,
            standing=parts.standing,
            seats=self.seats,
            delivery=self._delivery,
            manager=manager,
            clock=parts.clock,
            call_later=engine.call_later,
            run=engine.run,
        )
        self._quotas = Quotas(load=parts.load_limits, seats=self.seats, presence=parts.presence, meter=meter)
        self._reminder = Reminder(self.seats, follower, self._delivery)
        self.announcer = PresenceAnnouncer(board=parts.presence, seats=self.seats, delivery=self._delivery)
        self._register(parts)
        self.sio.gate = self._gate
        follower.deliver = self.deliver
        follower.on_lost = self.lose
        follower.on_unfollow.append(self._quotas.close)

    def attach(self, app: web.Application) -> None:
        """Serve both paths of `app`."""
        for path in PATHS:
            self.sio.attach(app, path)

    def start(self) -> None:
        """Begin with what is done every now and then; the loop runs."""
        self.sio.start()
        self._reminder.start(self.sio.engine.call_later)

    def deliver(self, event: NumberedEvent, epoch: str) -> int:
        """Send one event of the log to the sockets here that are entitled to it; returns how many those are."""
        if event.tenant_id == PLATFORM:
            return self._authority.hear(event)
        if event.name == SubscriptionUpdated.event:
            self._quotas.change(event.tenant_id)
        return self._delivery.deliver(event, epoch)

    def whisper(self, event: EphemeralEvent) -> None:
        """Send an ephemeral event to whoever of the room is here."""
        self._delivery.whisper(event)

    def lose(self, tenant_id: UUID, reason: str) -> None:
        """Tell a tenant's sockets that the log cannot tell them everything any more."""
        if tenant_id == PLATFORM:
            self._authority.distrust()
        for seat in self.seats.of_tenant(tenant_id):
            if seat.live:
                self._delivery.reset(seat, reason, self._follower.state(tenant_id))

    async def close(self, *, window_s: float) -> None:
        """Close every connection within a while, so that clients look for another instance, and not all at once."""
        await self.sio.engine.drain(window_s)
        await self.sio.shutdown()

    def _register(self, parts: Parts) -> None:
        recovery = Recovery(
            follower=parts.follower, log=parts.log, pids=parts.pids, meter=parts.meter, tell=self._delivery.tell
        )
        reception = Reception(
            sio=self.sio,
            seats=self.seats,
            authority=self._authority,
            recovery=recovery,
            quotas=self._quotas,
            presence=parts.presence,
            delivery=self._delivery,
            follower=parts.follower,
        )
        for name in ALL:
            namespace = OrchestratorNamespace(
                name,
                units=parts.units,
                services=parts.services,
                seats=self.seats,
                reception=reception,
                authority=self._authority,
                delivery=self._delivery,
                presence=parts.presence,
            )
            self.sio.register_namespace(namespace)

    def _gate(self, member: Member, _: str, size: int) -> dict[str, Any] | None:
        seat = self.seats.of(member)
        refusal = self._quotas.refusal(seat, size) if seat is not None else None
        return refused(refusal) if refusal is not None else None
