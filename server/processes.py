"""The processes: web, worker and scheduler, each started, kept running and ended cleanly."""

import asyncio
import errno
import gc
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from aiohttp import web
from taskiq import TaskiqScheduler
from taskiq.api import run_receiver_task, run_scheduler_task
from taskiq.schedule_sources import LabelScheduleSource

from server.database import migrate
from server.http import Runner
from server.seed import seed
from server.settings import ConfigurationError, Settings
from server.stores import open_database
from server.web import create_app
from server.wiring import House, Part, build, run_background

# How many messages one worker takes up: both queues' prefetch, so that one queue cannot hold up the other.
_WORKER_TASKS = 20
# How many connections may wait to be accepted: after a crash of another instance its clients all come at once.
_BACKLOG = 4096

logger = structlog.get_logger(__name__)


async def serve(
    settings: Settings,
    *,
    migrate_first: bool,
    seed_first: bool,
    announce: Callable[[Settings, bool], None],
) -> None:
    """Serve HTTP and Socket.IO until SIGTERM; without RabbitMQ this process is worker and scheduler as well."""
    alone = not settings.rabbitmq_url.get_secret_value()
    part = Part(web=True, worker=alone, scheduler=alone)
    async with open_database(settings) as engine:
        if migrate_first:
            await migrate(engine)
        async with build(settings, engine, part) as house:
            if seed_first:
                await seed(house.units, house.services, demo=settings.development, sites=settings.demo_sites)
            async with background(house, part), listening(house, settings.host, settings.port):
                announce(settings, seed_first)
                await stop_signal()
                logger.info("stopping")


async def work(settings: Settings) -> None:
    """Run tasks from the queue until SIGTERM."""
    await _run_part(settings, Part(worker=True))


async def schedule(settings: Settings) -> None:
    """Send the periodic tasks until SIGTERM."""
    await _run_part(settings, Part(scheduler=True))


async def _run_part(settings: Settings, part: Part) -> None:
    async with open_database(settings) as engine, build(settings, engine, part) as house, background(house, part):
        logger.info("started", worker=part.worker, scheduler=part.scheduler)
        await stop_signal()
        logger.info("stopping")


@asynccontextmanager
async def listening(house: House, host: str, port: int) -> AsyncIterator[int]:
    """Serve a house on an address and yield the port, which is chosen by the system when 0 is asked for."""
    runner = Runner(create_app(house), shutdown_timeout=house.settings.shutdown_grace_s)
    async with AsyncExitStack() as stack:
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, host, port, reuse_address=True, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(_not_listening(host, port, error)) from error
        stack.push_async_callback(_drain, house)
        house.sockets.start()
        # What start-up made lives as long as the process: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        yield runner.addresses[0][1]


def _not_listening(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"PORT={port} is in use by another program on {host}. "
            "Stop that program, or choose another port, as in `PORT=8100 make run`."
        )
    return f"HOST={host}, PORT={port} cannot be listened on: {error.strerror or error}. See docs/configuration.md."


async def _drain(house: House) -> None:
    """Send nobody new here, and those who are here elsewhere, while everything still works."""
    house.readiness.draining = True
    await house.sockets.close(window_s=house.settings.socket_drain_s)


@asynccontextmanager
async def background(house: House, part: Part) -> AsyncIterator[None]:
    """Run what goes on beside the doors; a fault there ends the block with that fault.

    At the end the jobs under way are handed over first, while another worker can still be rung for them.
    """
    if part.worker and house.settings.rabbitmq_url.get_secret_value():
        house.background.append(lambda: run_receiver_task(house.broker, max_async_tasks=_WORKER_TASKS))
    if part.scheduler:
        scheduler = TaskiqScheduler(house.broker, [LabelScheduleSource(house.broker)])
        house.background.append(lambda: run_scheduler_task(scheduler))
    async with _beside(run_background(house)):
        yield
        await house.services.provisioning.stop()
        await house.ringer.drain()


@asynccontextmanager
async def _beside(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run `work` for as long as the block; when it fails the block is left with its exception."""
    owner = asyncio.current_task()
    task = asyncio.create_task(work)

    def interrupt(ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and owner is not None:
            owner.cancel()

    task.add_done_callback(interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if not task.done() or owner is None:
            raise
        owner.uncancel()
        task.result()
    finally:
        task.remove_done_callback(interrupt)
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def stop_signal() -> None:
    """Wait for SIGTERM or SIGINT; a second one ends the process in the usual, abrupt way."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    try:
        await stopped.wait()
    finally:
        for number in signals:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
