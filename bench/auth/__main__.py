"""Measures signing in as it ships beside Node with express and argon2, in one run, and prints a table.

    python -m bench.auth [--only PART ...] [--rounds 3] [--out FILE.md]

bench/README.md tells what is measured and how.
"""

import sys

from bench.auth.parts import PARTS
from bench.auth.stage import stage
from bench.command import Benchmark, run

BENCHMARK = Benchmark(
    name="bench.auth",
    doc=__doc__ or "",
    parts=PARTS,
    open_stage=lambda options: stage(scale=options.scale),
    packages=("express", "@node-rs/argon2"),
    minutes=20.0,
)

if __name__ == "__main__":
    sys.exit(run(BENCHMARK))
