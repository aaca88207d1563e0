"""The Engine.IO server: handshakes, polling, upgrades and refusals, as an aiohttp handler.

https://socket.io/docs/v4/engine-io-protocol/; the refusals' codes and texts are those of the reference implementation.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog
from aiohttp import hdrs, web

from core import json
from realtime.engine import frames, packets
from realtime.engine.handshake import TakenOver, take_over, websocket_key
from realtime.engine.link import Flusher, Link, Peer
from realtime.engine.packets import PacketError
from realtime.engine.probe import Probe
from realtime.engine.session import Listener, Polling, Reason, Session
from realtime.engine.wheel import Wheel

UNKNOWN_TRANSPORT = (0, "Transport unknown")
UNKNOWN_SID = (1, "Session ID unknown")
BAD_METHOD = (2, "Bad handshake method")
BAD_REQUEST = (3, "Bad request")
FORBIDDEN = (4, "Forbidden")
UNSUPPORTED_VERSION = (5, "Unsupported protocol version")

# So many sessions a second may be ended even when there is time for fewer.
_DRAIN_RATE = 100.0

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Times in seconds, sizes in bytes; `origins` are those of pages that may connect, `*` for any.

    `max_held` bounds what one client may leave unread before it is cut off.
    """

    ping_interval_s: float = 25.0
    ping_timeout_s: float = 20.0
    upgrade_timeout_s: float = 10.0
    max_payload: int = 1_000_000
    max_held: int = 1_048_576
    origins: Collection[str] = ("*",)


class EngineListener(Listener, Protocol):
    """Whom the server tells of its sessions. Calls of one session come one after another, in order."""

    def on_open(self, session: Session, request: web.Request) -> None:
        """Hear of a new session; what is sent to it here follows its handshake."""
        ...


class EngineServer:
    """Holds the sessions of one process. While `draining`, it opens no new ones."""

    def __init__(self, listener: EngineListener, options: EngineOptions) -> None:
        self.listener = listener
        self.options = options
        self.ping_interval_s = options.ping_interval_s
        self.ping_timeout_s = options.ping_timeout_s
        self.max_held = options.max_held
        self.sessions: dict[str, Session] = {}
        self.draining = False
        # How many sessions have ended, by reason.
        self.closes: Counter[str] = Counter()
        self._flusher = Flusher()
        shortest = min(options.ping_interval_s, options.ping_timeout_s)
        self._wheel = Wheel(min(0.5, max(0.01, shortest / 20)))
        # What sessions that the server ended by itself had still to say to a polling client.
        self._farewells: dict[str, Polling] = {}
        # The event loop forgets tasks that nobody else remembers.
        self._running: set[asyncio.Task[None]] = set()

    def attach(self, app: web.Application, path: str) -> None:
        """Serve the sessions at a path of `app`."""
        app.router.add_route("*", f"/{path.strip('/')}/", self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one HTTP request of the Engine.IO path."""
        headers = self._cors(request)
        if request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers=headers)
        response = await self._route(request)
        if not isinstance(response, TakenOver):
            response.headers.update(headers)
        return response

    # For sessions and their listener

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back once, about `delay_s` seconds from now, by the shared wheel."""
        self._wheel.call_later(delay_s, callback)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task that a shutdown waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def forget(self, session: Session, reason: Reason) -> None:
        """Drop a session that has just ended, but keep what a polling client has yet to fetch of it."""
        self.sessions.pop(session.sid, None)
        self.closes[reason] += 1
        if reason is Reason.SERVER and session.polling is not None:
            self._farewells[session.sid] = session.polling
            self.call_later(self.ping_timeout_s, partial(self._forget_farewell, session.sid))

    def _forget_farewell(self, sid: str) -> None:
        self._farewells.pop(sid, None)

    # Ending

    def close(self) -> None:
        """End every session and open no more."""
        self.draining = True
        for session in list(self.sessions.values()):
            session.close(Reason.TRANSPORT_CLOSE, code=frames.GOING_AWAY)
        self._wheel.close()

    async def drain(self, window_s: float) -> None:
        """Open no more sessions and end those there are one after another, in random order, within `window_s` seconds.

        Their clients look for another server, and would overrun it if they all came at once. Few are not made to wait.
        """
        self.draining = True
        sessions = list(self.sessions.values())
        random.shuffle(sessions)
        rate = max(_DRAIN_RATE, len(sessions) / window_s if window_s > 0 else float("inf"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        for count, session in enumerate(sessions):
            ahead_s = began + count / rate - loop.time()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            session.close(Reason.TRANSPORT_CLOSE, code=frames.GOING_AWAY)

    async def shutdown(self, *, grace_s: float = 5.0) -> None:
        """End every session and wait until the listener has heard of it, at most for `grace_s` seconds."""
        self.close()
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=grace_s)
            for task in late:
                task.cancel()
        # The transports that were just closed tell so in the next turn of the loop.
        await asyncio.sleep(0)

    # Requests

    async def _route(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        transport, sid = request.query["transport"], request.query.get("sid")
        if sid is None:
            return self._open(request, transport)
        session = self.sessions.get(sid)
        if transport == "websocket":
            return self._upgrade(request, session) if session is not None else _refuse(UNKNOWN_SID)
        if session is None:
            return self._farewell(sid, request)
        if request.method == hdrs.METH_GET and session.polling is not None:
            return await self._poll(request, session, session.polling)
        if request.method == hdrs.METH_POST and session.polling is not None:
            return await self._post(request, session)
        return _refuse(BAD_REQUEST)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.query.get("transport") not in ("polling", "websocket"):
            return _refuse(UNKNOWN_TRANSPORT)
        if request.query.get("EIO") != "4":
            return _refuse(UNSUPPORTED_VERSION)
        if not self._origin_allowed(request):
            return _refuse(FORBIDDEN, status=403)
        return None

    # Handshake

    def _open(self, request: web.Request, transport: str) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return _refuse(BAD_METHOD)
        if self.draining:
            return _refuse(FORBIDDEN, status=503)
        key = websocket_key(request) if transport == "websocket" else None
        if transport == "websocket" and key is None:
            return _refuse(BAD_REQUEST)
        session = Session(secrets.token_urlsafe(15), self)
        greeting = packets.OPEN + self._greeting(session, transport)
        response: web.StreamResponse
        if key is None:
            session.polling = Polling()
            response = _text(greeting)
        else:
            session.link = self._link(request, key, session)
            session.send(greeting)
            response = TakenOver()
        self._welcome(session, request)
        return response

    def _welcome(self, session: Session, request: web.Request) -> None:
        self.sessions[session.sid] = session
        # Early enough that a silent client is gone within interval and timeout, and not all clients at once.
        first_beat_s = self.ping_interval_s * random.uniform(0.4, 0.7)  # noqa: S311 - spreads load, hides nothing
        self.call_later(first_beat_s, session.beat)
        try:
            self.listener.on_open(session, request)
        except Exception:
            logger.exception("session not opened", sid=session.sid)
            session.close(Reason.TRANSPORT_ERROR)

    def _greeting(self, session: Session, transport: str) -> str:
        return json.dumps_text(
            {
                "sid": session.sid,
                "upgrades": ["websocket"] if transport == "polling" else [],
                "pingInterval": round(self.ping_interval_s * 1000),
                "pingTimeout": round(self.ping_timeout_s * 1000),
                "maxPayload": self.options.max_payload,
            }
        )

    def _link(self, request: web.Request, key: str, peer: Peer) -> Link:
        transport = take_over(request, key)
        return Link(
            transport, peer, self._flusher, max_message=self.options.max_payload, max_held=self.options.max_held
        )

    # Polling

    async def _poll(self, request: web.Request, session: Session, polling: Polling) -> web.Response:
        if polling.is_repeated(request.query.get("t")):
            # An answer that broke off took packets with it. The client knows nothing of that, because its HTTP library
            # has asked again by itself, so that it must be made to come back and say what it has.
            session.close(Reason.TRANSPORT_CLOSE)
            return _refuse(BAD_REQUEST)
        if polling.poll is not None:
            session.close(Reason.TRANSPORT_ERROR)
            return _refuse(BAD_REQUEST)
        if not polling.queue:
            polling.poll = asyncio.get_running_loop().create_future()
            try:
                await polling.poll
            except asyncio.CancelledError:
                self._poll_lost(session, polling)
                raise
            finally:
                polling.poll = None
        if request.transport is None or request.transport.is_closing():
            self._poll_lost(session, polling)
        return _text(packets.encode_payload(polling.take()))

    @staticmethod
    def _poll_lost(session: Session, polling: Polling) -> None:
        # The client went away while it waited, and what was meant for it with it; unless it has been upgraded.
        if session.polling is polling:
            session.close(Reason.TRANSPORT_CLOSE)

    async def _post(self, request: web.Request, session: Session) -> web.Response:
        try:
            body = await self._read(request)
        except (ConnectionError, web.RequestPayloadError):
            session.close(Reason.TRANSPORT_CLOSE)
            return _refuse(BAD_REQUEST)
        if body is None:
            session.close(Reason.TRANSPORT_ERROR)
            return web.Response(status=413)
        try:
            received = packets.decode_payload(body.decode())
        except (PacketError, UnicodeDecodeError):
            session.close(Reason.TRANSPORT_ERROR)
            return _refuse(BAD_REQUEST)
        for kind, data in received:
            session.on_packet(kind, data)
        # A client sends its next request when this one has been answered.
        await session.relieved()
        return web.Response(text="ok", content_type="text/html")

    async def _read(self, request: web.Request) -> bytes | None:
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > self.options.max_payload:
                return None
        return bytes(body)

    def _farewell(self, sid: str, request: web.Request) -> web.Response:
        polling = self._farewells.get(sid)
        if polling is None or not polling.queue or request.method != hdrs.METH_GET:
            return _refuse(UNKNOWN_SID)
        return _text(packets.encode_payload(polling.take()))

    # Upgrade

    def _upgrade(self, request: web.Request, session: Session) -> web.StreamResponse:
        key = websocket_key(request)
        if key is None or request.method != hdrs.METH_GET or session.polling is None or session.upgrading:
            return _refuse(BAD_REQUEST)
        probe = Probe(session)
        probe.link = self._link(request, key, probe)
        session.upgrading = True
        self.call_later(self.options.upgrade_timeout_s, probe.give_up)
        return TakenOver()

    # Origins

    def _origin_allowed(self, request: web.Request) -> bool:
        origin = request.headers.get(hdrs.ORIGIN)
        allowed = self.options.origins
        return origin is None or "*" in allowed or origin in allowed or origin.partition("://")[2] == request.host

    def _cors(self, request: web.Request) -> dict[str, str]:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not self._origin_allowed(request):
            return {}
        headers: dict[str, str] = {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
            hdrs.VARY: hdrs.ORIGIN,
        }
        if request.method == hdrs.METH_OPTIONS:
            headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, OPTIONS"
            wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
            if wanted:
                headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
        return headers


def _text(body: str) -> web.Response:
    return web.Response(text=body, content_type="text/plain", headers={hdrs.CACHE_CONTROL: "no-store"})


def _refuse(error: tuple[int, str], *, status: int = 400) -> web.Response:
    code, message = error
    return web.Response(
        body=json.dumps({"code": code, "message": message}), status=status, content_type="application/json"
    )
