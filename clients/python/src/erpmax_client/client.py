"""The client that an application uses."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientSession

from erpmax_client.connection import Refusal
from erpmax_client.errors import ConnectRefused, OrchestratorError, PositionLost, SignInRefused, Unreachable
from erpmax_client.events import Event, Position, PositionStore, Reset
from erpmax_client.inbox import Inbox, Item
from erpmax_client.line import CatchUp, Line, Route
from erpmax_client.tokens import Credentials, RestTokens, SecondFactor, TokenProvider, Tokens

Handler = Callable[[Event], Awaitable[None]]

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


class OrchestratorClient:
    """Follows one namespace of one tenant and hands over each event once, in the order of their numbers.

    Give one of `email` with `password`, `tokens`, or `token_provider`. Everything else has a default:

    - `on_reset` is awaited when events were missed that cannot be told; without it that ends the client.
    - `store` keeps the position, so that a new process goes on where the last one ended.
    - `catch_up`: when more was missed than the server sends again, `sync` fetches all of it page by page, and `reset`
      calls `on_reset`.
    - `max_waiting` bounds the events that wait for the application. At the bound the connection is closed, and opened
      again once the application has caught up; nothing is lost by that.
    - `on_tokens` is told each new pair of tokens, for applications that keep the refresh token.
    - `second_factor` is awaited for a code when signing in by the password asks for one; without it that is refused.
    """

    def __init__(
        self,
        url: str,
        *,
        email: str | None = None,
        password: str | None = None,
        second_factor: SecondFactor | None = None,
        tokens: Tokens | None = None,
        token_provider: TokenProvider | None = None,
        on_tokens: Callable[[Tokens], None] | None = None,
        namespace: str = "/",
        on_reset: Callable[[Reset], Awaitable[None]] | None = None,
        store: PositionStore | None = None,
        catch_up: CatchUp = "sync",
        max_waiting: int = 10_000,
        connect_timeout_s: float = 30.0,
        transports: Sequence[str] = ("websocket",),
        http_factory: Callable[[], ClientSession] = ClientSession,
    ) -> None:
        named = email is not None and password is not None
        credentials = Credentials(email or "", password or "", second_factor) if named else None
        if credentials is None and tokens is None and token_provider is None:
            raise ValueError("give email and password, tokens, or a token_provider")
        self.position: Position | None = None
        """What the application has dealt with."""
        self._url = url.rstrip("/")
        self._credentials = credentials
        self._first_tokens = tokens
        self._provider = token_provider
        self._on_tokens = on_tokens
        self._on_reset = on_reset
        self._store = store
        self._catch_up: CatchUp = catch_up
        self._max_waiting = max_waiting
        self._connect_timeout_s = connect_timeout_s
        self._route = Route(self._url, namespace, transports, http_factory)
        self._handlers: dict[str, list[Handler]] = {}
        self._item: Item | None = None
        self._line: Line | None = None
        self._stale: str | None = None

    # --------------------------------------------------------------------------------------- begin and end

    async def __aenter__(self) -> Self:
        """Sign in and connect; raises SignInRefused, ConnectRefused, AccessRevoked, or Unreachable after a while."""
        self.position = await self._store.load() if self._store is not None else None
        self._http = self._route.http_factory()
        self._rest_tokens = RestTokens(
            self._http, self._url, credentials=self._credentials, tokens=self._first_tokens, on_tokens=self._on_tokens
        )
        self._inbox = Inbox(self._max_waiting, self.position)
        self._up = asyncio.Event()
        self._work = asyncio.create_task(self._stay_connected())
        self._work.add_done_callback(self._finish)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._up.wait()
            if self._work.done():
                await self._work
        except TimeoutError:
            await self.close()
            raise Unreachable(f"not connected within {self._connect_timeout_s} s") from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Leaving without an exception says that the event handed over last was dealt with.
        if kind is None and self._item is not None and isinstance(self._item.what, Event):
            await self._settle()
        await self.close()

    async def close(self) -> None:
        """Disconnect; whoever iterates gets what has come in and then the end."""
        self._work.cancel()
        await asyncio.wait({self._work})
        await self._rest_tokens.close()
        await self._http.close()

    @property
    def connected(self) -> bool:
        """Whether the server has let us in and nobody has noticed a drop."""
        return self._line is not None and self._line.greeted

    # -------------------------------------------------------------------------------------------- listening

    async def events(self, *, ephemeral: bool = False) -> AsyncGenerator[Event, None]:
        """Yield each event once, in order; asking for the next one says that the last was dealt with.

        `ephemeral` adds those that the log does not hold: presence, lines of a job's output, and the like. Raises
        AccessRevoked, SignInRefused, ConnectRefused or PositionLost when it is over, and what `on_reset` raises.
        """
        while True:
            await self._settle()
            self._item = await self._inbox.next()
            if self._item is None:
                return
            event = self._item.what
            if isinstance(event, Event) and (ephemeral or event.seq is not None):
                yield event

    def on(self, name: str) -> Callable[[Handler], Handler]:
        """Register a handler of the events of this name, or with `*` of all, for `run`."""

        def register(handler: Handler) -> Handler:
            self._handlers.setdefault(name, []).append(handler)
            return handler

        return register

    async def run(self) -> None:
        """Call the handlers with each event, one after the other, until it is over; raises what they raise."""
        async for event in self.events(ephemeral=True):
            for handler in (*self._handlers.get(event.name, ()), *self._handlers.get("*", ())):
                await handler(event)

    async def _settle(self) -> None:
        """Note that the last item was dealt with; a reset is dealt with here and stays until that has worked."""
        item = self._item
        if item is None:
            return
        if isinstance(item.what, Reset):
            if self._on_reset is None:
                raise PositionLost(item.what.reason)
            await self._on_reset(item.what)
        if item.after is not None:
            self.position = item.after
            if self._store is not None:
                await self._store.save(item.after)
        self._item = None

    # --------------------------------------------------------------------------------------------- speaking

    async def call(self, event: str, data: Any = None, *, timeout_s: float = 10.0) -> Mapping[str, Any]:
        """Send an event and return its acknowledgement; raises RequestRefused, or Unreachable between connections."""
        if self._line is None:
            raise Unreachable("not connected at the moment")
        return await self._line.call(event, data, timeout_s=timeout_s)

    async def token(self) -> str:
        """Return an access token for REST calls of your own; raises SignInRefused and Unreachable."""
        return await self._tokens(None)

    async def _tokens(self, stale: str | None) -> str:
        provider = self._provider or self._rest_tokens
        token = await provider(stale)
        if token == stale:
            raise SignInRefused("TOKEN_EXPIRED", "the token provider has no newer access token")
        return token

    # ------------------------------------------------------------------------------------- staying connected

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            patience_s = None
            try:
                await self._talk()
            except Unreachable as error:
                patience_s = error.retry_after_s
            except Refusal as refusal:
                patience_s = self._patience_with(refusal)
            line, self._line = self._line, None
            failures = 1 if line is not None and line.greeted else failures + 1
            if line is not None and line.expired:
                self._stale = line.token
            if line is not None and line.overflowed:
                await self._inbox.emptied()
            await asyncio.sleep(_pause_s(failures, patience_s))

    async def _talk(self) -> None:
        """Hold one connection until it is over; always raises why."""
        token = await self._tokens(self._stale)
        self._line = Line(
            self._route, self._inbox, self._tokens, token=token, catch_up=self._catch_up, on_greeted=self._up.set
        )
        await self._line.run()

    def _patience_with(self, refusal: Refusal) -> float | None:
        """Return how long to wait before asking again, None for as long as usual; raises ConnectRefused."""
        if refusal.code == "TOKEN_EXPIRED" and self._line is not None:
            self._stale = self._line.token
        elif refusal.code != "UNAVAILABLE" and refusal.retry_after_s is None:
            raise ConnectRefused(refusal.code or "REFUSED", refusal.message) from refusal
        return refusal.retry_after_s

    def _finish(self, work: asyncio.Task[None]) -> None:
        reason: BaseException | None = None
        with suppress(asyncio.CancelledError):
            reason = work.exception()
        if isinstance(reason, OrchestratorError | None):
            self._inbox.end(reason)
        else:
            self._inbox.end(OrchestratorError("CLIENT_FAILED", repr(reason)))
        self._up.set()


def _pause_s(failures: int, patience_s: float | None) -> float:
    """Return how long to wait before the next attempt, so that many clients do not come back at once."""
    usual = min(_FIRST_PAUSE_S * 2.0 ** (failures - 1), _LONGEST_PAUSE_S)
    spread = random.uniform(0.5, 1.5)  # noqa: S311 - jitter needs no secrecy
    return usual * spread if patience_s is None else max(patience_s, 0.0) + usual * spread * 0.5
