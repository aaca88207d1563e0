"""The promise of realtime.md under fire: nothing lost, nothing doubled, one order, whatever is broken, and when.

A short run is a part of the suite; `pytest tests/faults --deployment=cluster --fault-seconds=600 --fault-seed=7` is
a long one. The seed is printed; given again, it breaks the same things in the same order.
"""

from pathlib import Path

import pytest

from tests.faults.injector import Injector
from tests.faults.rig import Plan, rig
from tests.support.node import Node
from tests.support.stores import Stores

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.slow]

_RATE = 130


async def test_every_socket_hears_what_it_is_owed_whatever_breaks(
    node: Node, stores: Stores, folder: Path, fault_seconds: float, fault_seed: int
) -> None:
    print(f"\nfault seed {fault_seed}, {fault_seconds:.0f} s")
    async with rig(node, folder, stores.rabbitmq_url, Plan(rate=_RATE)) as site:
        assert len(site.crowd.records) >= 100
        injector = Injector(site, fault_seed)
        await injector.run(fault_seconds)
        # What could not be written during an outage is made up for.
        wanted = 100 * fault_seconds
        await site.grow_to(wanted)
        verdict = await site.settle()

        diary = "\n".join(injector.diary)
        came_back = sum(record.greetings - 1 for record in site.crowd.records)
        print(f"{diary}\n{verdict}\n{len(site.crowd.records)} sockets came back {came_back} times")
        assert verdict.clean, f"seed {fault_seed}\n{diary}\n{verdict}"
        assert site.deaths == []
        assert verdict.owed > wanted
        assert came_back > len(site.crowd.records)
        assert sum(record.unrecovered for record in site.crowd.records) == 0
