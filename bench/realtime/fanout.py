"""Fan-out: deliveries per CPU second of the server, in floods to rooms of several sizes and, paced, out of the log."""

from functools import partial

from bench.realtime.machine import cpu_s
from bench.realtime.parts import Figures, Goal, Line, Part, connect, flood, milliseconds, paced
from bench.realtime.stage import Kind, Server, Stage
from bench.realtime.talk import Talk

_DELIVERIES = 500_000
_WARM_UP = 0.25
_UNIT = "deliveries/CPU s"

_LOG_CLIENTS = 1_000
_LOG_RATE = 20.0
_LOG_S = 5.0


def deliveries(stage: Stage, server: Server, load: Talk, *, clients: int, way: str = "bus") -> dict[str, float]:
    """Flood the room of `clients` connected clients; how many events each read brought tells how they were merged."""
    events = max(2, stage.count(_DELIVERIES) // clients)
    flood(server, load, stage, clients=clients, events=max(2, round(events * _WARM_UP)), way=way)
    before = cpu_s(server.pid)
    got = flood(server, load, stage, clients=clients, events=events, way=way)
    return {"per_cpu_s": got["msgs"] / (cpu_s(server.pid) - before), "per_read": got["msgs"] / got["recvs"]}


def fan_out_lines(clients: int, goal: Goal) -> list[Line]:
    """Return the lines of what `deliveries` measures."""
    return [
        Line(key="per_cpu_s", label=f"fan-out flood, {clients:,} clients", unit=_UNIT, goal=goal),
        Line(key="per_read", label="the same, events that came together", unit="events/read"),
    ]


def _flood(stage: Stage, kind: Kind, *, clients: int) -> Figures:
    count = stage.count(clients)
    with stage.server(kind) as server, stage.load(server) as load:
        connect(load, count)
        figures = deliveries(stage, server, load, clients=count)
        # In small rooms the bus costs as much as the deliveries.
        figures["here_per_cpu_s"] = deliveries(stage, server, load, clients=count, way="here")["per_cpu_s"]
    return figures


def _out_of_the_log(stage: Stage, kind: Kind) -> Figures:
    clients = stage.count(_LOG_CLIENTS)
    with stage.server(kind) as server, stage.load(server) as load:
        connect(load, clients)
        way = "log" if kind == "ours" else "bus"
        paced(server, load, stage, clients=clients, rate=_LOG_RATE, seconds=stage.seconds(1), way=way)
        before = cpu_s(server.pid)
        got = paced(server, load, stage, clients=clients, rate=_LOG_RATE, seconds=stage.seconds(_LOG_S), way=way)
        used_s = cpu_s(server.pid) - before
    return {
        "per_cpu_s": got["msgs"] / used_s,
        "p50": milliseconds(got, "p50"),
        "p99": milliseconds(got, "p99"),
    }


def _part(clients: int, goal: Goal) -> Part:
    return Part(
        name=f"fan-out-{clients}",
        measure=partial(_flood, clients=clients),
        lines=(
            *fan_out_lines(clients, goal),
            Line(key="here_per_cpu_s", label="the same, kept from the bus on both", unit=_UNIT),
        ),
    )


PARTS = (
    _part(100, Goal("ratio", at_least=1.25)),
    _part(1_000, Goal("ratio", at_least=1.25)),
    Part(
        name="log",
        measure=_out_of_the_log,
        lines=(
            Line(
                key="per_cpu_s",
                label="1,000 clients, 20 units of work a second through the log (Node: 20 plain events)",
                unit=_UNIT,
            ),
            Line(key="p50", label="the same, unit of work opened to delivery, p50", unit="ms"),
            Line(key="p99", label="the same, p99", unit="ms"),
        ),
    ),
)
