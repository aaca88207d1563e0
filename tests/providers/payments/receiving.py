"""Receiving webhooks the way the route and the worker do, the inbox between them included."""

import dataclasses
from datetime import datetime

from core import json
from providers.payments import Fact, PaymentState, VerifiedEvent, read_event, settle_payment
from tests.providers.payments.harness import NOW, Delivery, Harness


async def verify(harness: Harness, delivery: Delivery, *, now: datetime = NOW) -> VerifiedEvent:
    await harness.provider.prepare(delivery.headers)
    return harness.provider.verify(body=delivery.body, headers=delivery.headers, now=now)


async def receive(harness: Harness, content: bytes) -> VerifiedEvent:
    """Verify an event, and read it from the inbox again."""
    event = await verify(harness, harness.deliver(content))
    return dataclasses.replace(event, payload=json.loads(json.dumps(event.payload)))


async def facts(harness: Harness, contents: list[bytes]) -> list[Fact]:
    """Receive events and tell what they mean."""
    found: list[Fact] = []
    for content in contents:
        found += (await read_event(harness.provider, await receive(harness, content))).facts
    return found


async def states(harness: Harness, contents: list[bytes]) -> list[PaymentState]:
    """Receive events and fetch the payments that they name."""
    found = []
    for content in contents:
        reference = harness.provider.to_fetch(await receive(harness, content))
        state = None if reference is None else await settle_payment(harness.provider, reference)
        if state is not None:
            found.append(state)
    return found
