"""Measures signing in as it ships beside Node with express and argon2, in one run, and prints a table.

    python -m bench.auth [--only PART ...] [--rounds 3] [--out FILE.md]

bench/README.md tells what is measured and how.
"""

import argparse
import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.auth.parts import PARTS
from bench.auth.stage import Stage, stage
from bench.realtime.machine import describe
from bench.realtime.parts import Part
from bench.realtime.report import Result, machine_line, table
from bench.realtime.talk import Broken


def main() -> int:
    """Run the parts that were asked for; returns 1 when one of them failed, whatever the goals say."""
    options = _options()
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    deadline = time.monotonic() + options.minutes * 60
    # Also a run that is told to stop takes down what it has set up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with stage(scale=options.scale) as ready:
            about = _about(ready, options)
            results = _run(chosen, ready, options.rounds, deadline)
    except Broken as error:
        print(f"bench.auth: {error}", file=sys.stderr)
        return 1
    judged = options.scale == 1
    text = "\n\n".join((*_heading(about, judged=judged), table(results, judged=judged)))
    print(f"\n{text}\n\n{machine_line(results, about, judged=judged)}")
    if options.out:
        options.out.write_text(f"{text}\n")
    return int(any(result.failed for result in results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.auth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="PART", choices=[part.name for part in PARTS], default=[])
    parser.add_argument("--rounds", type=int, default=3, help="how often each part is measured, the servers by turns")
    parser.add_argument("--out", type=Path, help="a file for the table")
    parser.add_argument("--scale", type=float, default=1.0, help="below 1: smaller numbers, to see that it works")
    parser.add_argument("--minutes", type=float, default=20.0, help="after so long no further round is begun")
    return parser.parse_args()


def _run(parts: Sequence[Part], ready: Stage, rounds: int, deadline: float) -> list[Result]:
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


def _measure(result: Result, ready: Stage) -> None:
    try:
        for kind in result.part.kinds:
            result.rounds.setdefault(kind, []).append(result.part.measure(ready, kind))
    except Broken as error:
        result.failed = str(error)


def _about(ready: Stage, options: argparse.Namespace) -> dict[str, Any]:
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    packages = ("express", "@node-rs/argon2", "socket.io")
    versions = {
        name: json.loads((ready.peer / "node_modules" / name / "package.json").read_text())["version"]
        for name in packages
    }
    return {
        "machine": describe(),
        "python": platform.python_version(),
        "node": node,
        **versions,
        "rounds": options.rounds,
        "scale": options.scale,
    }


def _heading(about: dict[str, Any], *, judged: bool) -> Sequence[str]:
    facts = (
        f"{about['machine']}. Python {about['python']}; Node {about['node']} with express {about['express']} and "
        f"@node-rs/argon2 {about['@node-rs/argon2']}. Medians of {about['rounds']} rounds, the servers by turns, each "
        "on one core, the load on another."
    )
    if judged:
        return (facts,)
    return (
        facts,
        f"A trial run at {about['scale']:g} of the size: it shows that everything works, and judges nothing.",
    )


if __name__ == "__main__":
    sys.exit(main())
