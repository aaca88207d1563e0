"""What the demo shows: plain lines, and on a terminal a progress bar that is redrawn in its place."""

import shutil
from collections.abc import Iterable, Mapping
from typing import TextIO

_BAR_CELLS = 10
_INDENT = " " * 8


class Printer:
    """Writes to `stream` at once, so that what is seen is what has happened."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._redraws = stream.isatty()
        self._shown = ""

    def title(self, text: str) -> None:
        self._line(text)

    def step(self, number: int, total: int, title: str) -> None:
        self._line(f"\n{number:>3}/{total:<3} {title}")

    def note(self, text: str) -> None:
        self._line(f"{_INDENT}{text}")

    def done(self, seconds: float) -> None:
        self._line(f"{_INDENT}ok ({seconds:.2f} s)")

    def failed(self, why: str) -> None:
        self._line(f"{_INDENT}FAILED: {why}")

    def table(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Show rows in columns."""
        cells = list(rows)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            self.note("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def progress(self, percents: Mapping[str, int], message: str) -> None:
        """Show how far each watcher has seen the work come; as plain lines, once all of them have seen it."""
        bars = "  ".join(f"{name} {bar(percent)}" for name, percent in percents.items())
        text = f"{_INDENT}{bars}  {message}"
        if text == self._shown:
            return
        if self._redraws:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[2K{text[:width]}")
        elif len(set(percents.values())) == 1:
            self._write(f"{text}\n")
        else:
            return
        self._shown = text

    def _line(self, text: str) -> None:
        if self._shown and self._redraws:
            self._write("\n")
        self._shown = ""
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def bar(percent: int) -> str:
    """Draw a bar of fixed width.

    >>> bar(25)
    '[##--------]  25 %'
    """
    filled = percent * _BAR_CELLS // 100
    return f"[{'#' * filled}{'-' * (_BAR_CELLS - filled)}] {percent:>3} %"
