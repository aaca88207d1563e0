"""The oracle itself: it sees every kind of fault in a record, and a server that really loses events does not pass."""

import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.oracle import Logged, Record, Verdict, judge, owed
from tests.faults.rig import Plan, rig
from tests.support.node import Node
from tests.support.stores import Stores

_FORGETFUL = (sys.executable, str(Path(__file__).with_name("forgetful_web.py")))

TENANT, USER, OTHER = uuid4(), uuid4(), uuid4()
EVERYBODY, MINE, THEIRS = f"tenant:{TENANT}", f"tenant:{TENANT}:user:{USER}", f"tenant:{TENANT}:user:{OTHER}"
MANAGERS = f"tenant:{TENANT}:managers"
LOG = [
    Logged(1, "/billing", EVERYBODY),
    Logged(2, "/billing", EVERYBODY),
    Logged(3, "/provisioning", EVERYBODY),
    Logged(4, "/notifications", MINE),
    Logged(5, "/notifications", THEIRS),
    Logged(6, "/billing", MANAGERS),
    Logged(7, "/billing", EVERYBODY),
]


def recorded(heard: list[int], *, namespace: str = "/", manages: bool = False, start: int | None = 1) -> Record:
    return Record("socket", TENANT, USER, manages, namespace, start=start, greetings=1, heard=heard)


def verdict_on(record: Record) -> Verdict:
    return judge([record], {TENANT: LOG})


@pytest.mark.parametrize(
    ("namespace", "manages", "due"),
    [
        ("/", False, [2, 3, 4, 7]),
        ("/ws", True, [2, 3, 4, 6, 7]),
        ("/billing", False, [2, 7]),
        ("/ws/billing", True, [2, 6, 7]),
        ("/notifications", True, [4]),
    ],
    ids=["root", "root of a manager", "billing", "billing of a manager", "notifications"],
)
def test_what_a_socket_is_owed(namespace: str, manages: bool, due: list[int]) -> None:
    record = recorded(due, namespace=namespace, manages=manages)
    assert owed(record, LOG) == due
    assert verdict_on(record).clean


@pytest.mark.parametrize(
    ("heard", "fault", "numbers"),
    [
        ([2, 4, 7], "lost", [3]),
        ([2, 3, 4], "lost", [7]),
        ([2, 3, 3, 4, 7], "doubled", [3]),
        ([2, 3, 4, 7, 2], "doubled", [2]),
        ([2, 4, 3, 7], "inverted", [3]),
        ([2, 3, 4, 5, 7], "foreign", [5]),
        ([1, 2, 3, 4, 7], "foreign", [1]),
    ],
    ids=["a gap", "the end", "twice in a row", "twice with others between", "swapped", "another's", "from before"],
)
def test_each_fault_is_seen_and_called_by_its_name(heard: list[int], fault: str, numbers: list[int]) -> None:
    verdict = verdict_on(recorded(heard))
    assert not verdict.clean
    found = {kind: getattr(verdict, kind) for kind in ("lost", "doubled", "inverted", "foreign")}
    assert found == {"lost": {}, "doubled": {}, "inverted": {}, "foreign": {}, fault: {"socket": numbers}}
    assert f"{fault}: socket: {numbers[0]}" in str(verdict)


def test_a_reset_and_a_missing_greeting_are_faults() -> None:
    record = recorded([2, 3, 4, 7])
    assert not verdict_on(replace(record, resets=["pruned"])).clean
    assert verdict_on(recorded([1, 2, 3, 4, 7], start=None)).never_greeted == ["socket"]


@pytest.mark.cluster
@pytest.mark.node
@pytest.mark.slow
async def test_without_gap_repair_losses_are_reported_and_spoilt_records_are_too(
    node: Node, stores: Stores, folder: Path
) -> None:
    """Redis dies for a moment: what the worker rang meanwhile reaches nobody, because nobody reads the log."""
    plan = Plan(tenants=1, rate=40, web=_FORGETFUL)
    async with rig(node, folder, stores.rabbitmq_url, plan) as site:
        await site.grow(40)
        before = len((await site.logs())[site.members[0].tenant_id])
        await site.redis.kill()
        await site.grow(40)
        await site.redis.start()
        for web in site.webs:
            await web.ready()
        await site.grow(40)
        verdict = await site.settle(patience_s=3)

        print(f"\n{verdict}")
        everything = [record for record in site.crowd.records if record.namespace in {"/", "/ws"}]
        assert {record.socket for record in everything} <= set(verdict.lost)
        assert min(seq for lost in verdict.lost.values() for seq in lost) > before - 40
        assert (verdict.doubled, verdict.inverted, verdict.foreign, verdict.reset) == ({}, {}, {}, {})

        logs = await site.logs()
        for record in everything:
            first, second, *rest = record.heard
            doubled, swapped = replace(record, heard=[first, *record.heard]), [second, first, *rest]
            assert judge([doubled], logs).doubled == {record.socket: [first]}
            assert judge([replace(record, heard=swapped)], logs).inverted == {record.socket: [first]}
