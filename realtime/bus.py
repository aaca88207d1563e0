"""The bus: what instances say to each other over Redis pub/sub.

Nothing that must not be lost travels here alone: a message is a hint, or it is worth little a second later. Messages
are JSON, bounded in size, and carry a MAC, because whoever reaches Redis could otherwise speak to every client.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from core import json
from core.backoff import full_jitter_s
from core.tasks import stopping
from realtime.meter import Meter

Message = Mapping[str, Any]
Hear = Callable[[dict[str, Any]], None]

MESSAGE_LIMIT = 64 * 1024
_QUEUE_LIMIT = 10_000
# How many messages go to Redis in one round trip, and how many channels into one command.
_SEND_BATCH = 256
_SUBSCRIBE_BATCH = 512
# Changes of subscription are gathered for this long, so that a storm of connections is not one of round trips.
_GATHER_S = 0.005
_PROBE_INTERVAL_S = 0.7
# A listener that has not heard itself for this long is deaf, whatever its connection says.
DEAF_AFTER_S = 2.0
_TURN = 64
_ORIGIN_LENGTH = 16
_MAC_LENGTH = 32

logger = structlog.get_logger(__name__)


class Bus(Protocol):
    """Carries messages between instances; never waits and never fails."""

    @property
    def healthy(self) -> bool:
        """Tell whether messages of other instances reach this one, as far as it knows."""
        ...

    def publish(self, channel: str, message: Message) -> bool:
        """Send a JSON object to every other instance that listens to the channel; False if it is too large."""
        ...

    def subscribe(self, channel: str, hear: Hear) -> None: ...

    def unsubscribe(self, channel: str) -> None: ...


class NoBus:
    """Where there is no Redis; `alone` says that there is no other process either that would have to be reached."""

    def __init__(self, *, alone: bool) -> None:
        self.healthy = alone

    def publish(self, channel: str, message: Message) -> bool:  # noqa: ARG002 - the bus's signature
        """Reach nobody."""
        return True

    def subscribe(self, channel: str, hear: Hear) -> None:
        """Hear nothing."""

    def unsubscribe(self, channel: str) -> None:
        """Hear nothing."""


class Deaf(ConnectionError):
    """The subscription is open, and nothing comes through."""


class RedisBus:
    """The bus over Redis. `run` sends and, where somebody `listens`, receives; it finds its way back after an outage.

    `on_heard` is called when channels have begun to be heard, at first or again: what was said before was missed.
    """

    def __init__(self, redis: Redis, key: bytes, *, listens: bool, meter: Meter) -> None:
        self._redis = redis
        self._key = key
        self._listens = listens
        self._meter = meter
        self._origin = secrets.token_hex(_ORIGIN_LENGTH // 2).encode()
        self._probe_channel = f"erpmax:probe:{self._origin.decode()}"
        self._outbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_QUEUE_LIMIT)
        self._wanted: dict[str, Hear] = {}
        self._foreign: dict[str, Callable[[bytes], None]] = {}
        self._subscribed: set[str] = set()
        self._changed = asyncio.Event()
        self._probe_heard_at: float | None = None
        self.on_heard: Callable[[], None] = lambda: None

    @property
    def healthy(self) -> bool:
        return self.probe_age_s() < DEAF_AFTER_S

    def probe_age_s(self) -> float:
        """Return how long ago this instance last heard itself; infinite while it does not listen."""
        if self._probe_heard_at is None:
            return float("inf")
        return asyncio.get_running_loop().time() - self._probe_heard_at

    def publish(self, channel: str, message: Message) -> bool:
        body = json.dumps(message)
        if len(body) > MESSAGE_LIMIT:
            self._meter.bus_messages["too_large"] += 1
            return False
        self._put(channel, self._origin + body)
        return True

    def send(self, channel: str, message: bytes) -> None:
        """Send what is not ours to sign, in a form that others have defined."""
        self._enqueue(channel, message)

    def subscribe(self, channel: str, hear: Hear) -> None:
        self._wanted[channel] = hear
        self._changed.set()

    def overhear(self, channel: str, hear: Callable[[bytes], None]) -> None:
        """Listen to a channel on which others speak, unsigned and in their own form."""
        self._foreign[channel] = hear
        self._changed.set()

    def unsubscribe(self, channel: str) -> None:
        self._wanted.pop(channel, None)
        self._foreign.pop(channel, None)
        self._changed.set()

    async def run(self) -> None:
        """Send and listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            if self._listens:
                tasks.create_task(self._listen())

    # Sending

    def _put(self, channel: str, signed: bytes) -> None:
        self._enqueue(channel, self._mac(channel, signed) + signed)

    def _enqueue(self, channel: str, message: bytes) -> None:
        try:
            self._outbox.put_nowait((channel, message))
        except asyncio.QueueFull:
            # Redis has been away for long; the log delivers meanwhile.
            self._meter.bus_messages["dropped"] += 1

    def _mac(self, channel: str, signed: bytes) -> bytes:
        # The channel is part of it, or a message could be played to another tenant's people.
        mac = hashlib.blake2b(channel.encode(), key=self._key, digest_size=_MAC_LENGTH // 2, person=b"bus")
        mac.update(signed)
        return mac.hexdigest().encode()

    async def _send(self) -> None:
        while True:
            batch = [await self._outbox.get()]
            while len(batch) < _SEND_BATCH and not self._outbox.empty():
                batch.append(self._outbox.get_nowait())
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for channel, message in batch:
                        await pipeline.publish(channel, message)
                    await pipeline.execute()
                self._meter.bus_messages["sent"] += len(batch)
            except (RedisError, OSError) as error:
                self._meter.bus_messages["not_sent"] += len(batch)
                logger.warning("bus message not sent", error=repr(error), count=len(batch))
            if stopping():
                raise asyncio.CancelledError

    # Listening

    async def _listen(self) -> None:
        attempt = 0
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await self._attend(subscription)
            except (RedisError, OSError) as error:
                if self._probe_heard_at is not None:
                    attempt = 0
                logger.warning("bus cannot be heard", error=repr(error))
            finally:
                self._probe_heard_at = None
                self._subscribed.clear()
            if stopping():
                raise asyncio.CancelledError
            attempt += 1
            await asyncio.sleep(full_jitter_s(attempt, base_s=0.1, cap_s=1.0))

    async def _attend(self, subscription: PubSub) -> None:
        await subscription.subscribe(self._probe_channel)
        self._changed.set()
        # Not a task group: in Python 3.11 that leaves its task marked as cancelled when one of the group has failed.
        works = (self._receive(subscription), self._keep_subscribed(subscription), self._probe())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, subscription: PubSub) -> None:
        turn = 0
        async for message in subscription.listen():
            if message["type"] == "message":
                self._hear(message["channel"].decode(), message["data"])
            elif message["type"] == "subscribe":
                self.on_heard()
            turn += 1
            if turn % _TURN == 0:
                # A reader whose buffer is never empty would otherwise never let go of the loop.
                await asyncio.sleep(0)

    def _hear(self, channel: str, data: bytes) -> None:
        if channel in self._foreign:
            self._foreign[channel](data)
            return
        mac, signed = data[:_MAC_LENGTH], data[_MAC_LENGTH:]
        own = signed.startswith(self._origin)
        if own and channel != self._probe_channel:
            return
        if len(data) > 2 * MESSAGE_LIMIT or not hmac.compare_digest(mac, self._mac(channel, signed)):
            self._meter.bus_messages["forged"] += 1
            logger.warning("foreign message on the bus", channel=channel)
            return
        if own:
            self._probe_heard_at = asyncio.get_running_loop().time()
            return
        hear = self._wanted.get(channel)
        if hear is None:
            return
        self._meter.bus_messages["received"] += 1
        try:
            hear(json.loads_exact(signed[_ORIGIN_LENGTH:]))
        except (ValueError, KeyError, TypeError) as error:
            # Signed by one of us, so by another release than this one.
            logger.warning("message of the bus not understood", channel=channel, error=repr(error))

    async def _keep_subscribed(self, subscription: PubSub) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_S)
            self._changed.clear()
            wanted = self._wanted.keys() | self._foreign.keys()
            for batch in _batches(wanted - self._subscribed):
                await subscription.subscribe(*batch)
                self._subscribed.update(batch)
            for batch in _batches(self._subscribed - wanted):
                await subscription.unsubscribe(*batch)
                self._subscribed.difference_update(batch)
            if stopping():
                raise asyncio.CancelledError

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            self._put(self._probe_channel, self._origin)
            await asyncio.sleep(_PROBE_INTERVAL_S)
            if loop.time() - max(since, self._probe_heard_at or 0.0) > DEAF_AFTER_S:
                raise Deaf("the subscription is silent")


def _batches(channels: Collection[str]) -> list[list[str]]:
    left = iter(channels)
    batches = []
    while batch := list(islice(left, _SUBSCRIBE_BATCH)):
        batches.append(batch)
    return batches
