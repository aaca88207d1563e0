"""Password hashing off the event loop, with bounded concurrency.

New hashes are argon2id; bcrypt hashes of the earlier systems verify and are reported as due for an upgrade.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from passlib.context import CryptContext

from core.errors import Unavailable

R = TypeVar("R")

# bcrypt looks at no more than 72 bytes and today's library refuses longer input; the earlier systems cut it there.
_BCRYPT_BYTES = 72
# Longer input is a denial of service and not a password; the library refuses it above 4096.
_LONGEST = 1024
# What two threads work off in a few seconds.
_WAITING = 200
_RETRY_AFTER_S = 5
# One thread for each hash. RFC 9106 computes in four, which made a login storm eight threads against the event loop.
_LANES = 1
# A tenth of what the event loop gets while both want to run: sockets hardly notice, and logins go on.
_NICENESS = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check: `upgraded_hash` is set when the stored hash should be replaced."""

    matches: bool
    upgraded_hash: str | None = None


def _give_way() -> None:
    """Let every other thread of the process go first, the event loop above all."""
    # On Linux this is the calling thread's niceness; elsewhere it would be the whole process's.
    if sys.platform == "linux":
        os.nice(_NICENESS)


class PasswordHasher:
    """Hashes and verifies passwords in a small thread pool, so that a login storm cannot stall the sockets.

    At most `waiting` wait for one of the `workers`; whoever comes then is refused with Unavailable. A hash that cost
    less than `memory_kib` and `rounds` is due for an upgrade. The defaults: RFC 9106, section 4, second choice,
    but in one lane.
    """

    def __init__(
        self, *, workers: int = 2, waiting: int = _WAITING, memory_kib: int = 64 * 1024, rounds: int = 3
    ) -> None:
        self._room = workers + waiting
        self._inside = 0
        self._context = CryptContext(
            schemes=["argon2", "bcrypt"],
            deprecated="auto",
            argon2__memory_cost=memory_kib,
            argon2__rounds=rounds,
            argon2__parallelism=_LANES,
        )
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="passwords", initializer=_give_way)
        # Hashed once at start, so that checking an unknown account costs exactly one verification too.
        self._decoy: str = self._context.hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        """Return an argon2id hash in the modular crypt format."""
        return await self._run(lambda: str(self._context.hash(password)))

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Check `password` against a stored hash.

        With `stored=None` (an unknown account) the same work is done in vain, so that the answer's time tells nothing.
        """
        return await self._run(lambda: self._check(password, stored))

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, password: str, stored: str | None) -> Verdict:
        if stored is None or len(password) > _LONGEST:
            self._context.verify(password[:_LONGEST], self._decoy)
            return Verdict(matches=False)
        try:
            return self._compare(password, stored)
        except (ValueError, TypeError):
            # What is stored is no hash that we know, so nothing matches it; and that takes as long as for any other.
            self._context.verify(password, self._decoy)
            return Verdict(matches=False)

    def _compare(self, password: str, stored: str) -> Verdict:
        if not stored.startswith("$2"):
            matches, upgraded = self._context.verify_and_update(password, stored)
            return Verdict(matches=matches, upgraded_hash=upgraded)
        cut = password.encode()[:_BCRYPT_BYTES]
        if not self._context.verify(cut, stored):
            return Verdict(matches=False)
        return Verdict(matches=True, upgraded_hash=self._context.hash(password))

    async def _run(self, work: Callable[[], R]) -> R:
        # Whoever came later would have gone away before their turn, and the work would be done for nobody.
        if self._inside >= self._room:
            raise Unavailable(retry_after_s=_RETRY_AFTER_S)
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._inside -= 1
