"""Tasks: whether the one that runs is meant to end."""

import asyncio


def stopping() -> bool:
    """Tell whether this very task has been cancelled, and not something that it waited for.

    Python 3.11's `asyncio.wait_for` can swallow a cancellation that comes at the moment when what it waits for is done
    (python/cpython#86296), so that a loop which awaits other people's code has to ask.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
