"""A real Chromium, driven by its own chromedriver over the W3C WebDriver protocol."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession

from tests.support.stores import StoreMissing, free_port, refuse_or_skip

_PATIENCE_S = 30.0
_CHROMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1400",
    "--lang=en",
)


class Window:
    """One browser window."""

    def __init__(self, http: ClientSession, session: str) -> None:
        self._http = http
        self._session = session

    async def open(self, url: str) -> None:
        await self._post("url", {"url": url})

    async def run(self, script: str, *arguments: object) -> Any:
        """Run a script's body in the page and return what it returns."""
        return await self._post("execute/sync", {"script": script, "args": list(arguments)})

    async def until(self, expression: str) -> Any:
        """Wait until an expression is truthy in the page and return it; on the way the page may be another."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while not (value := await self.run(f"return ({expression})")):
            if asyncio.get_running_loop().time() > deadline:
                shown = await self.run("return location.href + '\\n' + document.body.innerText")
                pytest.fail(f"never came true: {expression}\n{shown}", pytrace=False)
            await asyncio.sleep(0.05)
        return value

    async def fill(self, form: str, **fields: str) -> None:
        """Type into a form's fields and send it."""
        for name, text in fields.items():
            element = await self._element(f"{form} [name={name}]")
            await self._post(f"element/{element}/value", {"text": text})
        await self.click(f"{form} [type=submit]")

    async def click(self, css: str) -> None:
        await self._post(f"element/{await self._element(css)}/click", {})

    async def console(self) -> list[str]:
        """Return what the console has said since it was last asked, but for what the browser's own pages say."""
        messages = [entry["message"] for entry in await self._post("se/log", {"type": "browser"})]
        return [message for message in messages if not message.startswith("chrome://")]

    async def _element(self, css: str) -> str:
        found = await self._post("element", {"using": "css selector", "value": css})
        identifier: str = next(iter(found.values()))
        return identifier

    async def _post(self, path: str, body: object) -> Any:
        async with self._http.post(f"{self._session}/{path}", json=body) as answer:
            value = (await answer.json())["value"]
            assert answer.ok, value
            return value


@asynccontextmanager
async def window(folder: Path) -> AsyncIterator[Window]:
    """Open a browser with an empty profile in `folder`; without a browser the test is skipped, or fails in CI."""
    driver = shutil.which("chromedriver")
    chrome = next(filter(None, map(shutil.which, _CHROMES)), None)
    if driver is None or chrome is None:
        refuse_or_skip(StoreMissing("there is no chromium with its chromedriver on the PATH"))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(driver), f"--port={port}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with ClientSession(f"http://127.0.0.1:{port}/") as http:
            session = f"/session/{await _start(http, str(chrome), folder)}"
            yield Window(http, session)
            async with http.delete(session):
                pass
    finally:
        process.terminate()
        await process.wait()


async def _start(http: ClientSession, chrome: str, folder: Path) -> str:
    options = {"binary": os.path.realpath(chrome), "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    body = {"capabilities": {"alwaysMatch": wanted}}
    deadline = asyncio.get_running_loop().time() + _PATIENCE_S
    while True:
        try:
            async with http.post("/session", json=body) as answer:
                value = (await answer.json())["value"]
                assert answer.ok, value
                identifier: str = value["sessionId"]
                return identifier
        except ClientError:
            # The driver does not listen yet.
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)
