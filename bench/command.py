"""The command line of every benchmark: the parts by turns, round after round, then one table."""

import argparse
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.realtime.machine import describe
from bench.realtime.parts import NotThere, Part
from bench.realtime.report import Result, machine_line, table
from bench.realtime.talk import Broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What differs between benchmarks.

    `name` is its package, `doc` begins with what it measures, and `packages` are the npm packages of the peer whose
    versions are told. After `minutes` no further round is begun by default. `options` adds options of its own.
    """

    name: str
    doc: str
    parts: Sequence[Part]
    open_stage: Callable[[argparse.Namespace], AbstractContextManager[Any]]
    packages: Sequence[str]
    minutes: float
    options: Callable[[argparse.ArgumentParser], object] | None = None


def run(benchmark: Benchmark) -> int:
    """Run the parts that were asked for; returns 1 when one of them failed, whatever the goals say."""
    options = _options(benchmark)
    chosen = [part for part in benchmark.parts if not options.only or part.name in options.only]
    deadline = time.monotonic() + options.minutes * 60
    # Also a run that is told to stop takes down what it has set up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with benchmark.open_stage(options) as ready:
            about = _about(benchmark, ready.peer, options)
            results = _run(chosen, ready, options.rounds, deadline)
    except Broken as error:
        print(f"{benchmark.name}: {error}", file=sys.stderr)
        return 1
    judged = options.scale == 1
    text = "\n\n".join((*_heading(benchmark, about, judged=judged), table(results, judged=judged)))
    print(f"\n{text}\n\n{machine_line(results, about, judged=judged)}")
    if options.out:
        options.out.write_text(f"{text}\n")
    return int(any(result.failed for result in results))


def _options(benchmark: Benchmark) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {benchmark.name}", description=benchmark.doc.partition("\n")[0])
    if benchmark.options is not None:
        benchmark.options(parser)
    names = [part.name for part in benchmark.parts]
    parser.add_argument("--only", nargs="+", metavar="PART", choices=names, default=[])
    parser.add_argument("--rounds", type=int, default=3, help="how often each part is measured, the servers by turns")
    parser.add_argument("--out", type=Path, help="a file for the table")
    parser.add_argument("--scale", type=float, default=1.0, help="below 1: smaller numbers, to see that it works")
    parser.add_argument(
        "--minutes", type=float, default=benchmark.minutes, help="after so long no further round is begun"
    )
    return parser.parse_args()


def _run(parts: Sequence[Part], ready: Any, rounds: int, deadline: float) -> list[Result]:
    """Measure every part once, and then again; what comes after the deadline falls away, and a part that failed."""
    results = [Result(part) for part in parts]
    for number in range(rounds):
        for result in results:
            if result.skipped or result.failed:
                continue
            if time.monotonic() > deadline:
                result.skipped = "" if result.rounds else "the time was up"
                continue
            _measure(result, ready)
            print(f"[{number + 1}/{rounds}] {result.told()}", flush=True)
    return results


def _measure(result: Result, ready: Any) -> None:
    try:
        for kind in result.part.kinds:
            result.rounds.setdefault(kind, []).append(result.part.measure(ready, kind))
    except NotThere as reason:
        result.skipped = str(reason)
    except Broken as error:
        result.failed = str(error)


def _about(benchmark: Benchmark, peer: Path, options: argparse.Namespace) -> dict[str, Any]:
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    versions = {
        name: json.loads((peer / "node_modules" / name / "package.json").read_text())["version"]
        for name in benchmark.packages
    }
    return {
        "machine": describe(),
        "python": platform.python_version(),
        "node": node,
        **versions,
        "rounds": options.rounds,
        "scale": options.scale,
    }


def _heading(benchmark: Benchmark, about: dict[str, Any], *, judged: bool) -> Sequence[str]:
    peer = " and ".join(f"{name} {about[name]}" for name in benchmark.packages)
    facts = (
        f"{about['machine']}. Python {about['python']}; Node {about['node']} with {peer}. "
        f"Medians of {about['rounds']} rounds, the servers by turns, each on one core, the load on another."
    )
    if judged:
        return (facts,)
    return (
        facts,
        f"A trial run at {about['scale']:g} of the size: it shows that everything works, and judges nothing.",
    )
