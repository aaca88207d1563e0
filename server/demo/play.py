"""Plays the story step by step, says how each went, and ends with the first that fails."""

import asyncio
import sys
from contextlib import AsyncExitStack
from time import monotonic
from typing import TextIO

from aiohttp import ClientSession, ClientTimeout

from server.demo.browser import Browser
from server.demo.client import RestClient
from server.demo.failure import StepFailed
from server.demo.listener import Listener
from server.demo.printing import Printer
from server.demo.story import Story

# The whole play, in seconds; a step that is waiting when it has passed is the one that failed.
_TOTAL_S = 180.0
# How long to wait for a server that is just being started, in seconds, before saying that there is none.
_SILENCE_S = 3.0


async def play(
    url: str, *, total_s: float = _TOTAL_S, silence_s: float = _SILENCE_S, stream: TextIO | None = None
) -> int:
    """Play the main job against the server at `url`; returns the exit code, 0 when every step succeeded.

    `total_s` is how long all steps together may take, `silence_s` how long nobody may answer at first, both in seconds;
    `stream` is written to instead of the standard output.
    """
    printer = Printer(stream or sys.stdout)
    printer.title(f"The main job, played against {url}")
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=30)))
        browser = Browser()
        stack.push_async_callback(browser.close)
        # A dashboard asks for what it shows, over polling first; a phone has one socket for everything, like the
        # released mobile client (contract.md 7.1, 7.3).
        dashboard = Listener("dashboard", namespaces=("/provisioning", "/billing"), transports=("polling", "websocket"))
        phone = Listener("phone", namespaces=("/ws",), transports=("websocket",))
        for listener in (dashboard, phone):
            stack.push_async_callback(listener.close)
        client = RestClient(http, url.rstrip("/"))
        story = Story(
            client,
            url=url.rstrip("/"),
            browser=browser,
            dashboard=dashboard,
            phone=phone,
            printer=printer,
            silence_s=silence_s,
        )
        return await _run(story, printer, total_s)


async def _run(story: Story, printer: Printer, total_s: float) -> int:
    steps = story.steps()
    number = 0
    try:
        async with asyncio.timeout(total_s):
            for number, (title, step) in enumerate(steps, start=1):
                printer.step(number, len(steps), title)
                started = monotonic()
                await step()
                printer.done(monotonic() - started)
    except StepFailed as failure:
        why = str(failure)
    except TimeoutError:
        why = f"the demo may take {total_s:g} s in all, and this step was still waiting"
    else:
        printer.title("\nThe main job works.")
        return 0
    printer.failed(why)
    printer.title(f"\nThe main job does NOT work: step {number} of {len(steps)} failed.")
    return 1
