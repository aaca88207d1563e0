"""What a command prints, made safe to store: bounded, free of terminal codes and of secrets.

A command may speak to the driver on its standard output, one statement a line:

- `::progress 40`: forty percent of this step are done;
- `::output name=value`: an output that the recipe lists under `prints`.

Everything else is log text.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from providers.provisioning.contract import StepReport, Stream

MASK: Final = "********"
TRUNCATION_MARK: Final = "… [truncated]"

_TERMINAL_CODES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # window titles and links
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # device control strings
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"  # every other control character but the tab
)
_PROGRESS = re.compile(r"::progress (\d{1,3})(?:\.\d+)?%?")
_OUTPUT = re.compile(r"::output ([a-z][a-z0-9_]*)=(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLimits:
    """How much of one step's output is kept: characters a line, lines, and characters in all."""

    line_chars: int = 2_000
    lines: int = 5_000
    total_chars: int = 1_000_000


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line as bytes, without its end; `truncated` when the command wrote more of it than is kept."""

    data: bytes
    truncated: bool


class LineSplitter:
    """Cuts a byte stream into lines while holding at most `max_bytes` of the line under way.

    A carriage return starts the line anew, as on a terminal, so a progress bar leaves only its last state.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._truncated = False
        self._begun = False
        self._rewind = False

    def feed(self, chunk: bytes) -> Iterator[RawLine]:
        """Yield the lines that `chunk` completes."""
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            self._append(piece)
            yield self._take()
        self._append(rest)

    def flush(self) -> Iterator[RawLine]:
        """Yield the last line of a stream that did not end it."""
        if self._begun:
            yield self._take()

    def _append(self, piece: bytes) -> None:
        if not piece:
            return
        self._begun = True
        body = piece.rstrip(b"\r")
        _, returned, last = body.rpartition(b"\r")
        if body and (self._rewind or returned):
            self._held.clear()
            self._truncated = False
        # A return at the end of a piece takes effect only when more of the same line follows: it may be half
        # of `\r\n`.
        self._rewind = len(body) < len(piece) or (self._rewind and not body)
        room = self._max_bytes - len(self._held)
        self._held += last[:room]
        self._truncated = self._truncated or len(last) > room

    def _take(self) -> RawLine:
        line = RawLine(bytes(self._held), self._truncated)
        self._held.clear()
        self._truncated = self._begun = self._rewind = False
        return line


class Redactor:
    """Replaces every secret, in each of the forms a program is likely to print it in."""

    def __init__(self, secrets: Iterable[str]) -> None:
        needles = {needle for secret in secrets for needle in _printed_forms(secret)}
        # The longest first, or a secret that begins with another would be left with its tail in sight.
        self._needles = sorted(needles, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._needles))) if self._needles else None
        self.longest = len(self._needles[0]) if self._needles else 0

    def redact(self, text: str, *, cut_off: bool = False) -> str:
        """Mask the secrets in `text`; `cut_off`: its end was lost, where half a secret can stand."""
        if self._pattern is None:
            return text
        text = self._pattern.sub(MASK, text)
        return text[: len(text) - self._partial_length(text)] if cut_off else text

    def _partial_length(self, text: str) -> int:
        lengths = (
            length
            for needle in self._needles
            for length in range(min(len(needle) - 1, len(text)), 0, -1)
            if text.endswith(needle[:length])
        )
        return max(lengths, default=0)


def _printed_forms(secret: str) -> Iterator[str]:
    plain = {secret, *secret.splitlines()}
    password = _password_in(secret)
    if password:
        plain |= {password, unquote(password)}
    for text in plain:
        if text.strip():
            yield text
            yield quote(text, safe="")
            yield json.dumps(text)[1:-1]


def _password_in(secret: str) -> str | None:
    try:
        return urlsplit(secret).password
    except ValueError:
        return None


def clean_text(text: str) -> str:
    """Remove terminal codes and control characters; the tab stays."""
    return _TERMINAL_CODES.sub("", text)


class OutputFilter:
    """Takes the raw lines of one step and hands on what may be seen, within the limits.

    After a limit is reached lines are still read (the command must not block, and its statements still count)
    but no longer reported; one closing line tells how many were left out.
    """

    def __init__(
        self, report: StepReport, *, redactor: Redactor, limits: OutputLimits, prints: Collection[str] = ()
    ) -> None:
        self._report = report
        self._redactor = redactor
        self._limits = limits
        self._prints = prints
        self._lines_left = limits.lines
        self._chars_left = limits.total_chars
        self._percent = 0
        self._left_out = 0
        self._last: dict[Stream, str] = {}
        self.outputs: dict[str, str] = {}

    @property
    def max_line_bytes(self) -> int:
        """How much of a line must be read so that a secret across the limit is still recognised."""
        return 4 * (self._limits.line_chars + self._redactor.longest)

    @property
    def last_words(self) -> str:
        """The last line that was not empty: of the errors if there was one, else of the output."""
        return self._last.get("stderr") or self._last.get("stdout", "")

    async def take(self, stream: Stream, line: RawLine) -> None:
        text = clean_text(line.data.decode("utf-8", "replace"))
        text = self._redactor.redact(text, cut_off=line.truncated)
        if stream == "stdout" and not line.truncated and await self._statement(text):
            return
        await self.say(stream, text, truncated=line.truncated)

    async def say(self, stream: Stream, text: str, *, truncated: bool = False) -> None:
        """Report a line of log text, if there is room left for it."""
        if truncated or len(text) > self._limits.line_chars:
            text = text[: self._limits.line_chars].rstrip() + TRUNCATION_MARK
        text = text.rstrip()
        if text:
            self._last[stream] = text
        if self._lines_left < 1 or self._chars_left < len(text):
            self._left_out += 1
            return
        self._lines_left -= 1
        self._chars_left -= len(text)
        await self._report.line(stream, text)

    async def close(self) -> None:
        """Tell what was left out since the last time, if anything was."""
        left_out, self._left_out = self._left_out, 0
        if left_out:
            await self._report.line("stderr", f"[output limit reached: {left_out} more lines not kept]")

    async def _statement(self, text: str) -> bool:
        if progress := _PROGRESS.fullmatch(text):
            percent = int(progress[1])
            if percent > 100:
                return False
            # Only a rise is news: a command that states its progress in a loop cannot flood the report.
            if percent > self._percent:
                self._percent = percent
                await self._report.progress(percent / 100)
            return True
        if (output := _OUTPUT.fullmatch(text)) and output[1] in self._prints:
            self.outputs[output[1]] = output[2]
            return True
        return False
