"""Messages on the queue: doorbells that name a row, in the form the first ancestor's queue had (contract.md 5.3).

A provisioning message is `{"job_id": "<uuid>"}`; every other task is `{"task": name, "row_id": "<uuid>"}`, without
`row_id` for sweeps. The row holds the truth, so a message may be lost or come twice.
"""

from typing import Any
from uuid import UUID, uuid4

from taskiq import BrokerMessage, TaskiqMessage
from taskiq.abc.formatter import TaskiqFormatter

from core import json

PROVISIONING_TASK = "provisioning.run"


class PoisonedMessage(ValueError):
    """The message names nothing that could be run."""


class DoorbellFormatter(TaskiqFormatter):
    """Writes and reads the small JSON messages of our queues in place of taskiq's own."""

    def dumps(self, message: TaskiqMessage) -> BrokerMessage:
        return BrokerMessage(
            task_id=message.task_id,
            task_name=message.task_name,
            message=json.dumps(_body(message)),
            labels=message.labels,
        )

    def loads(self, message: bytes) -> TaskiqMessage:
        """Read a message; raises PoisonedMessage when it names nothing that could be run."""
        task_name, arguments = read_doorbell(message)
        return TaskiqMessage(task_id=uuid4().hex, task_name=task_name, labels={}, args=[], kwargs=arguments)


def _body(message: TaskiqMessage) -> dict[str, Any]:
    if message.task_name == PROVISIONING_TASK:
        return {"job_id": message.kwargs["row_id"]}
    return {"task": message.task_name, **message.kwargs}


def _task_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError("a task has a name")
    return name


def read_doorbell(message: bytes) -> tuple[str, dict[str, str]]:
    """Return the task's name and arguments; raises PoisonedMessage."""
    try:
        body = json.loads(message)
        if "job_id" in body:
            return PROVISIONING_TASK, {"row_id": str(UUID(body["job_id"]))}
        arguments = {"row_id": str(UUID(body["row_id"]))} if "row_id" in body else {}
        return _task_name(body["task"]), arguments
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PoisonedMessage("not a doorbell") from error
