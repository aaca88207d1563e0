"""Fails when a floor that decides things has too many branches that no test takes.

Usage: coverage_gate.py REPORT, where REPORT is what `coverage json` wrote. The total of `coverage report`
mixes lines and branches and all floors, so a well-tested floor could hide a poorly tested one. Here each
floor stands alone.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

FLOORS = ("models", "realtime", "services")
MINIMUM_PERCENT = 95.0


class Summary(TypedDict):
    """The numbers of one file that matter here."""

    num_branches: int
    covered_branches: int


class MeasuredFile(TypedDict):
    """One file of the report."""

    summary: Summary


class Report(TypedDict):
    """The part of coverage's JSON report that is read here."""

    files: dict[str, MeasuredFile]


@dataclass(frozen=True, slots=True)
class FloorCoverage:
    """How many branches a floor has and how many of them some test took."""

    floor: str
    files: int
    branches: int
    covered: int

    @property
    def percent(self) -> float:
        return 100.0 * self.covered / self.branches if self.branches else 100.0

    @property
    def passes(self) -> bool:
        # A floor without a measured file means that the measurement broke, not that nothing is missing.
        return self.files > 0 and self.percent >= MINIMUM_PERCENT


def measure(report: Report, floor: str) -> FloorCoverage:
    """Sum the branches of all files of `floor`."""
    summaries = [measured["summary"] for path, measured in report["files"].items() if Path(path).parts[0] == floor]
    return FloorCoverage(
        floor=floor,
        files=len(summaries),
        branches=sum(summary["num_branches"] for summary in summaries),
        covered=sum(summary["covered_branches"] for summary in summaries),
    )


def main(report_path: str) -> int:
    """Print one line per floor; return the process's exit code."""
    report: Report = json.loads(Path(report_path).read_text(encoding="utf-8"))
    floors = [measure(report, floor) for floor in FLOORS]
    for floor in floors:
        verdict = "ok" if floor.passes else f"FAILED, {MINIMUM_PERCENT:g} % is the least"
        print(
            f"{floor.floor:<10} {floor.covered:>5} of {floor.branches:>5} branches in {floor.files:>3} files "
            f"{floor.percent:6.2f} %  {verdict}"
        )
    return 0 if all(floor.passes for floor in floors) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
