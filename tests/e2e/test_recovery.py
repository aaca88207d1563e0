"""npm's socket.io-client outlives the instance that it was connected to: nothing was kept there but its connection."""

import pytest
from aiohttp import ClientSession

from tests.namespaces.deploying import door_to
from tests.support.ears import open_ears
from tests.support.listeners import Listener
from tests.support.node import Node
from tests.support.people import Person, company_factory
from tests.support.processes import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.slow]


async def test_a_killed_instance_costs_no_event_and_no_identity(
    cluster: Fleet, http: ClientSession, node: Node
) -> None:
    survivor = await cluster.run("serve", "--migrate", "--seed")
    await survivor.ready()
    victim = await cluster.run("serve")
    await victim.ready()
    owner = await company_factory(http, survivor.url)()
    witness = await Listener().connect(survivor.url, owner.token)
    async with door_to(victim.url) as door, open_ears(node) as ears:
        ear = await ears.open(door.url, owner.token)
        await order_backup(owner)
        await ear.hears(1)
        victim.kill()
        await ear.loses_connection()
        await door.cut()
        for _ in range(3):
            await order_backup(owner)
        await door.lead_to(survivor.url)
        await ear.until(lambda: len(ear.connects) == 2)
        assert [line["recovered"] for line in ear.connects] == [False, True]
        assert len({line["id"] for line in ear.connects}) == 1
        await witness.until(lambda: len(witness.of("status:update")) >= 4)
        heard = [seq for seq, _ in witness.logged("/")]
        await ear.hears(len(heard))
        assert ear.numbers == heard
        assert ear.of("rt:reset") == []
        await ear.close()
    await witness.close()


async def order_backup(owner: Person) -> None:
    """Have something happen that the tenant's people hear of."""
    status, answer = await owner.post("provisioning/jobs", {"job_type": "backup_site"})
    assert status == 201, answer
