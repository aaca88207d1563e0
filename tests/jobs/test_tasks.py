"""Tasks and the ringer, in one process: every name reaches its service, and ringing neither waits nor fails."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs
from taskiq import AsyncBroker

from jobs import ringer as ringers
from jobs.broker import create_broker
from jobs.ringer import BrokerRinger
from jobs.tasks import register
from services.registry import Services
from services.unit_of_work import Task

QUEUES = {"provisioning_queue": "erpmax.provisioning", "tasks_queue": "erpmax.tasks"}
ROW_TASKS = {
    *("provisioning.run", "billing.apply", "billing.apply_merchants", "merchants.look", "mail.send", "phones.send"),
    *("reconciling.poll", "reconciling.read", "reconciling.read_merchants", "reconciling.run"),
}
SWEEPS = {
    *("provisioning.sweep", "billing.sweep", "mail.sweep", "phones.sweep", "sso.sweep", "tenants.sweep"),
    *("api_keys.prune", "attempts.prune", "auth.prune", "billing.prune", "history.prune", "phones.prune"),
    *("entitlements.sweep", "merchants.sweep", "reconciling.sweep"),
}


class Diary:
    """Stands for the services and writes down what was asked of them."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, UUID | None]] = []
        self.fault: Exception | None = None

    def services(self) -> Services:
        nouns: dict[str, dict[str, Any]] = {}
        for name in ROW_TASKS | SWEEPS:
            noun, verb = name.split(".")
            nouns.setdefault(noun, {})[verb] = self._method(name)
        return cast(Services, SimpleNamespace(**{noun: SimpleNamespace(**verbs) for noun, verbs in nouns.items()}))

    def _method(self, name: str) -> Callable[..., Any]:
        async def method(row_id: UUID | None = None) -> str:
            self.entries.append((name, row_id))
            if self.fault is not None:
                raise self.fault
            return "a result that nobody may need to store"

        return method


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
async def broker(diary: Diary) -> AsyncIterator[AsyncBroker]:
    broker = create_broker("", **QUEUES)
    register(broker, diary.services(), **QUEUES)
    await broker.startup()
    yield broker
    await broker.shutdown()


@pytest.fixture
async def ringer(broker: AsyncBroker) -> AsyncIterator[BrokerRinger]:
    ringer = BrokerRinger(broker)
    running = asyncio.create_task(ringer.run())
    yield ringer
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def test_every_task_is_known_with_its_queue_and_its_hours(broker: AsyncBroker) -> None:
    tasks = broker.get_all_tasks()
    assert set(tasks) == ROW_TASKS | SWEEPS
    queues = {name: task.labels["queue_name"] for name, task in tasks.items()}
    assert queues.pop("provisioning.run") == "erpmax.provisioning"
    assert set(queues.values()) == {"erpmax.tasks"}
    hours = {name: task.labels["schedule"] for name, task in tasks.items() if "schedule" in task.labels}
    every = {name: 600 if name.endswith(".prune") else 10 for name in SWEEPS}
    every |= {"tenants.sweep": 60, "entitlements.sweep": 60, "billing.prune": 3600}
    assert hours == {name: [{"interval": every[name], "schedule_id": name}] for name in SWEEPS}


@pytest.mark.parametrize("name", sorted(ROW_TASKS))
async def test_a_rung_row_reaches_its_service(ringer: BrokerRinger, diary: Diary, name: str) -> None:
    row_id = uuid4()
    ringer.ring(Task(name, row_id))
    await until(lambda: diary.entries)
    assert diary.entries == [(name, row_id)]


@pytest.mark.parametrize("name", sorted(SWEEPS))
async def test_a_sweep_reaches_its_service(broker: AsyncBroker, diary: Diary, name: str) -> None:
    task = broker.find_task(name)
    assert task is not None
    await task.kicker().kiq()
    await until(lambda: diary.entries)
    assert diary.entries == [(name, None)]


async def test_a_failing_task_harms_no_other(ringer: BrokerRinger, diary: Diary) -> None:
    diary.fault = RuntimeError("planted")
    ringer.ring(Task("mail.send", uuid4()))
    await until(lambda: diary.entries)
    diary.fault = None
    ringer.ring(Task("mail.send", uuid4()))
    await until(lambda: len(diary.entries) == 2)


async def test_an_unknown_task_does_not_end_the_ringing(ringer: BrokerRinger, diary: Diary) -> None:
    with capture_logs() as logs:
        ringer.ring(Task("no.such", uuid4()))
        ringer.ring(Task("mail.send", uuid4()))
        await until(lambda: diary.entries)
    (line,) = [line for line in logs if line["event"] == "doorbell not rung"]
    assert (line["task"], line["log_level"]) == ("no.such", "warning")


async def test_ringing_never_waits(broker: AsyncBroker, diary: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the doorbells; what does not fit is left to the sweeps."""
    monkeypatch.setattr(ringers, "_QUEUE_LIMIT", 3)
    ringer = BrokerRinger(broker)
    for _ in range(10):
        ringer.ring(Task("mail.send", uuid4()))
    running = asyncio.create_task(ringer.run())
    await until(lambda: len(diary.entries) == 3)
    await asyncio.sleep(0.05)
    assert len(diary.entries) == 3
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_broker_that_does_not_answer_is_given_up_on(
    broker: AsyncBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ringers, "_TIMEOUT_S", 0.05)

    async def hang(*_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(broker, "kick", hang)
    ringer = BrokerRinger(broker)
    running = asyncio.create_task(ringer.run())
    with capture_logs() as logs:
        for _ in range(2):
            ringer.ring(Task("mail.send", uuid4()))
        await until(lambda: len(logs) == 2)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
