"""What is measured: how long a provider waits for its 2xx while every event takes seconds to handle."""

from functools import partial

from bench.realtime.machine import cpu_s
from bench.realtime.parts import Figures, Goal, Line, Part
from bench.realtime.stage import Kind
from bench.webhooks.stage import Stage

_RATE = 100.0
_SECONDS = 30.0
_WARM_UP_S = 3.0
# What issue 5 of this project promises.
_MOST_MS = 200.0


def _acknowledged(stage: Stage, kind: Kind, *, apart: bool) -> Figures:
    with stage.server(kind, apart=apart) as server:
        # Handlers of these events are busy, and more of them wait, when it begins to count.
        stage.deliver(server, rate=_RATE, seconds=stage.seconds(_WARM_UP_S))
        before = cpu_s(server.pid)
        got = stage.deliver(server, rate=_RATE, seconds=stage.seconds(_SECONDS))
        used_s = cpu_s(server.pid) - before
    return {
        "p50_ms": got["p50_ms"],
        "p99_ms": got["p99_ms"],
        "max_ms": got["max_ms"],
        "cpu_ms": 1000 * used_s / got["sent"],
    }


_LINES = (
    Line(key="p50_ms", label="until acknowledged, at 100 a second, median", unit="ms"),
    Line(
        key="p99_ms",
        label="until acknowledged, at 100 a second, 99th percentile",
        unit="ms",
        goal=Goal("ours", at_most=_MOST_MS),
    ),
    Line(key="max_ms", label="until acknowledged, at 100 a second, longest", unit="ms"),
    Line(key="cpu_ms", label="CPU of the server for each delivery", unit="ms"),
)
PARTS = (
    Part(name="together", lines=_LINES, measure=partial(_acknowledged, apart=False)),
    Part(name="apart", lines=_LINES, measure=partial(_acknowledged, apart=True)),
)
