"""Steps that the tests of Stripe's events share."""

import copy
from datetime import UTC, datetime

from providers.payments import Fact
from tests.fakes.stripe_objects import Obj
from tests.providers.payments.harness import NOW, StripeHarness, request


def read(stripe: StripeHarness, events: list[Obj]) -> list[Fact]:
    """Carry events over the wire and interpret them."""
    found: list[Fact] = []
    for event in events:
        body = stripe.fake.encode(event)
        found += stripe.provider.interpret(stripe.provider.verify(body=body, headers=stripe.headers(body), now=NOW))
    return found


async def paid_checkout(stripe: StripeHarness) -> tuple[list[Obj], Obj]:
    """Sell a yearly plan for 49.99 USD; return the events and the subscription at Stripe."""
    created = await stripe.provider.create_checkout(request())
    events = stripe.fake.pay_checkout(created.session_id)
    (subscription,) = stripe.fake.subscriptions.values()
    return events, subscription


def event_of(events: list[Obj], kind: str) -> Obj:
    """Copy the one event of a kind, to be changed."""
    (found,) = [event for event in events if event["type"] == kind]
    return copy.deepcopy(found)


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
