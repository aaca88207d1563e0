"""Waiting longer after each failure, with jitter so that many waiters do not return at once."""

import random


def full_jitter_s(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Return a random wait in seconds, at most `base_s * 2**(attempt - 1)` and never above `cap_s`.

    The "full jitter" of Amazon's architecture blog on exponential backoff; `attempt` counts from 1.
    """
    ceiling = min(cap_s, base_s * 2 ** min(attempt - 1, 32))
    return random.uniform(base_s / 2, max(ceiling, base_s / 2))  # noqa: S311 - jitter needs no secrecy
