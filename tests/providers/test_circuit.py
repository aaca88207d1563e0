"""The circuit breaker: when it opens, whom it lets through, and what closes it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from providers.circuit import Circuit, CircuitOpen


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 20, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


class Broken(Exception):
    """Speaks against the service."""


class Refused(Exception):
    """Speaks for it."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(
        failures=3,
        pause=timedelta(seconds=30),
        is_failure=lambda error: isinstance(error, Broken),
        clock=clock,
    )


def call(circuit: Circuit, error: Exception | None = None) -> None:
    with circuit.call():
        if error is not None:
            raise error


def fail(circuit: Circuit, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Broken):
            call(circuit, Broken())


def test_opens_after_failures_in_a_row_only(circuit: Circuit) -> None:
    fail(circuit, 2)
    call(circuit)
    fail(circuit, 2)
    with pytest.raises(Refused):
        call(circuit, Refused())
    fail(circuit, 3)

    with pytest.raises(CircuitOpen) as left_alone:
        call(circuit)

    assert left_alone.value.retry_after_s == 30
    assert not circuit.is_idle


def test_one_call_tries_when_the_pause_is_over(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    clock.at += timedelta(seconds=30)

    with circuit.call():
        # While that one is out, nobody else is let through.
        with pytest.raises(CircuitOpen) as left_alone:
            call(circuit)
        assert left_alone.value.retry_after_s == 1

    call(circuit)
    assert circuit.is_idle


def test_a_trial_that_fails_begins_a_new_pause(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    clock.at += timedelta(seconds=30)
    fail(circuit, 1)
    clock.at += timedelta(seconds=29)

    with pytest.raises(CircuitOpen):
        call(circuit)

    clock.at += timedelta(seconds=1)
    call(circuit)


async def test_a_cancelled_trial_says_nothing_and_blocks_nobody(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    clock.at += timedelta(seconds=30)
    started = asyncio.Event()

    async def trial() -> None:
        with circuit.call():
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(trial())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    call(circuit)
    assert circuit.is_idle
