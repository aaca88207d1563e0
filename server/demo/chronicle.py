"""What was heard, judged afterwards: in order, exactly once, and the same by everybody (contract.md 7.3)."""

import asyncio
from collections import Counter

from server.demo.failure import StepFailed, expect
from server.demo.listener import Listener

# The second name that a notification has on the root namespaces, with the same event_id.
_TWIN = "notification"
_PERSONAL = "notification:new"
_SETTLE_S = 5.0


def check_chronicle(listener: Listener, namespace: str) -> tuple[str, str, str, str]:
    """Check one namespace of a listener and return a row: where, how many, which numbers, what.

    Raises StepFailed when an event came twice, or after one with a higher number.
    """
    place = f"{listener.name} {namespace}"
    heard = [item for item in listener.heard if item.namespace == namespace]
    events = [item for item in heard if item.name != _TWIN]
    expect(events, f"{place} heard nothing")
    twice = [str(event_id) for event_id, times in Counter(item.fields.event_id for item in events).items() if times > 1]
    expect(not twice, f"{place} heard events twice: {', '.join(twice)}")
    numbers = [item.fields.seq for item in events]
    expect(numbers == sorted(set(numbers)), f"{place} heard events out of order: {numbers}")
    twins = [item.fields.event_id for item in heard if item.name == _TWIN]
    personal = [item.fields.event_id for item in events if item.name == _PERSONAL]
    expect(not twins or twins == personal, f"{place}: '{_TWIN}' does not follow '{_PERSONAL}'")
    names = Counter(item.name for item in events)
    told = ", ".join(f"{times} {name}" for name, times in names.items())
    return place, str(len(events)), f"{numbers[0]}..{numbers[-1]}", told


async def same_story(dashboard: Listener, phone: Listener, *, after: int) -> None:
    """Check that both heard the same events with a number above `after`; raises StepFailed.

    The dashboard has no place where notifications are heard, so these are left out of the phone's.
    """
    try:
        async with asyncio.timeout(_SETTLE_S):
            # The last events may still be on their way to one of them.
            await dashboard.until(lambda: _numbers(dashboard, after) >= _numbers(phone, after))
            await phone.until(lambda: _numbers(phone, after) >= _numbers(dashboard, after))
    except TimeoutError:
        only = {listener.name: sorted(_numbers(listener, after)) for listener in (dashboard, phone)}
        raise StepFailed(f"the dashboard and the phone heard different events: {only}") from None


def _numbers(listener: Listener, after: int) -> set[int]:
    shared = (item.fields.seq for item in listener.heard if item.name not in (_TWIN, _PERSONAL))
    return {number for number in shared if number > after}
