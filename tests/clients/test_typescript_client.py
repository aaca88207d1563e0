"""The TypeScript client on a real server: every event of the log once, in order, whatever happens to the connection."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Guarded, Log, Wire, expiry_of, short_lived, sign_in, sign_out
from tests.clients.node_process import Follower, Node, follower
from tests.support.running import Orchestrator
from tests.support.waiting import until

# A client knows the server by its doors only, which are the same in both deployments; what several instances add is
# proved in tests/e2e and tests/faults.
pytestmark = [pytest.mark.embedded, pytest.mark.node]


@asynccontextmanager
async def listening(node: Node, url: str, log: Log, **options: Any) -> AsyncIterator[Follower]:
    """Sign in with a password, connect, and read."""
    position = options.pop("position", None)
    reads = options.pop("reads", True)
    person = {"email": log.person.email, "password": log.person.password}
    async with follower(node) as started:
        started.tell("open", url=url, options={**person, **options}, position=position)
        await started.says("connected")
        if reads:
            started.tell("read")
        yield started


async def refused(node: Node, url: str, **options: Any) -> str:
    """Try to connect and return the code of what it says instead."""
    async with follower(node) as started:
        started.tell("open", url=url, options=options)
        code: str = (await started.says("failed"))["code"]
        return code


async def hears(started: Follower, log: Log, after: int, seconds: float = 20.0) -> None:
    """Wait until it was handed what is owed after a number, and nothing else."""
    owed = await log.owed(after)
    await started.has_heard(len(owed), seconds)
    assert started.numbers == owed


def test_the_types_know_each_event(node: Node, tmp_path: Path) -> None:
    """TypeScript accepts what is right in `types.ts`, and refuses the lines that are marked as wrong."""
    shutil.copy(Path(__file__).parent / "node" / "types.ts", node.folder)
    # A package may import itself by its name, so this compiles as an application would.
    done = node.run("exec", "tsc", "--", "--noEmit", "--strict", "--module", "nodenext", "--skipLibCheck", "types.ts")
    assert done.returncode == 0, done.stdout


class TestHandingOver:
    async def test_every_event_comes_once_and_in_order(self, node: Node, orchestrator: Orchestrator, log: Log) -> None:
        async with listening(node, orchestrator.url, log) as started:
            _, before = await log.head()
            for count in (1, 7, 30):
                await log.write(count)
            await hears(started, log, before)
            assert len({line["id"] for line in started.of("event")}) == len(started.numbers)

    async def test_handlers_are_called_one_after_the_other(
        self, node: Node, orchestrator: Orchestrator, log: Log
    ) -> None:
        async with listening(node, orchestrator.url, log, reads=False) as started:
            _, before = await log.head()
            started.tell("handle", names=["payment:received"])
            await log.write(2)
            await started.says("done", count=2)
            heard = [(line["at"], line["seq"]) for line in started.lines if line["at"] in ("begun", "done")]
            assert heard == [(what, before + place) for place in (1, 2) for what in ("begun", "done")]

    async def test_a_subject_namespace_is_followed_alike(
        self, node: Node, orchestrator: Orchestrator, log: Log
    ) -> None:
        options: dict[str, Any] = {"namespace": "/billing", "transports": ["polling", "websocket"]}
        async with listening(node, orchestrator.url, log, **options) as started:
            _, before = await log.head()
            await log.write(12)
            payments = [(seq, name) for seq, name in await log.owed(before) if name == "payment:received"]
            await started.until(lambda: len(started.numbers) >= len(payments))
            assert started.numbers == payments

    async def test_requests_are_answered_or_refused_with_a_code(
        self, node: Node, orchestrator: Orchestrator, log: Log
    ) -> None:
        async with listening(node, orchestrator.url, log) as started:
            assert (await started.ask("call", "answered", name="ping"))["answer"] == {"ok": True}
            await started.until(lambda: "pong" in [line["name"] for line in started.of("event")])
            refusal = await started.ask("call", "refused", name="notification_read", data={})
            assert refusal["code"] == "VALIDATION_ERROR"
            assert (await started.ask("call", "refused", name="no_such_event"))["code"] == "UNKNOWN_EVENT"


class TestDrops:
    async def test_what_is_said_during_a_drop_is_heard_afterwards(self, node: Node, wire: Wire, log: Log) -> None:
        async with listening(node, wire.url, log) as started:
            _, before = await log.head()
            for _ in range(4):
                await log.write(5)
                await wire.drop()
                await log.write(5)
                await hears(started, log, before)

    async def test_a_server_that_is_away_for_a_while_is_found_again(self, node: Node, wire: Wire, log: Log) -> None:
        async with listening(node, wire.url, log) as started:
            _, before = await log.head()
            await wire.relay.cut()
            await log.write(5)
            while (await started.ask("look", "state"))["connected"]:
                pass
            assert (await started.ask("call", "refused", name="ping"))["code"] == "UNREACHABLE"
            await wire.relay.restore()
            await hears(started, log, before)

    async def test_another_instance_takes_over(self, node: Node, wire: Wire, strict: Orchestrator, log: Log) -> None:
        async with listening(node, wire.url, log) as started:
            _, before = await log.head()
            await log.write(3)
            await wire.move(strict.url)
            await log.write(3)
            await hears(started, log, before)
            await log.write(3)
            await hears(started, log, before)

    async def test_a_reader_that_is_too_slow_loses_nothing(self, node: Node, wire: Wire, log: Log) -> None:
        async with listening(node, wire.url, log, maxWaiting=10, reads=False) as started:
            _, before = await log.head()
            await log.write(100)
            while (await started.ask("look", "state"))["connected"]:
                pass
            started.tell("read")
            await hears(started, log, before)


class TestPosition:
    async def test_a_new_process_goes_on_where_the_last_one_ended(
        self, node: Node, orchestrator: Orchestrator, log: Log
    ) -> None:
        async with listening(node, orchestrator.url, log) as started:
            _, before = await log.head()
            await log.write(2)
            await hears(started, log, before)
            state = await started.ask("look", "state")
        await log.write(8)
        async with listening(node, orchestrator.url, log, position=state["position"]) as again:
            await hears(again, log, state["position"]["seq"])
        assert started.numbers + again.numbers == await log.owed(before)


class TestResets:
    @pytest.mark.parametrize("reason", ["epoch", "future"])
    async def test_a_lost_position_reloads_and_goes_on(
        self, node: Node, orchestrator: Orchestrator, log: Log, reason: str
    ) -> None:
        epoch, head = await log.head()
        lost = {"epoch": "another", "seq": head} if reason == "epoch" else {"epoch": epoch, "seq": head + 1000}
        async with listening(node, orchestrator.url, log, position=lost, reloads=True) as started:
            assert await started.says("reset") == {
                "at": "reset",
                "reason": reason,
                "position": {"epoch": epoch, "seq": head},
            }
            await log.write(2)
            await hears(started, log, head)
            assert len(started.of("reset")) == 1

    async def test_nobody_loses_a_position_without_knowing(
        self, node: Node, orchestrator: Orchestrator, log: Log
    ) -> None:
        async with listening(node, orchestrator.url, log, position={"epoch": "another", "seq": 1}) as started:
            assert (await started.says("ended"))["code"] == "POSITION_LOST"

    @pytest.mark.slow
    async def test_more_than_is_sent_again_is_fetched_across_drops(self, node: Node, wire: Wire, log: Log) -> None:
        epoch, head = await log.head()
        missed = {"epoch": epoch, "seq": head}
        await log.write(16_000)
        async with listening(node, wire.url, log, position=missed) as started:
            last = await log.write(4)
            for mark in (600, 2_000, 9_000):
                await started.has_heard(mark)
                await wire.drop()
            await hears(started, log, head, 60)
        async with listening(node, wire.url, log, position=missed, catchUp="reset", reloads=True) as started:
            assert await started.says("reset") == {
                "at": "reset",
                "reason": "too_many",
                "position": {"epoch": epoch, "seq": last},
            }


class TestTokens:
    async def test_an_expired_token_is_refreshed_before_connecting(
        self, node: Node, orchestrator: Orchestrator, log: Log
    ) -> None:
        session = await sign_in(log.person)
        expired = {"access": short_lived(orchestrator, session.access, -10), "refresh": session.refresh}
        async with follower(node) as started:
            started.tell("open", url=orchestrator.url, options={"tokens": expired})
            await started.says("connected")
            assert len(started.of("tokens")) == 1

    async def test_a_token_that_expires_is_refreshed_on_the_open_connection(
        self, node: Node, orchestrator: Orchestrator, wire: Wire, log: Log
    ) -> None:
        session = await sign_in(log.person)
        dying = short_lived(orchestrator, session.access, 3)
        async with follower(node) as started:
            started.tell("open", url=wire.url, options={"tokens": {"access": dying, "refresh": session.refresh}})
            await started.says("connected")
            connection = set(wire.relay._tasks)
            await started.says("tokens")
            await until(lambda: datetime.now(UTC) > expiry_of(dying) + timedelta(seconds=1))
            assert (await started.ask("call", "answered", name="ping"))["answer"] == {"ok": True}
            assert connection <= wire.relay._tasks, "it is still the first connection"

    async def test_a_second_factor_is_asked_for(self, node: Node, orchestrator: Orchestrator, guarded: Guarded) -> None:
        who = {"email": guarded.person.email, "password": guarded.person.password}
        async with follower(node) as started:
            started.tell("open", url=orchestrator.url, options={**who, "codes": [guarded.recovery_codes[0]]})
            await started.says("connected")
        assert await refused(node, orchestrator.url, **who) == "2FA_REQUIRED"
        assert await refused(node, orchestrator.url, **who, codes=["wrong"]) == "WRONG_CODE"

    async def test_a_spent_refresh_token_is_told(self, node: Node, orchestrator: Orchestrator, log: Log) -> None:
        expired = short_lived(orchestrator, log.person.token, -10)
        tokens = {"access": expired, "refresh": "spent"}
        assert await refused(node, orchestrator.url, tokens=tokens) == "AUTH_ERROR"
        assert await refused(node, orchestrator.url, tokens={"access": expired}) == "TOKEN_EXPIRED"


class TestRefusals:
    async def test_a_refusal_for_good_ends_the_client(self, node: Node, orchestrator: Orchestrator, log: Log) -> None:
        session = await sign_in(log.person)
        wrong = {"email": log.person.email, "password": "wrong horse"}
        assert await refused(node, orchestrator.url, **wrong) == "AUTH_ERROR"
        assert await refused(node, orchestrator.url, tokens={"access": "forged"}) == "AUTH_ERROR"
        nowhere = {"tokens": {"access": session.access}, "namespace": "/nowhere"}
        assert await refused(node, orchestrator.url, **nowhere) == "REFUSED"

    async def test_a_server_that_is_not_there_is_told_after_the_timeout(self, node: Node, wire: Wire, log: Log) -> None:
        await wire.relay.cut()
        tokens = {"access": log.person.token}
        assert await refused(node, wire.url, tokens=tokens, connectTimeout=1000) == "UNREACHABLE"

    async def test_whoever_is_asked_for_patience_comes_back_later(
        self, node: Node, strict: Orchestrator, log: Log
    ) -> None:
        refused = strict.house.meter.throttles["connects"]
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(follower(node)) for _ in range(4)]
            for client in clients:
                client.tell("open", url=strict.url, options={"tokens": {"access": log.person.token}})
            for client in clients:
                await client.says("connected")
        assert strict.house.meter.throttles["connects"] > refused

    async def test_revocation_ends_the_client_with_its_code(
        self, node: Node, orchestrator: Orchestrator, log: Log
    ) -> None:
        session = await sign_in(log.person)
        async with follower(node) as started:
            started.tell("open", url=orchestrator.url, options={"tokens": {"access": session.access}})
            await started.says("connected")
            started.tell("read")
            await sign_out(log.person, session)
            assert (await started.says("ended", 5))["code"] == "SESSION_REVOKED"
