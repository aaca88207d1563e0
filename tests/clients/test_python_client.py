"""The Python client on a real server: every event of the log once, in order, whatever happens to the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from erpmax_client import (
    AccessRevoked,
    ConnectRefused,
    Event,
    OrchestratorClient,
    Position,
    PositionLost,
    RequestRefused,
    Reset,
    SignInRefused,
    Tokens,
    Unreachable,
)

from services.permissions import KeyScope
from tests.clients.conftest import Guarded, Log, Wire, expiry_of, short_lived, sign_in, sign_out
from tests.support.keys import make_key
from tests.support.people import Person
from tests.support.running import Orchestrator
from tests.support.waiting import until

# A client knows the server by its doors only, which are the same in both deployments; what several instances add is
# proved in tests/e2e and tests/faults.
pytestmark = pytest.mark.embedded


class Ear:
    """Reads a client to its end and remembers what it was handed."""

    def __init__(self, client: OrchestratorClient) -> None:
        self.client = client
        self.heard: list[Event] = []
        self.reading = asyncio.create_task(self._read())

    @property
    def numbers(self) -> list[tuple[int, str]]:
        return [(event.seq or 0, event.name) for event in self.heard]

    async def hears(self, log: Log, after: int, seconds: float = 20.0) -> None:
        """Wait until it was handed what is owed after a number, and nothing else."""
        owed = await log.owed(after)
        await self.has_heard(len(owed), seconds)
        assert self.numbers == owed

    async def has_heard(self, count: int, seconds: float = 20.0) -> None:
        """Wait until it was handed so many events."""
        await until(lambda: len(self.heard) >= count, seconds)

    async def _read(self) -> None:
        async for event in self.client.events():
            self.heard.append(event)


@asynccontextmanager
async def listening(url: str, person: Person, **options: Any) -> AsyncIterator[Ear]:
    """Sign in with a password, connect, and read in the background."""
    async with OrchestratorClient(url, email=person.email, password=person.password, **options) as client:
        ear = Ear(client)
        try:
            yield ear
        finally:
            ear.reading.cancel()
            await asyncio.wait({ear.reading})


class Memory:
    """A position store that outlives its clients."""

    def __init__(self, position: Position | None = None) -> None:
        self.position = position

    async def load(self) -> Position | None:
        return self.position

    async def save(self, position: Position) -> None:
        self.position = position


async def tokens_of(person: Person) -> Tokens:
    """Begin one more session of a person."""
    session = await sign_in(person)
    return Tokens(session.access, session.refresh)


class TestHandingOver:
    async def test_every_event_comes_once_and_in_order(self, orchestrator: Orchestrator, log: Log) -> None:
        async with listening(orchestrator.url, log.person) as ear:
            _, before = await log.head()
            for count in (1, 7, 30):
                await log.write(count)
            await ear.hears(log, before)
            assert all(event.data["event_id"] == event.event_id for event in ear.heard)

    async def test_a_connection_begins_at_the_present(self, orchestrator: Orchestrator, log: Log) -> None:
        await log.write(3)
        async with listening(orchestrator.url, log.person) as ear:
            await until(lambda: ear.client.position)
            epoch, head = await log.head()
            assert ear.client.position == Position(epoch, head)
            assert ear.heard == []

    async def test_handlers_are_called_one_after_the_other(self, orchestrator: Orchestrator, log: Log) -> None:
        calls: list[tuple[str, int | None]] = []
        async with OrchestratorClient(orchestrator.url, tokens=await tokens_of(log.person)) as client:

            @client.on("payment:received")
            async def slow(event: Event) -> None:
                calls.append(("begun", event.seq))
                await asyncio.sleep(0)
                calls.append(("done", event.seq))

            @client.on("*")
            async def every(event: Event) -> None:
                if event.seq is not None:
                    calls.append(("any", event.seq))

            running = asyncio.create_task(client.run())
            _, before = await log.head()
            await log.write(2)
            await until(lambda: len(calls) >= 6)
            running.cancel()
            await asyncio.wait({running})
        assert calls == [(what, before + place) for place in (1, 2) for what in ("begun", "done", "any")]

    @pytest.mark.parametrize("transports", [["polling"], ["polling", "websocket"]], ids=["polling", "upgrade"])
    async def test_a_subject_namespace_is_followed_alike(
        self, orchestrator: Orchestrator, log: Log, transports: list[str]
    ) -> None:
        async with listening(orchestrator.url, log.person, namespace="/billing", transports=transports) as ear:
            _, before = await log.head()
            await log.write(12)
            payments = [(seq, name) for seq, name in await log.owed(before) if name == "payment:received"]
            await until(lambda: len(ear.heard) >= len(payments))
            assert ear.numbers == payments

    async def test_what_the_log_does_not_hold_is_there_on_request(self, orchestrator: Orchestrator, log: Log) -> None:
        async with OrchestratorClient(orchestrator.url, tokens=await tokens_of(log.person)) as client:
            events = client.events(ephemeral=True)
            assert await client.call("ping") == {"ok": True}
            names = [(await anext(events)).name]
            while names[-1] != "pong":
                names.append((await anext(events)).name)
            await events.aclose()

    async def test_requests_are_answered_or_refused_with_a_code(self, orchestrator: Orchestrator, log: Log) -> None:
        async with OrchestratorClient(orchestrator.url, tokens=await tokens_of(log.person)) as client:
            with pytest.raises(RequestRefused) as refused:
                await client.call("notification_read", {})
            assert refused.value.code == "VALIDATION_ERROR"
            with pytest.raises(RequestRefused) as refused:
                await client.call("no_such_event")
            assert refused.value.code == "UNKNOWN_EVENT"


class TestDrops:
    async def test_what_is_said_during_a_drop_is_heard_afterwards(self, wire: Wire, log: Log) -> None:
        async with listening(wire.url, log.person) as ear:
            _, before = await log.head()
            for _ in range(4):
                await log.write(5)
                await wire.drop()
                await log.write(5)
                await ear.hears(log, before)

    async def test_a_server_that_is_away_for_a_while_is_found_again(self, wire: Wire, log: Log) -> None:
        async with listening(wire.url, log.person) as ear:
            _, before = await log.head()
            await wire.relay.cut()
            await log.write(5)
            await until(lambda: not ear.client.connected)
            with pytest.raises(Unreachable):
                await ear.client.call("ping")
            await wire.relay.restore()
            await ear.hears(log, before)

    async def test_another_instance_takes_over(self, wire: Wire, strict: Orchestrator, log: Log) -> None:
        async with listening(wire.url, log.person) as ear:
            _, before = await log.head()
            await log.write(3)
            await wire.move(strict.url)
            await log.write(3)
            await ear.hears(log, before)
            await log.write(3)
            await ear.hears(log, before)

    async def test_a_reader_that_is_too_slow_loses_nothing(self, wire: Wire, log: Log) -> None:
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "max_waiting": 10}
        async with OrchestratorClient(wire.url, **options) as client:
            _, before = await log.head()
            await log.write(100)
            await until(lambda: not client.connected)
            ear = Ear(client)
            await ear.hears(log, before)
            ear.reading.cancel()
            await asyncio.wait({ear.reading})


class TestPosition:
    async def test_a_new_process_goes_on_where_the_last_one_ended(self, orchestrator: Orchestrator, log: Log) -> None:
        store = Memory()
        async with listening(orchestrator.url, log.person, store=store) as ear:
            await until(lambda: store.position)
            _, before = await log.head()
            await log.write(2)
            await ear.hears(log, before)
        assert store.position is not None
        await log.write(8)
        async with listening(orchestrator.url, log.person, store=store) as again:
            await again.hears(log, store.position.seq)
        assert ear.numbers + again.numbers == await log.owed(before)

    async def test_an_event_that_was_not_dealt_with_comes_again(self, orchestrator: Orchestrator, log: Log) -> None:
        store = Memory()
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "store": store}

        async def crash_at(number: int) -> None:
            async with OrchestratorClient(orchestrator.url, **options) as client:
                await log.write(2)
                async for event in client.events():
                    if event.seq == number:
                        raise RuntimeError

        _, before = await log.head()
        with pytest.raises(RuntimeError):
            await crash_at(before + 2)
        assert store.position is not None
        assert store.position.seq == before + 1
        async with OrchestratorClient(orchestrator.url, **options) as client:
            async for event in client.events():
                assert event.seq == before + 2
                break
        assert store.position.seq == before + 2, "leaving without an exception says that it was dealt with"


class TestResets:
    @pytest.mark.parametrize("reason", ["epoch", "future"])
    async def test_a_lost_position_reloads_and_goes_on(self, orchestrator: Orchestrator, log: Log, reason: str) -> None:
        epoch, head = await log.head()
        store = Memory(Position("another", head) if reason == "epoch" else Position(epoch, head + 1000))
        resets: list[Reset] = []

        async def reload(reset: Reset) -> None:
            resets.append(reset)

        async with listening(orchestrator.url, log.person, store=store, on_reset=reload) as ear:
            await until(lambda: resets)
            await log.write(2)
            await ear.hears(log, head)
            assert resets == [Reset(reason, Position(epoch, head))]

    async def test_a_reload_that_fails_is_asked_for_again(self, orchestrator: Orchestrator, log: Log) -> None:
        _, head = await log.head()
        store = Memory(Position("another", 1))
        attempts: list[Reset] = []

        async def reload(reset: Reset) -> None:
            attempts.append(reset)
            if len(attempts) == 1:
                raise ConnectionError

        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "store": store, "on_reset": reload}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            with pytest.raises(ConnectionError):
                await anext(client.events())
            assert store.position == Position("another", 1)
            await log.write(1)
            event = await anext(client.events())
            assert event.seq == head + 1
        assert len(attempts) == 2

    async def test_nobody_loses_a_position_without_knowing(self, orchestrator: Orchestrator, log: Log) -> None:
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "store": Memory(Position("another", 1))}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            with pytest.raises(PositionLost) as lost:
                await anext(client.events())
            assert lost.value.reason == "epoch"


class TestTooMany:
    """More was missed than the server sends again: 10,000 events of the log."""

    @pytest.mark.slow
    async def test_all_of_it_is_fetched_across_drops(self, wire: Wire, log: Log) -> None:
        epoch, head = await log.head()
        missed = Position(epoch, head)
        await log.write(16_000)
        async with listening(wire.url, log.person, store=Memory(missed)) as ear:
            last = await log.write(4)
            for mark in (600, 2_000, 9_000):
                await ear.has_heard(mark)
                await wire.drop()
            await ear.hears(log, head, 60)

        resets: list[Reset] = []

        async def reload(reset: Reset) -> None:
            resets.append(reset)

        options: dict[str, Any] = {"store": Memory(missed), "catch_up": "reset", "on_reset": reload}
        async with listening(wire.url, log.person, **options):
            await until(lambda: resets)
        assert resets == [Reset("too_many", Position(epoch, last))]


class TestTokens:
    async def test_an_expired_token_is_refreshed_before_connecting(self, orchestrator: Orchestrator, log: Log) -> None:
        fresh = await tokens_of(log.person)
        told: list[Tokens] = []
        expired = Tokens(short_lived(orchestrator, fresh.access, -10), fresh.refresh)
        async with OrchestratorClient(orchestrator.url, tokens=expired, on_tokens=told.append) as client:
            assert client.connected
            assert [await client.token()] == [each.access for each in told]

    async def test_a_token_that_expires_is_refreshed_on_the_open_connection(
        self, orchestrator: Orchestrator, log: Log
    ) -> None:
        fresh = await tokens_of(log.person)
        told: list[Tokens] = []
        dying = short_lived(orchestrator, fresh.access, 3)
        options: dict[str, Any] = {"tokens": Tokens(dying, fresh.refresh), "on_tokens": told.append}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            connection = client._line
            await until(lambda: told)
            await until(lambda: datetime.now(UTC) > expiry_of(dying) + timedelta(seconds=1))
            assert await client.call("ping") == {"ok": True}
            assert client._line is connection

    async def test_many_who_ask_refresh_once(self, orchestrator: Orchestrator, log: Log) -> None:
        told: list[Tokens] = []
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "on_tokens": told.append}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            stale = await client.token()
            fresh = await asyncio.gather(*(client._tokens(stale) for _ in range(5)))
        assert len(told) == 1
        assert set(fresh) == {told[0].access}

    async def test_a_spent_refresh_token_falls_back_to_the_password(self, orchestrator: Orchestrator, log: Log) -> None:
        access = short_lived(orchestrator, (await tokens_of(log.person)).access, -10)
        options: dict[str, Any] = {"tokens": Tokens(access, "spent")}
        with pytest.raises(SignInRefused):
            async with OrchestratorClient(orchestrator.url, **options):
                pass
        options |= {"email": log.person.email, "password": log.person.password}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            assert client.connected

    async def test_a_second_factor_is_asked_for(self, orchestrator: Orchestrator, guarded: Guarded) -> None:
        who: dict[str, Any] = {"email": guarded.person.email, "password": guarded.person.password}
        codes = [*guarded.recovery_codes]

        async def code() -> str:
            return codes.pop()

        for _ in range(2):
            async with OrchestratorClient(orchestrator.url, **who, second_factor=code) as client:
                assert client.connected
        assert len(codes) == len(guarded.recovery_codes) - 2
        with pytest.raises(SignInRefused) as refused:
            async with OrchestratorClient(orchestrator.url, **who):
                pass
        assert refused.value.code == "2FA_REQUIRED"
        codes.append("wrong")
        with pytest.raises(SignInRefused) as refused:
            async with OrchestratorClient(orchestrator.url, **who, second_factor=code):
                pass
        assert refused.value.code == "WRONG_CODE"

    async def test_a_provider_without_a_newer_token_ends_the_client(self, orchestrator: Orchestrator, log: Log) -> None:
        expired = short_lived(orchestrator, log.person.token, -10)

        async def provide(_: str | None) -> str:
            return expired

        with pytest.raises(SignInRefused) as refused:
            async with OrchestratorClient(orchestrator.url, token_provider=provide):
                pass
        assert refused.value.code == "TOKEN_EXPIRED"


class TestRefusals:
    async def test_a_wrong_password_is_told_at_once(self, orchestrator: Orchestrator, log: Log) -> None:
        with pytest.raises(SignInRefused):
            async with OrchestratorClient(orchestrator.url, email=log.person.email, password="wrong horse"):
                pass

    @pytest.mark.parametrize(
        ("options", "code"), [({"tokens": Tokens("forged")}, "AUTH_ERROR"), ({"namespace": "/nowhere"}, "REFUSED")]
    )
    async def test_a_refusal_for_good_ends_the_client(
        self, orchestrator: Orchestrator, log: Log, options: dict[str, Any], code: str
    ) -> None:
        options = {"tokens": await tokens_of(log.person), **options}
        with pytest.raises(ConnectRefused) as refused:
            async with OrchestratorClient(orchestrator.url, **options):
                pass
        assert refused.value.code == code

    async def test_a_server_that_is_not_there_is_told_after_the_timeout(self, wire: Wire, log: Log) -> None:
        await wire.relay.cut()
        options: dict[str, Any] = {"tokens": Tokens(log.person.token), "connect_timeout_s": 1.0}
        with pytest.raises(Unreachable):
            async with OrchestratorClient(wire.url, **options):
                pass

    async def test_whoever_is_asked_for_patience_comes_back_later(self, strict: Orchestrator, log: Log) -> None:
        tokens = await tokens_of(log.person)
        refused = strict.house.meter.throttles["connects"]
        clients = [OrchestratorClient(strict.url, tokens=tokens) for _ in range(4)]
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(client) for client in clients))
            assert all(client.connected for client in clients)
        assert strict.house.meter.throttles["connects"] > refused

    async def test_revocation_ends_the_client_with_its_code(self, orchestrator: Orchestrator, log: Log) -> None:
        session = await sign_in(log.person)
        async with OrchestratorClient(orchestrator.url, tokens=Tokens(session.access, session.refresh)) as client:
            await sign_out(log.person, session)
            async with asyncio.timeout(5):
                with pytest.raises(AccessRevoked) as revoked:
                    await anext(client.events())
            assert revoked.value.code == "SESSION_REVOKED"

    async def test_a_machine_listens_with_an_api_key_until_it_is_revoked(
        self, orchestrator: Orchestrator, log: Log
    ) -> None:
        key = await make_key(replace(log.person, token=(await sign_in(log.person)).access), KeyScope.EVENTS_READ)
        async with OrchestratorClient(orchestrator.url, tokens=Tokens(key.text)) as client:
            await log.write(1)
            assert (await anext(client.events())).seq is not None
            await key.revoke()
            async with asyncio.timeout(5):
                with pytest.raises(AccessRevoked) as revoked:
                    await anext(client.events())
            assert revoked.value.code == "API_KEY_REVOKED"
        with pytest.raises(ConnectRefused) as refused:
            async with OrchestratorClient(orchestrator.url, tokens=Tokens(key.text)):
                pass
        assert refused.value.code == "API_KEY_REVOKED"
