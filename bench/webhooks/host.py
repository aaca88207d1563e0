"""The product as `orchestrator serve` and `orchestrator worker` run it, until standard input ends.

    python -m bench.webhooks.host web|worker|scheduler ...

With `web` it tells its port, else that it has begun.
"""

import asyncio
import json
import sys
from collections.abc import Collection
from contextlib import AsyncExitStack

from core.logging import configure_logging
from server.cli import new_event_loop
from server.processes import background, listening
from server.settings import load_settings
from server.stores import open_database
from server.wiring import Part, build


async def main(parts: Collection[str]) -> None:
    """Run the parts that are named; what is built here is what `server.processes` builds."""
    settings = load_settings()
    configure_logging(level=settings.log_level, as_json=False)
    part = Part(web="web" in parts, worker="worker" in parts, scheduler="scheduler" in parts)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_database(settings))
        house = await stack.enter_async_context(build(settings, engine, part))
        await stack.enter_async_context(background(house, part))
        port = 0
        if part.web:
            port = await stack.enter_async_context(listening(house, settings.host, settings.port))
        sys.stdout.write(f"{json.dumps({'port': port})}\n")
        sys.stdout.flush()
        # Nobody says anything more; the end of the input is the order to go.
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(sys.argv[1:]))
