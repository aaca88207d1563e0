"""The conversation over one connection: being let in, keeping the token fresh, fetching what was missed."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import ClientSession

from erpmax_client.connection import Connection
from erpmax_client.errors import AccessRevoked, OrchestratorError, RequestRefused, Unreachable
from erpmax_client.events import Event, Position, Reset
from erpmax_client.inbox import Inbox
from erpmax_client.tokens import TokenProvider

CatchUp = Literal["sync", "reset"]

_GREETING_S = 20.0
_ANSWER_S = 10.0
_PAGE = 500

logger = logging.getLogger("erpmax_client")


@dataclass(frozen=True, slots=True)
class Route:
    """Where to connect, and how; `http_factory` makes the aiohttp sessions, for proxies and certificates."""

    url: str
    namespace: str
    transports: Sequence[str]
    http_factory: Callable[[], ClientSession]


class Line:
    """Fills the inbox from one connection.

    `greeted` says that the server has let us in, `expired` that the token became too old, and `overflowed` that the
    reader was too slow.
    """

    def __init__(
        self,
        route: Route,
        inbox: Inbox,
        tokens: TokenProvider,
        *,
        token: str,
        catch_up: CatchUp,
        on_greeted: Callable[[], None],
    ) -> None:
        self.greeted = False
        self.expired = False
        self.overflowed = False
        self.token = token
        self._inbox = inbox
        self._tokens = tokens
        self._catch_up = catch_up
        self._on_greeted = on_greeted
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection = Connection(
            route.url,
            route.namespace,
            transports=route.transports,
            http_factory=route.http_factory,
            hear=self._hear,
        )
        self._control: Mapping[str, Callable[[Any], None]] = {
            "connected": self._connected,
            "rt:pos": self._moved,
            "rt:reset": self._reset,
            "auth:expiring": self._expiring,
            "auth:expired": self._expired,
            "auth:revoked": self._revoked,
        }

    async def run(self) -> None:
        """Talk until the connection is over, and then raise why: Refusal, AccessRevoked or Unreachable."""
        too_late = asyncio.get_running_loop().call_later(_GREETING_S, self._greeting_is_late)
        over = None
        try:
            await self._connection.open(self._auth())
            over = asyncio.create_task(self._connection.over())
            await asyncio.wait({over, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            (self._ended if self._ended.done() else over).result()
            raise Unreachable("the connection was lost")
        finally:
            too_late.cancel()
            self._end(None)
            for task in (*self._tasks, *((over,) if over is not None else ())):
                task.cancel()
            self._inbox.drop_held()
            await self._connection.close()

    async def call(self, event: str, data: Any, *, timeout_s: float) -> Mapping[str, Any]:
        """Send an event and return its acknowledgement; raises RequestRefused and Unreachable."""
        return await self._connection.call(event, data, timeout_s=timeout_s)

    def _auth(self) -> dict[str, Any]:
        known = self._inbox.received
        position = {} if known is None else {"last_seq": known.seq, "epoch": known.epoch}
        # Asking for recovery brings a word now and then on where the stream is, so that the position of a client which
        # hears nothing does not grow too old.
        return {"token": self.token, "recovery": True, **position}

    def _end(self, reason: OrchestratorError | None) -> None:
        if not self._ended.done():
            if reason is None:
                self._ended.cancel()
            else:
                self._ended.set_exception(reason)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---------------------------------------------------------------------------------------- what is heard

    def _hear(self, name: str, arguments: Sequence[Any]) -> None:
        # Only the first argument is the application's; the others are for the server's own bookkeeping.
        data = arguments[0] if arguments else None
        if self._ended.done():
            return
        control = self._control.get(name)
        if control is not None:
            control(data)
        elif not self._inbox.heard(Event.read(name, data)):
            # Nothing is lost: the server sends again from what was received, once the reader has caught up.
            self.overflowed = True
            self._end(Unreachable("more came in than was read"))

    def _connected(self, data: Any) -> None:
        fields = _fields(data)
        self._inbox.connected(Position.read(fields.get("epoch"), fields.get("seq")))
        self.greeted = True
        self._on_greeted()

    def _greeting_is_late(self) -> None:
        if not self.greeted:
            self._end(Unreachable("the server did not greet in time"))

    def _moved(self, data: Any) -> None:
        position = Position.parse(data)
        if position is not None:
            self._inbox.moved(position)

    def _reset(self, data: Any) -> None:
        reset = _reset_of(data)
        known = self._inbox.received
        if reset is None:
            self._end(Unreachable(f"rt:reset came as {data!r}"))
        elif reset.reason == "too_many" and self._catch_up == "sync" and known and known.epoch == reset.position.epoch:
            self._inbox.hold()
            self._begin(self._fetch_missed(reset.position.seq))
        else:
            self._inbox.reset(reset)

    def _expiring(self, _: Any) -> None:
        self._begin(self._refresh())

    def _expired(self, _: Any) -> None:
        self.expired = True

    def _revoked(self, data: Any) -> None:
        fields = _fields(data)
        self._end(AccessRevoked(str(fields.get("code", "REVOKED")), str(fields.get("message", ""))))

    # ------------------------------------------------------------------------------------------ what is done

    async def _refresh(self) -> None:
        try:
            fresh = await self._tokens(self.token)
            await self.call("auth:refresh", {"token": fresh}, timeout_s=_ANSWER_S)
            self.token = fresh
        except OrchestratorError as error:
            # The server closes the connection when the token expires, and the next one asks for a token again.
            logger.warning("the token could not be refreshed in time: %s", error)

    async def _fetch_missed(self, head: int) -> None:
        """Page through what was missed up to `head`, where the live events begin."""
        try:
            while (known := self._inbox.received) is not None and known.seq < head:
                await self._inbox.emptied()
                if not await self._fetch_page(known):
                    break
            self._inbox.release()
        except Unreachable as error:
            self._end(error)

    async def _fetch_page(self, known: Position) -> bool:
        """Fetch the next page and tell whether there may be more; raises Unreachable."""
        asked = {"after_seq": known.seq, "epoch": known.epoch, "limit": _PAGE}
        try:
            page = await self.call("sync", asked, timeout_s=_ANSWER_S)
        except RequestRefused as refusal:
            if refusal.code == "POSITION_LOST" and (reset := _reset_of(refusal.details)) is not None:
                self._inbox.reset(reset)
                return False
            if refusal.retry_after_s is not None:
                await asyncio.sleep(refusal.retry_after_s)
                return True
            raise Unreachable(f"sync was refused: {refusal}") from refusal
        events = [Event.read(str(each["event"]), each["data"]) for each in page["events"]]
        self._inbox.fetched(events, page["next_after_seq"])
        return bool(page["more"])


def _fields(data: Any) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}


def _reset_of(data: Any) -> Reset | None:
    fields = _fields(data)
    position = Position.read(fields.get("epoch"), fields.get("head"))
    return None if position is None else Reset(str(fields.get("reason", "")), position)
