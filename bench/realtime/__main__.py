"""Runs both servers one after the other under the same load and prints what they did, and the ratios."""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

_HERE = Path(__file__).resolve().parent
_PEER = ("socket.io@4.8",)
_DELIVERIES = 600_000
_WARM_UP = 0.1
_ROOMS = (100, 1_000, 5_000)


@dataclass(frozen=True, slots=True)
class Measure:
    """What one server did with one room; more is better in the rates, less in the rest."""

    deliveries_per_cpu_s: float
    p50_ms: float
    p99_ms: float
    kb_per_connection: float
    connects_per_cpu_s: float


class Talk:
    """A process that is spoken to in lines."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("no pipes")
        self._input: IO[str] = self._process.stdin
        self._output: IO[str] = self._process.stdout
        self._output.readline()

    def say(self, line: str) -> None:
        self._input.write(f"{line}\n")
        self._input.flush()

    def ask(self, line: str) -> dict[str, Any]:
        self.say(line)
        answer: dict[str, Any] = json.loads(self._output.readline())
        return answer

    def end(self) -> None:
        self._input.close()
        self._process.terminate()
        self._process.wait(20)


def main() -> None:
    """Measure every room size `--rounds` times, the servers taking turns, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m bench.realtime", description=__doc__)
    parser.add_argument("--loadgen", required=True, help="path of the compiled load generator")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    loadgen = str(Path(options.loadgen).resolve())
    peer = _install_peer()
    servers: dict[str, Callable[[int], Talk]] = {
        "node": lambda port: Talk(["node", str(peer / "server.mjs"), str(port)], peer),
        "ours": lambda port: Talk([sys.executable, "-m", "bench.realtime.engine_server", str(port)], _HERE.parents[1]),
    }
    for clients in _ROOMS:
        rounds: dict[str, list[Measure]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, start in servers.items():
                rounds[name].append(_measure(start, loadgen, clients))
        _report(clients, {name: _median(measures) for name, measures in rounds.items()})


def _install_peer() -> Path:
    folder = Path(tempfile.gettempdir()) / "orchestrator-bench-peer"
    if not (folder / "node_modules" / "socket.io").exists():
        folder.mkdir(exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), *_PEER], check=True)
    shutil.copy(_HERE / "peer_server.mjs", folder / "server.mjs")
    return folder


def _measure(start: Callable[[int], Talk], loadgen: str, clients: int) -> Measure:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = start(port)
    load = Talk([loadgen, "--port", str(port), "--nsp", "/bench", "--auth", '{"token":"none"}'], _HERE)
    try:
        before = server.ask("usage")
        load.ask(f"connect {clients} 100 0")
        connected = server.ask("usage")
        events = _DELIVERIES // clients
        _flood(server, load, clients, max(3, int(events * _WARM_UP)))
        idle = server.ask("usage")
        done = _flood(server, load, clients, events)
        after = server.ask("usage")
    finally:
        load.say("quit")
        load.end()
        server.end()
    latency = done["lat_us"]
    return Measure(
        deliveries_per_cpu_s=done["msgs"] / (after["cpu_s"] - idle["cpu_s"]),
        p50_ms=latency["p50"] / 1000,
        p99_ms=latency["p99"] / 1000,
        kb_per_connection=(connected["rss"] - before["rss"]) / clients / 1024,
        connects_per_cpu_s=clients / (connected["cpu_s"] - before["cpu_s"]),
    )


def _flood(server: Talk, load: Talk, clients: int, events: int) -> dict[str, Any]:
    load.ask("reset")
    server.say(f"flood {events}")
    done = load.ask(f"expect {clients * events} 120 5")
    if done["msgs"] != clients * events:
        raise SystemExit(f"only {done['msgs']} of {clients * events} events arrived")
    return done


def _median(measures: list[Measure]) -> Measure:
    return Measure(*(statistics.median(getattr(item, field.name) for item in measures) for field in fields(Measure)))


def _report(clients: int, measures: dict[str, Measure]) -> None:
    print(f"\n{clients} clients in one room")
    print(f"  {'':24}{'node':>12}{'ours':>12}{'ratio':>8}")
    for field in fields(Measure):
        node, ours = (getattr(measures[name], field.name) for name in ("node", "ours"))
        print(f"  {field.name:24}{node:12,.1f}{ours:12,.1f}{ours / node:8.2f}")


if __name__ == "__main__":
    main()
