"""Recovery, by npm's own client: the tail that a client missed, and the crash of one of two instances.

The peer is not measured: its Redis adapter recovers nothing.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.realtime.events import NAMESPACE
from bench.realtime.parts import SIZE, Figures, Goal, Line, NotThere, Part
from bench.realtime.stage import Kind, Server, Stage
from bench.realtime.talk import Answer, Broken, Talk

_MISSED = 1_000
_MISSED_AT_ONCE = 50
_RETURNING = 100
_SOCKETS = 2_000
_RATE = 10.0
_BEFORE_CRASH_S = 2.0
_PATIENCE_S = 90.0


class _Clients:
    """npm's clients, in a process of their own."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def order(self, what: str, **details: Any) -> Answer:
        return self._talk.ask(json.dumps({"do": what, **details}), _PATIENCE_S)

    def open(self, count: int) -> None:
        """Connect; raises NotThere when the server offers no recovery."""
        if not self.order("open", count=count)["recoverable"]:
            raise NotThere("the server gives no `pid` to a client that asks for recovery")


@contextmanager
def _clients(stage: Stage, servers: Sequence[Server]) -> Iterator[_Clients]:
    config = {
        "urls": [server.url for server in servers],
        "namespace": NAMESPACE,
        "tokens": [person.token for person in stage.people.persons],
    }
    # Hundreds of tokens are more than the environment or the command line of a process may hold.
    path = stage.folder / "clients.json"
    path.write_text(json.dumps(config))
    with stage.helper("clients", [*stage.script("clients.mjs"), str(path)], {}) as talk:
        yield _Clients(talk)


def _tail(stage: Stage, kind: Kind) -> Figures:
    count, missed = stage.count(_RETURNING), stage.count(_MISSED)
    with stage.server(kind) as server, _clients(stage, [server]) as clients:
        clients.open(count)
        # Whatever it is that a client takes its position from, after an event it has one.
        _record(server, stage, 1)
        clients.order("hear", count=1)
        clients.order("cut")
        _record(server, stage, missed)
        # An instance that has delivered nothing has nothing at hand either, and must read the log.
        with stage.server(kind) as other:
            back = clients.order("back", url=other.url, count=missed)
    if back["recovered"] != count or back["missing"] or back["doubled"]:
        raise Broken(
            f"{back['recovered']} of {count} clients recovered; {back['missing']} events were missing and "
            f"{back['doubled']} came twice"
        )
    took_ms = sorted(back["ms"])
    return {"p50": took_ms[len(took_ms) // 2], "p99": took_ms[int(len(took_ms) * 0.99)]}


def _record(server: Server, stage: Stage, count: int) -> None:
    server.order("publish", count=count, rate=0, size=SIZE, room=stage.room, way="log", batch=_MISSED_AT_ONCE)


def _crash(stage: Stage, kind: Kind) -> Figures:
    with (
        stage.server(kind) as victim,
        stage.server(kind) as survivor,
        _clients(stage, [victim, survivor]) as clients,
    ):
        clients.open(stage.count(_SOCKETS))
        clients.order("watch")
        events = round(_RATE * _PATIENCE_S)
        survivor.do("publish", count=events, rate=_RATE, size=SIZE, room=stage.room, way="log")
        time.sleep(stage.seconds(_BEFORE_CRASH_S))
        since = time.monotonic_ns() // 1000
        victim.kill()
        caught = clients.order("caught", since=since)
        survivor.order("stop")
        survivor.hear()
    return {"took_s": caught["took_s"], "missing": caught["missing"], "doubled": caught["doubled"]}


PARTS = (
    Part(
        name="recovery",
        measure=_tail,
        kinds=("ours",),
        lines=(
            Line(
                key="p99",
                label="recovery of 1,000 missed events, connect to the last of them, p99",
                unit="ms",
                goal=Goal("ours", at_most=300),
            ),
            Line(key="p50", label="the same, p50", unit="ms"),
        ),
    ),
    Part(
        name="crash",
        measure=_crash,
        kinds=("ours",),
        lines=(
            Line(
                key="took_s",
                label="kill -9 of one of two instances with 2,000 sockets, until all have caught up",
                unit="s",
                goal=Goal("ours", at_most=15),
            ),
            Line(key="missing", label="the same, events lost", unit="", goal=Goal("ours", at_most=0)),
            Line(key="doubled", label="the same, events doubled", unit="", goal=Goal("ours", at_most=0)),
        ),
    ),
)
