"""What the realtime floor counts as it goes; the operators' door turns it into metrics.

Plain numbers, because they are counted in the hottest places; one meter for each process.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

# Upper bounds in seconds.
LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(slots=True)
class Latencies:
    """How often something took how long; `counts[i]` is for at most `LATENCY_BOUNDS[i]`, the last one for longer."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    total_s: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.total_s += seconds


@dataclass(slots=True)
class Meter:
    """Everything counted since the process started. Keys of the counters are the labels they are shown under."""

    # Logged events that were delivered, packets that were written for them and for others, and their bytes.
    events: int = 0
    deliveries: int = 0
    delivered_bytes: int = 0
    # From the moment an instance heard of an event until it was handed to the last socket.
    bell_to_socket: Latencies = field(default_factory=Latencies)
    # Bells that had been lost, or came too late, and were made good from the log.
    gap_repairs: int = 0
    # Replays by outcome, resets by reason, refusals by code, and connections cut off by reason.
    recoveries: Counter[str] = field(default_factory=Counter)
    resets: Counter[str] = field(default_factory=Counter)
    throttles: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    # Messages of the bus by fate.
    bus_messages: Counter[str] = field(default_factory=Counter)
