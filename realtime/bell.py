"""Bells: how a process tells the others that a tenant's stream has grown.

A bell may be lost or rung twice without harm (see `realtime.follower`), so ringing never waits and never fails.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Any, Protocol
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core import json
from core.backoff import full_jitter_s
from realtime.log import NumberedEvent

Hear = Callable[[UUID, int, Sequence[NumberedEvent]], None]

CHANNEL = "erpmax:bell"
# A larger message carries only the head; its hearers read the log.
_MESSAGE_LIMIT = 64 * 1024
_QUEUE_LIMIT = 10_000

logger = structlog.get_logger(__name__)


class Bell(Protocol):
    """Rings after a commit; `healthy` is False while hearers should look at the log more often."""

    @property
    def healthy(self) -> bool: ...

    def ring(self, events: Sequence[NumberedEvent]) -> None: ...


class LocalBell:
    """Reaches the follower of this process only; `alone` says that there is no other process to reach."""

    def __init__(self, hear: Hear | None, *, alone: bool) -> None:
        self._hear = hear
        self.healthy = alone

    def ring(self, events: Sequence[NumberedEvent]) -> None:
        if self._hear is not None:
            tell(self._hear, events)


def tell(hear: Hear, events: Sequence[NumberedEvent]) -> None:
    """Pass events on, tenant by tenant; `events` are sorted by tenant and number."""
    for tenant_id, group in groupby(events, key=lambda event: event.tenant_id):
        batch = list(group)
        hear(tenant_id, batch[-1].seq, batch)


class RedisBell:
    """Reaches this process at once and every other over one Redis channel.

    `run` sends and, when there is a follower to tell, listens; both find their way back after an outage.
    """

    def __init__(self, redis: Redis, hear: Hear | None, *, on_return: Callable[[], None] = lambda: None) -> None:
        self._redis = redis
        self._hear = hear
        self._on_return = on_return
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE_LIMIT)
        self.healthy = False

    def ring(self, events: Sequence[NumberedEvent]) -> None:
        if self._hear is not None:
            tell(self._hear, events)
        for _, group in groupby(events, key=lambda event: event.tenant_id):
            # A full queue means that Redis has been away for long; the head checks deliver meanwhile.
            with suppress(asyncio.QueueFull):
                self._outbox.put_nowait(encode(list(group)))

    async def run(self) -> None:
        """Send and listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            if self._hear is not None:
                tasks.create_task(self._listen(self._hear))

    async def _send(self) -> None:
        while True:
            message = await self._outbox.get()
            try:
                await self._redis.publish(CHANNEL, message)
            except (RedisError, OSError) as error:
                logger.warning("bell not rung", error=repr(error))

    async def _listen(self, hear: Hear) -> None:
        attempt = 0
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(CHANNEL)
                    attempt = 0
                    self.healthy = True
                    # Bells were missed while nobody listened.
                    self._on_return()
                    async for message in subscription.listen():
                        _hear_message(hear, message["data"])
            except (RedisError, OSError) as error:
                logger.warning("bell cannot be heard", error=repr(error))
            finally:
                self.healthy = False
            attempt += 1
            await asyncio.sleep(full_jitter_s(attempt, base_s=0.1, cap_s=2.0))


def encode(events: Sequence[NumberedEvent]) -> bytes:
    """Encode one tenant's consecutive events for the bus: `{tenant, head, events: [...]}`."""
    body: dict[str, Any] = {"tenant": events[0].tenant_id, "head": events[-1].seq}
    full = json.dumps({**body, "events": [_event_fields(event) for event in events]})
    return full if len(full) <= _MESSAGE_LIMIT else json.dumps({**body, "events": []})


def decode(message: bytes) -> tuple[UUID, int, list[NumberedEvent]]:
    """Read what `encode` wrote; raises ValueError, KeyError or TypeError when it is something else."""
    body = json.loads_exact(message)
    tenant_id = UUID(str(body["tenant"]))
    events = [
        NumberedEvent(
            id=UUID(str(fields["id"])),
            tenant_id=tenant_id,
            namespace=fields["namespace"],
            room=fields["room"],
            name=fields["name"],
            payload=fields["payload"],
            created_at=datetime.fromisoformat(fields["created_at"]),
            seq=fields["seq"],
        )
        for fields in body["events"]
    ]
    return tenant_id, int(body["head"]), events


def _event_fields(event: NumberedEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "namespace": event.namespace,
        "room": event.room,
        "name": event.name,
        "payload": event.payload,
        "created_at": event.created_at,
        "seq": event.seq,
    }


def _hear_message(hear: Hear, message: bytes) -> None:
    try:
        tenant_id, head, events = decode(message)
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("foreign message on the bell's channel", error=repr(error))
        return
    hear(tenant_id, head, events)
