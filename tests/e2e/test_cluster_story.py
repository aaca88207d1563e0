"""The main job on two web processes, a worker and a scheduler: every door of every instance tells the same story."""

import pytest
from aiohttp import ClientSession

from tests.support.listeners import Listener
from tests.support.people import company_factory
from tests.support.processes import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


async def test_the_main_job_across_two_instances(cluster: Fleet, http: ClientSession) -> None:
    one = await cluster.run("serve", "--migrate", "--seed")
    await one.ready()
    two = await cluster.run("serve", "--migrate", "--seed")
    await two.ready()
    worker = await cluster.run("worker", PUBLIC_URL=one.url)
    scheduler = await cluster.run("scheduler")

    owner = await company_factory(http, one.url)()
    here = await Listener().connect(one.url, owner.token, "/", "/provisioning", "/billing")
    there = await Listener().connect(two.url, owner.token, "/", "/ws/provisioning", "/ws/billing")
    stranger = await Listener().connect(two.url, (await company_factory(http, two.url)()).token, "/")

    await here.until(lambda: here.of("status:completed", "/"), 60)
    await there.until(lambda: there.of("status:completed", "/"), 60)
    assert here.logged("/") == there.logged("/")
    status, tenant = await owner.get("tenants/current")
    assert (status, tenant["data"]["status"]) == (200, "active")

    demo = await cluster.run("demo", "--url", two.url)
    assert await demo.ended(90) == 0, demo.log

    for body in (*here.of("status:completed"), *there.of("status:completed")):
        assert body["tenant_id"] == str(owner.tenant_id)
    mine = [body for _, _, body in stranger.heard if isinstance(body, dict) and "tenant_id" in body]
    assert str(owner.tenant_id) not in {body["tenant_id"] for body in mine}
    for listener in (here, there, stranger):
        await listener.close()
    codes = [await process.terminate() for process in (worker, scheduler, one, two)]
    assert codes == [0, 0, 0, 0], [process.log[-2000:] for process in (worker, scheduler, one, two)]
