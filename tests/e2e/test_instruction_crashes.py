"""`kill -9` around what a provider is told to do: it does it once, and our books say so once.

Somebody cancels at an instance that dies: before Stripe is told, while it is asked, once it has done what it was told,
and before that is noted. What is left is told again by the sweep of another process.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession

from tests.e2e.test_payment_crashes import (
    PATIENCE_S,
    RE_DRIVEN_WITHIN_S,
    Point,
    Scene,
    Stage,
    Wait,
    kill,
    silence,
    statement,
)
from tests.e2e.test_payment_crashes import stage as stage  # noqa: PLC0414 - a fixture of that module's
from tests.fakes.server import Fault
from tests.support.billing import eventually
from tests.support.people import Person, address, request
from tests.support.sellers import Buyer

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

_TOLD = """
    SELECT kind, done_at, last_error, attempts,
        (SELECT count(*) FROM audit_entries WHERE tenant_id = $1 AND action = 'provider_instruction.done') AS noted,
        (SELECT count(*) FROM audit_entries WHERE tenant_id = $1 AND action = 'subscription.cancelled') AS cancelled
    FROM provider_instructions WHERE tenant_id = $1
"""


def ended(stage: Stage, subscription_id: str) -> int:
    """Count how often Stripe has ended a subscription."""
    told = stage.sellers.harnesses["stripe"].fake.events
    kind = "customer.subscription.deleted"
    return sum(event["type"] == kind and event["data"]["object"]["id"] == subscription_id for event in told)


@asynccontextmanager
async def answer_unheard(scene: Scene) -> AsyncIterator[Wait]:
    """Stop where Stripe has done what it was told, and is about to say so."""
    fake = scene.sellers.harnesses["stripe"].fake
    before = len(fake.events)
    fake.always = Fault(answer_delay_s=3600)

    async def done() -> bool:
        return len(fake.events) > before

    try:
        yield lambda: eventually(done, bool)
    finally:
        fake.always = None


# As one instruction is noted, and not as those are that it outdates.
_NOTED = b"SET done_at=$1::TIMESTAMP WITH TIME ZONE WHERE provider_instructions.id"

POINTS: tuple[Point, ...] = (
    Point("decided, before the commit", statement(b"INSERT INTO provider_instructions", b"COMMIT")),
    Point("decided, before Stripe is told", statement(b"INSERT INTO provider_instructions", b"COMMIT", answered=True)),
    Point("Stripe is told, and has not acted", silence),
    Point("Stripe has acted, which is not heard", answer_unheard),
    Point("Stripe has answered, before that is noted", statement(_NOTED)),
    Point("noted, before the commit", statement(_NOTED, b"COMMIT")),
    Point("committed, which it does not hear", statement(_NOTED, b"COMMIT", answered=True), is_done=True),
)


async def subscribed(stage: Stage, http: ClientSession) -> tuple[Buyer, str]:
    """Let somebody buy at Stripe; returns the name of the subscription there."""
    buyer = await stage.sellers.buyer(http, stage.witness.url, "stripe")
    for content in stage.sellers.pay(buyer):
        assert await stage.sellers.deliver(http, stage.witness.url, "stripe", stage.sellers.sign(buyer, content)) == 200

    async def status() -> Any:
        return (await stage.sellers.books(buyer.owner.tenant_id))["status"]

    await eventually(status, lambda seen: seen == "active", seconds=PATIENCE_S)
    subscription: str = stage.sellers.harnesses["stripe"].fake.sessions[buyer.purchase.session_id]["subscription"]
    return buyer, subscription


async def cancel(http: ClientSession, url: str, owner: Person) -> int:
    headers = {"Authorization": f"Bearer {owner.token}"}
    body = {"cancel_at_period_end": False, "reason": "too dear"}
    with suppress(ClientError):
        return (await request(http, "POST", address(url, "billing/cancel"), json=body, headers=headers))[0]
    return 0


async def kill_while_cancelling(stage: Stage, http: ClientSession, buyer: Buyer, point: Point) -> datetime:
    """Cancel at an instance that dies at a point; like anybody, once more where it was in vain."""
    victim = await (await stage.victim("serve")).ready()
    async with point.hold(Scene(stage.sellers, stage.relays, buyer)) as caught:
        cancelling = asyncio.create_task(cancel(http, victim.url, buyer.owner))
        async with asyncio.timeout(PATIENCE_S):
            await caught()
        died_at = await kill(victim)
    await cancelling
    if not await stage.sellers.ask(_TOLD, buyer.owner.tenant_id):
        assert await cancel(http, stage.witness.url, buyer.owner) == 200
    return died_at


async def test_a_provider_is_told_once_wherever_a_process_dies(stage: Stage, http: ClientSession) -> None:
    await stage.sellers.fleet.run("worker")
    buyers = [await subscribed(stage, http) for _ in POINTS]
    deaths = []
    for point, (buyer, _) in zip(POINTS, buyers, strict=True):
        try:
            deaths.append(await kill_while_cancelling(stage, http, buyer, point))
        except (TimeoutError, AssertionError) as error:
            raise AssertionError(f"{point.name}: {error!r}") from error

    async def left() -> list[Any]:
        return await stage.sellers.ask("SELECT id FROM provider_instructions WHERE done_at IS NULL")

    await eventually(left, lambda rows: not rows, seconds=RE_DRIVEN_WITHIN_S + 30)
    for point, (buyer, subscription), died_at in zip(POINTS, buyers, deaths, strict=True):
        (told,) = await stage.sellers.ask(_TOLD, buyer.owner.tenant_id)
        late_s = (told["done_at"] - died_at).total_seconds()
        print(f"{late_s:6.1f} s  {point.name}")
        assert late_s < 0 if point.is_done else 0 < late_s <= RE_DRIVEN_WITHIN_S, point.name
        assert (told["kind"], told["last_error"]) == ("cancel_now", None), point.name
        assert (told["noted"], told["cancelled"], ended(stage, subscription)) == (1, 1, 1), point.name
        stripes = stage.sellers.harnesses["stripe"].fake.subscriptions[subscription]
        assert stripes["status"] == "canceled", point.name
        assert (await stage.sellers.books(buyer.owner.tenant_id))["status"] == "cancelled", point.name
