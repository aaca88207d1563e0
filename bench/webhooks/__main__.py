"""Measures taking payment webhooks as it ships beside Node with express and pg, in one run, and prints a table.

    python -m bench.webhooks [--only PART ...] [--rounds 3] [--out FILE.md]

bench/README.md tells what is measured and how.
"""

import sys

from bench.command import Benchmark, run
from bench.webhooks.parts import PARTS
from bench.webhooks.stage import stage

BENCHMARK = Benchmark(
    name="bench.webhooks",
    doc=__doc__ or "",
    parts=PARTS,
    open_stage=lambda options: stage(scale=options.scale),
    packages=("express", "pg"),
    minutes=10.0,
)

if __name__ == "__main__":
    sys.exit(run(BENCHMARK))
