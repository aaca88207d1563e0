"""The benchmark of webhooks runs from end to end, for a few seconds; what it measures then means nothing."""

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


@pytest.fixture
def said(stores: Stores, tmp_path: Path) -> tuple[str, str]:
    """What a run said on standard output, and the table it wrote."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        refuse_or_skip(StoreMissing("Node and npm are not on the PATH"))
    out = tmp_path / "webhooks.md"
    addresses = {
        "DATABASE_URL": stores.database_url,
        "REDIS_URL": stores.redis_url,
        "RABBITMQ_URL": stores.rabbitmq_url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.webhooks", "--out", str(out), "--rounds", "1", "--scale", "0.03"],
        cwd=ROOT,
        env={**os.environ, **addresses},
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
    assert set(found["parts"]) == {"together", "apart"}
    for part in found["parts"].values():
        assert not part["skipped"]
        assert not part["failed"]
        measured = part["lines"]["p99_ms"]
        assert measured["ours"] > 0
        assert measured["ratio"] == pytest.approx(measured["ours"] / measured["node"])
        assert measured["verdict"] == ""
    assert "| together | until acknowledged, at 100 a second, 99th percentile | ms |" in table
    assert table.strip() in output
