"""Password hashing outside of the server's process, with bounded concurrency, so that no sign-in holds up a socket.

In a thread it would hold the server up, however low its priority: hashing takes and gives back 64 MiB each time, for
which the kernel locks the memory map of the whole process, and at the end it needs the interpreter's lock.
"""

import asyncio
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from core.errors import Unavailable
from core.passwords import LONGEST, Verdict

logger = logging.getLogger(__name__)

_WORKERS = 2
# What they work off in some ten seconds.
_WAITING = 100
_RETRY_AFTER_S = 10
# Ten times what a hash takes. A process that gives way and has not answered by then gets no turn at all.
_TURN_S = 2.0
# Whoever waits for longer has gone.
_PATIENCE_S = 20.0
# Of a process that insists: a tenth of what a server gets while both want to run. For how long it does: a machine that
# was busy a minute ago may have moments to spare again.
_NICENESS = 10
_INSISTS_S = 60.0
# Where `python -m` finds the package, wherever the server was started.
_ROOT = Path(__file__).resolve().parents[2]


class _Ended(Exception):
    """The process is there no more, for the kernel may need its memory; or it does not answer, and shall be no more."""


class _Process:
    """One process of process.py; carries out one order at a time.

    It runs while nobody else wants its core; one that `insists` runs then as well, but little.
    """

    def __init__(self, *costs: int, insists: bool = False) -> None:
        self.insists = insists
        self._started_at = time.monotonic()
        command = [sys.executable, "-m", "providers.passwords.process", *map(str, costs)]
        # Its errors go where the server's own go.
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours, word by word
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii"
        )
        # From here and at once, for what it imports before its first line costs nearly as much as a hash.
        _make_way(self._process.pid, insists=insists)
        # The library knows only while it runs that both were asked for.
        self._orders = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        self._readable = select.poll()
        self._readable.register(self._answers, select.POLLIN)

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Send an order and wait for its answer; raises _Ended."""
        try:
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()
        except OSError as error:
            raise _Ended from error
        # An answer is one line, written at once.
        patience_s = _PATIENCE_S if self.insists else _TURN_S
        if not self._readable.poll(patience_s * 1000) or not (line := self._answers.readline()):
            raise _Ended
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def is_spent(self) -> bool:
        """Whether it has insisted for long enough."""
        return self.insists and time.monotonic() - self._started_at >= _INSISTS_S

    def end(self) -> None:
        """End it and wait until it is gone."""
        self._process.kill()
        self._process.communicate()


def _make_way(pid: int, *, insists: bool) -> None:
    # One that has ended again at once is found out when it is asked; and where a sandbox forbids this, all share alike.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS))
        if sys.platform == "linux" and not insists:
            # Only then does a server that wakes up interrupt it. Niceness lets it end its slice of time, which is
            # milliseconds for the sockets (sched(7)).
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class PasswordHasher:
    """Hashes and verifies passwords in up to `workers` processes, which are started when they are needed.

    Without `workers` these are two, or one where there is but one core, which two would only take from each other.
    At most `waiting` wait for one of them; whoever comes then is refused with Unavailable. A hash that cost less than
    `memory_kib` and `rounds` is due for an upgrade. The defaults: RFC 9106, section 4, second choice, but in one lane.
    `earlier_bcrypt_rounds` is told of at `core.passwords.Hashes`.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        waiting: int = _WAITING,
        memory_kib: int = 64 * 1024,
        rounds: int = 3,
        earlier_bcrypt_rounds: int | None = None,
    ) -> None:
        earlier = () if earlier_bcrypt_rounds is None else (earlier_bcrypt_rounds,)
        self._costs = (memory_kib, rounds, *earlier)
        workers = workers or min(_WORKERS, _cores())
        self._room = workers + waiting
        self._inside = 0
        # The threads only wait; each takes a process that is idle, so there are never more of these than of those.
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="passwords")
        self._idle: list[_Process] = []

    async def hash(self, password: str) -> str:
        """Return an argon2id hash in the modular crypt format; raises Unavailable."""
        return str((await self._ask({"password": password}))["hash"])

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Check `password` against a stored hash; raises Unavailable.

        With `stored=None` (an unknown account) the same work is done in vain, so that the answer's time tells nothing.
        """
        # One letter more than any password may have says as much as a megabyte.
        answer = await self._ask({"password": password[: LONGEST + 1], "stored": stored})
        return Verdict(matches=answer["matches"], upgraded_hash=answer["upgraded_hash"])

    def close(self) -> None:
        """End the processes, when they have done what they are at."""
        self._pool.shutdown(cancel_futures=True)
        while self._idle:
            self._idle.pop().end()

    async def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        # Whoever came later would have gone away before their turn, and the work would be done for nobody.
        if self._inside >= self._room:
            raise Unavailable(retry_after_s=_RETRY_AFTER_S)
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, order)
        finally:
            self._inside -= 1

    def _work(self, order: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._ask_one(self._idle_one(), order)
        except _Ended:
            # Without anybody's fault it may have ended since it was idle, or get no turn on a machine that is busy.
            logger.warning("a process for passwords has ended or gets no turn; one that insists takes its place")
        try:
            return self._ask_one(_Process(*self._costs, insists=True), order)
        except _Ended as error:
            raise Unavailable(retry_after_s=_RETRY_AFTER_S) from error

    def _idle_one(self) -> _Process:
        with suppress(IndexError):
            return self._idle.pop()
        return _Process(*self._costs)

    def _ask_one(self, process: _Process, order: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = process.ask(order)
        except BaseException:
            process.end()
            raise
        if process.is_spent:
            process.end()
        else:
            self._idle.append(process)
        return answer
