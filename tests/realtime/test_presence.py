"""Presence boards: several instances on a Redis of their own, which is cut off, flushed, frozen and restarted."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime import redis_board
from realtime.bus import RedisBus
from realtime.exchange import Exchange
from realtime.follower import Follower
from realtime.log import EventLog
from realtime.meter import Meter
from realtime.presence import LocalBoard
from realtime.redis_board import RedisBoard
from tests.support.relay import Relay, relay_to
from tests.support.stores import StoreMissing, free_port, private_redis, refuse_or_skip
from tests.support.waiting import until

TENANT, OTHER_TENANT = UUID(int=1), UUID(int=2)
OLGA, PETER, QUENTIN = UUID(int=11), UUID(int=12), UUID(int=13)
HOUR_S = 3600.0


class OwnRedis:
    """A Redis that only this test uses; it can be restarted on its port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = ExitStack()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        try:
            self._running.enter_context(private_redis(self._folder, port=self.port))
        except StoreMissing as missing:
            refuse_or_skip(missing)

    def stop(self) -> None:
        self._running.close()


class Instance:
    """One instance: its board, and the bus by which it hears of others, behind a wire of its own."""

    def __init__(self, engine: AsyncEngine, url: str, relay: Relay) -> None:
        self.relay = relay
        self.redis = Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
        self.follower = Follower(EventLog(engine), meter=Meter())
        self.bus = RedisBus(self.redis, b"k" * 32, listens=True, meter=Meter())
        self.board = RedisBoard(self.redis, Exchange(self.bus, self.follower), realm="test")
        self.changed: list[UUID] = []
        self.board.on_change = self.changed.append
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, hears: bool = True) -> None:
        for tenant_id in (TENANT, OTHER_TENANT):
            await self.follower.join(tenant_id)
        self._tasks.append(asyncio.create_task(self.board.run()))
        if hears:
            self._tasks.append(asyncio.create_task(self.bus.run()))
            await until(lambda: self.bus.healthy)
        await until(lambda: self.board._in_touch)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    async def close(self) -> None:
        await self.end()
        await self.follower.close()
        await self.redis.aclose()


class Cluster:
    """Starts instances and ends them."""

    def __init__(self, engine: AsyncEngine, redis: OwnRedis, stack: AsyncExitStack) -> None:
        self.redis = redis
        self.client = Redis.from_url(redis.url)
        self._engine = engine
        self._stack = stack

    async def instance(self, *, hears: bool = True) -> Instance:
        relay, url = await self._stack.enter_async_context(relay_to(self.redis.url))
        instance = Instance(self._engine, url, relay)
        self._stack.push_async_callback(instance.close)
        await instance.start(hears=hears)
        return instance

    async def instances(self, count: int) -> list[Instance]:
        instances = [await self.instance() for _ in range(count)]
        await until(lambda: all(one.board.instances() == count for one in instances))
        return instances

    async def keys_of(self, name: str) -> set[str]:
        return {key.decode() async for key in self.client.scan_iter(f"*:{name}")}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    redis = OwnRedis(tmp_path)
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
async def cluster(engine: AsyncEngine, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """Instances that are quicker to look and to die than real ones."""
    monkeypatch.setattr(redis_board, "_LOOK_S", 0.2)
    monkeypatch.setattr(redis_board, "_LEASE_S", 1.5)
    async with AsyncExitStack() as stack:
        cluster = Cluster(engine, own_redis, stack)
        yield cluster
        await cluster.client.aclose()


async def sees(instance: Instance, users: Iterable[UUID], *, tenant_id: UUID = TENANT, seconds: float = 10.0) -> None:
    """Wait until an instance knows exactly these users to be online."""
    wanted = frozenset(users)
    async with asyncio.timeout(seconds):
        while (await instance.board.online(tenant_id)) != wanted:
            await asyncio.sleep(0.01)


class TestAlone:
    async def test_counts_sockets_and_tells_of_people(self) -> None:
        board, changed = LocalBoard(), list[UUID]()
        board.on_change = changed.append
        for _ in range(2):
            board.arrive(TENANT, OLGA)
        board.arrive(TENANT, PETER)
        assert changed == [TENANT, TENANT], "a second socket of the same person is no news"
        assert await board.online(TENANT) == {OLGA, PETER}
        board.leave(TENANT, OLGA)
        assert await board.online(TENANT) == {OLGA, PETER}
        board.leave(TENANT, OLGA)
        board.leave(TENANT, PETER)
        assert await board.online(TENANT) == frozenset()
        assert len(changed) == 4
        assert (board.sockets_elsewhere(TENANT), board.instances()) == (0, 1)


class TestTogether:
    async def test_each_knows_of_all(self, cluster: Cluster) -> None:
        one, two = await cluster.instances(2)
        one.board.arrive(TENANT, OLGA)
        one.board.arrive(TENANT, OLGA)
        two.board.arrive(TENANT, PETER)
        one.board.arrive(OTHER_TENANT, QUENTIN)
        for instance in (one, two):
            await sees(instance, {OLGA, PETER})
            await sees(instance, {QUENTIN}, tenant_id=OTHER_TENANT)
        assert (one.board.sockets_elsewhere(TENANT), two.board.sockets_elsewhere(TENANT)) == (1, 2)
        assert (one.board.sockets_elsewhere(OTHER_TENANT), two.board.sockets_elsewhere(OTHER_TENANT)) == (0, 1)

    async def test_who_is_on_two_instances_stays_when_one_socket_goes(self, cluster: Cluster) -> None:
        one, two = await cluster.instances(2)
        one.board.arrive(TENANT, OLGA)
        two.board.arrive(TENANT, OLGA)
        await until(lambda: one.board.sockets_elsewhere(TENANT) == two.board.sockets_elsewhere(TENANT) == 1)
        one.board.leave(TENANT, OLGA)
        await until(lambda: two.board.sockets_elsewhere(TENANT) == 0)
        for instance in (one, two):
            assert await instance.board.online(TENANT) == {OLGA}
        two.board.leave(TENANT, OLGA)
        for instance in (one, two):
            await sees(instance, ())

    async def test_changes_are_told_and_need_not_be_looked_for(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await cluster.instances(2)
        one.board.arrive(TENANT, PETER)
        await sees(two, {PETER})
        monkeypatch.setattr(redis_board, "_LOOK_S", HOUR_S)
        await until(lambda: min(_next_look_s(one), _next_look_s(two)) > HOUR_S / 2)
        two.changed.clear()
        one.board.arrive(TENANT, OLGA)
        await sees(two, {OLGA, PETER}, seconds=1.0)
        one.board.leave(TENANT, OLGA)
        one.board.leave(TENANT, PETER)
        await sees(two, (), seconds=1.0)
        one.board.arrive(TENANT, OLGA)
        await sees(two, {OLGA}, seconds=1.0)
        assert set(two.changed) == {TENANT}

    async def test_who_is_deaf_finds_out_by_looking(self, cluster: Cluster) -> None:
        one, two = await cluster.instance(), await cluster.instance(hears=False)
        one.board.arrive(TENANT, OLGA)
        await sees(two, {OLGA})
        one.board.arrive(TENANT, PETER)
        one.board.leave(TENANT, OLGA)
        await sees(two, {PETER})
        one.board.leave(TENANT, PETER)
        await sees(two, ())
        assert two.changed

    async def test_a_tenant_is_known_before_its_first_socket_here(self, cluster: Cluster) -> None:
        one, two = await cluster.instances(2)
        for _ in range(3):
            one.board.arrive(TENANT, OLGA)
        await until(lambda: not one.board._unwritten)
        await sees(two, {OLGA}, seconds=1.0)
        assert two.board.sockets_elsewhere(TENANT) == 3

    async def test_a_crowd_costs_few_commands(self, cluster: Cluster) -> None:
        one, two = await cluster.instances(2)
        before = (await cluster.client.info("commandstats")).get("cmdstat_hset", {"calls": 0})["calls"]
        crowd = [uuid4() for _ in range(3000)]
        for user_id in crowd:
            one.board.arrive(TENANT, user_id)
        await sees(two, crowd)
        assert two.board.sockets_elsewhere(TENANT) == len(crowd)
        assert (await cluster.client.info("commandstats"))["cmdstat_hset"]["calls"] - before <= 20
        for user_id in crowd:
            one.board.leave(TENANT, user_id)
        await sees(two, ())

    async def test_whoever_asks_for_nothing_more_is_forgotten(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = await cluster.instance()
        one.board.arrive(TENANT, OLGA)
        await one.board.learn(OTHER_TENANT)
        await until(lambda: set(one.board._tenants) == {TENANT, OTHER_TENANT})
        monkeypatch.setattr(redis_board, "_IDLE_S", 0.0)
        await until(lambda: set(one.board._tenants) == {TENANT})

    @pytest.mark.parametrize("seed", range(2))
    async def test_whatever_happens_all_agree_in_the_end(self, cluster: Cluster, seed: int) -> None:
        """Comings and goings everywhere at once, while one instance after another is cut off from Redis."""
        chance = random.Random(seed)
        instances = await cluster.instances(3)
        people = [uuid4() for _ in range(8)]
        sockets: list[tuple[Instance, UUID]] = []
        for step in range(200):
            instance = chance.choice(instances)
            if sockets and chance.random() < 0.5:
                place, user_id = sockets.pop(chance.randrange(len(sockets)))
                place.board.leave(TENANT, user_id)
            else:
                sockets.append((instance, chance.choice(people)))
                instance.board.arrive(TENANT, sockets[-1][1])
            if step % 100 == 50:
                await instance.relay.cut()
            if step % 100 == 90:
                await asyncio.sleep(0.4)
                for other in instances:
                    await other.relay.cut()
                    await other.relay.restore()
            await asyncio.sleep(chance.choice((0, 0, 0.01, 0.03)))
        for instance in instances:
            await sees(instance, {user_id for _, user_id in sockets})
        await until(
            lambda: (
                [instance.board.sockets_elsewhere(TENANT) for instance in instances]
                == [sum(place is not instance for place, _ in sockets) for instance in instances]
            )
        )


class TestEnds:
    async def test_an_instance_that_ends_takes_leave(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_board, "_LEASE_S", HOUR_S)
        one, two = await cluster.instances(2)
        one.board.arrive(TENANT, OLGA)
        await sees(two, {OLGA})
        two.changed.clear()
        await one.end()
        await sees(two, ())
        assert two.changed == [TENANT]
        assert (two.board.instances(), two.board.sockets_elsewhere(TENANT)) == (1, 0)
        assert await cluster.keys_of(one.board._name) == set()

    async def test_the_people_of_a_crashed_instance_vanish_and_so_does_what_it_wrote(self, cluster: Cluster) -> None:
        one, two, three = await cluster.instances(3)
        one.board.arrive(TENANT, OLGA)
        two.board.arrive(TENANT, PETER)
        for instance in (two, three):
            await sees(instance, {OLGA, PETER})
        assert len(await cluster.keys_of(one.board._name)) == 3
        await one.relay.cut()
        for instance in (two, three):
            await sees(instance, {PETER})
            assert instance.board.instances() == 2
        assert await cluster.keys_of(one.board._name) == set()

    async def test_an_instance_that_was_taken_for_dead_comes_back_whole(self, cluster: Cluster) -> None:
        one, two = await cluster.instances(2)
        for user_id in (OLGA, PETER):
            one.board.arrive(TENANT, user_id)
        await sees(two, {OLGA, PETER})
        former = one.board._name
        await one.relay.cut()
        await sees(two, ())
        one.board.leave(TENANT, PETER)
        one.board.arrive(TENANT, QUENTIN)
        await one.relay.restore()
        await sees(two, {OLGA, QUENTIN})
        assert one.board._name != former
        assert await cluster.keys_of(former) == set()
        assert two.board.instances() == 2


class TestRedisAway:
    async def test_everybody_is_written_again_when_redis_has_lost_everything(self, cluster: Cluster) -> None:
        one, two = await cluster.instances(2)
        one.board.arrive(TENANT, OLGA)
        two.board.arrive(TENANT, PETER)
        await sees(two, {OLGA, PETER})
        names = {one.board._name, two.board._name}
        await cluster.client.flushall()
        await until(lambda: not names & {one.board._name, two.board._name})
        late = await cluster.instance()
        for instance in (one, two, late):
            await sees(instance, {OLGA, PETER})

    async def test_without_redis_each_knows_its_own_and_with_it_all_again(self, cluster: Cluster) -> None:
        one, two = await cluster.instances(2)
        one.board.arrive(TENANT, OLGA)
        two.board.arrive(TENANT, PETER)
        for instance in (one, two):
            await sees(instance, {OLGA, PETER})
        two.changed.clear()
        cluster.redis.stop()
        two.board.arrive(TENANT, QUENTIN)
        assert QUENTIN in await two.board.online(TENANT)
        await sees(two, {PETER, QUENTIN})
        assert two.changed
        assert (two.board.instances(), two.board.sockets_elsewhere(TENANT)) == (1, 0)
        assert await two.board.online(OTHER_TENANT) == frozenset()
        two.board.leave(TENANT, PETER)
        cluster.redis.start()
        for instance in (one, two):
            await sees(instance, {OLGA, QUENTIN})
        assert one.board.instances() == two.board.instances() == 2

    async def test_a_short_outage_makes_nobody_vanish(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_board, "_LEASE_S", HOUR_S)
        one, two = await cluster.instances(2)
        one.board.arrive(TENANT, OLGA)
        await sees(two, {OLGA})
        await two.relay.cut()
        await until(lambda: not two.board._in_touch)
        assert await two.board.online(TENANT) == {OLGA}
        two.changed.clear()
        await two.relay.restore()
        await until(lambda: two.board._in_touch)
        assert await two.board.online(TENANT) == {OLGA}
        assert two.changed == []

    async def test_a_frozen_redis_holds_nobody_up_for_long(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_board, "_PATIENCE_S", 0.1)
        one = await cluster.instance()
        one.board.arrive(TENANT, OLGA)
        await until(lambda: TENANT in one.board._tenants)
        pid = int((await cluster.client.info("server"))["process_id"])
        _signal(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(1.0):
                assert await one.board.online(OTHER_TENANT) == frozenset()
                one.board.arrive(OTHER_TENANT, PETER)
                assert await one.board.online(OTHER_TENANT) == {PETER}
        finally:
            _signal(pid, signal.SIGCONT)
        two = await cluster.instance()
        await sees(two, {PETER}, tenant_id=OTHER_TENANT)
        await sees(two, {OLGA})


def _next_look_s(instance: Instance) -> float:
    return instance.board._look_at - asyncio.get_running_loop().time()


def _signal(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)
