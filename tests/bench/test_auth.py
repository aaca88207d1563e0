"""The benchmark of signing in runs from end to end, with tiny numbers; what it measures then means nothing."""

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
PARTS = ("refreshes", "storm", "timing")


@pytest.fixture
def said(stores: Stores, tmp_path: Path) -> tuple[str, str]:
    """What a run said on standard output, and the table it wrote."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        refuse_or_skip(StoreMissing("Node and npm are not on the PATH"))
    out = tmp_path / "auth.md"
    command = [sys.executable, "-m", "bench.auth", "--only", *PARTS, "--out", str(out), "--rounds", "1"]
    done = subprocess.run(
        [*command, "--scale", "0.005"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": stores.database_url, "REDIS_URL": stores.redis_url},
        capture_output=True,
        text=True,
        timeout=150,
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
    refreshes = found["parts"]["refreshes"]["lines"]["per_cpu_s"]
    assert refreshes["ours"] > 0
    assert refreshes["ratio"] == pytest.approx(refreshes["ours"] / refreshes["node"])
    storm = found["parts"]["storm"]["lines"]["p99_ratio"]
    assert storm["ours"] > 0
    assert storm["verdict"] == ""
    timing = found["parts"]["timing"]["lines"]
    for name in ("login", "phone-login", "forgot", "send-code"):
        apart = abs(timing[f"{name}_known"]["ours"] - timing[f"{name}_unknown"]["ours"])
        assert timing[name]["ours"] == pytest.approx(apart)
    assert "| timing | asking for a letter, known and unknown apart | ms |" in table
    assert table.strip() in output
