"""Measures the realtime server as it ships beside Node's socket.io, in one run, and prints a table of ratios.

    python -m bench.realtime --loadgen PATH [--only PART ...] [--rounds 3] [--out FILE.md]

bench/README.md tells what is measured and how.
"""

import sys
from pathlib import Path

from bench.command import Benchmark, run
from bench.realtime import bus, crowd, fanout, recovery, slow
from bench.realtime.parts import Part
from bench.realtime.stage import stage

PARTS: tuple[Part, ...] = (
    *fanout.PARTS,
    *crowd.PARTS,
    *bus.PARTS,
    *slow.PARTS,
    *recovery.PARTS,
)

BENCHMARK = Benchmark(
    name="bench.realtime",
    doc=__doc__ or "",
    parts=PARTS,
    open_stage=lambda options: stage(options.loadgen, scale=options.scale),
    packages=("socket.io",),
    minutes=14.0,
    options=lambda parser: parser.add_argument(
        "--loadgen", required=True, type=Path, help="path of the compiled load generator"
    ),
)

if __name__ == "__main__":
    sys.exit(run(BENCHMARK))
