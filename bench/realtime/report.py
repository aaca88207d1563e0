"""The report: medians of the rounds as one Markdown table with goals, and one line for machines."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.realtime.parts import Figures, Line, Part
from bench.realtime.stage import Kind


@dataclass(slots=True)
class Result:
    """What came of one part: the figures of each round by server, or why there are none."""

    part: Part
    rounds: dict[Kind, list[Figures]] = field(default_factory=dict)
    skipped: str = ""
    failed: str = ""

    def told(self) -> str:
        """Say what the last round brought."""
        if self.skipped or self.failed:
            return f"{self.part.name}: {self.skipped or self.failed}"
        told = [
            f"{kind} " + ", ".join(f"{key} {value:,.2f}" for key, value in figures[-1].items())
            for kind, figures in self.rounds.items()
        ]
        return "; ".join((f"{self.part.name}: {told[0]}", *told[1:]))


@dataclass(frozen=True, slots=True)
class _Row:
    line: Line
    ours: float | None
    node: float | None
    ratio: float | None
    verdict: str


def table(results: Sequence[Result], *, judged: bool) -> str:
    """Return the Markdown table; goals are `judged` only when the run had its full size."""
    lines = [
        "| part | measure | unit | ours | Node | ours / Node | goal | |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    for result in results:
        if result.skipped or result.failed:
            why = f"skipped: {result.skipped}" if result.skipped else f"FAILED: {result.failed}"
            lines.append(f"| {result.part.name} | {_one_line(why)} | | | | | | |")
            continue
        for row in _rows(result, judged=judged):
            line = row.line
            cells = [_number(row.ours), _number(row.node), _number(row.ratio, digits=2), str(line.goal or "")]
            lines.append(f"| {result.part.name} | {line.label} | {line.unit} | {' | '.join(cells)} | {row.verdict} |")
    return "\n".join(lines)


def machine_line(results: Sequence[Result], about: Mapping[str, Any], *, judged: bool) -> str:
    """Return everything that the table says, and every round's figures, as one line of JSON."""
    parts = {}
    for result in results:
        rows = [] if result.skipped or result.failed else _rows(result, judged=judged)
        parts[result.part.name] = {
            "skipped": result.skipped,
            "failed": result.failed,
            "rounds": result.rounds,
            "lines": {
                row.line.key: {"ours": row.ours, "node": row.node, "ratio": row.ratio, "verdict": row.verdict}
                for row in rows
            },
        }
    return f"BENCH {json.dumps({**about, 'parts': parts})}"


def _rows(result: Result, *, judged: bool) -> list[_Row]:
    return [_row(line, result.rounds, judged=judged) for line in result.part.lines]


def _row(line: Line, rounds: Mapping[Kind, list[Figures]], *, judged: bool) -> _Row:
    ours, node = (_median(rounds.get(kind, []), line.key) for kind in ("ours", "node"))
    ratio = ours / node if ours is not None and node else None
    verdict = ""
    if line.goal is not None and judged:
        value = ratio if line.goal.of == "ratio" else ours
        verdict = "not measured" if value is None else "met" if line.goal.met(value) else "MISSED"
    return _Row(line, ours, node, ratio, verdict)


def _median(rounds: Sequence[Figures], key: str) -> float | None:
    values = [figures[key] for figures in rounds if key in figures]
    return statistics.median(values) if values else None


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return ""
    if digits is None:
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
