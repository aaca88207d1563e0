"""Messages: the exact bytes of the first ancestor's queue, and everything else told apart as poison."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from taskiq import TaskiqMessage

from jobs.doorbell import DoorbellFormatter, PoisonedMessage, read_doorbell

ROW = UUID("11111111-2222-3333-4444-555555555555")

POISON = {
    "nothing": b"",
    "space": b" ",
    "half an object": b'{"job_id"',
    "text": b"provisioning.run",
    "quoted text": b'"job_id"',
    "a number": b"5",
    "null": b"null",
    "a list": b'["job_id"]',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "other keys": b'{"id": "11111111-2222-3333-4444-555555555555"}',
    "a job without an id": b'{"job_id": null}',
    "a job by number": b'{"job_id": 7}',
    "a job by name": b'{"job_id": "first"}',
    "a job in a list": b'{"job_id": ["11111111-2222-3333-4444-555555555555"]}',
    "a row by number": b'{"task": "mail.send", "row_id": 7}',
    "a row without an id": b'{"task": "mail.send", "row_id": null}',
    "a row without a task": b'{"row_id": "11111111-2222-3333-4444-555555555555"}',
    "no task": b'{"task": null}',
    "a task by number": b'{"task": 7}',
    "a task in a list": b'{"task": ["mail.sweep"]}',
    "a task without a name": b'{"task": ""}',
    "another encoding": b"\xff\xfe{\x00}\x00",
    "a pickle": b"\x80\x04K\x01.",
    "a NUL": b'{"task": "mail.sweep\\u0000"}',
    "deep": b"[" * 995 + b"]" * 995,
    "deeper": b"[" * 100_000,
    "taskiq's own": b'{"task_id":"x","task_name":"mail.sweep","labels":{},"args":[],"kwargs":{}}',
}


def message(task_name: str, **kwargs: Any) -> TaskiqMessage:
    return TaskiqMessage(task_id="t", task_name=task_name, labels={"queue_name": "q"}, args=[], kwargs=kwargs)


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (
            message("provisioning.run", row_id=str(ROW)),
            b'{"job_id":"11111111-2222-3333-4444-555555555555"}',
        ),
        (
            message("mail.send", row_id=str(ROW)),
            b'{"task":"mail.send","row_id":"11111111-2222-3333-4444-555555555555"}',
        ),
        (message("billing.sweep"), b'{"task":"billing.sweep"}'),
    ],
)
def test_messages_are_what_the_contract_says(said: TaskiqMessage, body: bytes) -> None:
    written = DoorbellFormatter().dumps(said)
    assert written.message == body
    assert (written.task_id, written.task_name, written.labels) == ("t", said.task_name, {"queue_name": "q"})
    read = DoorbellFormatter().loads(body)
    assert (read.task_name, read.kwargs, read.args, read.labels) == (said.task_name, said.kwargs, [], {})


def test_each_delivery_is_a_task_of_its_own() -> None:
    formatter = DoorbellFormatter()
    assert len({formatter.loads(b'{"task":"mail.sweep"}').task_id for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "body",
    [
        b'{ "job_id" : "11111111-2222-3333-4444-555555555555" }\n',
        b'{"job_id":"11111111222233334444555555555555"}',
        b'{"job_id":"11111111-2222-3333-4444-555555555555","attempt":3}',
        b'{"job_id":"11111111-2222-3333-4444-555555555555","task":"mail.send"}',
    ],
)
def test_other_writers_are_understood(body: bytes) -> None:
    assert read_doorbell(body) == ("provisioning.run", {"row_id": str(ROW)})


@pytest.mark.parametrize("body", POISON.values(), ids=POISON.keys())
def test_poison_is_told_apart(body: bytes) -> None:
    with pytest.raises(PoisonedMessage):
        read_doorbell(body)
    with pytest.raises(PoisonedMessage):
        DoorbellFormatter().loads(body)


def test_an_id_of_any_version_is_one() -> None:
    row_id = uuid4()
    assert read_doorbell(b'{"task":"x","row_id":"%s"}' % str(row_id).upper().encode()) == ("x", {"row_id": str(row_id)})
