"""Whether this process can work: a look at each store it needs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from taskiq import AsyncBroker

from jobs.broker import DoorbellBroker
from realtime.bus import Bus, Deaf, RedisBus
from server.database import ping

Probe = Callable[[], Awaitable[object]]

_TIMEOUT_S = 2.0


class StoreReadiness:
    """Probes stores side by side; one that does not answer in time counts as away."""

    def __init__(self, probes: Mapping[str, Probe | None]) -> None:
        self._probes = probes
        # Set when the process has been told to stop: it works off what it has and wants nothing new.
        self.draining = False

    async def check(self) -> dict[str, str]:
        """Return the state of each store: `ok`, `not configured` or `error: <kind of fault>`."""
        states = await asyncio.gather(*(self._state(probe) for probe in self._probes.values()))
        process = {"process": "error: draining"} if self.draining else {}
        return {**dict(zip(self._probes, states, strict=True)), **process}

    async def _state(self, probe: Probe | None) -> str:
        if probe is None:
            return "not configured"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await probe()
        except Exception as error:  # noqa: BLE001
            # Readiness reports whatever is wrong by its kind only: addresses and credentials stay inside.
            return f"error: {type(error).__name__}"
        return "ok"


def store_readiness(engine: AsyncEngine, redis: Redis | None, broker: AsyncBroker, bus: Bus | None) -> StoreReadiness:
    """Return the readiness of a process that has these stores, and a bus if it listens to one."""

    async def look_at_redis() -> None:
        if redis is not None:
            await redis.ping()
        if isinstance(bus, RedisBus) and not bus.healthy:
            raise Deaf("the subscription is silent")

    async def look_at_broker() -> None:
        connection = broker.write_conn if isinstance(broker, DoorbellBroker) else None
        if connection is None or not connection.connected.is_set():
            raise ConnectionError("not connected")

    return StoreReadiness(
        {
            "database": lambda: ping(engine),
            "redis": look_at_redis if redis is not None else None,
            "rabbitmq": look_at_broker if isinstance(broker, DoorbellBroker) else None,
        }
    )
