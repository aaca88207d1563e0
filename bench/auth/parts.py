"""What is measured: how much CPU a sign-in costs, what a storm of them does to a socket, and what time gives away."""

from contextlib import ExitStack

from bench.auth.client import KINDS
from bench.auth.stage import Stage
from bench.realtime.machine import family_cpu_s
from bench.realtime.parts import Figures, Goal, Line, Part
from bench.realtime.stage import Kind

_LOGINS = 100
_AT_ONCE = 8
_REFRESHES = 3_000
_SESSIONS = 16
# So many that each of them is always waiting for a hasher.
_STORM = 50
_PINGS_A_SECOND = 50.0
# Long enough that the hundredth part of it is many pings.
_LISTEN_S = 20.0
_PAIRS = 1_000
_MOST_MS = 5.0


def _logins(stage: Stage, kind: Kind) -> Figures:
    count = stage.count(_LOGINS, least=8)
    with stage.server(kind) as server, stage.crowd(server) as crowd:
        crowd.order("logins", people=stage.people, count=_AT_ONCE, at_once=_AT_ONCE)
        before = family_cpu_s(server.pid)
        took = crowd.order("logins", people=stage.people, count=count, at_once=_AT_ONCE)
        used_s = family_cpu_s(server.pid) - before
    return {"per_cpu_s": count / used_s, "per_s": count / took["took_s"]}


def _refreshes(stage: Stage, kind: Kind) -> Figures:
    count = stage.count(_REFRESHES, least=100)
    with stage.server(kind) as server, stage.crowd(server) as crowd:
        crowd.order("refreshes", people=stage.people, sessions=_SESSIONS, count=count // 10)
        crowd.rest()
        crowd.order("refreshes", people=stage.people, sessions=_SESSIONS, count=count)
        before = family_cpu_s(server.pid)
        took = crowd.rest()
        used_s = family_cpu_s(server.pid) - before
    return {"per_cpu_s": count / used_s, "per_s": count / took["took_s"]}


def _storm(stage: Stage, kind: Kind) -> Figures:
    listening = {"people": stage.people, "rate": _PINGS_A_SECOND, "seconds": stage.seconds(_LISTEN_S)}
    with (
        stage.server(kind) as server,
        stage.crowd(server, "listener") as listener,
        stage.crowd(server, "stormers") as stormers,
    ):
        listener.order("ping", **{**listening, "seconds": 1.0})
        listener.rest()
        listener.order("ping", **listening)
        idle = listener.rest()
        # It signs in before the storm, or it would wait in the same queue.
        listener.order("ping", **listening)
        stormers.order("storm", people=stage.people, at_once=_STORM)
        stormed = listener.rest()
        stormers.order("calm")
    return {
        "idle_p99": idle["p99_ms"],
        "storm_p99": stormed["p99_ms"],
        "storm_p50": stormed["p50_ms"],
        "p99_ratio": stormed["p99_ms"] / idle["p99_ms"],
    }


def _timing(stage: Stage, kind: Kind) -> Figures:
    figures: dict[str, float] = {}
    count = min(stage.count(_PAIRS), stage.people - 5)
    with ExitStack() as stack:
        server = stack.enter_context(stage.server(kind, **_SILENT))
        crowds = [stack.enter_context(stage.crowd(server, names[0])) for names in KINDS]
        for crowd, names in zip(crowds, KINDS, strict=True):
            crowd.begin("pairs", kinds=names, count=count)
        for crowd in crowds:
            for name, found in crowd.rest().items():
                figures[name] = found["difference_ms"]
                figures[f"{name}_known"], figures[f"{name}_unknown"] = found["known_ms"], found["unknown_ms"]
    return figures


_TELLS = {
    "login": "signing in by mail with a wrong password",
    "phone-login": "signing in by phone with a wrong password",
    "forgot": "asking for a letter",
    "send-code": "asking for a code",
    "check-phone": "checking a phone",
    "register": "signing up",
}
# What the released clients need to be told, two answers tell; where nobody is told, times must not either.
_SILENT = {"ACCOUNTS_DISCLOSED": "false"}

PARTS = (
    Part(
        name="logins",
        measure=_logins,
        lines=(
            Line(key="per_cpu_s", label="logins, argon2id 64 MiB, 3 rounds", unit="1/CPU s"),
            Line(key="per_s", label="the same", unit="1/s"),
        ),
    ),
    Part(
        name="refreshes",
        measure=_refreshes,
        lines=(
            Line(key="per_cpu_s", label="refreshes of 16 sessions", unit="1/CPU s"),
            Line(key="per_s", label="the same", unit="1/s"),
        ),
    ),
    Part(
        name="storm",
        measure=_storm,
        lines=(
            Line(
                key="p99_ratio",
                label="a socket's ping while 50 sign in, p99 to idle",
                unit="x",
                goal=Goal("ours", at_most=2.0),
            ),
            Line(key="storm_p99", label="the same, p99", unit="ms"),
            Line(key="storm_p50", label="the same, median", unit="ms"),
            Line(key="idle_p99", label="idle, p99", unit="ms"),
        ),
    ),
    Part(
        name="timing",
        measure=_timing,
        kinds=("ours",),
        lines=tuple(
            Line(
                key=f"{name}{suffix}",
                label=f"{label}, {what}",
                unit="ms",
                goal=None if suffix else Goal("ours", at_most=_MOST_MS),
            )
            for name, label in _TELLS.items()
            for suffix, what in (("", "known and unknown apart"), ("_known", "known"), ("_unknown", "unknown"))
        ),
    ),
)
