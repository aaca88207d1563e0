"""How long a provider that could not answer is left alone."""

from datetime import timedelta
from typing import Final

from core.backoff import full_jitter_s
from core.errors import DomainError

_BASE_S: Final = 30.0
# Whatever a provider asks for: somebody may have mended it long before.
_LONGEST_ASKED_S: Final = 3600


def pause_after(fault: DomainError, *, attempt: int, cap_s: float) -> timedelta:
    """Return the pause after the `attempt`th failure in a row: as long as the provider asks for, or growing."""
    asked_s = min(fault.retry_after_s or 0, _LONGEST_ASKED_S)
    return timedelta(seconds=max(full_jitter_s(attempt, base_s=_BASE_S, cap_s=cap_s), asked_s))
