"""Slow consumers: of 2,000 clients one in ten stops reading; what that costs the others, and in memory."""

import time

from bench.realtime.machine import memory_bytes, unsent_bytes
from bench.realtime.parts import Figures, Goal, Line, Part, connect, milliseconds, paced
from bench.realtime.stage import Kind, Server, Stage
from bench.realtime.talk import Talk
from realtime.rooms import user_room

_CLIENTS = 2_000
_SLOW_SHARE = 0.1
_RATE = 25.0
# Long enough that the hundredth part of it is more than one event, which chance would decide.
_PACED_S = 16.0
_WARM_UP_S = 1.0
_SLOW_RCVBUF = 4096

# The kernel takes megabytes for a client before the server notices that it does not read.
_FILLING_SIZE = 64 * 1024
_FILLINGS_AT_ONCE = 4
_FILLINGS = 100
_SETTLE_S = 0.2


def _measure(stage: Stage, kind: Kind) -> Figures:
    clients = stage.count(_CLIENTS, least=20)
    slow = max(1, round(clients * _SLOW_SHARE))
    others = clients - slow
    sleeper = stage.people.persons[0]
    with (
        stage.server(kind) as server,
        stage.load(server, persons=stage.people.persons[1:]) as load,
        stage.load(server, persons=[sleeper], rcvbuf=_SLOW_RCVBUF) as slow_load,
    ):
        connect(load, others)
        connect(slow_load, slow)
        _p99(server, load, stage, others, _WARM_UP_S)
        without = _p99(server, load, stage, others, _PACED_S)
        server.order("memory")
        before = memory_bytes(server.pid)
        slow_load.ask(f"pause 0 {slow} 1")
        _fill(server, user_room(sleeper.user_id))
        during = _p99(server, load, stage, others, _PACED_S)
        server.order("memory")
        after = memory_bytes(server.pid)
    return {
        "p99": during,
        "p99_ratio": during / without,
        "extra_mb": (after - before) / 1e6,
    }


def _p99(server: Server, load: Talk, stage: Stage, clients: int, seconds: float) -> float:
    got = paced(server, load, stage, clients=clients, rate=_RATE, seconds=stage.seconds(seconds))
    return milliseconds(got, "p99")


def _fill(server: Server, room: str) -> None:
    """Send large events to those who do not read, until the kernel takes no more and they are the server's burden."""
    taken = unsent_bytes(server.port)
    for _ in range(0, _FILLINGS, _FILLINGS_AT_ONCE):
        server.order("publish", count=_FILLINGS_AT_ONCE, rate=0, size=_FILLING_SIZE, room=room, way="here")
        time.sleep(_SETTLE_S)
        before, taken = taken, unsent_bytes(server.port)
        if taken <= before:
            return


PARTS = (
    Part(
        name="slow",
        measure=_measure,
        lines=(
            Line(
                key="p99_ratio",
                label="200 of 2,000 stop reading: the others' p99, with to without",
                unit="x",
                goal=Goal("ours", at_most=1.1),
            ),
            Line(key="p99", label="the same, the others' p99", unit="ms"),
            Line(key="extra_mb", label="the same, extra memory", unit="MB", goal=Goal("ours", at_most=10)),
        ),
    ),
)
