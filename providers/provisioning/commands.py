"""One command run as a subprocess: never through a shell, in a process group of its own, output streamed.

POSIX only: ending a whole process group is what keeps a cancelled step from leaving orphans behind.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from providers.provisioning.contract import Stream
from providers.provisioning.output import LineSplitter, RawLine

T = TypeVar("T")

_CHUNK_BYTES: Final = 64 * 1024
_FIRST_POLL_S: Final = 0.01
_LAST_POLL_S: Final = 0.2
# How long a pipe is listened to after the last process of the group is gone. Only a process that left the
# group, a daemon, can hold it open longer.
_DRAIN_S: Final = 1.0
# A process in an uninterruptible wait survives even SIGKILL for a while; nobody waits for it for ever.
_AFTER_KILL_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run: `argv` as it is, with exactly this environment, in the folder `cwd`."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path


class CommandNotStarted(Exception):
    """The program is missing or not executable, the folder is missing, or the arguments are too long."""


class LineSink(Protocol):
    """Takes the lines of a command. While `take` is awaited nothing is read, so the command waits too."""

    @property
    def max_line_bytes(self) -> int: ...

    async def take(self, stream: Stream, line: RawLine) -> None: ...


async def run_command(
    command: Command,
    sink: LineSink,
    *,
    grace_s: float,
    inherited_fds: Collection[int] = (),
    on_start: Callable[[int], None] | None = None,
) -> int:
    """Run `command` to its end and return its exit code (negative: minus the signal that ended it).

    However this is left (end, cancellation, an error of the sink), no process of the command's group is left
    behind: the group gets SIGTERM, and SIGKILL after `grace_s` seconds. `on_start` is given the group's id.
    Raises CommandNotStarted.
    """
    async with _pipe() as (stdout, stdout_fd), _pipe() as (stderr, stderr_fd):
        run = _Run(command, grace_s=grace_s)
        try:
            await run_to_end(run.spawn(stdout_fd.fd, stderr_fd.fd, inherited_fds))
            if on_start is not None:
                on_start(run.process.pid)
            stdout_fd.close()
            stderr_fd.close()
            return await run.follow([_Pump("stdout", stdout, sink), _Pump("stderr", stderr, sink)])
        finally:
            await run_to_end(run.end())


async def end_group(group: int, *, grace_s: float) -> None:
    """End every process of the group: SIGTERM, and SIGKILL after `grace_s` seconds."""
    if not signal_group(group, signal.SIGTERM) or await _group_gone(group, within_s=grace_s):
        return
    signal_group(group, signal.SIGKILL)
    await _group_gone(group, within_s=_AFTER_KILL_S)


def signal_group(group: int, number: int) -> bool:
    """Send a signal (0: only look); tell whether there was a process to take it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # macOS answers "not permitted" for a group of which only zombies are left.
        return False
    return True


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when cancelled meanwhile; the cancellation is passed on afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            # Looked at, so that it is not reported as forgotten: the cancellation comes first.
            task.exception()
        raise cancelled
    return task.result()


async def _group_gone(group: int, *, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    pause_s = _FIRST_POLL_S
    while _has_living_member(group):
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LAST_POLL_S)
    return True


def _has_living_member(group: int) -> bool:
    if not signal_group(group, 0):
        return False
    # In a container whose first process adopts orphans but never waits for them, they stay zombies for good,
    # and a signal does not tell them from the living. Where there is no /proc the signal's word is taken.
    processes = list(Path("/proc").glob("[0-9]*/stat"))
    return not processes or any(_is_living_member(stat, group) for stat in processes)


def _is_living_member(stat: Path, group: int) -> bool:
    try:
        state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(its_group) == group and state not in {"Z", "X"}


class _WriteEnd:
    """Our copy of the end that the command writes to; it must be closed for the reader to see the end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._open = True

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self.fd)


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, _WriteEnd]]:
    # The pipes are ours rather than asyncio's, because with its own `Process.wait()` of Python 3.11 returns
    # only when every process that inherited them is gone, and a daemon can hold them for ever.
    read_fd, write_fd = os.pipe()
    write_end = _WriteEnd(write_fd)
    try:
        reader = asyncio.StreamReader(limit=_CHUNK_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", buffering=0)
        )
        try:
            yield reader, write_end
        finally:
            transport.close()
    finally:
        write_end.close()


class _Pump:
    """Carries one stream of the command to the sink."""

    def __init__(self, stream: Stream, reader: asyncio.StreamReader, sink: LineSink) -> None:
        self._stream = stream
        self._reader = reader
        self._sink = sink
        self.reading = False

    async def run(self) -> None:
        splitter = LineSplitter(max_bytes=self._sink.max_line_bytes)
        while chunk := await self._read():
            for line in splitter.feed(chunk):
                await self._sink.take(self._stream, line)
        for line in splitter.flush():
            await self._sink.take(self._stream, line)

    async def _read(self) -> bytes:
        self.reading = True
        try:
            return await self._reader.read(_CHUNK_BYTES)
        finally:
            self.reading = False


class _Run:
    """The life of one process group."""

    def __init__(self, command: Command, *, grace_s: float) -> None:
        self._command = command
        self._grace_s = grace_s
        self._process: asyncio.subprocess.Process | None = None
        self._ended = False

    @property
    def process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the command has not been started")
        return self._process

    async def spawn(self, stdout: int, stderr: int, inherited_fds: Collection[int]) -> None:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=dict(self._command.environment),
                cwd=self._command.cwd,
                pass_fds=tuple(inherited_fds),
                start_new_session=True,
            )
        except OSError as error:
            raise CommandNotStarted(f"{self._command.argv[0]}: {error.strerror or error}") from error

    async def follow(self, pumps: list[_Pump]) -> int:
        pumping = {asyncio.create_task(pump.run()): pump for pump in pumps}
        exiting = asyncio.create_task(self.process.wait())
        try:
            await _first_failure_or(exiting, set(pumping))
            # Whatever the command left running in its group would outlive the step.
            await self.end()
            await _drain(pumping)
        finally:
            # The pumps still run here: a process that tidies up after SIGTERM must not block on a full pipe.
            await run_to_end(self.end())
            await _cancel({exiting, *pumping})
        return exiting.result()

    async def end(self) -> None:
        # Once is enough, and later the number could belong to somebody else's group.
        if self._process is None or self._ended:
            return
        await end_group(self._process.pid, grace_s=self._grace_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(_AFTER_KILL_S):
                await self._process.wait()
        self._ended = True


async def _first_failure_or(awaited: asyncio.Task[int], others: set[asyncio.Task[None]]) -> None:
    """Return when `awaited` is done; raise as soon as one of the others fails."""
    waiting: set[asyncio.Task[Any]] = {awaited, *others}
    while not awaited.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _drain(pumping: Mapping[asyncio.Task[None], _Pump]) -> None:
    """Wait for what is still in the pipes, as long as something comes or the sink is busy with it."""
    waiting = set(pumping)
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=_DRAIN_S)
        for task in done:
            task.result()
        if not done and all(pumping[task].reading for task in waiting):
            return


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
