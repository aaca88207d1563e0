"""Quotas: what one tenant's clients may ask of the server, and that nobody else feels it when they ask for more."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientSession
from sqlalchemy import select

from models.billing import Plan, Subscription
from namespaces.quotas import Quotas, TooManyConnections
from realtime.limits import SocketLimits
from realtime.meter import Meter
from realtime.presence import LocalBoard
from services.closed_tenants import TenantSuspended
from services.events import SubscriptionUpdated
from services.unit_of_work import PlatformScope, TenantScope
from tests.namespaces.instances import beside
from tests.namespaces.newcomers import found_company
from tests.namespaces.wire import Wire
from tests.support.people import Person
from tests.support.running import Orchestrator
from tests.support.waiting import until

PLATFORM = PlatformScope("a test acts for the platform")
TENANT = UUID(int=1)
LIMITS = SocketLimits(connections=-1, connects_per_s=-1, events_per_s=-1, socket_events_per_s=-1, payload_bytes=-1)

CLOSED = replace(LIMITS, connections=0)


@pytest.fixture
async def other(orchestrator: Orchestrator, http: ClientSession) -> Person:
    """The owner of another company."""
    return await found_company(orchestrator, http)


@asynccontextmanager
async def limited(orchestrator: Orchestrator, deployment: str, **limits: int) -> AsyncIterator[list[Orchestrator]]:
    """Run the instances of a deployment with these limits: one when it is embedded, two in the cluster."""
    async with AsyncExitStack() as stack:
        count = 1 if deployment == "embedded" else 2
        instances = [await stack.enter_async_context(beside(orchestrator, **limits)) for _ in range(count)]
        # The shared server is one of the cluster's instances too, and so may be those of tests that have just ended.
        least = 1 if count == 1 else 3
        await until(lambda: all(board(one).instances() >= least for one in instances))
        yield instances


def board(server: Orchestrator) -> Any:
    return server.house.sockets.announcer._board


async def enter(server: Orchestrator, person: Person, namespace: str = "/") -> Wire:
    return await Wire.enter(person.http, server.url, person.token, namespace)


async def leave(*wires: Wire) -> None:
    for wire in wires:
        await wire.drop()


def refusal_of(wire: Wire) -> tuple[str, int] | None:
    """Return the code of a refused CONNECT and when to try again."""
    if wire.refusal is None:
        return None
    assert set(wire.refusal) == {"message", "data"}
    assert set(wire.refusal["data"]) == {"code", "retry_after"}
    return wire.refusal["data"]["code"], wire.refusal["data"]["retry_after"]


class TestConnections:
    async def test_a_tenant_has_so_many_and_no_more_on_all_instances_together(
        self, orchestrator: Orchestrator, deployment: str, boss: Person, other: Person
    ) -> None:
        async with limited(orchestrator, deployment, sockets_per_tenant=3) as instances:
            first, last = instances[0], instances[-1]
            inside = [await enter(first, boss), await enter(first, boss, "/billing")]
            if first is not last:
                await until(lambda: board(first).here(boss.tenant_id))
                await until(lambda: not board(first)._unwritten)
            inside.append(await enter(last, boss))
            assert [wire.refusal for wire in inside] == [None] * 3
            await until(lambda: board(first).sockets_elsewhere(boss.tenant_id) == (first is not last))
            for one in instances:
                refused = await enter(one, boss)
                assert refusal_of(refused) == ("TOO_MANY_CONNECTIONS", 30)
                neighbour = await enter(one, other)
                assert neighbour.refusal is None
                await leave(refused, neighbour)
            await inside.pop().drop()
            await _let_in(first, boss)
            await leave(*inside)

    async def test_an_instance_that_sees_a_tenant_for_the_first_time_knows_of_its_sockets(
        self, orchestrator: Orchestrator, deployment: str, boss: Person
    ) -> None:
        async with limited(orchestrator, deployment, sockets_per_tenant=2) as instances:
            inside = [await enter(instances[0], boss) for _ in range(2)]
            if len(instances) > 1:
                await until(lambda: board(instances[0])._serials.get(boss.tenant_id))
                await until(lambda: not board(instances[0])._unwritten)
            refused = await enter(instances[-1], boss)
            assert refusal_of(refused) == ("TOO_MANY_CONNECTIONS", 30)
            await leave(refused, *inside)

    async def test_of_many_who_come_at_once_only_so_many_get_in(self, orchestrator: Orchestrator, boss: Person) -> None:
        async with beside(orchestrator, sockets_per_tenant=5) as server:
            wires = await asyncio.gather(*(enter(server, boss) for _ in range(30)))
            assert sum(wire.refusal is None for wire in wires) == 5
            assert {refusal_of(wire) for wire in wires} == {None, ("TOO_MANY_CONNECTIONS", 30)}
            await leave(*wires)

    async def test_they_may_come_only_so_fast(
        self, orchestrator: Orchestrator, deployment: str, boss: Person, other: Person
    ) -> None:
        async with limited(orchestrator, deployment, socket_connects_per_s=3) as instances:
            server = instances[0]
            wires = await asyncio.gather(*(enter(server, boss) for _ in range(12)))
            refused = [refusal_of(wire) for wire in wires if wire.refusal]
            # Two seconds' worth pass at once, and of several instances each grants its share.
            assert 12 - len(refused) <= (6 if deployment == "embedded" else 2) + 1
            assert {code for code, _ in filter(None, refused)} == {"RATE_LIMITED"}
            assert all(1 <= after <= 2 for _, after in filter(None, refused))
            neighbour = await enter(server, other)
            assert neighbour.refusal is None
            await _let_in(server, boss)
            await leave(neighbour, *wires)


class TestEvents:
    async def test_a_socket_says_only_so_much_and_other_sockets_do_not_feel_it(
        self, orchestrator: Orchestrator, boss: Person, other: Person
    ) -> None:
        async with beside(orchestrator, events_per_socket_per_s=5) as server:
            loud, quiet, neighbour = [await enter(server, person) for person in (boss, boss, other)]
            answers = [await loud.say("ping") for _ in range(20)]
            heard = [answer for answer in answers if answer["ok"]]
            refused = [answer["error"] for answer in answers if not answer["ok"]]
            assert len(heard) >= 10
            assert {error["code"] for error in refused} == {"RATE_LIMITED"}
            assert {error["retry_after"] for error in refused} == {1}
            assert len(loud.of("pong")) == len(heard), "what is refused is not done either"
            assert (await quiet.say("ping"))["ok"]
            assert (await neighbour.say("ping"))["ok"]
            await _heard_again(loud)
            await leave(loud, quiet, neighbour)

    async def test_a_tenants_sockets_say_only_so_much_together(
        self, orchestrator: Orchestrator, deployment: str, boss: Person, other: Person
    ) -> None:
        async with limited(orchestrator, deployment, socket_events_per_s=6) as instances:
            wires = [await enter(instances[0], boss) for _ in range(4)]
            neighbour = await enter(instances[0], other)
            answers = [await wire.say("ping") for _ in range(10) for wire in wires]
            refused = [answer["error"] for answer in answers if not answer["ok"]]
            assert len(refused) >= 20
            assert {error["code"] for error in refused} == {"RATE_LIMITED"}
            assert all(error["retry_after"] >= 1 for error in refused)
            assert (await neighbour.say("ping"))["ok"]
            await _heard_again(wires[0])
            await leave(neighbour, *wires)

    async def test_an_event_may_be_only_so_large(self, orchestrator: Orchestrator, boss: Person, other: Person) -> None:
        async with beside(orchestrator, socket_payload_bytes=1000) as server:
            wire, neighbour = await enter(server, boss), await enter(server, other)
            answer = await wire.say("ping", "x" * 1100)
            assert (answer["ok"], answer["error"]["code"]) == (False, "PAYLOAD_TOO_LARGE")
            assert wire.of("pong") == []
            assert (await wire.say("ping", "x" * 900))["ok"]
            assert (await neighbour.say("ping"))["ok"]
            await leave(wire, neighbour)

    @pytest.mark.parametrize("answered", [True, False], ids=["waits for answers", "does not listen"])
    async def test_who_goes_on_and_on_is_cut_off(
        self, orchestrator: Orchestrator, boss: Person, other: Person, *, answered: bool
    ) -> None:
        """Also when some of what it says is heard in between: it says a hundred times what it may."""
        async with beside(orchestrator, events_per_socket_per_s=5) as server:
            loud, quiet, neighbour = [await enter(server, person) for person in (boss, boss, other)]
            number = 7 if answered else ""
            async with asyncio.timeout(30):
                while loud.open:
                    await _send(loud, f'42{number}["ping"]')
                    await asyncio.sleep(0.002)
            assert server.house.meter.closes["too_fast"] == 1
            assert server.house.meter.throttles["rate_limited"] >= 200
            for wire in (quiet, neighbour):
                assert (await wire.say("ping"))["ok"]
            again = await enter(server, boss)
            assert (await again.say("ping"))["ok"]
            await leave(loud, quiet, neighbour, again)


class TestPlans:
    async def test_a_plan_has_numbers_of_its_own_which_change_with_it(
        self, orchestrator: Orchestrator, boss: Person, other: Person
    ) -> None:
        await _subscribe(orchestrator, boss, {"connections": 2, "payload_bytes": 500})
        async with beside(orchestrator, sockets_per_tenant=100) as server:
            inside = [await enter(server, boss) for _ in range(2)]
            refused = await enter(server, boss)
            assert refusal_of(refused) == ("TOO_MANY_CONNECTIONS", 30)
            others = [await enter(server, other) for _ in range(3)]
            assert [wire.refusal for wire in others] == [None] * 3
            assert (await inside[0].say("ping", "x" * 600))["ok"] is False
            assert (await others[0].say("ping", "x" * 600))["ok"]

            await _subscribe(orchestrator, boss, {"connections": 3, "payload_bytes": 700})
            await _let_in(server, boss, kept=inside)
            assert (await inside[0].say("ping", "x" * 600))["ok"], "an open socket has the new number too"
            assert refusal_of(await enter(server, boss)) == ("TOO_MANY_CONNECTIONS", 30)

            await _subscribe(orchestrator, boss, {"connections": -1, "socket_events_per_s": 1})
            await inside[0].until(lambda: inside[0].of("subscription:updated"))
            await _let_in(server, boss, kept=inside)
            answers = [await inside[0].say("ping") for _ in range(8)]
            assert "RATE_LIMITED" in [answer["error"]["code"] for answer in answers if not answer["ok"]]
            await leave(refused, *inside, *others)


class TestAccounts:
    """The bookkeeping alone, where a server would be too quick to be watched."""

    async def test_limits_are_read_once_for_all_who_wait(self) -> None:
        reads, go_on = Reads(), asyncio.Event()
        reads.before = go_on.wait
        quotas = _quotas(reads)
        waiting = [asyncio.create_task(quotas.admit(TENANT)) for _ in range(50)]
        await until(lambda: reads.count == 1)
        waiting[0].cancel()
        go_on.set()
        await asyncio.gather(*waiting[1:])
        assert (reads.count, waiting[0].cancelled()) == (1, True)

    async def test_a_failure_is_everybodys_and_is_not_kept(self) -> None:
        reads = Reads()
        reads.failures = iter([ConnectionError("away")])
        quotas = _quotas(reads)
        first = await asyncio.gather(*(quotas.admit(TENANT) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in first] == [ConnectionError] * 3
        await quotas.admit(TENANT)

    async def test_a_change_while_limits_are_read_is_not_lost(self) -> None:
        reads, go_on = Reads(), asyncio.Event()
        reads.before = go_on.wait
        quotas = _quotas(reads)
        coming = asyncio.create_task(quotas.admit(TENANT))
        await until(lambda: reads.count == 1)
        reads.limits = CLOSED
        quotas.change(TENANT)
        reads.stale = LIMITS
        go_on.set()
        with pytest.raises(TooManyConnections):
            await coming
        assert reads.count == 2

    async def test_a_change_is_read_at_once_and_a_failure_then_leaves_what_was_known(self) -> None:
        reads = Reads()
        quotas = _quotas(reads)
        await quotas.admit(TENANT)
        reads.limits = CLOSED
        reads.failures = iter([ConnectionError("away")])
        quotas.change(TENANT)
        await until(lambda: reads.count == 2 and not quotas._reading)
        await quotas.admit(TENANT)
        quotas.change(TENANT)
        await until(lambda: reads.count == 3 and not quotas._reading)
        with pytest.raises(TooManyConnections):
            await quotas.admit(TENANT)

    async def test_a_tenant_that_was_closed_is_not_let_in_by_what_was_known(self) -> None:
        reads = Reads()
        quotas = _quotas(reads)
        await quotas.admit(TENANT)
        reads.failures = iter([TenantSuspended(), TenantSuspended()])
        quotas.change(TENANT)
        await until(lambda: reads.count == 2 and not quotas._reading)
        with pytest.raises(TenantSuspended):
            await quotas.admit(TENANT)

    async def test_a_change_nobody_told_of_is_found_after_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reads = Reads()
        quotas = _quotas(reads)
        await quotas.admit(TENANT)
        monkeypatch.setattr("namespaces.quotas._FRESH_S", 0.0)
        reads.limits = CLOSED
        await quotas.admit(TENANT)
        await until(lambda: reads.count >= 2 and not quotas._reading)
        with pytest.raises(TooManyConnections):
            await quotas.admit(TENANT)

    async def test_a_tenant_that_left_is_forgotten(self) -> None:
        reads = Reads()
        quotas = _quotas(reads)
        await quotas.admit(TENANT)
        quotas.close(TENANT)
        quotas.change(TENANT)
        assert reads.count == 1
        await quotas.admit(TENANT)
        assert reads.count == 2

    async def test_whoever_has_no_tenant_has_no_account(self) -> None:
        reads = Reads()
        await _quotas(reads).admit(None)
        assert reads.count == 0


class Reads:
    """A source of limits that is watched; with `stale` set, the first look answers what held before."""

    def __init__(self) -> None:
        self.count = 0
        self.limits = LIMITS
        self.stale: SocketLimits | None = None
        self.failures: Iterator[Exception] = iter(())
        self.before: Any = None

    async def __call__(self, _: UUID) -> SocketLimits:
        self.count += 1
        if self.before is not None:
            await self.before()
        for failure in self.failures:
            raise failure
        stale, self.stale = self.stale, None
        return stale or self.limits


def _quotas(reads: Reads) -> Quotas:
    class Seats:
        def count(self, _: UUID) -> int:
            return 0

    return Quotas(load=reads, seats=Seats(), presence=LocalBoard(), meter=Meter())  # type: ignore[arg-type]


async def _send(wire: Wire, packet: str) -> None:
    try:
        await wire._socket.send_str(packet)
    except ConnectionError:
        wire.open = False


async def _let_in(server: Orchestrator, person: Person, *, kept: list[Wire] | None = None) -> None:
    """Try to connect until it succeeds; the socket goes into `kept`, or away."""
    async with asyncio.timeout(10):
        while (wire := await enter(server, person)).refusal is not None:
            await wire.drop()
            await asyncio.sleep(0.1)
    if kept is None:
        await wire.drop()
    else:
        kept.append(wire)


async def _heard_again(wire: Wire) -> None:
    async with asyncio.timeout(10):
        while not (await wire.say("ping"))["ok"]:
            await asyncio.sleep(0.2)


async def _subscribe(server: Orchestrator, person: Person, limits: dict[str, int]) -> None:
    """Give a tenant a plan of its own with these numbers for its sockets, and say so."""
    async with server.units(PLATFORM) as uow:
        trial = (await uow.session.scalars(select(Plan).where(Plan.slug == "trial"))).one()
        plan = Plan(
            id=uuid4(),
            slug=f"plan-{uuid4().hex[:12]}",
            name="Own plan",
            price_monthly=trial.price_monthly,
            price_yearly=trial.price_yearly,
            limits={**trial.limits, "sockets": limits},
            is_active=False,
        )
        uow.session.add(plan)
        # The subscription names its plan by id alone.
        await uow.session.flush()
        row = (await uow.session.scalars(select(Subscription).where(Subscription.tenant_id == person.tenant_id))).one()
        row.plan_id = plan.id
        subscription_id = row.id
    async with server.units(TenantScope(person.tenant_id)) as uow:
        uow.record(
            SubscriptionUpdated(
                tenant_id=person.tenant_id,
                subscription_id=subscription_id,
                status="trial",
                plan=plan.slug,
                updated_at=uow.now,
                subscription={},
            )
        )
