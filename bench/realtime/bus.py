"""Across Redis: latency from one instance to the clients of another, and a burst from an outside program."""

import json
import sys
from contextlib import AbstractContextManager

from bench.realtime.events import NAMESPACE
from bench.realtime.machine import cpu_s
from bench.realtime.parts import SIZE, Figures, Goal, Line, Part, connect, expect, milliseconds, paced
from bench.realtime.stage import Kind, Stage
from bench.realtime.talk import Answer, Talk

_CLIENTS = 1_000
_RATE = 20.0
_PACED_S = 5.0
_WARM_UP_S = 1.0
_BURST = 800
_FIRST_BURST = 100


def _across(stage: Stage, kind: Kind) -> Figures:
    clients = stage.count(_CLIENTS)
    with stage.server(kind) as other, stage.server(kind) as server, stage.load(server) as load:
        connect(load, clients)
        paced(other, load, stage, clients=clients, rate=_RATE, seconds=stage.seconds(_WARM_UP_S))
        got = paced(other, load, stage, clients=clients, rate=_RATE, seconds=stage.seconds(_PACED_S))
        figures = {"p50": milliseconds(got, "p50"), "p99": milliseconds(got, "p99")}
        if kind == "ours":
            logged = paced(other, load, stage, clients=clients, rate=_RATE, seconds=stage.seconds(3), way="log")
            figures |= {"log_p50": milliseconds(logged, "p50"), "log_p99": milliseconds(logged, "p99")}
    return figures


def _burst(stage: Stage, kind: Kind) -> Figures:
    clients, events = stage.count(_CLIENTS), stage.count(_BURST)
    with stage.server(kind) as server, stage.load(server) as load, _emitter(stage, kind) as emitter:
        connect(load, clients)
        _say(stage, load, emitter, clients, stage.count(_FIRST_BURST))
        server.order("watch")
        before = cpu_s(server.pid)
        got, said = _say(stage, load, emitter, clients, events)
        used_s = cpu_s(server.pid) - before
        longest = server.order("longest")
    return {
        "per_cpu_s": got["msgs"] / used_s,
        "feed": events / said["took_s"],
        "took_ms": (got["last_us"] - got["first_us"]) / 1000,
        "stall": longest["ms"],
    }


def _say(stage: Stage, load: Talk, emitter: Talk, clients: int, events: int) -> tuple[Answer, Answer]:
    load.ask("reset")
    emitter.say(f"{events} {SIZE} {stage.room}")
    got = expect(load, clients * events)
    return got, emitter.hear()


def _emitter(stage: Stage, kind: Kind) -> AbstractContextManager[Talk]:
    if kind == "ours":
        command = [
            sys.executable,
            "-m",
            "bench.realtime.emitter",
            stage.redis_url,
            stage.environment["EMITTER_CHANNEL"],
        ]
        return stage.helper("emitter", command, {})
    config = {"redis": stage.redis_url, "namespace": NAMESPACE}
    return stage.helper("emitter", stage.script("emitter.mjs"), {"EMITTER_CONFIG": json.dumps(config)})


PARTS = (
    Part(
        name="across",
        measure=_across,
        lines=(
            Line(key="p50", label="from one instance to 1,000 clients of another, 20 events/s, p50", unit="ms"),
            Line(key="p99", label="the same, p99", unit="ms", goal=Goal("ratio", at_most=1.0)),
            Line(key="log_p50", label="the same through the log, unit of work opened to delivery, p50", unit="ms"),
            Line(key="log_p99", label="the same through the log, p99", unit="ms"),
        ),
    ),
    Part(
        name="burst",
        measure=_burst,
        lines=(
            Line(
                key="per_cpu_s",
                label="burst of 800 events fed through Redis, 1,000 clients",
                unit="deliveries/CPU s",
                goal=Goal("ratio", at_least=5.0),
            ),
            Line(key="took_ms", label="the same, first to last delivery", unit="ms"),
            Line(key="feed", label="the same, how fast the burst was fed", unit="events/s"),
            Line(key="stall", label="the same, longest stall of the event loop", unit="ms"),
        ),
    ),
)
