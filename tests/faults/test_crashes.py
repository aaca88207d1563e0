"""Ends of instances under load: what a crash and a rolling restart do to many sockets, which is nothing they notice."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.rig import Plan, rig
from tests.support.node import Node
from tests.support.stores import Stores

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.slow]

# What issue 3 promises for the crash of one of two instances.
_CAUGHT_UP_S = 15.0


async def test_after_a_crash_of_one_of_two_instances_everybody_catches_up(
    node: Node, stores: Stores, folder: Path, fault_sockets: int
) -> None:
    copies = max(1, round(fault_sockets / 60))
    plan = Plan(tenants=2, copies=copies, rate=20)
    async with rig(node, folder, stores.rabbitmq_url, plan) as site:
        await site.catch_up(30)
        one, two = site.webs
        await one.kill()
        crashed_at = asyncio.get_running_loop().time()
        # Committed while many are on their way to the other instance.
        await site.grow(20)
        await site.catch_up(_CAUGHT_UP_S)
        took_s = asyncio.get_running_loop().time() - crashed_at
        await one.start()
        verdict = await site.settle()

        came_back = sum(record.greetings > 1 for record in site.crowd.records)
        print(f"\n{len(site.crowd.records)} sockets, {came_back} came back, all caught up after {took_s:.1f} s")
        assert verdict.clean, str(verdict)
        assert (one.deaths, two.deaths) == ([], [])
        assert 0 < came_back < len(site.crowd.records)


async def test_a_rolling_restart_under_load_loses_and_doubles_nothing(node: Node, stores: Stores, folder: Path) -> None:
    async with rig(node, folder, stores.rabbitmq_url, Plan(rate=130)) as site:
        await site.catch_up(30)
        codes = []
        for web in site.webs:
            codes.append(await web.terminate())
            await web.start()
            await web.ready()
        verdict = await site.settle()

        print(f"\n{verdict}")
        assert verdict.clean, str(verdict)
        assert codes == [0, 0]
        assert site.deaths == []
        assert all(record.greetings > 1 for record in site.crowd.records)
