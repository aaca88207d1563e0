"""The realtime benchmark runs from end to end, with tiny numbers; what it measures then means nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import StoreMissing, Stores, refuse_or_skip

pytestmark = [pytest.mark.cluster, pytest.mark.node, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("burst", "recovery")


@pytest.fixture
def loadgen() -> str:
    """The load generator that BENCH_LOADGEN names; it is no part of this project, so nobody must have it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        refuse_or_skip(StoreMissing("Node and npm are not on the PATH"))
    path = os.environ.get("BENCH_LOADGEN")
    if not path:
        pytest.skip("BENCH_LOADGEN names no load generator")
    return path


@pytest.fixture
def said(loadgen: str, stores: Stores, tmp_path: Path) -> tuple[str, str]:
    """What a run said on standard output, and the table it wrote."""
    out = tmp_path / "realtime.md"
    command = [sys.executable, "-m", "bench.realtime", "--loadgen", loadgen, "--only", *PARTS, "--out", str(out)]
    done = subprocess.run(
        [*command, "--rounds", "1", "--scale", "0.01"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": stores.database_url, "REDIS_URL": stores.redis_url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, out.read_text()


def test_a_run_measures_both_servers_and_judges_nothing_at_this_size(said: tuple[str, str]) -> None:
    output, table = said
    line = next(line for line in output.splitlines() if line.startswith("BENCH "))
    found: dict[str, Any] = json.loads(line.removeprefix("BENCH "))
    assert set(found["parts"]) == set(PARTS)
    for part in found["parts"].values():
        assert not part["skipped"]
        assert not part["failed"]
    burst = found["parts"]["burst"]["lines"]["per_cpu_s"]
    assert burst["ours"] > 0
    assert burst["node"] > 0
    assert burst["ratio"] == pytest.approx(burst["ours"] / burst["node"])
    assert burst["verdict"] == ""
    assert "| burst | burst of 800 events fed through Redis, 1,000 clients | deliveries/CPU s |" in table
    assert table.strip() in output
