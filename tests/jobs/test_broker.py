"""The broker on a real RabbitMQ: nothing is lost by a crash of either side, and poison is put aside."""

import asyncio
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelPreconditionFailed
from taskiq import TaskiqScheduler
from taskiq.api import run_scheduler_task
from taskiq.schedule_sources import LabelScheduleSource

from services.unit_of_work import Task
from tests.jobs.rabbit import Queues, Work, is_empty, next_of, patient, publish, ringing, teach, until, worker
from tests.jobs.test_doorbell import POISON
from tests.support.relay import relay_to

pytestmark = pytest.mark.cluster

# How many times RabbitMQ hands a message out before it puts it aside.
DELIVERIES = 6
# What the queue of the dead is declared with.
DEAD: dict[str, str | int] = {"x-queue-type": "quorum"}


class TestQueues:
    async def test_are_durable_replicated_and_lead_to_the_dead(
        self, queues: Queues, connection: AbstractConnection
    ) -> None:
        broker = queues.broker()
        await broker.startup()
        await broker.shutdown()
        arguments: dict[str, str | int] = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queues.dead,
            "x-delivery-limit": DELIVERIES - 1,
        }
        for name, expected in (
            (queues.provisioning, arguments),
            (queues.tasks, arguments),
            (queues.dead, DEAD),
        ):
            # RabbitMQ accepts a declaration only if it says what the queue is.
            channel = await connection.channel()
            await channel.declare_queue(name, durable=True, arguments=dict(expected))
            changes: tuple[dict[str, str | int], ...] = ({"x-queue-type": "classic"}, {"x-max-length": 5})
            for change in changes:
                other = await connection.channel()
                with pytest.raises(ChannelPreconditionFailed):
                    await other.declare_queue(name, durable=True, arguments={**expected, **change})

    async def test_survive_a_second_start(self, queues: Queues) -> None:
        for _ in range(2):
            broker = queues.broker()
            await broker.startup()
            await broker.shutdown()


class TestRinging:
    async def test_sends_the_bytes_of_the_contract_persistently(self, queues: Queues, channel: AbstractChannel) -> None:
        row_id = uuid4()
        async with ringing(queues) as ringer:
            ringer.ring(Task("provisioning.run", row_id))
            ringer.ring(Task("mail.send", row_id))
            job = await next_of(channel, queues.provisioning)
            mail = await next_of(channel, queues.tasks)
        assert job.body == b'{"job_id":"%s"}' % str(row_id).encode()
        assert mail.body == b'{"task":"mail.send","row_id":"%s"}' % str(row_id).encode()
        for message in (job, mail):
            assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
            await message.ack()

    async def test_waits_until_rabbitmq_has_confirmed(self, queues: Queues) -> None:
        async with relay_to(queues.url) as (relay, url):
            broker = queues.broker(url)
            teach(broker, queues, Work())
            await broker.startup()
            task = broker.find_task("mail.send")
            assert task is not None
            relay.hold_answers()
            sending = asyncio.create_task(task.kicker().kiq(row_id=str(uuid4())))
            await asyncio.sleep(0.3)
            assert not sending.done()
            relay.let_answers_pass()
            async with asyncio.timeout(10):
                await sending
            await broker.shutdown()

    async def test_neither_blocks_nor_dies_while_rabbitmq_is_away(
        self, queues: Queues, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jobs.ringer._TIMEOUT_S", 0.3)
        before, lost, after = uuid4(), uuid4(), uuid4()
        async with relay_to(queues.url) as (relay, url), ringing(queues, url=patient(url)) as ringer:
            ringer.ring(Task("mail.send", before))
            assert str(before).encode() in (await next_of(channel, queues.tasks)).body
            await relay.cut()
            for _ in range(3):
                ringer.ring(Task("mail.send", lost))
            # Longer than three attempts take, so that these doorbells are really given up.
            await asyncio.sleep(1.5)
            await relay.restore()
            async with asyncio.timeout(15):
                while await is_empty(channel, queues.tasks):
                    ringer.ring(Task("mail.send", after))
                    await asyncio.sleep(0.2)


class TestWorking:
    async def test_a_message_is_acknowledged_only_after_the_work(
        self, queues: Queues, channel: AbstractChannel
    ) -> None:
        row_id, work = uuid4(), Work()
        async with worker(queues, work), ringing(queues) as ringer:
            ringer.ring(Task("provisioning.run", row_id))
            await until(lambda: work.begun)
        # The worker has ended in the middle of the work, so the message is there again.
        again = await next_of(channel, queues.provisioning)
        assert again.redelivered
        await again.nack()
        finished = Work()
        finished.door.set()
        async with worker(queues, finished):
            await until(lambda: finished.done)
            # The acknowledgement follows the work.
            await asyncio.sleep(0.2)
        assert await is_empty(channel, queues.provisioning)
        assert await is_empty(channel, queues.dead)

    async def test_a_message_comes_again_when_its_worker_dies(self, queues: Queues) -> None:
        row_id, dying, heir = uuid4(), Work(), Work()
        heir.door.set()
        async with (
            relay_to(queues.url) as (relay, url),
            ringing(queues) as ringer,
            worker(queues, dying, url=patient(url)),
        ):
            ringer.ring(Task("provisioning.run", row_id))
            await until(lambda: dying.begun)
            await relay.cut()
            async with worker(queues, heir):
                await until(lambda: heir.done)
        assert dying.begun == heir.done == [row_id]

    async def test_a_worker_goes_on_when_rabbitmq_returns(self, queues: Queues, channel: AbstractChannel) -> None:
        work = Work()
        async with relay_to(queues.url) as (relay, url), worker(queues, work, url=patient(url)):
            first = uuid4()
            await publish(channel, queues.provisioning, b'{"job_id":"%s"}' % str(first).encode())
            await until(lambda: work.begun)
            await relay.cut()
            # The work ends while there is nobody to acknowledge it to.
            work.door.set()
            await until(lambda: work.done)
            await asyncio.sleep(0.2)
            await relay.restore()
            later = [uuid4() for _ in range(30)]
            for row_id in later:
                await publish(channel, queues.provisioning, b'{"job_id":"%s"}' % str(row_id).encode())
            await until(lambda: set(later) <= set(work.done))
            await asyncio.sleep(0.2)
            counts = [work.done.count(row_id) for row_id in later]
            assert counts == [1] * 30, "after its return every message is worked on once"
        assert await is_empty(channel, queues.provisioning)

    async def test_both_queues_are_served_side_by_side(self, queues: Queues) -> None:
        work = Work()
        async with worker(queues, work), ringing(queues) as ringer:
            for name in ("provisioning.run", "mail.send") * 3:
                ringer.ring(Task(name, uuid4()))
            await until(lambda: len(work.begun) == 6)
            assert work.done == []
            work.door.set()
            await until(lambda: len(work.done) == 6)

    async def test_two_workers_share(self, queues: Queues) -> None:
        first, second = Work(), Work()
        rows = {uuid4() for _ in range(20)}
        async with worker(queues, first), worker(queues, second), ringing(queues) as ringer:
            for row_id in rows:
                ringer.ring(Task("mail.send", row_id))
            await until(lambda: len(first.begun) + len(second.begun) == 20)
            assert {*first.begun, *second.begun} == rows
            assert first.begun, "neither takes more than it can work on"
            assert second.begun
            first.door.set()
            second.door.set()


class TestPoison:
    async def test_is_put_aside_and_stops_nobody(self, queues: Queues, channel: AbstractChannel) -> None:
        work = Work()
        work.door.set()
        bodies = [
            *POISON.values(),
            b'{"task": "no.such.task"}',
            b'{"task": "no.such.task", "row_id": "11111111-2222-3333-4444-555555555555"}',
            b'{"task": "mail.send"}',
        ]
        async with worker(queues, work):
            for number, body in enumerate(bodies):
                await publish(channel, (queues.provisioning, queues.tasks)[number % 2], body)
            good = uuid4()
            for queue in (queues.provisioning, queues.tasks):
                await publish(channel, queue, b'{"job_id":"%s"}' % str(good).encode())
            await until(lambda: len(work.done) == 2)
            found: list[bytes] = []
            while len(found) < len(bodies):
                message = await next_of(channel, queues.dead)
                found.append(message.body)
                death: Any = message.headers["x-death"]
                assert death[0]["reason"] == "rejected"
                assert death[0]["queue"] in (queues.provisioning, queues.tasks)
                await message.ack()
        assert sorted(found) == sorted(bodies)
        assert work.done == [good, good]

    async def test_a_message_that_kills_its_workers_is_put_aside(
        self, queues: Queues, channel: AbstractChannel
    ) -> None:
        broker = queues.broker()
        await broker.startup()
        body = b'{"job_id":"%s"}' % str(uuid4()).encode()
        await publish(channel, queues.provisioning, body)
        for _ in range(DELIVERIES):
            victim = await aio_pika.connect(queues.url)
            taken = await next_of(await victim.channel(), queues.provisioning)
            assert taken.body == body
            await victim.close()
        message = await next_of(channel, queues.dead)
        death: Any = message.headers["x-death"]
        assert (message.body, death[0]["reason"]) == (body, "delivery_limit")
        await message.ack()
        await broker.shutdown()


async def test_the_scheduler_outlives_an_outage(queues: Queues, channel: AbstractChannel) -> None:
    async with relay_to(queues.url) as (relay, url):
        broker = queues.broker(patient(url))

        async def sweep() -> None:
            """Only a worker would run it."""

        schedule = [{"interval": 1, "schedule_id": "mail.sweep"}]
        broker.register_task(sweep, task_name="mail.sweep", schedule=schedule, queue_name=queues.tasks)
        await broker.startup()
        scheduler = TaskiqScheduler(broker, [LabelScheduleSource(broker)])
        running = asyncio.create_task(run_scheduler_task(scheduler))
        assert (await next_of(channel, queues.tasks)).body == b'{"task":"mail.sweep"}'
        await relay.cut()
        await asyncio.sleep(2.5)
        assert not running.done()
        await relay.restore()
        while not await is_empty(channel, queues.tasks):
            await asyncio.sleep(0)
        assert (await next_of(channel, queues.tasks)).body == b'{"task":"mail.sweep"}'
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await broker.shutdown()


async def test_a_broker_that_is_away_at_the_start_says_so(queues: Queues) -> None:
    async with relay_to(queues.url) as (relay, url):
        await relay.cut()
        with pytest.raises(ConnectionError):
            await queues.broker(url).startup()
