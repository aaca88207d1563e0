"""The product as `orchestrator serve` runs it, with one more door: orders on standard input.

    python -m bench.realtime.host TENANT_ID

Each order is a JSON object a line, `{"do": ...}`, and each is answered by one once it has been carried out; the peer
(`peer/server.mjs`) understands the same ones:

    publish   say `count` events of `size` bytes to `room`, `rate` a second (0: as fast as it goes); `way` is `bus`
              (to this instance and, through Redis, to the others), `here` (this instance only) or `log` (recorded in
              units of work of `batch` events each)
    stop      end publishing before its count is reached
    memory    collect garbage, so that what is left can be measured from outside
    await     wait until there are `count` clients
    watch     begin to watch the loop; `longest` tells for how many milliseconds it was held up at most since then
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from bench.realtime.events import NAME, NAMESPACE, Beat, body, logged_pad
from core.logging import configure_logging
from server.cli import new_event_loop
from server.processes import background, listening
from server.settings import load_settings
from server.stores import open_database
from server.wiring import House, Part, build
from services.unit_of_work import TenantScope

_WATCH_S = 0.005
_GLANCE_S = 0.01

# An order's details, and as well its answer.
Order = dict[str, Any]


class LoopWatch:
    """Measures by how much a timer of the loop comes late."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._longest_s = 0.0
        if self._timer is None:
            self._again()

    def longest_ms(self) -> float:
        return self._longest_s * 1000

    def _again(self) -> None:
        # Not by the loop's own time, which stands still for as long as the loop is held up.
        due = time.monotonic() + _WATCH_S
        self._timer = asyncio.get_running_loop().call_later(_WATCH_S, self._look, due)

    def _look(self, due: float) -> None:
        self._longest_s = max(self._longest_s, time.monotonic() - due)
        self._again()


class Orders:
    """Carries out what standard input asks for."""

    def __init__(self, house: House, tenant_id: UUID) -> None:
        self._house = house
        self._tenant_id = tenant_id
        self._watch = LoopWatch()
        self._stopped = asyncio.Event()
        self._table: Mapping[str, Callable[..., Awaitable[Order]]] = {
            "publish": self._publish,
            "stop": self._stop,
            "memory": self._collect,
            "await": self._await_clients,
            "watch": self._begin_watch,
            "longest": self._longest,
        }

    async def run(self) -> None:
        """Carry out orders, several at a time, until standard input ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with asyncio.TaskGroup() as tasks:
            while line := await reader.readline():
                tasks.create_task(self._carry_out(json.loads(line)))
            self._stopped.set()

    async def _carry_out(self, order: Order) -> None:
        what = order.pop("do")
        try:
            tell(await self._table[what](**order))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the benchmark is told and ends
            tell({"failure": f"{what}: {error!r}"})

    async def _publish(self, *, count: int, rate: float, size: int, room: str, way: str, batch: int = 1) -> Order:
        self._stopped.clear()
        began = time.monotonic()
        said = 0
        while said < count and not self._stopped.is_set():
            await self._say(range(said, min(count, said + batch)), size, room, way)
            said = min(count, said + batch)
            await asyncio.sleep(max(0.0, began + said / rate - time.monotonic()) if rate else 0)
        return {"said": said, "took_s": time.monotonic() - began}

    async def _say(self, numbers: range, size: int, room: str, way: str) -> None:
        if way == "log":
            async with self._house.units(TenantScope(self._tenant_id)) as uow:
                for number in numbers:
                    fields = {**body(number, 0), "pad": logged_pad(size)}
                    uow.record(Beat(tenant_id=self._tenant_id, **fields))
            return
        for number in numbers:
            await self._house.sockets.sio.emit(
                NAME, body(number, size), room=room, namespace=NAMESPACE, ignore_queue=way == "here"
            )

    async def _stop(self) -> Order:
        self._stopped.set()
        return {}

    async def _collect(self) -> Order:
        gc.collect()
        return {}

    async def _await_clients(self, *, count: int) -> Order:
        members = self._house.sockets.sio.manager.members
        # Looked at from time to time, because an event would have to be set where the product knows of no benchmark.
        while len(members.get(NAMESPACE, ())) != count:  # noqa: ASYNC110
            await asyncio.sleep(_GLANCE_S)
        return {}

    async def _begin_watch(self) -> Order:
        self._watch.begin()
        return {}

    async def _longest(self) -> Order:
        return {"ms": self._watch.longest_ms()}


def tell(answer: dict[str, Any]) -> None:
    """Write one answer."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


async def main(tenant_id: UUID) -> None:
    """Serve until standard input ends; what is built here is what `server.processes.serve` builds."""
    settings = load_settings()
    configure_logging(level=settings.log_level, as_json=False)
    part = Part(web=True, worker=True, scheduler=True)
    async with (
        open_database(settings) as engine,
        build(settings, engine, part) as house,
        background(house, part),
        listening(house, settings.host, settings.port) as port,
    ):
        tell({"port": port})
        await Orders(house, tenant_id).run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(UUID(sys.argv[1])))
