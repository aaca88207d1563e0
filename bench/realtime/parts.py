"""What a part of the benchmark is: a measurement of one server, and the lines of the table that come of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.realtime.stage import Kind, Server, Stage
from bench.realtime.talk import Answer, Broken, Talk

Figures = Mapping[str, float]
BOTH: tuple[Kind, ...] = ("ours", "node")

SIZE = 256
_PATIENCE_S = 120.0
# A flood is over when nothing has come for so long.
_SILENCE_S = 5.0


class NotThere(Exception):
    """The server cannot do what is to be measured; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for the ratio of ours to the peer's figure, or for our own figure."""

    of: Literal["ratio", "ours"]
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        sign, bound = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        return f"{sign} {bound:g}" + ("x" if self.of == "ratio" else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the table; `key` is the name of its figure. Without a goal it only informs."""

    key: str
    label: str
    unit: str
    goal: Goal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: `measure` puts one fresh server under load and returns a figure for each of `lines`."""

    name: str
    lines: Sequence[Line]
    # The stage is that of the benchmark which the part belongs to.
    measure: Callable[[Any, Kind], Figures]
    kinds: tuple[Kind, ...] = BOTH


def connect(load: Talk, count: int, *, abreast: int = 100) -> Answer:
    """Open `count` more connections, `abreast` at a time; raises Broken unless all of them are let in and greeted."""
    load.ask("reset")
    answer = load.ask(f"connect {count} {abreast} 0", _PATIENCE_S)
    if answer["failed"] or answer["refused"]:
        raise Broken(f"{answer['failed']} of {count} clients could not connect, {answer['refused']} were refused")
    # The greetings follow the answers to CONNECT, and must not be counted among the events that are measured.
    expect(load, count)
    return answer


def flood(server: Server, load: Talk, stage: Stage, *, clients: int, events: int, way: str) -> Answer:
    """Have `events` events said as fast as it goes and return what `clients` clients got: all of them, in order."""
    load.ask("reset")
    server.do("publish", count=events, rate=0, size=SIZE, room=stage.room, way=way)
    got = expect(load, clients * events)
    server.hear(_PATIENCE_S)
    return got


def paced(
    server: Server, load: Talk, stage: Stage, *, clients: int, rate: float, seconds: float, way: str = "bus"
) -> Answer:
    """Have `rate` events a second said for some seconds and return what `clients` clients of `load` got."""
    load.ask("reset")
    events = max(2, round(rate * seconds))
    server.do("publish", count=events, rate=rate, size=SIZE, room=stage.room, way=way)
    got = expect(load, clients * events)
    server.hear(_PATIENCE_S)
    return got


def expect(load: Talk, count: int) -> Answer:
    """Wait for `count` deliveries; raises Broken unless they come, each once and in order."""
    got = load.ask(f"expect {count} {_PATIENCE_S - 10} {_SILENCE_S}", _PATIENCE_S)
    if got["msgs"] != count or got["gaps"] or got["dups"] or got["ooo"]:
        raise Broken(
            f"{got['msgs']} of {count} events arrived, {got['gaps']} missing between others, {got['dups']} twice, "
            f"{got['ooo']} out of order, {got['disconnects']} clients were disconnected"
        )
    return got


def milliseconds(got: Answer, percentile: str) -> float:
    """Return a percentile of the latency of what was got."""
    return float(got["lat_us"][percentile]) / 1000
