"""Real processes of the orchestrator, started by its command line, to be watched, killed and ended."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import ClientError, ClientSession

from tests.support.stores import Stores, free_port

_PATIENCE_S = 45.0
_LOG_TAIL = 4000


class Process:
    """One running `orchestrator` process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, url: str) -> None:
        self.name = name
        self.url = url
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.send_signal(signal.SIGKILL)

    async def terminate(self, patience_s: float = 20.0) -> int:
        """End it as an operator would, and return its exit code."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        return await self.ended(patience_s)

    async def ended(self, patience_s: float = _PATIENCE_S) -> int:
        """Wait for its end and return its exit code."""
        async with asyncio.timeout(patience_s):
            return await self._process.wait()

    async def ready(self) -> "Process":
        """Wait until it answers that it can work."""
        async with ClientSession() as http:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    while not await _is_ready(http, self.url):
                        assert self.running, f"{self.name} ended:\n{self.log[-_LOG_TAIL:]}"
                        await asyncio.sleep(0.1)
            except TimeoutError:
                raise AssertionError(f"{self.name} is not ready:\n{self.log[-_LOG_TAIL:]}") from None
        return self

    async def said(self, text: str, patience_s: float = _PATIENCE_S) -> None:
        """Wait until its log holds `text`."""
        async with asyncio.timeout(patience_s):
            while text not in self.log:
                await asyncio.sleep(0.05)


async def _is_ready(http: ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/ready") as response:
            return response.status == 200
    except (ClientError, OSError):
        return False


class Fleet:
    """Starts processes that share one environment, and ends them all."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._processes: list[Process] = []
        self._started = 0

    @property
    def environment(self) -> Mapping[str, str]:
        """What every process is told."""
        return self._environment

    async def run(
        self, *arguments: str, port: int | None = None, program: tuple[str, ...] = (), **extra: str
    ) -> Process:
        """Start `orchestrator <arguments>`, or another `program` in its place."""
        port = port or free_port()
        # Counted before anything is waited for, so that processes started side by side write to logs of their own.
        self._started += 1
        name = f"{arguments[0] if arguments else 'program'}-{self._started}"
        log = self._folder / f"{name}.log"
        command = program or (sys.executable, "-c", "from server.cli import main; main()", *arguments)
        environment = {
            **_inherited(),
            **self._environment,
            "PORT": str(port),
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            **extra,
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
        started = Process(name, process, log, f"http://127.0.0.1:{port}")
        self._processes.append(started)
        return started

    async def end(self) -> None:
        for process in self._processes:
            if process.running:
                process.kill()
                await process.ended()


def _inherited() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COVERAGE_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": str(Path.cwd())}


@asynccontextmanager
async def fleet(environment: Mapping[str, str], folder: Path) -> AsyncIterator[Fleet]:
    """Yield a fleet and end whatever of it still runs."""
    async with AsyncExitStack() as stack:
        ships = Fleet(environment, folder)
        stack.push_async_callback(ships.end)
        yield ships


def cluster_environment(stores: Stores, database_url: str, folder: Path) -> dict[str, str]:
    """Return what processes of one deployment share: a database, the other servers, and queues of its own."""
    unique = secrets.token_hex(4)
    return {
        "ENVIRONMENT": "test",
        "DATABASE_URL": database_url,
        "REDIS_URL": stores.redis_url,
        "RABBITMQ_URL": stores.rabbitmq_url,
        "SECRET_KEY": secrets.token_hex(32),
        "DATA_DIR": str(folder / "data"),
        "PROVISIONING_QUEUE_NAME": f"test.fleet.{unique}",
        "TASKS_QUEUE_NAME": f"test.fleet.tasks.{unique}",
        "RATE_AUTH_PER_IP": "off",
        "RATE_USER_TOTAL": "off",
        "LOG_LEVEL": "INFO",
    }
