"""What providers tell of people is not kept for longer than it is needed, and is still known when it comes again."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Text, cast, func, select

from models.inbox import InboxState, ProviderEvent
from services.billing.errors import ProviderEventEmptied
from services.billing.forgetting import Forgetting
from tests.support.billing import PLATFORM, Shop, Till

pytestmark = pytest.mark.embedded

DAYS = 30


async def forget(till: Till) -> None:
    await Forgetting(till.units, keep=timedelta(days=DAYS)).prune()


async def test_old_events_lose_their_content_and_are_known_all_the_same(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    told = till.stripe.pay_checkout(view.session_id)
    await till.take(*told)
    # The subscription was told of before the purchase that it is for.
    await till.retry(told[0])
    till.travel(days=DAYS - 1)
    (young,) = till.stripe.refund(list(till.stripe.charges)[-1], 100)
    await till.take(young)
    await forget(till)
    assert all([(await till.event_row(event["id"])).payload for event in told])

    till.travel(days=2)
    await forget(till)

    for event in told:
        row = await till.event_row(event["id"])
        assert (row.payload, row.state, row.type) == ({}, InboxState.HANDLED, event["type"])
        assert await till.receive(event) is False
        assert (await till.event_row(event["id"])).payload == {}
    # Neither what is young nor anything that was booked.
    assert (await till.event_row(young["id"])).payload["id"] == young["id"]
    assert len(await till.payments(shop)) == 2
    async with till.units(PLATFORM) as uow:
        named = select(func.count()).where(cast(ProviderEvent.payload, Text).contains(str(shop.tenant_id)))
        assert await uow.session.scalar(named) == 0


async def test_what_waits_keeps_its_content_and_what_is_dead_is_past_trying(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    waiting, dead, *_ = till.stripe.pay_checkout(view.session_id)
    for event in (waiting, dead):
        await till.receive(event)
    row = await till.event_row(dead["id"])
    await till.change(ProviderEvent, row.id, state=InboxState.DEAD)
    till.travel(days=DAYS + 1)

    await forget(till)

    assert (await till.event_row(waiting["id"])).payload["id"] == waiting["id"]
    assert (await till.event_row(dead["id"])).payload == {}
    operator = replace(shop.owner, is_superuser=True)
    with pytest.raises(ProviderEventEmptied):
        async with till.units(PLATFORM) as uow:
            await till.billing.resend(uow, operator, row_id=row.id)
    assert (await till.event_row(dead["id"])).state is InboxState.DEAD


async def test_many_are_emptied_at_once(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [till.stripe._event("charge.succeeded", {"id": f"ch_{number}"}) for number in range(5)]
    await till.take(*events)
    till.travel(days=DAYS + 1)
    monkeypatch.setattr("services.billing.forgetting._BATCH", 2)
    await forget(till)
    assert [(await till.event_row(event["id"])).payload for event in events] == [{}] * 5
