"""Runs a scenario on an event loop of its own: asyncio's, and uvloop, which servers use."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
import uvloop

Scenario = Callable[[], Coroutine[None, None, None]]
Run = Callable[[Scenario], None]


def on_asyncio(scenario: Scenario) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(scenario())


def on_uvloop(scenario: Scenario) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


on_both_loops = pytest.mark.parametrize("run", [on_asyncio, on_uvloop], ids=["asyncio", "uvloop"])
