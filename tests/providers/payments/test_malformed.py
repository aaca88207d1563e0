"""Whatever a signed event lacks or garbles, every adapter's answer is facts, a name to fetch, or BadPayload."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.payments import BadPayload, VerifiedEvent
from tests.providers.payments.harness import Harness, request
from tests.providers.payments.receiving import receive

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.sampled_from(["paid", "unpaid", "usd", "monthly", "active", "incomplete"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "data"]), inner, max_size=2),
    max_leaves=3,
)


def _places(value: object) -> Iterator[tuple[dict[str, object], str]]:
    """Walk every key of every object inside a payload."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield value, key
            yield from _places(item)
    elif isinstance(value, list):
        for item in value:
            yield from _places(item)


def _facts_or_bad_payload(harness: Harness, event: VerifiedEvent) -> None:
    with contextlib.suppress(BadPayload):
        for fact in harness.provider.interpret(event):
            assert fact.event_id == event.event_id
    with contextlib.suppress(BadPayload):
        assert harness.provider.to_fetch(event) != ""


def _says_something(harness: Harness, event: VerifiedEvent) -> bool:
    return bool(harness.provider.interpret(event)) or harness.provider.to_fetch(event) is not None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_never_anything_else(harness: Harness, data: st.DataObject) -> None:
    created = await harness.provider.create_checkout(request())
    events = [await receive(harness, content) for content in harness.paid(created)]
    event = data.draw(st.sampled_from([event for event in events if _says_something(harness, event)]))
    payload = copy.deepcopy(event.payload)
    for holder, key in data.draw(st.lists(st.sampled_from(list(_places(payload))), min_size=1, max_size=3)):
        holder[key] = data.draw(_JSON)

    _facts_or_bad_payload(harness, dataclasses.replace(event, payload=payload))


async def test_each_field_missing_in_turn(harness: Harness) -> None:
    created = await harness.provider.create_checkout(request())
    for content in harness.paid(created):
        event = await receive(harness, content)
        for index in range(len(list(_places(event.payload)))):
            payload = copy.deepcopy(event.payload)
            holder, key = list(_places(payload))[index]
            del holder[key]

            _facts_or_bad_payload(harness, dataclasses.replace(event, payload=payload))
