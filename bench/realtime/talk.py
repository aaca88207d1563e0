"""Processes that are spoken to in lines: one command a line goes in, one JSON object a line comes out."""

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from bench.realtime.machine import on_core

_PATIENCE_S = 30.0
_FAREWELL_S = 5.0
_LOG_TAIL = 1500

Answer = dict[str, Any]


class Broken(Exception):
    """A measurement went wrong; the message says what happened and carries the end of the process's log."""


class Talk:
    """One such process, pinned to a core; its standard error goes to `log`."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, core: int, log: Path
    ) -> None:
        self.name = log.stem
        self._log = log
        self._rest = b""
        with log.open("ab") as errors, on_core(core):
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def say(self, line: str) -> None:
        """Send a command."""
        if self._process.stdin is None:
            raise Broken(f"{self.name} cannot be spoken to")
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except OSError as error:
            raise self._broken("ended") from error

    def hear(self, patience_s: float = _PATIENCE_S) -> Answer:
        """Wait for the next answer; raises Broken when it does not come or tells of a failure."""
        deadline = time.monotonic() + patience_s
        while b"\n" not in self._rest:
            self._read(deadline - time.monotonic())
        line, _, self._rest = self._rest.partition(b"\n")
        answer: Answer = json.loads(line)
        if "failure" in answer:
            raise self._broken(answer["failure"])
        return answer

    def ask(self, line: str, patience_s: float = _PATIENCE_S) -> Answer:
        """Send a command and wait for its answer."""
        self.say(line)
        return self.hear(patience_s)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Close its input, which it takes as the order to go, and see to it that it does."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _read(self, patience_s: float) -> None:
        output = self._process.stdout
        if output is None or not select.select([output], [], [], max(0.0, patience_s))[0]:
            raise self._broken("does not answer")
        data = os.read(output.fileno(), 65_536)
        if not data:
            raise self._broken("ended")
        self._rest += data

    def _broken(self, how: str) -> Broken:
        said = self._log.read_text(errors="replace")[-_LOG_TAIL:].strip()
        return Broken(f"{self.name}: {how}" + (f"\n{said}" if said else ""))
