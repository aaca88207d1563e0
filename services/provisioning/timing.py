"""How patient workers are; tests are less so."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Waiting times of provisioning workers.

    A worker owns a job for `lease` beyond its last sign of life, which it gives every `heartbeat_s` seconds, and looks
    for a cancellation every `poll_s`. Log lines are written every `flush_s` seconds or when `batch` of them wait, and
    progress at most every `flush_s`. A failed step is tried again after `retry_base_s` to `retry_cap_s` seconds; a
    failed compensation at once, `undo_attempts` times in all. A row whose doorbell was rung in vain is rung for again
    after `rering`.
    """

    lease: timedelta = timedelta(seconds=30)
    heartbeat_s: float = 10.0
    poll_s: float = 2.0
    flush_s: float = 0.5
    batch: int = 50
    retry_base_s: float = 5.0
    retry_cap_s: float = 300.0
    undo_attempts: int = 3
    rering: timedelta = timedelta(seconds=20)


PRODUCTION = Timing()
