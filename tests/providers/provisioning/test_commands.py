"""Real processes: what they print arrives, and nothing of them stays behind."""

import asyncio
import os
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from providers.provisioning.commands import Command, CommandNotStarted, LineSink, run_command
from providers.provisioning.contract import Stream
from providers.provisioning.output import RawLine
from tests.providers.provisioning.support import is_alive, wait_until


class Sink:
    """Keeps the lines, and calls back at each."""

    max_line_bytes = 1000

    def __init__(self, on_line: Callable[[str], Awaitable[None]] | None = None) -> None:
        self.lines: list[tuple[Stream, str]] = []
        self._on_line = on_line

    async def take(self, stream: Stream, line: RawLine) -> None:
        text = line.data.decode()
        self.lines.append((stream, text))
        if self._on_line is not None:
            await self._on_line(text)


def python(script: str) -> Command:
    return Command(argv=(sys.executable, "-uc", script), environment={}, cwd=Path("/"))


def shell(script: str) -> Command:
    return Command(argv=("/bin/sh", "-c", script), environment={"PATH": os.environ["PATH"]}, cwd=Path("/"))


async def start(command: Command, sink: LineSink, *, grace_s: float = 2.0) -> int:
    return await run_command(command, sink, grace_s=grace_s)


async def started_group(command: Command, *, pids: int, grace_s: float = 2.0) -> tuple[asyncio.Task[int], list[int]]:
    """Start a command that prints a number of process ids, and wait for them."""
    sink = Sink()
    task = asyncio.create_task(start(command, sink, grace_s=grace_s))
    await asyncio.to_thread(wait_until, lambda: len(sink.lines) >= pids or task.done())
    assert not task.done()
    return task, [int(text) for _, text in sink.lines[:pids]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run_on(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine on a loop of the kind that production has, or on the standard one."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work)

    return run


async def test_lines_come_from_both_streams() -> None:
    sink = Sink()
    code = await start(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"), sink)
    assert code == 7
    assert sorted(sink.lines) == [("stderr", "err"), ("stdout", "out")]


async def test_lines_come_while_the_command_runs() -> None:
    times: list[float] = []

    async def note(text: str) -> None:
        times.append(time.monotonic())

    await start(python("import time\nfor _ in range(3): print('x'); time.sleep(0.2)"), Sink(note))
    assert times[2] - times[0] > 0.3


async def test_last_line_needs_no_end() -> None:
    sink = Sink()
    await start(python("import sys; sys.stdout.write('no end')"), sink)
    assert sink.lines == [("stdout", "no end")]


async def test_signal_is_a_negative_code() -> None:
    assert await start(shell("kill -9 $$"), Sink()) == -9


async def test_standard_input_is_empty() -> None:
    sink = Sink()
    assert await start(python("print(repr(input()))"), sink) == 1
    assert ("stderr", "EOFError: EOF when reading a line") in sink.lines


async def test_environment_and_folder_are_exactly_those_given(tmp_path: Path) -> None:
    sink = Sink()
    script = "import os; print(sorted(os.environ)); print(os.getcwd())"
    command = Command(argv=(sys.executable, "-c", script), environment={"LC_ALL": "C"}, cwd=tmp_path)
    await start(command, sink)
    assert [text for _, text in sink.lines] == ["['LC_ALL']", str(tmp_path)]


@pytest.mark.parametrize(
    "command",
    [
        Command(argv=("/nowhere/program",), environment={}, cwd=Path("/")),
        Command(argv=("/etc/passwd",), environment={}, cwd=Path("/")),
        Command(argv=("/bin/true",), environment={}, cwd=Path("/nowhere")),
        Command(argv=("/bin/true", "x" * 3_000_000), environment={}, cwd=Path("/")),
    ],
    ids=["missing", "not executable", "no folder", "too long"],
)
async def test_what_cannot_start_is_told(command: Command) -> None:
    with pytest.raises(CommandNotStarted):
        await start(command, Sink())


GROUP = "sleep 60 & echo $!; sh -c 'sleep 60 & echo $!; wait' & wait"


def test_cancellation_ends_the_whole_group(run_on: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        task, pids = await started_group(shell(GROUP), pids=2)
        assert all(is_alive(pid) for pid in pids)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(is_alive(pid) for pid in pids)

    run_on(scenario())


def test_whole_story_on_either_loop(run_on: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        sink = Sink()
        assert await start(shell("echo out; echo err >&2; exit 3"), sink) == 3
        assert sorted(sink.lines) == [("stderr", "err"), ("stdout", "out")]
        with pytest.raises(CommandNotStarted):
            await start(Command(argv=("/nowhere",), environment={}, cwd=Path("/")), sink)

    run_on(scenario())


def test_descriptor_is_inherited_on_either_loop(run_on: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scenario() -> None:
        reading, writing = os.pipe()
        try:
            command = python(f"import os; os.write({writing}, b'held')")
            assert await run_command(command, Sink(), grace_s=1.0, inherited_fds=(writing,)) == 0
            assert os.read(reading, 10) == b"held"
            assert not os.get_inheritable(writing)
        finally:
            os.close(reading)
            os.close(writing)

    run_on(scenario())


async def test_process_that_ignores_the_request_is_killed() -> None:
    script = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(os.getpid())\ntime.sleep(60)"
    )
    task, [pid] = await started_group(python(script), pids=1, grace_s=0.3)
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)
    assert time.monotonic() - begun >= 0.3


async def test_process_that_tidies_up_is_given_the_time(tmp_path: Path) -> None:
    """Also when it has more to say than a pipe holds: it is still listened to."""
    done = tmp_path / "tidy"
    script = (
        "import os, pathlib, signal, sys, time\n"
        "def tidy(*_):\n"
        "    print('x' * 300_000)\n"
        f"    pathlib.Path({str(done)!r}).touch()\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, tidy)\nprint(os.getpid())\nwhile True: time.sleep(1)"
    )
    task, _ = await started_group(python(script), pids=1, grace_s=5.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.exists()


async def test_second_cancellation_does_not_leave_the_group_behind() -> None:
    script = "trap '' TERM; sleep 60 & echo $!; for second in $(seq 60); do sleep 1; done"
    task, [pid] = await started_group(shell(script), pids=1, grace_s=0.5)
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)


async def test_cancellation_while_starting_leaves_nothing(tmp_path: Path) -> None:
    for delay in range(12):
        mark = tmp_path / f"pid{delay}"
        command = shell(f"echo $$ > {mark}; exec sleep 60")
        task = asyncio.create_task(start(command, Sink()))
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        text = mark.read_text().strip() if mark.exists() else ""
        assert not text or not is_alive(int(text))


async def test_what_a_command_leaves_running_is_ended() -> None:
    sink = Sink()
    code = await start(shell("sleep 60 & echo $!; exit 0"), sink)
    assert code == 0
    assert not is_alive(int(sink.lines[0][1]))


async def test_daemon_that_holds_the_output_does_not_hold_the_step() -> None:
    sink = Sink()
    script = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    print(os.getpid()); time.sleep(60)\n"
        "time.sleep(0.3)"
    )
    begun = time.monotonic()
    code = await start(python(script), sink)
    try:
        assert code == 0
        assert time.monotonic() - begun < 5
    finally:
        os.kill(int(sink.lines[0][1]), 9)


async def test_failing_sink_ends_the_command() -> None:
    class ReportLost(Exception):
        pass

    async def fail(text: str) -> None:
        raise ReportLost(text)

    sink = Sink(fail)
    with pytest.raises(ReportLost):
        await start(shell("echo $$; exec sleep 60"), sink)
    assert not is_alive(int(sink.lines[0][1]))


async def test_slow_sink_slows_the_command_and_loses_nothing() -> None:
    async def dawdle(text: str) -> None:
        await asyncio.sleep(0.02)

    sink = Sink(dawdle)
    code = await start(python("for number in range(100): print(number)"), sink)
    assert code == 0
    assert [text for _, text in sink.lines] == [str(number) for number in range(100)]


async def test_flood_does_not_grow_the_memory() -> None:
    class Counter:
        max_line_bytes = 1000
        lines = 0

        async def take(self, stream: Stream, line: RawLine) -> None:
            assert len(line.data) <= 1000
            self.lines += 1

    counter = Counter()
    script = "import sys\nfor _ in range(40): sys.stdout.write('x' * 4_000_000 + '\\n' + 'y\\n' * 1000)"
    tracemalloc.start()
    try:
        assert await start(python(script), counter) == 0
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counter.lines == 40 * 1001
    assert peak_bytes < 2_000_000, "160 MB went by, and that much of it was held"


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


async def test_no_descriptor_is_left_open() -> None:
    await start(shell("echo"), Sink())
    before = open_descriptors()
    for _ in range(5):
        await start(shell("echo; echo >&2"), Sink())
        with pytest.raises(CommandNotStarted):
            await start(Command(argv=("/nowhere",), environment={}, cwd=Path("/")), Sink())
    await asyncio.sleep(0.05)
    assert open_descriptors() == before
