"""The machine: its cores and limits, and what the kernel knows of a process from outside. Linux only."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Ten thousand connections in one process, and what it needs besides.
_OPEN_FILES = 20_000
_TICKS_S = 0.02


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the measured server runs and where everything that makes its load does."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        """Take the first and the last core that this process may use; with one core they are the same."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core for as long as the block; a process that is started in it stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raise the limit of open files, which children inherit, as far as is needed or allowed, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        soft = min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used, with all its threads.

    /proc/PID/stat tells the same in hundredths of a second, which is too coarse for the short parts. The clock's number
    is made as in clock_getcpuclockid(3).
    """
    # A process that runs is charged at the next tick; one that has come to rest has been charged.
    time.sleep(_TICKS_S)
    return time.clock_gettime((~pid << 3) | 2)


def family_cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and those which it has started have used."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for started in threads for child in started.read_text().split()]
    return sum(map(cpu_s, [pid, *children]))


def memory_bytes(pid: int) -> int:
    """Return a process's memory, pages that it shares with others counted in part (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no PSS in smaps_rollup")


def unsent_bytes(port: int) -> int:
    """Return what the kernel still holds, unread by its clients, of everything that was sent from a local port."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            total += int(fields[4].partition(":")[0], 16)
    return total


def describe() -> str:
    """Say in a line what this machine is."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}"
