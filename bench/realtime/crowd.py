"""Crowds: what 5,000 clients cost when they come, stay and listen, and 10,000 when they listen and leave at once."""

from bench.realtime.fanout import deliveries, fan_out_lines
from bench.realtime.machine import cpu_s, memory_bytes
from bench.realtime.parts import Figures, Goal, Line, NotThere, Part, connect, milliseconds, paced
from bench.realtime.stage import Kind, Server, Stage
from bench.realtime.talk import Talk

_CLIENTS = 5_000
_FIRST = 500
_DELIVERIES_PER_S = 30_000
_PACED_S = 8.0
_WARM_UP_S = 2.0

_FEW = 1_000
_MANY = 10_000
# What a process has open besides its connections.
_OTHER_FILES = 200


def _measure_stay(stage: Stage, kind: Kind) -> Figures:
    clients, first = stage.count(_CLIENTS), stage.count(_FIRST)
    with stage.server(kind) as server, stage.load(server) as load:
        # The first connections pay for what is loaded and compiled only once.
        connect(load, first)
        _leave(server, load, first, come_before=0)
        empty, before = memory_bytes(server.pid), cpu_s(server.pid)
        connected = connect(load, clients)
        connect_cpu_s = cpu_s(server.pid) - before
        server.order("await", count=clients)
        server.order("memory")
        full = memory_bytes(server.pid)
        return {
            "connects": connected["rate"],
            "connects_per_cpu_s": clients / connect_cpu_s,
            "kb": (full - empty) / clients / 1024,
            **_paced(stage, server, load, clients),
            **deliveries(stage, server, load, clients=clients),
        }


def _paced(stage: Stage, server: Server, load: Talk, clients: int) -> Figures:
    rate = _DELIVERIES_PER_S / _CLIENTS
    paced(server, load, stage, clients=clients, rate=rate, seconds=stage.seconds(_WARM_UP_S))
    before = cpu_s(server.pid)
    got = paced(server, load, stage, clients=clients, rate=rate, seconds=stage.seconds(_PACED_S))
    return {
        "p50": milliseconds(got, "p50"),
        "p99": milliseconds(got, "p99"),
        "paced_per_cpu_s": got["msgs"] / (cpu_s(server.pid) - before),
    }


def _measure_leave(stage: Stage, kind: Kind) -> Figures:
    first, few, many = stage.count(_FIRST), stage.count(_FEW), stage.count(_MANY)
    if stage.open_files < many + _OTHER_FILES:
        raise NotThere(f"only {stage.open_files} files may be open here")
    with stage.server(kind) as server, stage.load(server) as load:
        connect(load, first)
        _leave(server, load, first, come_before=0)
        connect(load, few)
        few_s, _ = _leave(server, load, few, come_before=first)
        connect(load, many)
        figures = deliveries(stage, server, load, clients=many)
        many_s, stall_ms = _leave(server, load, many, come_before=first + few)
    return {**figures, "leave_ratio": many_s / few_s, "leave_stall": stall_ms, "leave_us": many_s / many * 1e6}


def _leave(server: Server, load: Talk, count: int, *, come_before: int) -> tuple[float, float]:
    """Drop `count` clients and wait until they are forgotten; returns the CPU seconds and the longest stall in ms."""
    server.order("memory")
    server.order("watch")
    before = cpu_s(server.pid)
    load.ask(f"drop {come_before} {count}")
    server.order("await", count=0)
    used_s = cpu_s(server.pid) - before
    longest_ms = float(server.order("longest")["ms"])
    server.order("memory")
    return used_s, longest_ms


PARTS = (
    Part(
        name="crowd-5000",
        measure=_measure_stay,
        lines=(
            *fan_out_lines(_CLIENTS, Goal("ratio", at_least=1.5)),
            Line(key="p50", label="paced 30,000 deliveries/s, 5,000 clients, p50", unit="ms"),
            Line(key="p99", label="the same, p99", unit="ms", goal=Goal("ratio", at_most=0.8)),
            Line(key="paced_per_cpu_s", label="the same, where nothing can be merged", unit="deliveries/CPU s"),
            Line(
                key="kb",
                label="memory per idle authenticated connection, of 5,000",
                unit="KiB",
                goal=Goal("ratio", at_most=0.5),
            ),
            Line(
                key="connects",
                label="authenticated connects, 5,000, 100 at a time",
                unit="connects/s",
                goal=Goal("ratio", at_least=1.8),
            ),
            Line(key="connects_per_cpu_s", label="the same, of the server's own time", unit="connects/CPU s"),
        ),
    ),
    Part(
        name="crowd-10000",
        measure=_measure_leave,
        lines=(
            *fan_out_lines(_MANY, Goal("ratio", at_least=1.5)),
            Line(
                key="leave_ratio",
                label="mass disconnect, CPU time of 10,000 to that of 1,000",
                unit="x",
                goal=Goal("ours", at_most=12),
            ),
            Line(
                key="leave_stall",
                label="the same, longest stall of the event loop at 10,000",
                unit="ms",
                goal=Goal("ours", at_most=50),
            ),
            Line(key="leave_us", label="the same, CPU time of each at 10,000", unit="µs"),
        ),
    ),
)
