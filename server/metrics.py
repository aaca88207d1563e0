"""Metrics for Prometheus at `/metrics`: what the meter counted, and what the process looks like at this moment."""

import asyncio
import hmac
from collections.abc import Iterator

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from realtime.bus import RedisBus
from realtime.meter import LATENCY_BOUNDS, Latencies, Meter
from server.wiring import House

_PREFIX = "erpmax"
# How often the loop is asked to come back in time, in seconds.
_LAG_INTERVAL_S = 0.25


class LoopLag:
    """Measures how much later than promised the event loop comes back."""

    def __init__(self) -> None:
        self.seconds = Latencies()

    async def run(self) -> None:
        """Measure for as long as the process lives."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL_S
            await asyncio.sleep(_LAG_INTERVAL_S)
            self.seconds.observe(max(0.0, loop.time() - due))


class HouseCollector(Collector):
    """Reads one process's state whenever it is asked for its metrics."""

    def __init__(self, house: House, lag: LoopLag) -> None:
        self._house = house
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        yield from self._connections()
        yield from self._counted(self._house.meter)
        yield from self._state()

    def _connections(self) -> Iterator[Metric]:
        sio = self._house.sockets.sio
        sessions = sio.engine.sessions.values()
        websockets = sum(session.link is not None for session in sessions)
        transports = {"polling": len(sessions) - websockets, "websocket": websockets}
        yield _gauge("connections", "Open Engine.IO connections", "transport", transports)
        namespaces = {name: len(members) for name, members in sio.manager.members.items()}
        yield _gauge("sockets", "Connected sockets", "namespace", namespaces)
        waiting = sum(session.waiting_bytes for session in sessions)
        yield GaugeMetricFamily(
            f"{_PREFIX}_queued_bytes", "What clients have yet to read of what was sent to them", value=waiting
        )

    def _counted(self, meter: Meter) -> Iterator[Metric]:
        numbers = {
            "events": ("Events of the log that were delivered on this instance", meter.events),
            "deliveries": ("Packets that were sent to sockets", meter.deliveries),
            "delivered_bytes": ("Bytes of packets that were sent to sockets", meter.delivered_bytes),
            "gap_repairs": ("Reads of the log that made good what no bell had brought", meter.gap_repairs),
        }
        for name, (text, value) in numbers.items():
            yield CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)
        labelled = {
            "recoveries": ("Replays to clients that came back", "outcome", meter.recoveries),
            "resets": ("Clients that had to load their state anew", "reason", meter.resets),
            "throttles": ("What clients wanted beyond their limits", "limit", meter.throttles),
            "closes": ("Connections that ended", "reason", meter.closes),
            "bus_messages": ("Messages between instances", "fate", meter.bus_messages),
        }
        for name, (text, label, counts) in labelled.items():
            family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=[label])
            for key, value in sorted(counts.items()):
                family.add_metric([key], value)
            yield family
        yield _histogram(
            "bell_to_socket_seconds",
            "From an instance's hearing of an event until it is handed to the last socket",
            meter.bell_to_socket,
        )

    def _state(self) -> Iterator[Metric]:
        house = self._house
        yield _histogram("loop_lag_seconds", "How late the event loop comes back", self._lag.seconds)
        yield GaugeMetricFamily(
            f"{_PREFIX}_followed_streams", "Streams this instance follows", value=house.follower.followed
        )
        yield GaugeMetricFamily(
            f"{_PREFIX}_head_check_age_seconds",
            "Since the heads were last compared with the log",
            value=house.follower.check_age_s(),
        )
        if isinstance(house.bus, RedisBus):
            yield GaugeMetricFamily(
                f"{_PREFIX}_redis_probe_age_seconds",
                "Since this instance last heard itself through Redis",
                value=house.bus.probe_age_s(),
            )


def mount_metrics(app: web.Application, house: House, lag: LoopLag) -> None:
    """Serve `/metrics`: to everybody in development, else to those who show `METRICS_TOKEN`, if there is one."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(HouseCollector(house, lag))
    token = house.settings.metrics_token.get_secret_value()

    async def show(request: web.Request) -> web.Response:
        shown = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ")
        open_to_all = house.settings.development and not token
        if not open_to_all and not (token and hmac.compare_digest(shown.encode(), token.encode())):
            raise web.HTTPNotFound
        return web.Response(body=generate_latest(registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    app.router.add_get("/metrics", show)


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _histogram(name: str, text: str, latencies: Latencies) -> Metric:
    buckets, below = [], 0
    for bound, count in zip((*map(str, LATENCY_BOUNDS), "+Inf"), latencies.counts, strict=True):
        below += count
        buckets.append((bound, below))
    return HistogramMetricFamily(f"{_PREFIX}_{name}", text, buckets=buckets, sum_value=latencies.total_s)
