"""Who is online, as clients are told: everybody how many, owners and admins who, on every instance."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import socketio
from aiohttp import ClientSession
from redis.asyncio import Redis

from namespaces.announcer import PresenceAnnouncer
from realtime.presence import LocalBoard
from server.keys import secret_key
from tests.namespaces.instances import token_for
from tests.namespaces.newcomers import found_company, newcomer
from tests.namespaces.wire import Wire
from tests.support.people import Person
from tests.support.processes import Process, fleet
from tests.support.running import Orchestrator
from tests.support.waiting import until

# What is promised after somebody has closed a connection, and after an instance has crashed.
CLEAN_S, CRASH_S = 1.0, 10.0


async def enter(server: Orchestrator, person: Person, **auth: Any) -> Wire:
    wire = await Wire.enter(person.http, server.url, person.token, **auth)
    await wire.until(lambda: wire.of("connected"))
    return wire


def told(wire: Wire) -> dict[str, object]:
    """Return what a client was told last."""
    said = wire.of("presence:changed")
    return dict(said[-1][0]) if said else {}


def everybody(*people: Person) -> dict[str, object]:
    return {"online": len(people), "users": sorted(str(person.user_id) for person in people)}


async def test_owners_are_told_who_and_members_how_many(
    instances: list[Orchestrator], boss: Person, guest: Person
) -> None:
    admin = await newcomer(instances[0], boss, "admin")
    owners, members = await enter(instances[0], boss), await enter(instances[-1], guest)
    await owners.until(lambda: told(owners) == everybody(boss, guest))
    await members.until(lambda: told(members) == {"online": 2})
    admins = await enter(instances[-1], admin)
    await admins.until(lambda: told(admins) == everybody(boss, guest, admin))
    await owners.until(lambda: told(owners) == everybody(boss, guest, admin))
    await members.until(lambda: told(members) == {"online": 3})
    assert all(set(body) == {"online"} for [body] in members.of("presence:changed"))
    for wire in (owners, members, admins):
        await wire.drop()


async def test_whoever_asks_is_answered(instances: list[Orchestrator], boss: Person, guest: Person) -> None:
    owners, members = await enter(instances[0], boss), await enter(instances[-1], guest)
    await owners.until(lambda: told(owners) == everybody(boss, guest))
    assert await owners.say("presence") == {"ok": True, **everybody(boss, guest)}
    assert await members.say("presence") == {"ok": True, "online": 2}
    assert await members.say("presence", {"of": "everybody"}) == {"ok": True, "online": 2}
    await owners.drop()
    await members.until(lambda: told(members) == {"online": 1}, CLEAN_S)
    assert await members.say("presence") == {"ok": True, "online": 1}
    await members.drop()


async def test_a_token_without_a_tenant_has_nobody_to_ask_for(orchestrator: Orchestrator, boss: Person) -> None:
    token = token_for(orchestrator, boss.token, tenant_id=None, tenant=None, role=None)
    wire = await Wire.enter(boss.http, orchestrator.url, token)
    answer = await wire.say("presence")
    assert (answer["ok"], answer["error"]["code"]) == (False, "TENANT_ERROR")
    await wire.drop()


@pytest.mark.parametrize("manner", ["disconnects", "vanishes"])
async def test_who_goes_is_gone_within_a_second_everywhere(
    instances: list[Orchestrator], boss: Person, guest: Person, manner: str
) -> None:
    watchers = [await enter(one, boss) for one in instances]
    client = socketio.AsyncClient(reconnection=False)
    await client.connect(instances[-1].url, auth={"token": guest.token}, transports=["websocket"])
    await until(lambda: all(told(wire) == everybody(boss, guest) for wire in watchers))
    if manner == "disconnects":
        await client.disconnect()
    else:
        await client.eio.ws.close()
    await until(lambda: all(told(wire) == everybody(boss) for wire in watchers), CLEAN_S)
    await client.disconnect()
    for wire in watchers:
        await wire.drop()


async def test_a_second_device_is_no_news(instances: list[Orchestrator], boss: Person, guest: Person) -> None:
    watchers = [await enter(one, boss) for one in instances]
    first = await enter(instances[0], guest)
    await until(lambda: all(told(wire) == everybody(boss, guest) for wire in watchers))
    counts = [len(wire.of("presence:changed")) for wire in watchers]
    second = await enter(instances[-1], guest)
    await first.drop()
    third = await newcomer(instances[0], boss)
    marker = await enter(instances[0], third)
    await until(lambda: all(told(wire) == everybody(boss, guest, third) for wire in watchers))
    assert [len(wire.of("presence:changed")) for wire in watchers] == [count + 1 for count in counts]
    for wire in (*watchers, second, marker):
        await wire.drop()


async def test_a_crowd_is_told_in_few_words(instances: list[Orchestrator], boss: Person) -> None:
    watcher = await enter(instances[0], boss)
    people = [await newcomer(instances[0], boss) for _ in range(6)]
    wires = await asyncio.gather(
        *(enter(instances[place % len(instances)], person) for place, person in enumerate(people * 6))
    )
    await watcher.until(lambda: told(watcher).get("online") == 7)
    assert len(watcher.of("presence:changed")) <= 8
    for wire in wires:
        await wire.drop()
    await watcher.until(lambda: told(watcher) == everybody(boss), 2.0)
    await watcher.drop()


async def test_it_carries_no_number_and_moves_no_position(orchestrator: Orchestrator, boss: Person) -> None:
    plain, recovering = await enter(orchestrator, boss), await enter(orchestrator, boss, recovery=True)
    guest = await newcomer(orchestrator, boss)
    coming = await enter(orchestrator, guest)
    for wire in (plain, recovering):
        await wire.until(lambda: told(wire) == everybody(boss, guest))  # noqa: B023 - waited for within the turn
        for arguments in wire.of("presence:changed"):
            assert len(arguments) == 1
            assert not {"seq", "event_id"} & arguments[0].keys()
    for wire in (plain, recovering, coming):
        await wire.drop()


async def test_other_companies_hear_nothing(
    instances: list[Orchestrator], boss: Person, guest: Person, http: ClientSession
) -> None:
    other = await found_company(instances[0], http)
    strangers = [await enter(one, other) for one in instances]
    await until(lambda: all(told(wire) == everybody(other) for wire in strangers))
    counts = [len(wire.of("presence:changed")) for wire in strangers]
    watcher = await enter(instances[0], boss)
    coming = await enter(instances[-1], guest)
    await watcher.until(lambda: told(watcher) == everybody(boss, guest))
    assert [len(wire.of("presence:changed")) for wire in strangers] == counts
    for wire in (*strangers, watcher, coming):
        await wire.drop()


async def test_one_tenants_fault_does_not_silence_the_others() -> None:
    class Board(LocalBoard):
        async def online(self, tenant_id: UUID) -> frozenset[UUID]:
            if tenant_id == UUID(int=1):
                raise RuntimeError("what nobody foresaw")
            return await super().online(tenant_id)

    class Seats:
        def count(self, _: UUID) -> int:
            return 1

    class Delivery:
        def __init__(self) -> None:
            self.told: list[UUID] = []

        def presence(self, tenant_id: UUID, _: frozenset[UUID]) -> None:
            self.told.append(tenant_id)

    delivery = Delivery()
    announcer = PresenceAnnouncer(board=Board(), seats=Seats(), delivery=delivery)  # type: ignore[arg-type]
    running = asyncio.create_task(announcer.run())
    for number in (1, 2):
        announcer.change(UUID(int=number))
    await until(lambda: delivery.told == [UUID(int=2)])
    announcer.change(UUID(int=1))
    announcer.change(UUID(int=3))
    await until(lambda: delivery.told == [UUID(int=2), UUID(int=3)])
    running.cancel()


@pytest.mark.cluster
async def test_a_redis_that_lost_everything_changes_nothing(
    instances: list[Orchestrator], boss: Person, guest: Person
) -> None:
    """Only what presence has written is removed: the Redis of this run may be somebody's."""
    watcher, coming = await enter(instances[0], boss), await enter(instances[1], guest)
    await watcher.until(lambda: told(watcher) == everybody(boss, guest))
    boards = [one.house.sockets.announcer._board for one in instances]
    names = {board._name for board in boards}  # type: ignore[attr-defined]
    redis = Redis.from_url(instances[0].settings.redis_url.get_secret_value())
    keys = [key async for key in redis.scan_iter(f"{boards[0]._prefix}:*")]  # type: ignore[attr-defined]
    await redis.delete(*keys)
    await redis.aclose()
    await until(lambda: not names & {board._name for board in boards})  # type: ignore[attr-defined]
    await watcher.until(lambda: told(watcher) == everybody(boss, guest))
    late = await newcomer(instances[0], boss)
    marker = await enter(instances[1], late)
    await watcher.until(lambda: told(watcher) == everybody(boss, guest, late))
    for wire in (watcher, coming, marker):
        await wire.drop()


@pytest.mark.cluster
@pytest.mark.slow
class TestProcesses:
    """A real process as the second instance."""

    @pytest.fixture
    async def process(self, orchestrator: Orchestrator, tmp_path: Path) -> AsyncIterator[Process]:
        settings = orchestrator.settings
        environment = {
            "ENVIRONMENT": "test",
            "DATABASE_URL": orchestrator.house.engine.url.render_as_string(hide_password=False),
            "REDIS_URL": settings.redis_url.get_secret_value(),
            "RABBITMQ_URL": settings.rabbitmq_url.get_secret_value(),
            "SECRET_KEY": secret_key(settings),
            "DATA_DIR": str(settings.data_dir),
            "PROVISIONING_QUEUE_NAME": settings.provisioning_queue_name,
            "TASKS_QUEUE_NAME": settings.tasks_queue_name,
        }
        async with fleet(environment, tmp_path) as ships:
            yield await (await ships.run("serve")).ready()

    @pytest.mark.parametrize(("manner", "promise_s"), [("is killed", CRASH_S), ("ends", 15.0 + CLEAN_S)])
    async def test_the_people_of_an_instance_go_with_it(
        self,
        orchestrator: Orchestrator,
        boss: Person,
        guest: Person,
        process: Process,
        *,
        manner: str,
        promise_s: float,
    ) -> None:
        watcher = await enter(orchestrator, boss)
        coming = await Wire.enter(guest.http, process.url, guest.token)
        await watcher.until(lambda: told(watcher) == everybody(boss, guest))
        board = orchestrator.house.sockets.announcer._board
        await until(lambda: board.instances() >= 2)
        if manner == "is killed":
            process.kill()
        else:
            await process.terminate()
        await watcher.until(lambda: told(watcher) == everybody(boss), promise_s)
        assert await watcher.say("presence") == {"ok": True, **everybody(boss)}
        await coming.drop()
        await watcher.drop()
