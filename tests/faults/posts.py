"""Posts: places in a deployment that a process holds, and a supervisor that fills them again."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from aiohttp import ClientError, ClientSession

from tests.faults.servers import lasting_port
from tests.support.processes import Fleet, Process
from tests.support.stores import listens

_FOREVER_S = 86_400.0
_PATIENCE_S = 45.0
_LOG_TAIL = 1500


class Post:
    """One post: whoever holds it and ends is replaced, unless it was `kill`ed or `terminate`d and not `start`ed yet.

    A holder works once it listens on the post's port, or once its log holds a line that `says` so.
    `deaths` tells of those who ended by themselves after they had begun to work, which nobody may.
    """

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        folder: Path,
        arguments: Sequence[str] = (),
        *,
        program: tuple[str, ...] = (),
        says: str = "",
    ) -> None:
        self.name = name
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.deaths: list[str] = []
        # A folder of its own, so that the logs of a post's holders stand together.
        (folder / name).mkdir()
        self._fleet = Fleet(environment, folder / name)
        self._arguments = arguments
        self._program = program
        self._says = says
        self._process: Process | None = None
        self._wanted = asyncio.Event()
        self._works = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fill the post and wait until its holder works."""
        self._wanted.set()
        self._keeping = self._keeping or asyncio.create_task(self._keep())
        working = asyncio.create_task(self._works.wait())
        await asyncio.wait((working, self._keeping), return_when=asyncio.FIRST_COMPLETED)
        if self._keeping.done():
            self._keeping.result()

    async def kill(self) -> None:
        """End the holder as a crash would; nobody follows until `start`."""
        process = self._dismiss()
        if process is not None and process.running:
            process.kill()
            await process.ended()

    async def terminate(self, patience_s: float = 30.0) -> int:
        """End the holder as an operator would and return its exit code; nobody follows until `start`."""
        process = self._dismiss()
        return await process.terminate(patience_s) if process is not None else 0

    def freeze(self) -> None:
        """Let the holder do nothing, while its connections stand."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def ready(self) -> None:
        """Wait until a web process says that it can reach all its stores, or fail telling what it says."""
        said = "nothing"
        async with ClientSession() as http:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    while (said := await self._readiness(http)) != "ok":
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise AssertionError(f"{self.name} is not ready: {said}") from None

    async def close(self) -> None:
        await self.kill()
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping

    async def _readiness(self, http: ClientSession) -> str:
        try:
            async with http.get(f"{self.url}/ready") as answer:
                return "ok" if answer.status == 200 else await answer.text()
        except (ClientError, OSError) as error:
            return repr(error)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.running:
            self._process._process.send_signal(number)

    def _dismiss(self) -> Process | None:
        self._wanted.clear()
        self._works.clear()
        return self._process

    async def _keep(self) -> None:
        while True:
            await self._wanted.wait()
            process = await self._fleet.run(*self._arguments, program=self._program, port=self.port)
            self._process = process
            if not self._wanted.is_set():
                # Dismissed while it was being started.
                process.kill()
            watching = asyncio.create_task(self._watch(process))
            code = await process.ended(_FOREVER_S)
            watching.cancel()
            if self._works.is_set():
                self.deaths.append(f"{self.name} ended by itself with {code}:\n{process.log[-_LOG_TAIL:]}")
            self._works.clear()
            # One that found a store away when it started tries again, as under any supervisor.
            await asyncio.sleep(0.2)

    async def _watch(self, process: Process) -> None:
        while not self._at_work(process):
            await asyncio.sleep(0.05)
        if self._wanted.is_set():
            self._works.set()

    def _at_work(self, process: Process) -> bool:
        return f"{self._says}\n" in process.log if self._says else listens(self.port)
