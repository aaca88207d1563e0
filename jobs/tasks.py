"""The tasks a worker knows: each calls one service, and each may be run twice or at the same time elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from taskiq import AsyncBroker

from jobs.doorbell import PROVISIONING_TASK
from services.registry import Services

_EVENTS_TASK = "billing.apply"
_POLL_TASK = "reconciling.poll"
_FEED_TASK = "reconciling.read"
_MERCHANTS_FEED_TASK = "reconciling.read_merchants"
_RECONCILE_TASK = "reconciling.run"
_MERCHANTS_TASK = "billing.apply_merchants"
# How often each sweep looks for rows whose doorbell or worker was lost, and how often the log is pruned, in seconds.
_SWEEP_INTERVAL_S = 10
_PRUNE_INTERVAL_S = 600
_TENANTS_INTERVAL_S = 60
# What is kept for days and has no index by age is looked through less often.
_DAYS_OLD_INTERVAL_S = 3600
# How many provisioning jobs, events of payment providers, and other tasks one worker carries out side by side.
_JOBS_AT_ONCE = 8
_EVENTS_AT_ONCE = 4
_OTHERS_AT_ONCE = 4
# How many purchases are asked about, lists of providers read, and sweeps carried out, side by side.
_POLLS_AT_ONCE = 4
_FEEDS_AT_ONCE = 6
_RECONCILIATIONS_AT_ONCE = 2
# They are due in the same second; all at once they would hold up the sockets of a server that is its own worker.
_SWEEPS_AT_ONCE = 2
# Codes that wait for a slow messenger must not hold up payments and mails, nor these them.
_CODES_AT_ONCE = 8


def register(broker: AsyncBroker, services: Services, *, provisioning_queue: str, tasks_queue: str) -> None:
    """Teach `broker` every task, bound to `services`."""
    rows: dict[str, Callable[[UUID], Awaitable[object]]] = {
        PROVISIONING_TASK: services.provisioning.run,
        _EVENTS_TASK: services.billing.apply,
        _POLL_TASK: services.reconciling.poll,
        _FEED_TASK: services.reconciling.read,
        _MERCHANTS_FEED_TASK: services.reconciling.read_merchants,
        _RECONCILE_TASK: services.reconciling.run,
        _MERCHANTS_TASK: services.billing.apply_merchants,
        "merchants.look": services.merchants.look,
        "mail.send": services.mail.send,
        "phones.send": services.phones.send,
    }
    sweeps: dict[str, tuple[Callable[[], Awaitable[object]], int]] = {
        "provisioning.sweep": (services.provisioning.sweep, _SWEEP_INTERVAL_S),
        "billing.sweep": (services.billing.sweep, _SWEEP_INTERVAL_S),
        "billing.prune": (services.billing.prune, _DAYS_OLD_INTERVAL_S),
        "reconciling.sweep": (services.reconciling.sweep, _SWEEP_INTERVAL_S),
        "merchants.sweep": (services.merchants.sweep, _SWEEP_INTERVAL_S),
        "mail.sweep": (services.mail.sweep, _SWEEP_INTERVAL_S),
        "phones.sweep": (services.phones.sweep, _SWEEP_INTERVAL_S),
        "phones.prune": (services.phones.prune, _PRUNE_INTERVAL_S),
        "sso.sweep": (services.sso.sweep, _SWEEP_INTERVAL_S),
        "tenants.sweep": (services.tenants.sweep, _TENANTS_INTERVAL_S),
        "api_keys.prune": (services.api_keys.prune, _PRUNE_INTERVAL_S),
        "entitlements.sweep": (services.entitlements.sweep, _TENANTS_INTERVAL_S),
        "history.prune": (services.history.prune, _PRUNE_INTERVAL_S),
        "attempts.prune": (services.attempts.prune, _PRUNE_INTERVAL_S),
        "auth.prune": (services.auth.prune, _PRUNE_INTERVAL_S),
    }
    # In one process nothing else bounds how many tasks run at once, and each may hold a connection.
    others = asyncio.Semaphore(_OTHERS_AT_ONCE)
    at_once = {
        PROVISIONING_TASK: asyncio.Semaphore(_JOBS_AT_ONCE),
        # An event may wait for a provider that is slow, which must keep nobody else waiting.
        _EVENTS_TASK: asyncio.Semaphore(_EVENTS_AT_ONCE),
        # Whoever asks providers waits for them; those who are told must not wait for those who ask.
        _POLL_TASK: asyncio.Semaphore(_POLLS_AT_ONCE),
        _FEED_TASK: asyncio.Semaphore(_FEEDS_AT_ONCE),
        _RECONCILE_TASK: asyncio.Semaphore(_RECONCILIATIONS_AT_ONCE),
        # And merchants' own servers may be slow on purpose: they wait for each other alone.
        **dict.fromkeys((_MERCHANTS_TASK, "merchants.look"), asyncio.Semaphore(_EVENTS_AT_ONCE)),
        _MERCHANTS_FEED_TASK: asyncio.Semaphore(_FEEDS_AT_ONCE),
        "phones.send": asyncio.Semaphore(_CODES_AT_ONCE),
    }
    for name, work in rows.items():
        provisioning = name == PROVISIONING_TASK
        task = _on_row(work, at_once.get(name, others))
        broker.register_task(task, task_name=name, queue_name=provisioning_queue if provisioning else tasks_queue)
    sweeping = asyncio.Semaphore(_SWEEPS_AT_ONCE)
    for name, (sweep, interval_s) in sweeps.items():
        schedule = [{"interval": interval_s, "schedule_id": name}]
        broker.register_task(_on_schedule(sweep, sweeping), task_name=name, schedule=schedule, queue_name=tasks_queue)


def _on_row(work: Callable[[UUID], Awaitable[object]], at_once: asyncio.Semaphore) -> Callable[[str], Awaitable[None]]:
    async def task(row_id: str) -> None:
        async with at_once:
            await work(UUID(row_id))

    return task


def _on_schedule(sweep: Callable[[], Awaitable[object]], at_once: asyncio.Semaphore) -> Callable[[], Awaitable[None]]:
    async def task() -> None:
        async with at_once:
            await sweep()

    return task
