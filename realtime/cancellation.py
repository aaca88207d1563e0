"""Cancellation that is not lost in Redis's client, so that whatever loops over Redis ends when it is told to."""

import asyncio
from collections.abc import Iterable

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection


class _Cancellable(AbstractConnection):
    """Notices when a task was cancelled during a write and the library went on as if nothing had happened."""

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 - the library's signature
    ) -> None:
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        await super().send_packed_command(command, check_health)
        if task is not None and task.cancelling() > before:
            # The answer will not be waited for, and must not be taken for that to the next command.
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


def keep_cancellations(redis: Redis) -> None:
    """Have the connections that `redis` opens from now on lose no cancellation.

    The library bounds a write by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes just
    as the write ends (https://github.com/python/cpython/issues/81839). A loop would then go on for ever, and SIGTERM
    would not end the process.
    """
    pool = redis.connection_pool
    pool.connection_class = type("Cancellable", (_Cancellable, pool.connection_class), {})
