"""The timer wheel: never early, never forgotten, stopped by nobody's fault, and at rest when there is nothing to do."""

import asyncio
from functools import partial

from realtime.engine.wheel import Wheel
from tests.realtime.engine.serving import until

TICK = 0.02


def now() -> float:
    return asyncio.get_running_loop().time()


def fail() -> None:
    raise RuntimeError("not today")


async def test_callbacks_come_in_order_and_not_before_their_time() -> None:
    wheel, called = Wheel(TICK), []
    begun = now()
    for delay in (0.12, 0.0, 0.06, 0.06):
        wheel.call_later(delay, partial(lambda delay: called.append((delay, now() - begun)), delay))
    assert len(wheel) == 4
    await until(lambda: len(called) == 4)
    assert [delay for delay, _ in called] == [0.0, 0.06, 0.06, 0.12]
    assert all(after >= delay for delay, after in called)
    assert len(wheel) == 0
    assert wheel._timer is None


async def test_what_a_callback_asks_for_is_called_and_loses_nothing() -> None:
    # A wheel that started its count afresh here would leave out the slots that passed during the callback.
    wheel = Wheel(TICK)
    called: list[object] = []

    def block() -> None:
        deadline = now() + 4 * TICK
        while now() < deadline:
            pass
        wheel.call_later(0, lambda: called.append("asked for"))

    wheel.call_later(0, block)
    for number in range(1, 6):
        wheel.call_later(number * TICK, partial(called.append, number))
    await until(lambda: len(called) == 6, 1)
    assert sorted(map(str, called)) == ["1", "2", "3", "4", "5", "asked for"]


async def test_a_callback_that_fails_stops_nobody() -> None:
    wheel, called = Wheel(TICK), []
    wheel.call_later(0, fail)
    wheel.call_later(0, lambda: called.append("same slot"))
    wheel.call_later(2 * TICK, lambda: called.append("later"))
    await until(lambda: len(called) == 2, 1)
    assert called == ["same slot", "later"]


async def test_a_wheel_may_be_closed_by_its_own_callback() -> None:
    wheel, called = Wheel(TICK), []
    wheel.call_later(0, wheel.close)
    wheel.call_later(3 * TICK, lambda: called.append("never"))
    await asyncio.sleep(6 * TICK)
    assert called == []
    assert wheel._timer is None
