"""Ears of npm's socket.io-client, unmodified, that a test opens, drops and listens with."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.node import Node

_SCRIPT = Path(__file__).with_name("ears.mjs")
Line = dict[str, Any]


class Ear:
    """One socket of the JavaScript client; `lines` holds what happened to it, in order."""

    def __init__(self, name: str, send: Callable[[Line], None]) -> None:
        self._name = name
        self._send = send
        self.lines: list[Line] = []

    def of(self, event: str) -> list[list[Any]]:
        """Return the arguments of every event of this name."""
        return [line["args"] for line in self._all("event") if line["event"] == event]

    @property
    def names(self) -> list[str]:
        return [line["event"] for line in self._all("event")]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events of the log that were heard, in the order of arrival."""
        bodies = [line["args"][0] for line in self._all("event") if line["args"]]
        return [body["seq"] for body in bodies if isinstance(body, dict) and "event_id" in body]

    @property
    def connects(self) -> list[Line]:
        return self._all("connect")

    @property
    def disconnects(self) -> list[str]:
        return [line["reason"] for line in self._all("disconnect")]

    @property
    def refusals(self) -> list[Any]:
        return [line["reason"] for line in self._all("refused")]

    async def state(self) -> Line:
        """Return the socket's id, pid and offset as the client holds them."""
        before = len(self._all("state"))
        self.do("tell")
        await self.until(lambda: len(self._all("state")) > before)
        return self._all("state")[-1]

    async def emit(self, event: str, *arguments: Any) -> Any:
        """Send an event and return what it is acknowledged with."""
        before = len(self._all("ack"))
        self.do("emit", event=event, args=arguments)
        await self.until(lambda: len(self._all("ack")) > before)
        return self._all("ack")[-1]["answer"]

    async def hears(self, count: int) -> None:
        """Wait until so many events of the log were heard."""
        await self.until(lambda: len(self.numbers) >= count)

    async def hears_more(self) -> None:
        """Wait until a dozen more events of the log were heard."""
        await self.hears(len(self.numbers) + 12)

    async def loses_connection(self, times: int = 1) -> None:
        """Wait until the socket has been disconnected so many times."""
        await self.until(lambda: len(self.disconnects) >= times)

    async def close(self) -> None:
        """Disconnect and stay away."""
        self.do("close")
        await self.until(lambda: self.disconnects[-1:] == ["io client disconnect"])

    def do(self, what: str, **details: Any) -> None:
        self._send({"do": what, "name": self._name, **details})

    async def until(self, true: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait until something is so, or fail telling what happened."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{self._name}: {self.lines[-20:]}") from None

    def _all(self, what: str) -> list[Line]:
        return [line for line in self.lines if line["what"] == what]


class Ears:
    """A Node that holds ears."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ears: dict[str, Ear] = {}

    async def open(
        self, url: str, token: str, namespace: str = "/", *, auth: Line | None = None, **options: Any
    ) -> Ear:
        """Open a socket that recovers (unless `auth` says otherwise) and wait until it has been greeted."""
        name = f"ear {len(self._ears)}"
        ear = self._ears[name] = Ear(name, self._send)
        auth = {"token": token, **({"recovery": True} if auth is None else auth)}
        options = {"transports": ["websocket"], "auth": auth, **options}
        ear.do("open", url=url + namespace.removesuffix("/"), options=options)
        await ear.until(lambda: "connected" in ear.names)
        return ear

    def _send(self, command: Line) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            self._ears[said["name"]].lines.append(said)


@asynccontextmanager
async def open_ears(node: Node) -> AsyncIterator[Ears]:
    """Yield a Node that runs for as long as the block."""
    process = await asyncio.create_subprocess_exec(
        node.command,
        # Beside the library, where its imports are looked for.
        shutil.copy(_SCRIPT, node.folder),
        cwd=node.folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    ears = Ears(process)
    listening = asyncio.create_task(ears.listen())
    try:
        yield ears
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening
