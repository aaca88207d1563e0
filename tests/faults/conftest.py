"""How long things are broken, and which seed decides what."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

_SECONDS = 30.0
_SOCKETS = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault-seconds", type=float, help=f"how long things are broken ({_SECONDS:.0f})")
    group.addoption("--fault-seed", type=int, help="decides what is broken when (FAULT_SEED, or a new one)")
    group.addoption("--fault-sockets", type=int, help=f"how many sockets live through a crash ({_SOCKETS})")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "fault_seconds" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(_seconds(config) + 150))


def _seconds(config: pytest.Config) -> float:
    # Where this file is found only while tests are collected, its options come too late to be read.
    return float(config.getoption("--fault-seconds", default=None) or _SECONDS)


@pytest.fixture
def fault_seconds(request: pytest.FixtureRequest) -> float:
    """How long the injector works."""
    return _seconds(request.config)


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest) -> int:
    """What the injector's choices are drawn from; told at the end of a run, so that it can be played again."""
    given = request.config.getoption("--fault-seed", default=None)
    return int(given if given is not None else os.environ.get("FAULT_SEED") or random.randrange(1_000_000))


@pytest.fixture
def fault_sockets(request: pytest.FixtureRequest) -> int:
    """How many sockets live through a crash."""
    return int(request.config.getoption("--fault-sockets", default=None) or _SOCKETS)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where servers and processes of one test keep what they write; kept when FAULT_KEEP names a folder.

    Not below pytest's own folder: run as root, pytest closes that to the user whom the private PostgreSQL runs as.
    """
    if kept := os.environ.get("FAULT_KEEP"):
        path = Path(kept) / request.node.name
        path.mkdir(parents=True)
        yield path
        return
    with TemporaryDirectory(prefix="orchestrator-faults-") as path:
        yield Path(path)
